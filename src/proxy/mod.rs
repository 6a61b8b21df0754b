//! The read path. [`FeatureProxy::get_online_features`] is all of it, from top to bottom.

mod assemble;
mod coerce;
mod error;
mod load;
mod pending;
mod plan;
mod request;
mod route;
mod settings;
mod shape;

use std::sync::Arc;

pub use self::{
    assemble::{AnswerColumn, Answers, EntityAnswer, FeatureAnswer, Field, StoreFacts, Summary},
    error::ProxyError,
    request::{Coercion, Column, Dialect, KeyValue, OnlineRequest, Select},
    route::{RouteStep, RouteTable},
    settings::{Freshness, FreshnessTable, OnUnavailable, RequestLimits, StatusCompat, TtlOnRead},
};
use self::{
    load::Loader,
    pending::{Pending, PendingRow},
    plan::Plan,
    shape::{ShapeCache, Tables},
};
// Parts of requests and errors, for those who do not know the cache and the store.
pub use crate::{cache::policy::Ask, store::StoreError};
use crate::{
    cache::{CacheStats, FeatureCache, policy::Lookup, singleflight::SingleFlight},
    clock::Now,
    metrics::Metrics,
    model::RowKeyRef,
    registry::RegistryHandle,
    resilience::ResilientStore,
};

/// Answers online requests from the cache, and from the store where the cache cannot.
pub struct FeatureProxy {
    registry: Arc<RegistryHandle>,
    shapes: ShapeCache,
    freshness: FreshnessTable,
    routes: RouteTable,
    limits: RequestLimits,
    cache: Arc<FeatureCache>,
    loader: Arc<Loader>,
    stores: Arc<[StoreFacts]>,
    metrics: Arc<Metrics>,
}

/// What a proxy holds and does at one moment.
#[derive(Clone, Debug)]
pub struct ProxyStatus {
    /// Rows in memory.
    pub cache: CacheStats,
    /// Rows that are being read from a store.
    pub rows_being_read: usize,
    /// The stores.
    pub stores: Vec<StoreStatus>,
}

/// A store at one moment.
#[derive(Clone, Debug)]
pub struct StoreStatus {
    /// What it is called.
    pub name: Arc<str>,
    /// Whether it is left alone, since it kept failing.
    pub open: bool,
}

/// What a proxy is made of.
pub struct Parts {
    /// Which features exist.
    pub registry: Arc<RegistryHandle>,
    /// How rows age.
    pub freshness: FreshnessTable,
    /// How large a request may be.
    pub limits: RequestLimits,
    /// Where rows are kept.
    pub cache: Arc<FeatureCache>,
    /// Where they come from, and what answers tell of it. The place of each is its id.
    pub stores: Vec<(Arc<ResilientStore>, StoreFacts)>,
    /// Which of them hold which view.
    pub routes: RouteTable,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl FeatureProxy {
    /// A proxy over its parts.
    pub fn new(parts: Parts) -> Self {
        let Parts { registry, freshness, limits, cache, stores, routes, metrics } = parts;
        let (stores, facts): (Vec<_>, Vec<_>) = stores.into_iter().unzip();
        let loader = Arc::new(Loader {
            stores: stores.into(),
            next_on_absence: routes.next_on_absence,
            cache: Arc::clone(&cache),
            flights: SingleFlight::default(),
            metrics: Arc::clone(&metrics),
        });
        let (shapes, stores) = (ShapeCache::new(), facts.into());
        Self { registry, shapes, freshness, routes, limits, cache, loader, stores, metrics }
    }

    /// Answers one request. Waits only for rows that have to come from a store.
    pub async fn get_online_features(
        &self,
        request: &OnlineRequest<'_>,
        now: Now,
    ) -> Result<Answers, ProxyError> {
        let registry = self.registry.load().ok_or(ProxyError::NoRegistry)?;
        let tables = Tables { freshness: &self.freshness, routes: &self.routes };
        let shape = self.shapes.get(&registry, tables, &request.select, request.full_names)?;
        let plan = Plan::new(&registry, shape, request, self.limits)?;

        let mut pending = self.look_up(&plan, request.ask, now);
        if pending.waits() {
            pending.settle(&plan, request.deadline, now).await;
        }
        let rows = pending.into_answers(&plan, &self.metrics)?;

        let stores = Arc::clone(&self.stores);
        let (dialect, unix_seconds) = (request.dialect, now.unix_seconds);
        Ok(Answers { plan, rows, dialect, unix_seconds, stores })
    }

    /// What it holds and does now.
    pub fn status(&self) -> ProxyStatus {
        let store = |store: &Arc<ResilientStore>| StoreStatus {
            name: Arc::clone(store.name()),
            open: store.is_open(),
        };
        ProxyStatus {
            cache: self.cache.stats(),
            rows_being_read: self.loader.flights.len(),
            stores: self.loader.stores.iter().map(store).collect(),
        }
    }

    /// Looks rows up in the cache, and sends for those it cannot answer. Does not wait.
    fn look_up(&self, plan: &Plan, ask: Ask, now: Now) -> Pending {
        let mut batch = self.loader.batch(ask, now);
        let mut pending = Pending::with_capacity(plan.shape.reads.len());
        for read in &plan.shape.reads {
            let policy = &read.freshness.policy;
            let entities = &plan.entity_sets[read.key_set].entities;
            let mut rows = Vec::with_capacity(entities.len());
            for entity in entities {
                let key = RowKeyRef { view: read.view.id, entity: plan.key(entity) };
                let entry = self.cache.get(key);
                let seen = entry.as_ref().map(|entry| entry.asked_at);
                let age = seen.map_or(0, |seen| now.tick.millis_since(seen));
                let source = entry.as_ref().map_or(read.route[0], |entry| entry.source);
                let mut join = || batch.join(read, plan.kept_key(entity), seen);
                rows.push(match policy.judge(entry.as_ref(), entity.hash, ask, now.tick) {
                    Lookup::Fresh(row) => PendingRow::hit(row, age, source),
                    Lookup::RefreshAhead(row) => {
                        if self.cache.is_hot(key) && join().led {
                            pending.refreshed_ahead += 1;
                        }
                        PendingRow::hit(row, age, source)
                    }
                    Lookup::Revalidate(row) => {
                        if join().led {
                            pending.revalidated += 1;
                        }
                        PendingRow::revalidating(row, age, source)
                    }
                    Lookup::Negative => PendingRow::negative(age, source),
                    Lookup::StaleIfError(row) => {
                        PendingRow::loading(join(), Some((row, age, source)))
                    }
                    Lookup::Expired | Lookup::Absent => PendingRow::loading(join(), None),
                });
            }
            pending.push(rows);
        }
        batch.dispatch();
        pending
    }
}
