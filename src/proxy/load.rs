//! The miss path: reads rows from the stores, once for all who want them, and fills the cache.

use std::{mem, sync::Arc};

use super::{route::Route, shape::ShapeRead};
use crate::{
    cache::{
        FeatureCache,
        policy::{Ask, Entry},
        singleflight::{Leader, SingleFlight, Waiter},
    },
    clock::Now,
    metrics::Metrics,
    model::{EntityKey, FeatureRow, FeatureView, MaybeRow, RowKey, StoreId, Tick},
    resilience::ResilientStore,
    store::{Rows, StoreError, ViewKeys},
};

/// How the load of one row ended.
pub(super) type Loaded = Result<Entry, StoreError>;

/// Reads the stores on behalf of many requests.
pub(super) struct Loader {
    /// By their ids.
    pub(super) stores: Box<[Arc<ResilientStore>]>,
    /// Whether the next store of a view is asked, too, where one has no such row.
    pub(super) next_on_absence: bool,
    pub(super) cache: Arc<FeatureCache>,
    pub(super) flights: SingleFlight<Loaded>,
    pub(super) metrics: Arc<Metrics>,
}

/// The rows that one request wants from the stores, all views together.
pub(super) struct Batch<'a> {
    loader: &'a Arc<Loader>,
    not_before: Tick,
    now: Tick,
    reads: Vec<ViewRead>,
}

/// The rows that are wanted of one view.
struct ViewRead {
    view: Arc<FeatureView>,
    route: Route,
    rows: Vec<Wanted>,
}

/// A row that is wanted, and what the stores that were asked so far said.
struct Wanted {
    leader: Leader<Loaded>,
    /// Why the first store that failed has no answer.
    failed: Option<StoreError>,
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

    /// Reads rows of views with one route: from its first store, and from the next what that one
    /// could not answer. All waiters are answered, each once its store has answered.
    ///
    /// Runs detached from any request: one that gives up must not fail those who wait with it.
    async fn read_stores(self: Arc<Self>, route: Route, mut reads: Vec<ViewRead>) {
        for (place, id) in route.iter().enumerate() {
            let store = &self.stores[usize::from(id.0)];
            let rows = read_store(store, &reads).await;
            let turn = Turn { store: *id, is_first: place == 0, is_last: place + 1 == route.len() };
            let mut landed = Vec::with_capacity(rows.iter().map(Vec::len).sum());
            for (read, rows) in reads.iter_mut().zip(rows) {
                for (wanted, row) in mem::take(&mut read.rows).into_iter().zip(rows) {
                    match self.settle(wanted, row, turn) {
                        Settled::Landed(leader, loaded) => landed.push((leader, loaded)),
                        Settled::AskNext(wanted) => read.rows.push(wanted),
                    }
                }
            }
            if !turn.is_first {
                let rows = landed.iter().filter(|(_, loaded)| is_row(loaded)).count();
                if rows > 0 {
                    self.metrics.spare_rows(store.name(), rows as u64);
                }
            }
            // A request waits for its rows from the first to the last: so that it is woken once, and
            // not for each of them, the first is completed last.
            landed.into_iter().rev().for_each(|(leader, loaded)| leader.complete(loaded));
            reads.retain(|read| !read.rows.is_empty());
            if reads.is_empty() {
                return;
            }
        }
    }

    /// What becomes of a row that a store answered. One that counts is in the cache after this.
    fn settle(&self, mut wanted: Wanted, row: Result<MaybeRow, StoreError>, turn: Turn) -> Settled {
        match row {
            Ok(Some(row)) if !self.is_behind(&wanted, &row) => {
                return self.land(wanted.leader, Ok(Some(row)), turn.store);
            }
            // A store that lags behind the one that failed: what the cache has is better.
            Ok(Some(_)) => {}
            Ok(None) => {
                // No absence is believed while a store that may have the row is down.
                if wanted.failed.is_none() && (turn.is_last || !self.next_on_absence) {
                    return self.land(wanted.leader, Ok(None), turn.store);
                }
            }
            Err(error) => {
                wanted.failed.get_or_insert(error);
            }
        }
        if !turn.is_last {
            return Settled::AskNext(wanted);
        }
        let error = wanted.failed.unwrap_or_else(StoreError::abandoned);
        self.land(wanted.leader, Err(error), turn.store)
    }

