//! What each kind of registry needs to be read. Plain data, there whatever is built in.

use std::{fmt, path::PathBuf, time::Duration};

use crate::{model::Secret, tls::TlsSettings};

/// The largest registry that is read, in bytes: 256 MiB. Feast's own stay far below.
pub const MAX_BYTES: u64 = 256 << 20;

/// Where a registry is, and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistrySettings {
    /// A file that Feast rewrites in place.
    File(PathBuf),
    /// An object in S3, Google Cloud Storage or Azure Blob Storage.
    Object(ObjectSettings),
    /// Tables of a PostgreSQL or MySQL server.
    Sql(SqlSettings),
    /// Tables of a SQLite file.
    Sqlite(PathBuf),
    /// Feast's registry server.
    Remote(RemoteSettings),
}

/// What one attempt to read a registry may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchLimits {
    /// How long.
    pub timeout: Duration,
    /// How many bytes of a registry; more are refused.
    pub max_bytes: u64,
}

/// An object. Credentials are those of the provider's own variables and services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectSettings {
    /// Whose, and which bucket.
    pub bucket: Bucket,
    /// The object's name in the bucket.
    pub key: String,
    /// A PEM file of certificate authorities that are trusted besides the system's.
    pub ca: Option<PathBuf>,
}

/// A bucket, or what a provider calls so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bucket {
    /// Of S3, or of what speaks it.
    S3 {
        /// Its name.
        bucket: String,
        /// The URL of the service, where it is not Amazon's.
        endpoint: Option<String>,
    },
    /// Of Google Cloud Storage.
    Gcs {
        /// Its name.
        bucket: String,
        /// The URL of an emulator, which is asked without credentials.
        emulator: Option<String>,
    },
    /// A container of Azure Blob Storage.
    Azure {
        /// The storage account; where there is none, `AZURE_STORAGE_ACCOUNT_NAME` names it.
        account: Option<String>,
        /// The URL of the account, where it is not the usual one.
        endpoint: Option<String>,
        /// The container.
        container: String,
        /// The account's key.
        access_key: Option<Secret>,
    },
}

/// Feast's tables on a database server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlSettings {
    /// Whose server.
    pub dialect: SqlDialect,
    /// Host name or address; where there is none, what the dialect's own clients take.
    pub host: Option<String>,
    /// TCP port.
    pub port: Option<u16>,
    /// A Unix socket, in place of both; of PostgreSQL, its folder.
    pub socket: Option<PathBuf>,
    /// The user.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// The database.
    pub database: Option<String>,
    /// PostgreSQL's settings of a session, as `search_path`.
    pub options: Vec<(String, String)>,
    /// Whether TLS is spoken; where nothing is said, as the dialect's own clients.
    pub tls: Option<SqlTls>,
}

/// Whose SQL is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SqlDialect {
    /// PostgreSQL.
    Postgres,
    /// MySQL, and MariaDB.
    MySql,
}

/// Whether TLS is spoken to a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SqlTls {
    /// Never.
    Off,
    /// If the server does; whoever is on the way can prevent it.
    IfOffered,
    /// Always.
    Always(TlsSettings),
}

/// Feast's registry server, over gRPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteSettings {
    /// `host:port`.
    pub address: String,
    /// TLS, if it is spoken.
    pub tls: Option<TlsSettings>,
    /// The name that the server is asked by, and that its certificate must have.
    pub authority: Option<String>,
    /// What shows who larder is.
    pub token: Option<Token>,
}

/// A bearer token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// It is read from this file each time.
    File(PathBuf),
    /// This.
    Text(Secret),
}

impl RegistrySettings {
    /// The Cargo feature without which this kind is left out.
    pub fn feature(&self) -> &'static str {
        match self {
            Self::File(_) => "default",
            Self::Object(_) => "object-store",
            Self::Sql(_) => "sql-registry",
            Self::Sqlite(_) => "sqlite",
            Self::Remote(_) => "remote-registry",
        }
    }
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(10), max_bytes: MAX_BYTES }
    }
}

/// The place without user and password.
impl fmt::Display for RegistrySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Object(ObjectSettings { bucket, key, .. }) => match bucket {
                Bucket::S3 { bucket, .. } => write!(f, "s3://{bucket}/{key}"),
                Bucket::Gcs { bucket, .. } => write!(f, "gs://{bucket}/{key}"),
                Bucket::Azure { account: Some(account), container, .. } => {
                    write!(f, "az://{account}/{container}/{key}")
                }
                Bucket::Azure { container, .. } => write!(f, "az://{container}/{key}"),
            },
            Self::Sql(sql) => sql.fmt(f),
            Self::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
            Self::Remote(remote) => write!(f, "grpc://{}", remote.address),
        }
    }
}

impl fmt::Display for SqlSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.dialect {
            SqlDialect::Postgres => "postgresql://",
            SqlDialect::MySql => "mysql://",
        })?;
        match (&self.socket, &self.host) {
            (Some(socket), _) => write!(f, "{}", socket.display())?,
            (None, host) => f.write_str(host.as_deref().unwrap_or("localhost"))?,
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        write!(f, "/{}", self.database.as_deref().unwrap_or_default())
    }
}
