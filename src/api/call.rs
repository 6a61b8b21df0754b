//! What both APIs do with a request once it is read: ask the proxy, and count.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::HeaderMap;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Instant,
};
use tracing::warn;

use super::{
    ApiState,
    meta::{Wishes, put_summary},
    status::Failure,
    tally::Tally,
};
use crate::{
    clock,
    proxy::{Answers, Column, Dialect, OnlineRequest, Select},
};

/// What the handlers share.
pub(super) struct Api {
    pub(super) state: ApiState,
    undecodable: AtomicU64,
}

/// A request, as one of the APIs read it.
pub(super) struct Call<'a> {
    pub(super) select: Select<'a>,
    pub(super) columns: Vec<Column<'a>>,
    pub(super) full_names: bool,
    pub(super) dialect: Dialect,
    /// The headers of the request.
    pub(super) headers: &'a HeaderMap,
}

/// An answer, and what it says about itself.
pub(super) struct Answered {
    pub(super) answers: Answers,
    pub(super) headers: HeaderMap,
}

/// The requests under way, and the most there may be.
pub struct InFlight {
    free: Semaphore,
    most: usize,
    total: AtomicU64,
}

impl InFlight {
    /// None yet.
    pub fn at_most(most: usize) -> Self {
        let most = most.min(Semaphore::MAX_PERMITS);
        Self { free: Semaphore::new(most), most, total: AtomicU64::new(0) }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.most - self.free.available_permits()
    }

    /// How many there ever were.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Counts one more, until what is returned is dropped: by a caller that left, too.
    fn enter(&self) -> Result<SemaphorePermit<'_>, Failure> {
        self.total.fetch_add(1, Ordering::Relaxed);
        self.free.try_acquire().map_err(|_| Failure::Overloaded)
    }
}

impl Api {
    pub(super) fn new(state: ApiState) -> Arc<Self> {
        Arc::new(Self { state, undecodable: AtomicU64::new(0) })
    }

    /// Answers a call.
    pub(super) async fn answer(&self, call: Call<'_>) -> Result<Answered, Failure> {
        let now = clock::now();
        let wishes = Wishes::read(call.headers, self.state.settings.default_timeout)?;
        let request = OnlineRequest {
            select: call.select,
            columns: call.columns,
            full_names: call.full_names,
            ask: wishes.ask,
            dialect: call.dialect,
            deadline: now.instant + wishes.timeout,
        };
        let _entered = self.state.in_flight.enter()?;
        let answers = self.state.proxy.get_online_features(&request, now).await?;
        let mut headers = HeaderMap::new();
        put_summary(&answers.summary(), &mut headers);
        Ok(Answered { answers, headers })
    }

    /// Counts an answer as Feast's server would.
    pub(super) fn count_answer(&self, answers: &Answers, tally: &Tally<'_>, took: Duration) {
        let metrics = &self.state.metrics;
        tally.report(metrics);
        metrics.feast_request(true, answers.rows());
        metrics.feast_latency(answers.features(), answers.views().len(), took);
    }

    /// Counts a request and its code.
    pub(super) fn count_request(
        &self,
        api: &'static str,
        method: &'static str,
        code: &str,
        began: Instant,
    ) {
        self.state.metrics.request(api, method, code, began.elapsed());
    }

    /// Counts values that were served as null since they could not be decoded. Logged once: a view
    /// of a newer type would otherwise fill the log.
    pub(super) fn count_undecodable(&self, count: u64) {
        if count == 0 {
            return;
        }
        let before = self.undecodable.fetch_add(count, Ordering::Relaxed);
        self.state.metrics.set_counter("larder_undecodable_values_total", &[], before + count);
        if before == 0 {
            warn!(count, "values of an unknown kind were served as null over HTTP");
        }
    }

    /// Whether there is a registry to serve from.
    pub(super) fn is_serving(&self) -> bool {
        self.state.registry.load().is_some()
    }
}
