//! The miss path: reads rows from the store, once for all who want them, and fills the cache.

use std::sync::Arc;

use super::shape::ShapeRead;
use crate::{
    cache::{
        FeatureCache,
        policy::{Ask, Entry},
        singleflight::{Leader, SingleFlight, Waiter},
    },
    clock::Now,
    model::{EntityKey, FeatureView, MaybeRow, RowKeyRef, Tick},
    resilience::ResilientStore,
    store::{StoreError, ViewKeys},
};

/// How the load of one row ended.
pub(super) type Loaded = Result<Entry, StoreError>;

/// Reads the store on behalf of many requests.
pub(super) struct Loader {
    pub(super) store: Arc<ResilientStore>,
    pub(super) cache: Arc<FeatureCache>,
    pub(super) flights: SingleFlight<Loaded>,
}

/// The rows that one request wants from the store, all views together.
pub(super) struct Batch<'a> {
    loader: &'a Arc<Loader>,
    not_before: Tick,
    now: Tick,
    reads: Vec<(Arc<FeatureView>, Vec<Leader<Loaded>>)>,
}

/// A place in a load: who waits for it, and whether it would not be without this request.
pub(super) struct Joined {
    pub(super) waiter: Waiter<Loaded>,
    pub(super) led: bool,
}

impl Loader {
    /// An empty batch of a request.
    pub(super) fn batch(self: &Arc<Self>, ask: Ask, now: Now) -> Batch<'_> {
        // Someone who wants the store asked now takes no part in what was asked before.
        let not_before = ask.max_age.map_or(Tick(i64::MIN), |max_age| {
            let millis = i64::try_from(max_age.as_millis()).unwrap_or(i64::MAX);
            let strictly = i64::from(millis == 0);
            Tick(now.tick.0.saturating_sub(millis).saturating_add(strictly))
        });
        Batch { loader: self, not_before, now: now.tick, reads: Vec::new() }
    }

    /// Runs detached from any request: one that gives up must not fail those who wait with it.
    async fn read_store(self: Arc<Self>, reads: Vec<(Arc<FeatureView>, Vec<Leader<Loaded>>)>) {
        let keys: Vec<Vec<EntityKey>> = reads
            .iter()
            .map(|(_, leaders)| leaders.iter().map(|each| each.key().entity.clone()).collect())
            .collect();
        let wanted: Vec<_> =
            reads.iter().zip(&keys).map(|((view, _), keys)| ViewKeys { view, keys }).collect();
        let rows = self.store.read(&wanted).await;
        for ((_, leaders), rows) in reads.into_iter().zip(rows) {
            for (leader, row) in leaders.into_iter().zip(rows) {
                self.land(leader, row);
            }
        }
    }

    fn land(&self, leader: Leader<Loaded>, row: Result<MaybeRow, StoreError>) {
        let source = self.store.id();
        let loaded = row.map(|row| Entry { row, asked_at: leader.began(), source });
        if let Ok(entry) = &loaded {
            // The cache first: whoever comes too late for the flight must find the row.
            self.cache.insert_newer(leader.key().clone(), entry.clone());
        }
        leader.complete(loaded);
    }
}

impl Batch<'_> {
    /// Adds a row, unless it is being read already. Its waiter is answered some time after the
    /// batch is dispatched.
    ///
    /// `seen` is when the entry was asked for that the cache had, and that would not do.
    pub(super) fn join(
        &mut self,
        read: &ShapeRead,
        key: RowKeyRef<'_>,
        seen: Option<Tick>,
    ) -> Joined {
        let (waiter, leader) = self.loader.flights.join(key, self.not_before, self.now);
        let Some(leader) = leader else {
            return Joined { waiter, led: false };
        };
        // A flight may have landed between the look at the cache and the join.
        let landed = self.loader.cache.get(key).filter(|entry| {
            entry.asked_at >= self.not_before && seen.is_none_or(|seen| entry.asked_at > seen)
        });
        if let Some(entry) = landed {
            leader.complete(Ok(entry));
            return Joined { waiter, led: false };
        }
        match self.reads.iter_mut().find(|(view, _)| view.id == read.view.id) {
            Some((_, leaders)) => leaders.push(leader),
            None => self.reads.push((Arc::clone(&read.view), vec![leader])),
        }
        Joined { waiter, led: true }
    }

    /// Sends the rows that nobody else is reading to the store, in one read. Does not wait.
    pub(super) fn dispatch(self) {
        if !self.reads.is_empty() {
            tokio::spawn(Arc::clone(self.loader).read_store(self.reads));
        }
    }
}
