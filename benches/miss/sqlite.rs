//! SQLite, and its client.

use std::{hint::black_box, sync::Arc};

use async_trait::async_trait;
use larder::{
    layout::sqlite::SqliteView,
    store::{OnlineStore, SqliteSettings, sqlite::SqliteStore},
};
use rusqlite::{Connection, params, params_from_iter};

use crate::{
    Database,
    request::{keys, value, views},
};

pub(crate) struct Sqlite {
    directory: tempfile::TempDir,
    // Of the threads that larder's store has, the bare client needs one for each view.
    connections: Vec<Arc<parking_lot::Mutex<Connection>>>,
    statements: Vec<Arc<str>>,
    keys: Arc<[Vec<u8>]>,
    keep: Keep,
}

impl Sqlite {
    pub(crate) fn open(keep: Keep) -> Self {
        let directory = tempfile::tempdir().expect("there is room");
        let path = directory.path().join("online.db");
        let mut database = Connection::open(&path).expect("it is a new file");
        let keys: Arc<[Vec<u8>]> = keys().iter().map(|key| key.0.to_vec()).collect();
        let write = database.transaction().expect("nobody else writes");
        for view in views() {
            let table = format!("bench_{}", view.name);
            write
                .execute_batch(&format!(
                    "CREATE TABLE {table} (entity_key BLOB, feature_name TEXT, value BLOB, \
                     value_text TEXT, vector_value BLOB, event_ts timestamp, \
                     created_ts timestamp, PRIMARY KEY(entity_key, feature_name)); \
                     CREATE INDEX {table}_ek ON {table} (entity_key);"
                ))
                .expect("a table is made");
            let insert = format!(
                "INSERT INTO {table} (entity_key, feature_name, value, event_ts) VALUES (?, ?, ?, 1)"
            );
            for (entity, key) in keys.iter().enumerate() {
                for (place, feature) in view.features.iter().enumerate() {
                    let row = params![key, &*feature.name, value(entity, place)];
                    write.execute(&insert, row).expect("a row is written");
                }
            }
        }
        write.commit().expect("the rows are written");
        let select = |view| SqliteView::new(view).select(keys.len()).into();
        let statements: Vec<Arc<str>> = views().iter().map(select).collect();
        let connect = |_: &_| {
            let connection = Connection::open(&path).expect("the file is there");
            Arc::new(parking_lot::Mutex::new(connection))
        };
        let connections = statements.iter().map(connect).collect();
        Self { connections, directory, statements, keys, keep }
    }
}

#[async_trait]
impl Database for Sqlite {
    fn name(&self) -> &'static str {
        match self.keep {
            Keep::Rows => "sqlite",
            Keep::Values => "sqlite, values kept",
            Keep::Nothing => "sqlite, nothing kept",
        }
    }

    fn store(&self) -> Arc<dyn OnlineStore> {
        let path = self.directory.path().join("online.db");
        Arc::new(SqliteStore::new(&SqliteSettings { path, connections: 4 }))
    }

    async fn read_bare(&self) -> usize {
        let read = |(connection, statement): (&Arc<parking_lot::Mutex<_>>, &Arc<str>)| {
            let (connection, statement) = (Arc::clone(connection), Arc::clone(statement));
            let (keys, keep) = (Arc::clone(&self.keys), self.keep);
            tokio::task::spawn_blocking(move || read(&connection.lock(), &statement, &keys, keep))
        };
        let reads: Vec<_> = self.connections.iter().zip(&self.statements).map(read).collect();
        let mut values = 0;
        for read in reads {
            values += read.await.expect("it does not panic").seen;
        }
        values
    }
}

/// What the bare client keeps of the rows that it steps through. SQLite itself keeps none.
#[derive(Clone, Copy)]
pub(crate) enum Keep {
    /// All columns, as the client hands them out.
    Rows,
    /// The values. It looks at the other columns where they lie.
    Values,
    /// Nothing.
    Nothing,
}

/// The entity's key, the feature's name, the value, the time.
type Row = (Vec<u8>, String, Vec<u8>, i64);

#[derive(Default)]
struct Kept {
    rows: Vec<Row>,
    values: Vec<Vec<u8>>,
    seen: usize,
}

fn read(connection: &Connection, statement: &str, keys: &[Vec<u8>], keep: Keep) -> Kept {
    let mut statement = connection.prepare_cached(statement).expect("it is a statement");
    let mut rows = statement.query(params_from_iter(keys)).expect("it is read");
    let mut kept = Kept::default();
    while let Some(row) = rows.next().expect("it is read") {
        kept.keep(row, keep).expect("its columns are what they were written as");
    }
    kept
}

impl Kept {
    fn keep(&mut self, row: &rusqlite::Row<'_>, keep: Keep) -> rusqlite::Result<()> {
        self.seen += 1;
        match keep {
            Keep::Rows => self.rows.push((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
            Keep::Values => {
                black_box((row.get_ref(0)?, row.get_ref(1)?, row.get_ref(3)?));
                self.values.push(row.get(2)?);
            }
            Keep::Nothing => {
                black_box(row.get_ref(2)?);
            }
        }
        Ok(())
    }
}