    /// Whether a row is older than the one in the cache, of a store that has failed meanwhile.
    fn is_behind(&self, wanted: &Wanted, row: &FeatureRow) -> bool {
        let key = wanted.leader.key();
        wanted.failed.is_some()
            && self.cache.get(key.by_ref()).and_then(|entry| entry.row).is_some_and(|cached| {
                let (cached, read) = (cached.event_timestamp(), row.event_timestamp());
                (cached.seconds, cached.nanos) > (read.seconds, read.nanos)
            })
    }

    fn land(
        &self,
        leader: Leader<Loaded>,
        row: Result<MaybeRow, StoreError>,
        source: StoreId,
    ) -> Settled {
        let loaded = row.map(|row| Entry { row, asked_at: leader.began(), source });
        if let Ok(entry) = &loaded {
            // The cache first: whoever comes too late for the flight must find the row.
            self.cache.insert_newer(leader.key().clone(), entry.clone());
        }
        Settled::Landed(leader, loaded)
    }
}

/// What becomes of a row.
enum Settled {
    /// It is known, or that it cannot be had, and those who wait are to be told.
    Landed(Leader<Loaded>, Loaded),
    /// The next store is to be asked for it.
    AskNext(Wanted),
}

fn is_row(loaded: &Loaded) -> bool {
    loaded.as_ref().is_ok_and(|entry| entry.row.is_some())
}

/// Whose turn it is to be asked.
#[derive(Clone, Copy)]
struct Turn {
    store: StoreId,
    is_first: bool,
    is_last: bool,
}

async fn read_store(store: &Arc<ResilientStore>, reads: &[ViewRead]) -> Rows {
    let key = |wanted: &Wanted| wanted.leader.key().entity.clone();
    let keys: Vec<Vec<EntityKey>> =
        reads.iter().map(|read| read.rows.iter().map(key).collect()).collect();
    let wanted: Vec<_> =
        reads.iter().zip(&keys).map(|(read, keys)| ViewKeys { view: &read.view, keys }).collect();
    store.read(&wanted).await
}

impl Batch<'_> {
    /// Adds a row, unless it is being read already. Its waiter is answered some time after the
    /// batch is dispatched.
    ///
    /// `seen` is when the entry was asked for that the cache had, and that would not do.
    pub(super) fn join(
        &mut self,
        read: &ShapeRead,
        entity: EntityKey,
        seen: Option<Tick>,
    ) -> Joined {
        let key = RowKey { view: read.view.id, entity };
        let (waiter, leader) = self.loader.flights.join(key, self.not_before, self.now);
        let Some(leader) = leader else {
            return Joined { waiter, led: false };
        };
        // A flight may have landed between the look at the cache and the join.
        let landed = self.loader.cache.get(leader.key().by_ref()).filter(|entry| {
            entry.asked_at >= self.not_before && seen.is_none_or(|seen| entry.asked_at > seen)
        });
        if let Some(entry) = landed {
            leader.complete(Ok(entry));
            return Joined { waiter, led: false };
        }
        let wanted = Wanted { leader, failed: None };
        match self.reads.iter_mut().find(|known| known.view.id == read.view.id) {
            Some(known) => known.rows.push(wanted),
            None => self.reads.push(ViewRead {
                view: Arc::clone(&read.view),
                route: Arc::clone(&read.route),
                rows: vec![wanted],
            }),
        }
        Joined { waiter, led: true }
    }

    /// Sends for the rows that nobody else is reading: views with the same route in one read. Does
    /// not wait.
    pub(super) fn dispatch(self) {
        let mut rest = self.reads;
        while let Some(first) = rest.first() {
            let route = Arc::clone(&first.route);
            let (reads, others) = rest.into_iter().partition(|read| read.route == route);
            tokio::spawn(Arc::clone(self.loader).read_stores(route, reads));
            rest = others;
        }
    }
}
