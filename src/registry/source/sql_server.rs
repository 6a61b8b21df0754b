//! Feast's SQL registry on a PostgreSQL or MySQL server.

use base64::{Engine, prelude::BASE64_STANDARD};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Executor, Row as _,
    mysql::{MySqlConnectOptions, MySqlConnection, MySqlDatabaseError, MySqlSslMode},
    postgres::{PgConnectOptions, PgConnection, PgSslMode},
};
use tonic::codegen::tokio_stream::StreamExt;

use super::{
    Fetching, RegistryError,
    sql::{QueryError, Row, Session},
};
use crate::{
    registry::{SqlSettings, SqlTls},
    tls::{TlsSettings, Verify},
};

const CREDENTIALS: &str = "user, password and database, and that the user may read Feast's tables";

/// PostgreSQL: password and user are wrong, there is no such database, no right to a table.
const POSTGRES_REFUSALS: [&str; 4] = ["28P01", "28000", "3D000", "42501"];

/// MySQL: access denied to server, database or table; no such database.
const MYSQL_REFUSALS: [u16; 4] = [1044, 1045, 1049, 1142];

/// No such table, as SQLSTATE: of PostgreSQL, and of MySQL.
const NO_SUCH_TABLE: [&str; 2] = ["42P01", "42S02"];

/// What a session knows besides its connection.
struct Asking {
    place: String,
    project: String,
    timeout_millis: u128,
    max_bytes: u64,
    bytes: u64,
}

pub(super) struct PostgresSession {
    connection: PgConnection,
    asking: Asking,
}

pub(super) struct MySqlSession {
    connection: MySqlConnection,
    asking: Asking,
}

/// Connects to PostgreSQL. What the settings leave open is as libpq has it: its `PG...` variables.
pub(super) async fn postgres(
    settings: &SqlSettings,
    fetching: Fetching<'_>,
) -> Result<PostgresSession, RegistryError> {
    let asking = Asking::new(fetching);
    let mut options = PgConnectOptions::new_without_pgpass()
        .application_name("larder")
        .statement_cache_capacity(0);
    // Not even empty ones: poolers refuse what they do not know at a connection's start.
    if !settings.options.is_empty() {
        options = options.options(settings.options.iter().map(|(name, value)| (name, value)));
    }
    if let Some(host) = &settings.host {
        options = options.host(host);
    }
    if let Some(port) = settings.port {
        options = options.port(port);
    }
    if let Some(folder) = &settings.socket {
        options = options.socket(folder);
    }
    if let Some(user) = &settings.user {
        options = options.username(user);
    }
    if let Some(password) = &settings.password {
        options = options.password(&password.0);
    }
    if let Some(database) = &settings.database {
        options = options.database(database);
    }
    options = match &settings.tls {
        None => options,
        Some(SqlTls::Off) => options.ssl_mode(PgSslMode::Disable),
        Some(SqlTls::IfOffered) => options.ssl_mode(PgSslMode::Prefer),
        Some(SqlTls::Always(tls)) => {
            let options = options.ssl_mode(match tls.verify {
                Verify::Full => PgSslMode::VerifyFull,
                Verify::Authority => PgSslMode::VerifyCa,
                Verify::Nothing => PgSslMode::Require,
            });
            let options = match (&tls.ca, roots(tls)) {
                (Some(ca), _) => options.ssl_root_cert(ca),
                (None, Some(pem)) => options.ssl_root_cert_from_pem(pem),
                (None, None) => options,
            };
            match &tls.identity {
                None => options,
                Some(it) => options.ssl_client_cert(&it.certificate).ssl_client_key(&it.key),
            }
        }
    };
    let connected = options.disable_statement_logging().connect().await;
    let connection = connected.map_err(|error| asking.failure(error))?;
    Ok(PostgresSession { connection, asking })
}

/// Connects to MySQL or MariaDB.
pub(super) async fn mysql(
    settings: &SqlSettings,
    fetching: Fetching<'_>,
) -> Result<MySqlSession, RegistryError> {
    let asking = Asking::new(fetching);
    let mut options = MySqlConnectOptions::new()
        .host(settings.host.as_deref().unwrap_or("localhost"))
        .port(settings.port.unwrap_or(3306))
        .username(settings.user.as_deref().unwrap_or_default())
        .statement_cache_capacity(0);
    if let Some(socket) = &settings.socket {
        options = options.socket(socket);
    }
    if let Some(password) = &settings.password {
        options = options.password(&password.0);
    }
    if let Some(database) = &settings.database {
        options = options.database(database);
    }
    options = match &settings.tls {
        None | Some(SqlTls::IfOffered) => options.ssl_mode(MySqlSslMode::Preferred),
        Some(SqlTls::Off) => options.ssl_mode(MySqlSslMode::Disabled),
        Some(SqlTls::Always(tls)) => {
            let options = options.ssl_mode(match tls.verify {
                Verify::Full => MySqlSslMode::VerifyIdentity,
                Verify::Authority => MySqlSslMode::VerifyCa,
                Verify::Nothing => MySqlSslMode::Required,
            });
            let options = match (&tls.ca, roots(tls)) {
                (Some(ca), _) => options.ssl_ca(ca),
                (None, Some(pem)) => options.ssl_ca_from_pem(pem),
                (None, None) => options,
            };
            match &tls.identity {
                None => options,
                Some(it) => options.ssl_client_cert(&it.certificate).ssl_client_key(&it.key),
            }
        }
    };
    let connected = options.disable_statement_logging().connect().await;
    let connection = connected.map_err(|error| asking.failure(error))?;
    Ok(MySqlSession { connection, asking })
}

