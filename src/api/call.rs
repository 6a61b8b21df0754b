//! What both APIs do with a request once it is read: ask the proxy, and count.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::HeaderMap;
use metrics::Gauge;
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
    under_way: Semaphore,
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

/// A place among the requests under way; given back when dropped, by a caller that left, too.
struct Place<'a> {
    _permit: SemaphorePermit<'a>,
    in_flight: &'a Gauge,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.in_flight.decrement(1.0);
    }
}

impl Api {
    pub(super) fn new(state: ApiState) -> Arc<Self> {
        let under_way = Semaphore::new(state.settings.max_in_flight.min(Semaphore::MAX_PERMITS));
        Arc::new(Self { state, under_way, undecodable: AtomicU64::new(0) })
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
        let _place = self.take_place()?;
        let answers = self.state.proxy.get_online_features(&request, now).await?;
        let mut headers = HeaderMap::new();
        put_summary(&answers.summary(), &mut headers);
        Ok(Answered { answers, headers })
    }

    /// A place among the requests under way, unless all are taken.
    fn take_place(&self) -> Result<Place<'_>, Failure> {
        let permit = self.under_way.try_acquire().map_err(|_| Failure::Overloaded)?;
        let in_flight = &self.state.metrics.requests_in_flight;
        in_flight.increment(1.0);
        Ok(Place { _permit: permit, in_flight })
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
