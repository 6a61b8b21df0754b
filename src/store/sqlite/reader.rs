//! What one thread does: keeps a connection to the file open, and reads by it. Blocks.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, params_from_iter, types::ValueRef};

use super::{SqliteView, StoreError, ViewRows};
use crate::{
    layout::sqlite::{SqlRow, SqlValue, SqliteRows},
    model::EntityKey,
};

/// A failure, with what SQLite or the system says of it.
#[derive(Debug, thiserror::Error)]
#[error("sqlite file `{}`", path.display())]
struct Fault<E: std::error::Error + 'static> {
    path: PathBuf,
    #[source]
    source: E,
}

/// A connection to a file, opened when it is used.
pub(super) struct Reader {
    path: PathBuf,
    opened: Option<(FileStamp, Connection)>,
}

/// Tells a file from the one that stood in its place before.
#[derive(Clone, Copy, PartialEq, Eq)]
struct FileStamp {
    device: u64,
    inode: u64,
    modified: (i64, i64),
}

/// Keys of one statement.
const MAX_KEYS: usize = 512;
/// Statements kept: ten for each of some views.
const STATEMENTS: usize = 256;

impl Reader {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, opened: None }
    }

    /// Reads the rows of `keys`, in their order. Waits for a locked file no longer than `patience`.
    pub(super) fn read(
        &mut self,
        view: &SqliteView,
        keys: &[EntityKey],
        patience: Duration,
    ) -> ViewRows {
        let mut rows = view.collect(keys);
        let fail = |error: StoreError| vec![Err(error); keys.len()];
        let connection = match self.connection(patience) {
            Ok(connection) => connection,
            Err(error) => return fail(error),
        };
        for chunk in keys.chunks(MAX_KEYS) {
            if let Err(error) = read_chunk(connection, view, chunk, &mut rows) {
                return fail(self.failed(error));
            }
        }
        let corrupt = |error| StoreError::Corrupt(Arc::new(error));
        rows.finish().map(|row| row.map_err(corrupt)).collect()
    }

    /// Whether the file can be read.
    pub(super) fn probe(&mut self, patience: Duration) -> Result<(), StoreError> {
        let connection = self.connection(patience)?;
        // Reads the first page, which opening does not.
        let schema = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()));
        schema.map_err(|error| self.failed(error))
    }

    fn connection(&mut self, patience: Duration) -> Result<&Connection, StoreError> {
        let stamp = FileStamp::of(&self.path).map_err(|source| {
            let refused = source.kind() == io::ErrorKind::PermissionDenied;
            self.opened = None;
            let fault = Arc::new(Fault { path: self.path.clone(), source });
            if refused { StoreError::Refused(fault) } else { StoreError::Unavailable(fault) }
        })?;
        if self.opened.as_ref().is_none_or(|(opened, _)| *opened != stamp) {
            self.opened = None;
            let connection = open(&self.path).map_err(|error| self.failed(error))?;
            self.opened = Some((stamp, connection));
        }
        let (_, connection) = self.opened.as_ref().expect("it was opened if it was not");
        connection.busy_timeout(patience).map_err(|error| {
            let fault = Fault { path: self.path.clone(), source: error };
            StoreError::Unavailable(Arc::new(fault))
        })?;
        Ok(connection)
    }

    /// Sorts an error, and closes the file where that might help.
    fn failed(&mut self, source: rusqlite::Error) -> StoreError {
        let code = source.sqlite_error_code();
        let fault = Arc::new(Fault { path: self.path.clone(), source });
        match code {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                StoreError::Unavailable(fault)
            }
            Some(
                ErrorCode::CannotOpen
                | ErrorCode::SystemIoFailure
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::OutOfMemory,
            ) => {
                self.opened = None;
                StoreError::Unavailable(fault)
            }
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                self.opened = None;
                StoreError::Refused(fault)
            }
            _ => StoreError::Refused(fault),
        }
    }
}

impl FileStamp {
    fn of(path: &Path) -> io::Result<Self> {
        let file = fs::metadata(path)?;
        Ok(Self {
            device: file.dev(),
            inode: file.ino(),
            modified: (file.mtime(), file.mtime_nsec()),
        })
    }
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    // One thread has it at a time.
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

fn read_chunk(
    connection: &Connection,
    view: &SqliteView,
    keys: &[EntityKey],
    rows: &mut SqliteRows<'_>,
) -> rusqlite::Result<()> {
    // By powers of two, so that ten statements serve all reads of a view.
    let width = keys.len().next_power_of_two();
    let mut statement = connection.prepare_cached(&view.select(width))?;
    let padding = std::iter::repeat_n(&keys[0], width - keys.len());
    let parameters = keys.iter().chain(padding).map(|key| &*key.0);
    let mut found = statement.query(params_from_iter(parameters))?;
    while let Some(row) = found.next()? {
        rows.add(SqlRow {
            entity_key: value(row.get_ref(0)?),
            feature_name: value(row.get_ref(1)?),
            value: value(row.get_ref(2)?),
            event_ts: value(row.get_ref(3)?),
        });
    }
    Ok(())
}

fn value(value: ValueRef<'_>) -> SqlValue<'_> {
    match value {
        ValueRef::Null => SqlValue::Null,
        ValueRef::Integer(number) => SqlValue::Integer(number),
        ValueRef::Real(number) => SqlValue::Real(number),
        ValueRef::Text(text) => SqlValue::Text(text),
        ValueRef::Blob(bytes) => SqlValue::Blob(bytes),
    }
}
