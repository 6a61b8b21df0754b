//! The store as the read path sees it: [`ResilientStore::read`] is all of it.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{self, Instant},
};
use tracing::{info, warn};

use super::{Limits, breaker::CircuitBreaker};
use crate::{
    clock,
    metrics::StoreMetrics,
    model::Tick,
    store::{OnlineStore, ReadOptions, Rows, StoreError, ViewKeys, fail_all},
};

/// An online store that gives up in time, and is left alone while it is down.
pub struct ResilientStore {
    name: Arc<str>,
    inner: Arc<dyn OnlineStore>,
    limits: Limits,
    permits: Semaphore,
    waiting: AtomicUsize,
    breaker: Mutex<CircuitBreaker>,
    open: AtomicBool,
    last_logged: Mutex<Option<Tick>>,
    metrics: StoreMetrics,
}

/// A store is told to give up this part of its timeout earlier than it is cut off, so that it can
/// still say what it has.
const MARGIN: u32 = 20;

/// Stores end their probes themselves, sooner than this.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// A store that fails for minutes is said to fail this often.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

impl ResilientStore {
    /// Wraps `inner`, which is called `name` in logs, metrics and answers.
    pub fn new(
        name: Arc<str>,
        inner: Arc<dyn OnlineStore>,
        limits: Limits,
        metrics: StoreMetrics,
    ) -> Arc<Self> {
        metrics.breaker_open.set(0.0);
        Arc::new(Self {
            name,
            inner,
            limits,
            permits: Semaphore::new(limits.max_in_flight),
            waiting: AtomicUsize::new(0),
            breaker: Mutex::new(CircuitBreaker::new(limits.breaker)),
            open: AtomicBool::new(false),
            last_logged: Mutex::new(None),
            metrics,
        })
    }

    /// Reads rows, one result per view and key, in their order.
    ///
    /// Takes no longer than [`Limits::timeout`]. Refuses at once while the breaker is open, or
    /// while too many reads wait.
    pub async fn read(self: &Arc<Self>, reads: &[ViewKeys<'_>]) -> Rows {
        if self.is_open() {
            return fail_all(reads, &StoreError::CircuitOpen);
        }
        let began = Instant::now();
        let give_up_at = began + self.limits.timeout;
        let _permit = match self.permit(give_up_at).await {
            Ok(permit) => permit,
            Err(error) => return self.refuse(reads, &error),
        };
        // Those who waited for a place while others failed are too late, too.
        if self.is_open() {
            return fail_all(reads, &StoreError::CircuitOpen);
        }
        let options = ReadOptions { give_up_at: give_up_at - self.limits.timeout / MARGIN };
        let read = self.inner.read(reads, options);
        let rows = match time::timeout_at(give_up_at, read).await {
            Ok(rows) => rows,
            Err(_elapsed) => fail_all(reads, &StoreError::TimedOut),
        };
        self.learn(&rows, began.elapsed());
        rows
    }

    /// Whether it is not asked for now, since it kept failing.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// What it is called.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// A place among the reads under way, or in the queue for one.
    async fn permit(&self, give_up_at: Instant) -> Result<SemaphorePermit<'_>, StoreError> {
        if let Ok(permit) = self.permits.try_acquire() {
            return Ok(permit);
        }
        let place = InQueue::enter(&self.waiting);
        if place.number > self.limits.max_queue {
            return Err(StoreError::Overloaded);
        }
        match time::timeout_at(give_up_at, self.permits.acquire()).await {
            Ok(permit) => Ok(permit.expect("the semaphore is never closed")),
            Err(_elapsed) => Err(StoreError::Overloaded),
        }
    }

    fn refuse(&self, reads: &[ViewKeys<'_>], error: &StoreError) -> Rows {
        self.metrics.failed(error.kind());
        fail_all(reads, error)
    }

    /// Counts how a read ended, and opens the breaker if it was one failure too many.
    fn learn(self: &Arc<Self>, rows: &Rows, took: Duration) {
        let count = rows.iter().map(Vec::len).sum();
        let errors = || rows.iter().flatten().filter_map(|row| row.as_ref().err());
        self.metrics.read(count, took, errors().next().is_none());
        let mut kinds: Vec<_> = errors().map(StoreError::kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds.into_iter().for_each(|kind| self.metrics.failed(kind));
        if let Some(error) = errors().next() {
            self.log(error);
        }

        let outage = errors().find(|error| error.is_outage());
        let mut breaker = self.breaker.lock();
        let opened = breaker.record(outage.is_none(), clock::now().tick);
        if opened {
            // Under the lock: what is asked without it must not fall behind.
            self.open.store(true, Ordering::Relaxed);
        }
        drop(breaker);
        if opened {
            self.metrics.breaker_open.set(1.0);
            warn!(store = %self.name, "online store keeps failing: left alone until it answers");
            tokio::spawn(probe(Arc::downgrade(self), self.limits));
        }
    }

    fn close(&self) {
        let mut breaker = self.breaker.lock();
        breaker.close();
        self.open.store(false, Ordering::Relaxed);
        drop(breaker);
        self.metrics.breaker_open.set(0.0);
        info!(store = %self.name, "online store answers again");
    }

    fn log(&self, error: &StoreError) {
        let now = clock::now().tick;
        let mut last = self.last_logged.lock();
        let recent = |last: Tick| u128::from(now.millis_since(last)) < LOG_INTERVAL.as_millis();
        if !last.is_some_and(recent) {
            *last = Some(now);
            warn!(store = %self.name, error = %error.chain(), "online read failed");
        }
    }
}

/// Asks the store for a sign of life until it gives one: in the background, never on a caller.
async fn probe(store: Weak<ResilientStore>, limits: Limits) {
    loop {
        let jitter = 0.8 + 0.4 * fastrand::f64();
        time::sleep(limits.breaker.probe_interval.mul_f64(jitter)).await;
        let Some(store) = store.upgrade() else {
            return;
        };
        if let Ok(Ok(())) = time::timeout(PROBE_TIMEOUT, store.inner.probe()).await {
            store.close();
            return;
        }
    }
}

/// A place in the queue, given up when dropped.
struct InQueue<'a> {
    waiting: &'a AtomicUsize,
    /// From 1.
    number: usize,
}

impl<'a> InQueue<'a> {
    fn enter(waiting: &'a AtomicUsize) -> Self {
        let number = waiting.fetch_add(1, Ordering::Relaxed) + 1;
        Self { waiting, number }
    }
}

impl Drop for InQueue<'_> {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