/// The system's authorities in PEM form: the driver has a list of its own in their place.
fn roots(tls: &TlsSettings) -> Option<Vec<u8>> {
    if tls.ca.is_some() || tls.verify == Verify::Nothing {
        return None;
    }
    let mut pem = String::new();
    for certificate in rustls_native_certs::load_native_certs().certs {
        let text = BASE64_STANDARD.encode(&certificate);
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        // Base64 is ASCII, so that any place is between two letters.
        for line in text.as_bytes().chunks(64) {
            pem.push_str(&String::from_utf8_lossy(line));
            pem.push('\n');
        }
        pem.push_str("-----END CERTIFICATE-----\n");
    }
    Some(pem.into_bytes())
}

impl Asking {
    fn new(fetching: Fetching<'_>) -> Self {
        Self {
            place: fetching.place.to_owned(),
            project: fetching.project.to_owned(),
            timeout_millis: fetching.limits.timeout.as_millis(),
            max_bytes: fetching.limits.max_bytes,
            bytes: 0,
        }
    }

    fn failure(&self, error: sqlx::Error) -> RegistryError {
        let place = self.place.clone();
        let refused = error.as_database_error().is_some_and(|error| {
            match error.try_downcast_ref::<MySqlDatabaseError>() {
                Some(error) => MYSQL_REFUSALS.contains(&error.number()),
                None => error.code().is_some_and(|code| POSTGRES_REFUSALS.contains(&&*code)),
            }
        });
        if refused {
            return RegistryError::Refused { place, check: CREDENTIALS, cause: error.into() };
        }
        RegistryError::Unreadable { place, cause: error.into() }
    }

    fn query_error(&self, error: sqlx::Error) -> QueryError {
        let code = error.as_database_error().and_then(|error| error.code());
        if code.is_some_and(|code| NO_SUCH_TABLE.contains(&&*code)) {
            return QueryError::NoSuchTable;
        }
        QueryError::Other(self.failure(error))
    }

    fn too_large(&self) -> QueryError {
        let (place, max_bytes) = (self.place.clone(), self.max_bytes);
        QueryError::Other(RegistryError::TooLarge { place, max_bytes })
    }

    /// Counts what a row has, and says whether that is still within the bound.
    fn admits(&mut self, bytes: usize) -> bool {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        self.bytes <= self.max_bytes
    }
}

/// The same for both, whose types have nothing in common.
macro_rules! session {
    ($session:ty, $row:ty, $begin:expr, $placeholder:literal, $bindings:expr) => {
        impl $session {
            /// A query that leaves no prepared statement, which poolers between would mix up.
            async fn ask<T>(
                &mut self,
                sql: &str,
                mut each: impl FnMut(&mut Asking, $row) -> Result<T, sqlx::Error>,
                size: impl Fn(&T) -> usize,
            ) -> Result<Vec<T>, QueryError> {
                let bindings: usize = $bindings(sql.matches("{p}").count());
                let sql = sql.replace("{p}", $placeholder);
                let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(false);
                for _ in 0..bindings {
                    query = query.bind(self.asking.project.clone());
                }
                let mut found = Vec::new();
                let mut rows = query.fetch(&mut self.connection);
                while let Some(row) = rows.next().await {
                    let row = row.map_err(|error| self.asking.query_error(error))?;
                    let row = each(&mut self.asking, row);
                    let row = row.map_err(|error| self.asking.query_error(error))?;
                    // What a row weighs besides its bytes, so that empty ones are counted, too.
                    if !self.asking.admits(size(&row) + size_of::<T>()) {
                        return Err(self.asking.too_large());
                    }
                    found.push(row);
                }
                Ok(found)
            }
        }

        impl Session for $session {
            async fn begin(&mut self) -> Result<(), QueryError> {
                for statement in $begin(self.asking.timeout_millis) {
                    let begun = self.connection.execute(AssertSqlSafe(statement)).await;
                    begun.map_err(|error| self.asking.query_error(error))?;
                }
                Ok(())
            }

            async fn texts(&mut self, sql: &str) -> Result<Vec<String>, QueryError> {
                self.ask(sql, |_, row| row.try_get_unchecked(0), String::len).await
            }

            async fn rows(&mut self, sql: &str) -> Result<Vec<Row>, QueryError> {
                let read = |_: &mut Asking, row: $row| {
                    let version = match row.len() {
                        1 => None,
                        _ => Some((
                            row.try_get_unchecked(1)?,
                            row.try_get_unchecked(2)?,
                            row.try_get_unchecked(3)?,
                        )),
                    };
                    Ok(Row { blob: row.try_get_unchecked(0)?, version })
                };
                self.ask(sql, read, |row| row.blob.len()).await
            }

            async fn end(self) {
                // It read all it wanted: how the server takes the goodbye does not matter.
                let _ = self.connection.close().await;
            }
        }
    };
}

session!(
    PostgresSession,
    sqlx::postgres::PgRow,
    |millis| [
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY".to_owned(),
        format!("SET LOCAL statement_timeout = {millis}"),
    ],
    "$1",
    |count: usize| count.min(1)
);

session!(
    MySqlSession,
    sqlx::mysql::MySqlRow,
    |_| [
        "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ".to_owned(),
        "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY".to_owned(),
    ],
    "?",
    |count: usize| count
);
