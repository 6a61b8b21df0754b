//! Feast's SQL registry in a SQLite file, which is opened for reading.

use std::{path::PathBuf, sync::Arc};

use rusqlite::{Connection, ErrorCode, OpenFlags, named_params};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::{
    Fetching, RegistryError,
    sql::{QueryError, Row, Session},
};

/// A file, and whether it is being read.
#[derive(Debug)]
pub(super) struct SqliteFile {
    path: PathBuf,
    reading: Arc<Mutex<()>>,
}

/// A connection. Queries run on a thread of their own, one at most even where a file system hangs,
/// and take it with them.
pub(super) struct SqliteSession {
    connection: Option<(Connection, OwnedMutexGuard<()>)>,
    place: String,
    project: String,
}

impl SqliteFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, reading: Arc::default() }
    }

    pub(super) async fn open(
        &self,
        fetching: Fetching<'_>,
    ) -> Result<SqliteSession, RegistryError> {
        let (place, project) = (fetching.place.to_owned(), fetching.project.to_owned());
        let (path, timeout) = (self.path.clone(), fetching.limits.timeout);
        let reading = Arc::clone(&self.reading).lock_owned().await;
        let open = move || {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(path, flags)?;
            connection.busy_timeout(timeout / 2)?;
            Ok((connection, reading))
        };
        let opened: rusqlite::Result<_> = tokio::task::spawn_blocking(open).await?;
        let connection = opened.map_err(|error| RegistryError::unreadable(&place, error))?;
        Ok(SqliteSession { connection: Some(connection), place, project })
    }
}

impl SqliteSession {
    async fn ask<T: Send + 'static>(
        &mut self,
        query: impl FnOnce(&Connection, &str) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, QueryError> {
        let (connection, project) = (self.connection.take(), self.project.clone());
        let ask = move || {
            let connection = connection?;
            let result = query(&connection.0, &project);
            Some((connection, result))
        };
        let asked = tokio::task::spawn_blocking(ask).await;
        let asked = asked.map_err(|error| QueryError::Other(error.into()))?;
        let (connection, result) = asked.expect("a query gives the connection back");
        self.connection = Some(connection);
        result.map_err(|error| match error.sqlite_error_code() {
            Some(ErrorCode::Unknown) if error.to_string().starts_with("no such table") => {
                QueryError::NoSuchTable
            }
            _ => QueryError::Other(RegistryError::unreadable(&self.place, error)),
        })
    }
}

impl Session for SqliteSession {
    async fn begin(&mut self) -> Result<(), QueryError> {
        self.ask(|connection, _| connection.execute_batch("BEGIN")).await
    }

    async fn texts(&mut self, sql: &str) -> Result<Vec<String>, QueryError> {
        let sql = sql.replace("{p}", ":project");
        self.ask(move |connection, project| {
            let mut statement = connection.prepare(&sql)?;
            let texts = |row: &rusqlite::Row<'_>| row.get(0);
            if statement.parameter_count() == 0 {
                return statement.query_map([], texts)?.collect();
            }
            statement.query_map(named_params! { ":project": project }, texts)?.collect()
        })
        .await
    }

    async fn rows(&mut self, sql: &str) -> Result<Vec<Row>, QueryError> {
        let sql = sql.replace("{p}", ":project");
        self.ask(move |connection, project| {
            let mut statement = connection.prepare(&sql)?;
            let has_version = statement.column_count() > 1;
            let rows = statement.query_map(named_params! { ":project": project }, |row| {
                let version = match has_version {
                    true => Some((row.get(1)?, row.get(2)?, row.get(3)?)),
                    false => None,
                };
                Ok(Row { blob: row.get(0)?, version })
            })?;
            rows.collect()
        })
        .await
    }

    async fn end(self) {}
}
