//! The rows, and the request for all of them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use larder::{
    cache::FeatureCache,
    clock,
    metrics::Metrics,
    model::{
        EntityKey, Feature, FeatureView, FieldStatus, JoinKey, JoinValue, KeyEncoding, Scalar,
        ValueType, ViewId, ViewKind, encode_entity_key, encode_value,
    },
    proxy::{
        AnswerColumn, Ask, Coercion, Column, Dialect, FeatureProxy, Freshness, FreshnessTable,
        KeyValue, OnlineRequest, Parts, RequestLimits, RouteTable, Select, StatusCompat,
        StoreFacts, TtlOnRead,
    },
    registry::{Registry, RegistryHandle, StoredView, View},
    resilience::{Limits, ResilientStore},
    store::OnlineStore,
};

pub(crate) const ENTITIES: i64 = 500;
const VIEWS: usize = 3;
const FEATURES: usize = 10;
/// Nothing here is to fail since the machine stalls.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A proxy over a store, and what it is asked.
pub(crate) struct Request {
    proxy: FeatureProxy,
    features: Vec<String>,
}

impl Request {
    pub(crate) fn new(store: Arc<dyn OnlineStore>) -> Self {
        let metrics = Metrics::new();
        let name: Arc<str> = "default".into();
        let facts = StoreFacts { name: Arc::clone(&name), python_finds_everything: false };
        let limits = Limits { timeout: PATIENCE, ..Limits::default() };
        let store_metrics = metrics.store(&name);
        let registry = Arc::new(RegistryHandle::default());
        let stored = |view: FeatureView| {
            let name = Arc::clone(&view.name);
            let view = Arc::new(view);
            (name, View::Stored(StoredView { view, current_version: 0, routed_by: None }))
        };
        registry.publish(Registry {
            project: "bench".into(),
            views: views().into_iter().map(stored).collect(),
            join_keys: [Arc::from("id")].into(),
            ..Registry::default()
        });
        let freshness = FreshnessTable { default: Freshness::default(), views: HashMap::new() };
        let proxy = FeatureProxy::new(Parts {
            registry,
            freshness,
            limits: RequestLimits::default(),
            cache: Arc::new(FeatureCache::new(64 << 20)),
            stores: vec![(ResilientStore::new(name, store, limits, store_metrics), facts)],
            routes: RouteTable::default(),
            metrics,
        });
        let names = |view: &FeatureView| {
            let name = |feature: &Feature| format!("{}:{}", view.name, feature.name);
            view.features.iter().map(name).collect::<Vec<_>>()
        };
        Self { proxy, features: views().iter().flat_map(names).collect() }
    }

    /// Reads all rows from the store.
    pub(crate) async fn read_all(&self) {
        let unavailable = self.try_read_all().await;
        assert_eq!(unavailable, Ok(()), "the store failed");
    }

    /// Waits for the store's connections.
    pub(crate) async fn until_it_is_answered(&self) {
        let mut last = Ok(());
        for _ in 0..300 {
            last = self.try_read_all().await;
            if last.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the store does not answer: {last:?}");
    }

    async fn try_read_all(&self) -> Result<(), String> {
        let now = clock::now();
        let request = OnlineRequest {
            select: Select::Features(self.features.iter().map(|name| (&**name).into()).collect()),
            columns: vec![Column {
                name: "id".into(),
                values: (0..ENTITIES).map(KeyValue::Int64).collect(),
            }],
            full_names: true,
            ask: Ask { max_age: Some(Duration::ZERO), allow_stale: false },
            dialect: Dialect {
                ttl_on_read: TtlOnRead::Off,
                status: StatusCompat::Larder,
                coercion: Coercion::Lossless,
            },
            deadline: now.instant + PATIENCE,
        };
        let answers = self.proxy.get_online_features(&request, now).await;
        let answers = answers.map_err(|error| format!("{error:?}"))?;
        for column in answers.columns() {
            let AnswerColumn::Feature(column) = column else { continue };
            for row in 0..answers.rows() {
                let status = column.field(row).status;
                if status != FieldStatus::Present {
                    return Err(format!("row {row} is {status:?}"));
                }
            }
        }
        Ok(())
    }
}

/// The views.
pub(crate) fn views() -> Vec<FeatureView> {
    (0..VIEWS).map(view).collect()
}

fn view(number: usize) -> FeatureView {
    let feature =
        |place| Feature { name: format!("feature_{place}").into(), value_type: kind(place) };
    let features: Box<[Feature]> = (0..FEATURES).map(feature).collect();
    let join_keys = [JoinKey { name: "id".into(), value_type: ValueType::INT64 }];
    let name: Arc<str> = format!("view_{number}").into();
    FeatureView {
        id: ViewId::of("bench", &name, None, &features, &join_keys),
        project: "bench".into(),
        name,
        version: None,
        kind: ViewKind::Batch,
        features,
        join_keys: join_keys.into(),
        max_age: None,
    }
}

fn kind(place: usize) -> ValueType {
    if place.is_multiple_of(2) { ValueType::INT64 } else { ValueType::STRING }
}

/// The entities' keys, in the order of their numbers.
pub(crate) fn keys() -> Vec<EntityKey> {
    let key = |number| {
        let (mut key, value) = (Vec::new(), JoinValue::Int64(number));
        assert!(encode_entity_key(KeyEncoding::V3, [("id", &value)].into_iter(), &mut key));
        EntityKey(key.into())
    };
    (0..ENTITIES).map(key).collect()
}

/// What the feature at `place` has for the entity at `entity`.
pub(crate) fn value(entity: usize, place: usize) -> Vec<u8> {
    let number = i64::try_from(entity * 1000 + place).expect("it is small");
    let value = match kind(place) {
        ValueType::INT64 => JoinValue::Int64(number),
        _ => JoinValue::String(format!("some text of entity {number}").into()),
    };
    let mut bytes = Vec::new();
    encode_value(Scalar::Join(&value), &mut bytes);
    bytes
}
