//! The rows of a request between the look at the cache and the answer: at hand, or on their way.

use std::time::Duration;

use tokio::time::{self, Instant};

use super::{
    OnUnavailable, ProxyError,
    assemble::{Answer, Missing, StaleWhy},
    load::{Joined, Loaded},
    plan::Plan,
    shape::ShapeRead,
};
use crate::{
    cache::{policy::Entry, singleflight::Waiter},
    clock::Now,
    metrics::Metrics,
    model::{FeatureRow, MaybeRow, StoreId},
    store::StoreError,
};

/// The rows of a request: for each of its reads, those of its entities.
pub(super) struct Pending {
    reads: Vec<Vec<PendingRow>>,
    /// Refreshes that this request started behind itself.
    pub(super) refreshed_ahead: u64,
    pub(super) revalidated: u64,
}

/// One row.
pub(super) enum PendingRow {
    /// At hand.
    Ready(Answer, Outcome),
    /// On its way, with what may stand in for it.
    Loading { waiter: Waiter<Loaded>, fallback: Option<Fallback>, outcome: Outcome },
}

/// A row or an absence past its TTL, its age in milliseconds, and its store.
pub(super) type Fallback = (MaybeRow, u64, StoreId);

/// How a row was come by, for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Hit,
    Negative,
    Miss,
    Coalesced,
}

impl Pending {
    /// Of a request with so many reads.
    pub(super) fn with_capacity(reads: usize) -> Self {
        Self { reads: Vec::with_capacity(reads), refreshed_ahead: 0, revalidated: 0 }
    }

    /// The rows of the next read.
    pub(super) fn push(&mut self, rows: Vec<PendingRow>) {
        self.reads.push(rows);
    }

    /// Whether any is on its way.
    pub(super) fn waits(&self) -> bool {
        self.reads.iter().flatten().any(|row| matches!(row, PendingRow::Loading { .. }))
    }

    /// Waits for what is on its way: until `deadline`, or `stale_after` where something stands by.
    pub(super) async fn settle(&mut self, plan: &Plan, deadline: Instant, now: Now) {
        for (read, rows) in plan.shape.reads.iter().zip(&mut self.reads) {
            let stale_at = deadline.min(now.instant + read.freshness.stale_after);
            for row in rows {
                let PendingRow::Loading { waiter, fallback, outcome } = row else {
                    continue;
                };
                let give_up_at = if fallback.is_some() { stale_at } else { deadline };
                let loaded = match waiter.landed() {
                    Some(loaded) => Ok(loaded),
                    None => time::timeout_at(give_up_at, waiter.wait()).await,
                };
                let loaded = match loaded {
                    Ok(Some(loaded)) => loaded.map_err(Missing::Store),
                    Ok(None) => Err(Missing::Store(StoreError::abandoned())),
                    Err(_elapsed) => Err(Missing::Deadline),
                };
                let answer = settled(loaded, fallback.take(), now);
                *row = PendingRow::Ready(answer, *outcome);
            }
        }
    }

    /// All rows, counted; or why the request fails, by each view's `on_unavailable`.
    pub(super) fn into_answers(
        self,
        plan: &Plan,
        metrics: &Metrics,
    ) -> Result<Vec<Vec<Answer>>, ProxyError> {
        let mut tally = Tally::default();
        let answers: Vec<Vec<Answer>> = self
            .reads
            .into_iter()
            .map(|rows| rows.into_iter().map(|row| tally.count(row)).collect())
            .collect();
        tally.record(metrics, self.refreshed_ahead, self.revalidated);
        let mut reads = plan.shape.reads.iter().zip(&answers);
        reads.try_for_each(|(read, rows)| check_available(read, rows))?;
        Ok(answers)
    }
}

impl PendingRow {
    /// A row within its TTL.
    pub(super) fn hit(row: FeatureRow, age: u64, source: StoreId) -> Self {
        Self::Ready(Answer::Row { row, age, source, stale: None }, Outcome::Hit)
    }

    /// A row past its TTL that is served at once.
    pub(super) fn revalidating(row: FeatureRow, age: u64, source: StoreId) -> Self {
        let stale = Some(StaleWhy::Revalidate);
        Self::Ready(Answer::Row { row, age, source, stale }, Outcome::Hit)
    }

    /// A known absence.
    pub(super) fn negative(age: u64, source: StoreId) -> Self {
        Self::Ready(Answer::NoRow { age, source, stale: None }, Outcome::Negative)
    }

