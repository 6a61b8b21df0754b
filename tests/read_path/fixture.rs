//! A proxy over two views of drivers: `stats` with the feature `trips`, `rates` with `rating`.
//! Driver `n` has `n` trips and the rating `100 + n`.

use std::{collections::HashMap, sync::Arc, time::Duration};

use larder::{
    cache::{FeatureCache, policy::Policy},
    clock,
    metrics::Metrics,
    model::{
        Cell, EntityKey, EventTimestamp, Feature, FeatureRow, FeatureView, FieldStatus, JoinKey,
        JoinValue, KeyEncoding, Scalar, ValueType, ViewId, ViewKind, encode_entity_key,
        encode_value,
    },
    proxy::{
        AnswerColumn, Answers, Ask, Coercion, Column, Dialect, FeatureProxy, Freshness,
        FreshnessTable, KeyValue, OnlineRequest, Parts, ProxyError, RequestLimits, RouteTable,
        Select, StatusCompat, StoreFacts, TtlOnRead,
    },
    registry::{Registry, RegistryHandle, StoredView, View},
    resilience::{BreakerPolicy, Limits, ResilientStore},
    store::{StoreError, memory::MemoryStore},
};

pub(crate) const POLICY: Policy = Policy {
    ttl: Duration::from_secs(60),
    refresh_ahead: 1.0,
    stale_while_revalidate: Duration::ZERO,
    max_stale: Duration::from_secs(600),
    negative_ttl: Duration::from_secs(5),
    negative_max_stale: Duration::ZERO,
};

pub(crate) const STALE_AFTER: Duration = Duration::from_millis(20);

pub(crate) const DEADLINE: Duration = Duration::from_secs(1);

pub(crate) struct Fixture {
    pub(crate) store: Arc<MemoryStore>,
    /// A second store, which no view lies in but by the routes.
    pub(crate) spare: Arc<MemoryStore>,
    pub(crate) proxy: Arc<FeatureProxy>,
    pub(crate) metrics: Arc<Metrics>,
    views: [Arc<FeatureView>; 2],
}

/// What a test asks for.
#[derive(Clone, Copy)]
pub(crate) struct Wish {
    pub(crate) ask: Ask,
    pub(crate) deadline: Duration,
}

impl Default for Wish {
    fn default() -> Self {
        Self { ask: Ask::default(), deadline: DEADLINE }
    }
}

impl Fixture {
    /// Has rows for drivers `0..drivers`.
    pub(crate) fn new(drivers: i64) -> Self {
        Self::with(drivers, freshness(POLICY), Limits::default())
    }

    pub(crate) fn with(drivers: i64, freshness: Freshness, limits: Limits) -> Self {
        Self::routed(drivers, freshness, limits, RouteTable::default())
    }

    /// With the store `default` (0) and the store `spare` (1), which is empty.
    pub(crate) fn routed(
        drivers: i64,
        freshness: Freshness,
        limits: Limits,
        routes: RouteTable,
    ) -> Self {
        let views = [view("stats", "trips"), view("rates", "rating")];
        let store = Arc::new(MemoryStore::new());
        let registry = Arc::new(RegistryHandle::default());
        registry.publish(registry_of(&views));
        let metrics = Metrics::new();
        let spare = Arc::new(MemoryStore::new());
        let part = |name: &str, store: &Arc<MemoryStore>| {
            let name: Arc<str> = name.into();
            let (store, store_metrics) = (Arc::clone(store) as _, metrics.store(&name));
            let facts = StoreFacts { name: Arc::clone(&name), python_finds_everything: false };
            (ResilientStore::new(name, store, limits, store_metrics), facts)
        };
        let stores = vec![part("default", &store), part("spare", &spare)];
        let proxy = FeatureProxy::new(Parts {
            registry,
            freshness: FreshnessTable { default: freshness, views: HashMap::new() },
            limits: RequestLimits::default(),
            cache: Arc::new(FeatureCache::new(16 << 20)),
            stores,
            routes,
            metrics: Arc::clone(&metrics),
        });
        let fixture = Self { store, spare, proxy: Arc::new(proxy), metrics, views };
        for driver in 0..drivers {
            fixture.put(driver, driver);
        }
        fixture
    }

    /// Gives a driver so many trips.
    pub(crate) fn put(&self, driver: i64, trips: i64) {
        self.store.put(&self.views[0], key(driver), row(trips));
        self.store.put(&self.views[1], key(driver), row(100 + trips));
    }

    /// Gives a driver so many trips in the spare store, as of an event time.
    pub(crate) fn put_spare(&self, driver: i64, trips: i64, event_seconds: i64) {
        self.spare.put(&self.views[0], key(driver), row_of(trips, event_seconds));
    }

    pub(crate) fn fail_trips(&self, driver: i64, error: StoreError) {
        self.store.fail_key(&self.views[0], key(driver), error);
    }

