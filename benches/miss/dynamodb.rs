//! DynamoDB Local, and AWS's client.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use aws_config::{BehaviorVersion, Region, retry::RetryConfig};
use aws_sdk_dynamodb::{
    Client,
    config::{Credentials, SharedCredentialsProvider},
    types::{AttributeValue, KeysAndAttributes},
};
use futures_util::future::join_all;
use larder::{
    layout::dynamodb::{DynamoDbView, entity_id},
    store::{DynamoDbSettings, OnlineStore, TableNameTemplate, dynamodb::DynamoDbStore},
};

use crate::{
    Database, dynamodb_server,
    request::{keys, value, views},
};

pub(crate) struct DynamoDb {
    url: String,
    client: Client,
    tables: Vec<String>,
    ids: Vec<String>,
}

/// As many keys as one call may have.
const BATCH: usize = 100;

impl DynamoDb {
    pub(crate) fn open() -> Self {
        let template = TableNameTemplate::default();
        let layouts: Vec<_> =
            views().iter().map(|view| DynamoDbView::new(view, &template)).collect();
        let tables: Vec<_> = layouts.iter().map(|layout| layout.table().to_string()).collect();
        let ids: Vec<_> = keys().iter().map(entity_id).collect();
        for (view, table) in views().iter().zip(&tables) {
            dynamodb_server::create_table(table);
            for (entity, id) in ids.iter().enumerate() {
                let values: Vec<_> = (0..view.features.len()).map(|at| value(entity, at)).collect();
                let names = view.features.iter().map(|feature| &*feature.name);
                let cells: Vec<_> = names.zip(values.iter().map(Vec::as_slice)).collect();
                dynamodb_server::put_item(table, id, "2026-01-01 00:00:00+00:00", &cells);
            }
        }
        let url = format!("http://127.0.0.1:{}", dynamodb_server::port());
        let config = aws_sdk_dynamodb::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-west-1"))
            .endpoint_url(&url)
            .credentials_provider(anybody())
            .retry_config(RetryConfig::disabled())
            .build();
        Self { url, client: Client::from_conf(config), tables, ids }
    }
}

fn anybody() -> SharedCredentialsProvider {
    SharedCredentialsProvider::new(Credentials::new("larder", "secret", None, None, "bench"))
}

#[async_trait]
impl Database for DynamoDb {
    fn name(&self) -> &'static str {
        "dynamodb"
    }

    fn store(&self) -> Arc<dyn OnlineStore> {
        let settings = DynamoDbSettings {
            region: "eu-west-1".into(),
            endpoint_url: Some(self.url.clone()),
            table_name_template: TableNameTemplate::default(),
            consistent_reads: false,
            batch_size: BATCH,
            max_calls: 50,
            connect_timeout: Duration::from_secs(5),
        };
        Arc::new(DynamoDbStore::with_credentials(settings, anybody()))
    }

    async fn read_bare(&self) -> usize {
        let chunks = self
            .tables
            .iter()
            .flat_map(|table| self.ids.chunks(BATCH).map(move |ids| (table, ids)));
        let calls = chunks.map(|(table, ids)| async move {
            let mut keys = KeysAndAttributes::builder();
            for id in ids {
                let id = AttributeValue::S(id.clone());
                keys = keys.keys(HashMap::from([("entity_id".to_owned(), id)]));
            }
            let keys = keys.build().expect("there are keys");
            let call = self.client.batch_get_item().request_items(table, keys).send().await;
            let tables = call.expect("DynamoDB Local answers").responses.unwrap_or_default();
            tables.values().map(Vec::len).sum::<usize>()
        });
        join_all(calls).await.into_iter().sum()
    }
}
