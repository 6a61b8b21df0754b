//! What each store needs to know to connect. Plain data, there whatever is built in.

use std::{fmt, path::PathBuf, time::Duration};

/// A kind of store that was left out when this larder was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this larder was built without `{kind}`; build it with `--features {kind}`")]
pub struct NotBuiltIn {
    /// The kind of store, which is also the name of its Cargo feature.
    pub kind: &'static str,
}

/// One configured store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreSettings {
    /// Redis, and what speaks it.
    Redis(RedisSettings),
    /// A SQLite file.
    Sqlite(SqliteSettings),
}

/// A single Redis server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisSettings {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The database number.
    pub db: i64,
    /// The ACL user; the default user if there is none.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// How long one attempt to connect may take.
    pub connect_timeout: Duration,
    /// The longest pause between attempts to connect.
    pub max_backoff: Duration,
}

/// A SQLite file that Feast wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqliteSettings {
    /// The file, as an absolute path or relative to the working directory.
    pub path: PathBuf,
    /// Connections, each of which reads on a thread of its own.
    pub connections: usize,
}

/// Text that no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl StoreSettings {
    /// Whether this larder was built with what this store needs.
    pub fn check_built_in(&self) -> Result<(), NotBuiltIn> {
        let built_in = match self {
            Self::Redis(_) => cfg!(feature = "redis"),
            Self::Sqlite(_) => cfg!(feature = "sqlite"),
        };
        if built_in { Ok(()) } else { Err(NotBuiltIn { kind: self.kind() }) }
    }

    /// Feast's word for the kind of store: `online_store.type`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Redis(_) => "redis",
            Self::Sqlite(_) => "sqlite",
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
