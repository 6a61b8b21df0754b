//! SQLite, and its client.

use std::sync::Arc;

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
}

impl Sqlite {
    pub(crate) fn open() -> Self {
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
        Self { connections: statements.iter().map(connect).collect(), directory, statements, keys }
    }
}

#[async_trait]
impl Database for Sqlite {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn store(&self) -> Arc<dyn OnlineStore> {
        let path = self.directory.path().join("online.db");
        Arc::new(SqliteStore::new(&SqliteSettings { path, connections: 4 }))
    }

    async fn read_bare(&self) -> usize {
        let read = |(connection, statement): (&Arc<parking_lot::Mutex<_>>, &Arc<str>)| {
            let (connection, statement) = (Arc::clone(connection), Arc::clone(statement));
            let keys = Arc::clone(&self.keys);
            tokio::task::spawn_blocking(move || count(&connection.lock(), &statement, &keys))
        };
        let reads: Vec<_> = self.connections.iter().zip(&self.statements).map(read).collect();
        let mut values = 0;
        for read in reads {
            values += read.await.expect("it does not panic");
        }
        values
    }
}

/// How many rows a statement gives; all are looked at, as any client must.
fn count(connection: &Connection, statement: &str, keys: &[Vec<u8>]) -> usize {
    let mut statement = connection.prepare_cached(statement).expect("it is a statement");
    let mut rows = statement.query(params_from_iter(keys)).expect("it is read");
    let mut values = 0;
    while let Some(row) = rows.next().expect("it is read") {
        let value = row.get_ref(2).expect("it has a value");
        values += usize::from(!value.as_blob().expect("it is bytes").is_empty());
    }
    values
}
