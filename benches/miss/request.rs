//! The rows, and the request for all of them.

use std::{collections::HashMap, ops::Range, sync::Arc, time::Duration};

use larder::{
    cache::FeatureCache,
    clock,
    metrics::Metrics,
    model::{
        EntityKey, Feature, FeatureView, FieldStatus, JoinKey, JoinValue, KeyEncoding, Scalar,
        ValueType, ViewId, ViewKind, encode_entity_key, encode_value,
    },
    proxy::{
        AnswerColumn, Answers, Ask, Coercion, Column, Dialect, FeatureProxy, Freshness,
        FreshnessTable, KeyValue, OnlineRequest, Parts, RequestLimits, RouteTable, Select,
        StatusCompat, StoreFacts, TtlOnRead,
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
    registry: Arc<RegistryHandle>,
    store: Arc<ResilientStore>,
    metrics: Arc<Metrics>,
    proxy: FeatureProxy,
    features: Vec<String>,
}

impl Request {
    pub(crate) fn new(store: Arc<dyn OnlineStore>) -> Self {
        let metrics = Metrics::new();
        let limits = Limits { timeout: PATIENCE, ..Limits::default() };
        let store_metrics = metrics.store(&"default".into());
        let store = ResilientStore::new("default".into(), store, limits, store_metrics);
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
        let names = |view: &FeatureView| {
            let name = |feature: &Feature| format!("{}:{}", view.name, feature.name);
            view.features.iter().map(name).collect::<Vec<_>>()
        };
        let features = views().iter().flat_map(names).collect();
        let proxy = proxy(&registry, &store, &metrics);
        Self { registry, store, metrics, proxy, features }
    }

    /// Empties the cache. The proxy has seen a request of this kind before the next one, though.
    pub(crate) async fn forget(&mut self) {
        self.proxy = proxy(&self.registry, &self.store, &self.metrics);
        let answers = self.try_read(ENTITIES..ENTITIES + 1).await;
        answers.expect("the store says that there is no such entity");
    }

    /// Reads all rows, which the store has to be asked for unless they were read before.
    pub(crate) async fn read_all(&self) -> Answers {
        self.try_read(0..ENTITIES).await.expect("the store answers")
    }

    /// Waits for the store's connections, and looks at every value once.
    pub(crate) async fn until_it_is_answered(&self) {
        let mut last = Ok(());
        for _ in 0..300 {
            last = self.try_read(0..ENTITIES).await.and_then(|answers| check(&answers));
            if last.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the store does not answer: {last:?}");
    }

    async fn try_read(&self, entities: Range<i64>) -> Result<Answers, String> {
        let now = clock::now();
        let request = OnlineRequest {
            select: Select::Features(self.features.iter().map(|name| (&**name).into()).collect()),
            columns: vec![Column {
                name: "id".into(),
                values: entities.map(KeyValue::Int64).collect(),
            }],
            full_names: true,
            ask: Ask::default(),
            dialect: Dialect {
                ttl_on_read: TtlOnRead::Off,
                status: StatusCompat::Larder,
                coercion: Coercion::Lossless,
            },
            deadline: now.instant + PATIENCE,
        };
        let answers = self.proxy.get_online_features(&request, now).await;
        answers.map_err(|error| format!("{error:?}"))
    }
}

fn proxy(
    registry: &Arc<RegistryHandle>,
    store: &Arc<ResilientStore>,
    metrics: &Arc<Metrics>,
) -> FeatureProxy {
    let facts = StoreFacts { name: Arc::clone(store.name()), python_finds_everything: false };
    FeatureProxy::new(Parts {
        registry: Arc::clone(registry),
        freshness: FreshnessTable { default: Freshness::default(), views: HashMap::new() },
        limits: RequestLimits::default(),
        cache: Arc::new(FeatureCache::new(64 << 20)),
        stores: vec![(Arc::clone(store), facts)],
        routes: RouteTable::default(),
        metrics: Arc::clone(metrics),
    })
}

fn check(answers: &Answers) -> Result<(), String> {
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
