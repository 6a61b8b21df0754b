//! Cassandra, and its driver.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use larder::{
    layout::cassandra::{CassandraView, partition_key},
    store::{CassandraSettings, Consistency, OnlineStore, cassandra::CassandraStore},
};
use scylla::{
    client::session::Session, statement::prepared::PreparedStatement, value::CqlTimestamp,
};

use crate::{
    Database,
    cassandra_server::{self, Server},
    request::{keys, value, views},
};

const KEYSPACE: &str = "bench";
/// Partitions that are read, or rows that are written, at once: larder's default.
const AT_ONCE: usize = 256;

pub(crate) struct Cassandra {
    server: &'static Server,
    session: Session,
    selects: Vec<PreparedStatement>,
    keys: Vec<String>,
}

impl Cassandra {
    pub(crate) async fn open() -> Self {
        let server = tokio::task::block_in_place(cassandra_server::plain);
        let session = server.admin().await;
        let run = |statement: String| {
            let session = &session;
            async move { session.query_unpaged(statement, ()).await.expect("it is a statement") }
        };
        run(format!(
            "CREATE KEYSPACE {KEYSPACE} WITH replication = \
             {{'class': 'SimpleStrategy', 'replication_factor': 1}}"
        ))
        .await;
        let keys: Vec<_> = keys().iter().map(partition_key).collect();
        let mut selects = Vec::new();
        for view in views() {
            let layout = CassandraView::new(KEYSPACE, &view);
            let table = layout.table();
            run(format!(
                "CREATE TABLE {table} (entity_key TEXT, feature_name TEXT, value BLOB, \
                 event_ts TIMESTAMP, created_ts TIMESTAMP, \
                 PRIMARY KEY ((entity_key), feature_name)) \
                 WITH CLUSTERING ORDER BY (feature_name ASC)"
            ))
            .await;
            let insert = format!(
                "INSERT INTO {table} (feature_name, value, entity_key, event_ts) VALUES (?, ?, ?, ?)"
            );
            let insert = session.prepare(insert).await.expect("the table is there");
            let rows = keys.iter().enumerate().flat_map(|(entity, key)| {
                let features = view.features.iter().enumerate();
                features.map(move |(place, feature)| {
                    (feature.name.to_string(), value(entity, place), key, CqlTimestamp(1000))
                })
            });
            let rows: Vec<_> = rows.collect();
            let write = |row| {
                let (session, insert) = (&session, &insert);
                async move { session.execute_unpaged(insert, row).await.expect("it is written") }
            };
            stream::iter(rows).map(write).buffer_unordered(AT_ONCE).count().await;
            selects.push(session.prepare(layout.select()).await.expect("the table is there"));
        }
        Self { server, session, selects, keys }
    }
}

#[async_trait]
impl Database for Cassandra {
    fn name(&self) -> &'static str {
        "cassandra"
    }

    fn store(&self) -> Arc<dyn OnlineStore> {
        Arc::new(CassandraStore::new(CassandraSettings {
            hosts: vec!["127.0.0.1".into()],
            port: self.server.port,
            keyspace: KEYSPACE.into(),
            login: None,
            consistency: Consistency::LocalOne,
            local_datacenter: None,
            connections: 1,
            max_concurrent_reads: AT_ONCE,
            tls: None,
            connect_timeout: Duration::from_secs(5),
            max_backoff: Duration::from_millis(500),
        }))
    }

    async fn read_bare(&self) -> usize {
        let mut reads = Vec::with_capacity(self.selects.len() * self.keys.len());
        for select in &self.selects {
            for key in &self.keys {
                let read = self.session.execute_unpaged(select, (key,));
                reads.push(async {
                    let result = read.await.expect("Cassandra answers");
                    result.into_rows_result().expect("it gives rows").rows_num()
                });
            }
        }
        let counts: Vec<usize> = stream::iter(reads).buffer_unordered(AT_ONCE).collect().await;
        counts.into_iter().sum()
    }
}
