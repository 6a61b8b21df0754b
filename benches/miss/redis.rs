//! Redis, and its client.

use std::sync::Arc;

use async_trait::async_trait;
use larder::{
    layout::redis::{RedisView, hash_key},
    store::{OnlineStore, redis::RedisStore},
};
use redis::{AsyncConnectionConfig, Cmd, Pipeline, Value, aio::MultiplexedConnection};

use crate::{
    Database,
    redis_server::RedisServer,
    request::{PATIENCE, keys, value, views},
};

pub(crate) struct Redis {
    server: RedisServer,
    connection: MultiplexedConnection,
    hashes: Vec<Vec<u8>>,
    fields: Vec<Vec<u8>>,
}

impl Redis {
    pub(crate) async fn open() -> Self {
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
        let address = format!("redis://127.0.0.1:{}", server.port);
        let client = redis::Client::open(address).expect("it is an address");
        let patient = AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
        let connection = client.get_multiplexed_async_connection_with_config(&patient).await;
        let mut connection = connection.expect("Redis answers");
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