    /// The answer about `features` of `drivers`.
    pub(crate) async fn answers(
        &self,
        features: &[&str],
        drivers: &[i64],
        wish: Wish,
    ) -> Result<Answers, ProxyError> {
        let now = clock::now();
        let request = OnlineRequest {
            select: Select::Features(features.iter().map(|name| (*name).into()).collect()),
            columns: vec![Column {
                name: "driver".into(),
                values: drivers.iter().map(|driver| KeyValue::Int64(*driver)).collect(),
            }],
            full_names: false,
            ask: wish.ask,
            dialect: Dialect {
                ttl_on_read: TtlOnRead::Off,
                status: StatusCompat::Larder,
                coercion: Coercion::Lossless,
            },
            deadline: now.instant + wish.deadline,
        };
        self.proxy.get_online_features(&request, now).await
    }

    /// The trips of `drivers`: `Ok` where there are some, else the status.
    pub(crate) async fn trips(
        &self,
        drivers: &[i64],
        wish: Wish,
    ) -> Result<Vec<Result<i64, FieldStatus>>, ProxyError> {
        Ok(trips_of(&self.answers(&["stats:trips"], drivers, wish).await?))
    }

    /// The trips of one driver, and whether they are stale.
    pub(crate) async fn one(&self, driver: i64) -> Result<(i64, bool), ProxyError> {
        let answers = self.answers(&["stats:trips"], &[driver], Wish::default()).await?;
        let trips = trips_of(&answers)[0].expect("the driver is known");
        Ok((trips, answers.summary().stale_rows == 1))
    }

    /// Whether `/metrics` has this line.
    pub(crate) fn counts(&self, line: &str) -> bool {
        self.metrics.render().lines().any(|has| has == line)
    }
}

pub(crate) fn freshness(policy: Policy) -> Freshness {
    Freshness { policy, stale_after: STALE_AFTER, ..Freshness::default() }
}

/// Limits whose breaker never opens.
pub(crate) fn without_breaker() -> Limits {
    let breaker = BreakerPolicy {
        consecutive_failures: u32::MAX,
        min_calls: u32::MAX,
        ..BreakerPolicy::default()
    };
    Limits { breaker, ..Limits::default() }
}

pub(crate) fn down() -> StoreError {
    let error: Box<dyn std::error::Error + Send + Sync> = "connection refused".into();
    StoreError::Unavailable(error.into())
}

pub(crate) fn trips_of(answers: &Answers) -> Vec<Result<i64, FieldStatus>> {
    let Some(AnswerColumn::Feature(column)) = answers.columns().nth(1) else {
        panic!("the first feature follows the entity's column");
    };
    let trips = |row| {
        let field = column.field(row);
        match field.status {
            FieldStatus::Present => Ok(decode(field.value)),
            status => Err(status),
        }
    };
    (0..answers.rows()).map(trips).collect()
}

fn decode(value: &[u8]) -> i64 {
    use larder::pb::types::{Value, value::Val};
    match prost::Message::decode(value) {
        Ok(Value { val: Some(Val::Int64Val(number)) }) => number,
        other => panic!("{other:?}"),
    }
}

fn row(number: i64) -> FeatureRow {
    row_of(number, 1)
}

fn row_of(number: i64, seconds: i64) -> FeatureRow {
    let mut value = Vec::new();
    encode_value(Scalar::Join(&JoinValue::Int64(number)), &mut value);
    FeatureRow::new([Cell::Value(&value)].into_iter(), EventTimestamp { seconds, nanos: 0 })
}

fn key(driver: i64) -> EntityKey {
    let (mut key, driver) = (Vec::new(), JoinValue::Int64(driver));
    assert!(encode_entity_key(KeyEncoding::V3, [("driver", &driver)].into_iter(), &mut key));
    EntityKey(key.into())
}

fn view(name: &str, feature: &str) -> Arc<FeatureView> {
    let features = [Feature { name: feature.into(), value_type: ValueType::INT64 }];
    let join_keys = [JoinKey { name: "driver".into(), value_type: ValueType::INT64 }];
    Arc::new(FeatureView {
        id: ViewId::of("p", name, None, &features, &join_keys),
        project: "p".into(),
        name: name.into(),
        version: None,
        kind: ViewKind::Batch,
        features: features.into(),
        join_keys: join_keys.into(),
        max_age: None,
    })
}

fn registry_of(views: &[Arc<FeatureView>]) -> Registry {
    let stored = |view: &Arc<FeatureView>| {
        let stored = StoredView { view: Arc::clone(view), current_version: 0, routed_by: None };
        (Arc::clone(&view.name), View::Stored(stored))
    };
    Registry {
        project: "p".into(),
        views: views.iter().map(stored).collect(),
        join_keys: [Arc::from("driver")].into(),
        ..Registry::default()
    }
}