    /// A row on its way.
    pub(super) fn loading(joined: Joined, fallback: Option<Fallback>) -> Self {
        let outcome = if joined.led { Outcome::Miss } else { Outcome::Coalesced };
        Self::Loading { waiter: joined.waiter, fallback, outcome }
    }
}

/// The one rule for a store that failed, refused or is slow: what stands by is served as stale.
fn settled(loaded: Result<Entry, Missing>, fallback: Option<Fallback>, now: Now) -> Answer {
    let (row, age, source, stale) = match (loaded, fallback) {
        (Ok(entry), _) => (entry.row, now.tick.millis_since(entry.asked_at), entry.source, None),
        (Err(why), Some((row, age, source))) => {
            let why = match why {
                Missing::Store(error) => StaleWhy::Store(error.kind()),
                Missing::Deadline => StaleWhy::Slow,
            };
            (row, age, source, Some(why))
        }
        (Err(why), None) => return Answer::Unavailable(why),
    };
    match row {
        Some(row) => Answer::Row { row, age, source, stale },
        None => Answer::NoRow { age, source, stale },
    }
}

/// What becomes of a request for rows of which some cannot be had.
fn check_available(read: &ShapeRead, rows: &[Answer]) -> Result<(), ProxyError> {
    let mut missing = rows.iter().filter_map(|answer| match answer {
        Answer::Unavailable(why) => Some(why),
        Answer::Row { .. } | Answer::NoRow { .. } => None,
    });
    let Some(why) = missing.next() else {
        return Ok(());
    };
    let fails = match read.freshness.on_unavailable {
        OnUnavailable::Null => false,
        OnUnavailable::Error => true,
        OnUnavailable::Partial => missing.count() + 1 == rows.len(),
    };
    if !fails {
        return Ok(());
    }
    let view = read.name.clone();
    Err(match why {
        Missing::Store(cause) => ProxyError::Unavailable { view, cause: cause.clone() },
        Missing::Deadline => ProxyError::DeadlineExceeded { view },
    })
}

/// Rows by how they were come by.
#[derive(Default)]
struct Tally {
    hit: u64,
    negative: u64,
    miss: u64,
    coalesced: u64,
    unavailable: u64,
    oldest: Option<u64>,
    stale: Vec<(&'static str, u64)>,
}

impl Tally {
    fn count(&mut self, row: PendingRow) -> Answer {
        let PendingRow::Ready(answer, outcome) = row else {
            unreachable!("rows on their way were settled");
        };
        match &answer {
            Answer::Unavailable(_) => self.unavailable += 1,
            Answer::Row { age, stale, .. } | Answer::NoRow { age, stale, .. } => {
                self.oldest = self.oldest.max(Some(*age));
                match (stale, outcome) {
                    (Some(why), _) => self.count_stale(*why),
                    (None, Outcome::Hit) => self.hit += 1,
                    (None, Outcome::Negative) => self.negative += 1,
                    (None, Outcome::Miss) => self.miss += 1,
                    (None, Outcome::Coalesced) => self.coalesced += 1,
                }
            }
        }
        answer
    }

    fn count_stale(&mut self, why: StaleWhy) {
        let reason = match why {
            StaleWhy::Revalidate => "revalidate",
            StaleWhy::Slow => "slow",
            StaleWhy::Store(kind) => kind,
        };
        match self.stale.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += 1,
            None => self.stale.push((reason, 1)),
        }
    }

    fn record(&self, metrics: &Metrics, refreshed_ahead: u64, revalidated: u64) {
        let rows = &metrics.rows;
        for (counter, count) in [
            (&rows.hit, self.hit),
            (&rows.negative, self.negative),
            (&rows.miss, self.miss),
            (&rows.coalesced, self.coalesced),
            (&rows.stale, self.stale.iter().map(|(_, count)| count).sum()),
            (&rows.unavailable, self.unavailable),
        ] {
            if count > 0 {
                counter.increment(count);
            }
        }
        for (reason, count) in &self.stale {
            metrics.stale_rows(reason, *count);
        }
        for (reason, count) in [("refresh_ahead", refreshed_ahead), ("revalidate", revalidated)] {
            if count > 0 {
                metrics.refreshes(reason, count);
            }
        }
        if let Some(oldest) = self.oldest {
            metrics.served_age.record(Duration::from_millis(oldest));
        }
    }
}
