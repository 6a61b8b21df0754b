//! The databases, with the rows in Feast's layout, and their bare clients.

use std::{future::Future, pin::Pin, sync::Arc};

use async_trait::async_trait;
use larder::{
    layout::{
        redis::{RedisView, hash_key},
        sqlite::SqliteView,
    },
    store::{OnlineStore, SqliteSettings, redis::RedisStore, sqlite::SqliteStore},
};
use redis::{Cmd, Pipeline, Value, aio::MultiplexedConnection};
use rusqlite::{Connection, params, params_from_iter};

use crate::{
    Database,
    redis_server::RedisServer,
    request::{keys, value, views},
};

type Open = fn() -> Pin<Box<dyn Future<Output = Box<dyn Database>>>>;

/// The databases by name.
pub(crate) const ALL: &[(&str, Open)] = &[
    ("redis", || Box::pin(async { Box::new(Redis::open().await) as _ })),
    ("sqlite", || Box::pin(async { Box::new(Sqlite::open()) as _ })),
];

struct Redis {
    server: RedisServer,
    connection: MultiplexedConnection,
    hashes: Vec<Vec<u8>>,
    fields: Vec<Vec<u8>>,
}

impl Redis {
    async fn open() -> Self {
        let server = RedisServer::start();
        let views = views();
        let layouts: Vec<_> = views.iter().map(RedisView::new).collect();
        let fields = layouts.iter().flat_map(RedisView::fields).map(<[u8]>::to_vec).collect();
        let hashes: Vec<_> = keys().iter().map(|key| hash_key(key, "bench")).collect();
        let mut pipeline = redis::pipe();
        for (entity, hash) in hashes.iter().enumerate() {
            let mut hset = Cmd::new();
            hset.arg("HSET").arg(hash);
            for (layout, view) in layouts.iter().zip(&views) {
                for (place, field) in layout.fields().enumerate() {
                    let is_timestamp = place == view.features.len();
                    let stored = if is_timestamp { vec![8, 1] } else { value(entity, place) };
                    hset.arg(field).arg(stored);
                }
            }
            pipeline.add_command(hset);
        }
        let address = format!("redis://127.0.0.1:{}", server.settings().port);
        let client = redis::Client::open(address).expect("it is an address");
        let mut connection =
            client.get_multiplexed_async_connection().await.expect("Redis answers");
        let _: Vec<i64> = pipeline.query_async(&mut connection).await.expect("Redis writes");
        Self { server, connection, hashes, fields }
    }
}

#[async_trait]
impl Database for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn store(&self) -> Arc<dyn OnlineStore> {
        Arc::new(RedisStore::new(self.server.settings()))
    }

    async fn read_bare(&self) -> usize {
        let mut pipeline = Pipeline::with_capacity(self.hashes.len());
        for hash in &self.hashes {
            let mut hmget = Cmd::new();
            hmget.arg("HMGET").arg(hash).arg(&self.fields);
            pipeline.add_command(hmget);
        }
        let mut connection = self.connection.clone();
        let replies = connection.send_packed_commands(&pipeline, 0, pipeline.len()).await;
        let count = |reply: &Value| if let Value::Array(fields) = reply { fields.len() } else { 0 };
        replies.expect("Redis answers").iter().map(count).sum()
    }
}

struct Sqlite {
    directory: tempfile::TempDir,
    // Of the threads that larder's store has, the bare client needs one for each view.
    connections: Vec<Arc<parking_lot::Mutex<Connection>>>,
    statements: Vec<Arc<str>>,
    keys: Arc<[Vec<u8>]>,
}

impl Sqlite {
    fn open() -> Self {
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
