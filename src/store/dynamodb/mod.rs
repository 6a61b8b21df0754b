//! DynamoDB, and what speaks it: the keys of a read in calls of up to a hundred, side by side.
//!
//! This file makes rows of calls that succeed, fail, or answer in part. `batch` says what an answer
//! means, `client` makes the calls, `credentials` knows who makes them. Writes nothing.

mod batch;
mod client;
mod credentials;
mod error;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use aws_sdk_dynamodb::config::SharedCredentialsProvider;
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};

use self::{
    batch::{Batch, Outcome, batches},
    client::Api,
    error::{Failure, Fault, unavailable},
};
use super::{DynamoDbSettings, OnlineStore, ReadOptions, Rows, StoreError, ViewKeys};
use crate::{
    layout::dynamodb::DynamoDbView,
    model::{EntityKey, FeatureView, ViewId},
};

/// DynamoDB in one region.
///
/// Finds credentials in the background from the first read or probe on. Keys that DynamoDB leaves
/// unprocessed are asked for again, since they are part of an answer; a call that fails is not.
pub struct DynamoDbStore {
    shared: Arc<Shared>,
    views: Cache<ViewId, Arc<DynamoDbView>>,
}

struct Shared {
    api: Api,
    /// Tables that made a call fail, and might take others along.
    apart: Cache<Arc<str>, ()>,
    /// A table that can be read, for probes.
    known: Mutex<Option<Arc<DynamoDbView>>>,
}

/// How many views' layouts are kept; those of others are made again.
const MAX_VIEWS: usize = 4096;
/// How many tables are kept apart.
const MAX_APART: usize = 1024;
/// How long a probe waits.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// The pauses before keys are asked for again.
const MIN_PAUSE: Duration = Duration::from_millis(10);
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// An answer of this size left keys out because it was full, not because there was too much to do:
/// DynamoDB ends an answer at 16 MB, or at 1 MB of a partition.
const FULL: usize = 1_000_000;
/// The time in which rows are put together, at most.
const MARGIN: Duration = Duration::from_millis(20);

impl DynamoDbStore {
    /// A store that asked for nothing yet. Neither waits nor fails.
    pub fn new(settings: DynamoDbSettings) -> Self {
        Self::of(Api::new(settings, None))
    }

    /// A store that has its credentials of `provider`, not of the usual places.
    pub fn with_credentials(
        settings: DynamoDbSettings,
        provider: SharedCredentialsProvider,
    ) -> Self {
        Self::of(Api::new(settings, Some(provider)))
    }

    fn of(api: Api) -> Self {
        let (apart, known) = (Cache::new(MAX_APART), Mutex::default());
        let shared = Arc::new(Shared { api, apart, known });
        Self { shared, views: Cache::new(MAX_VIEWS) }
    }

    fn view(&self, view: &FeatureView) -> Arc<DynamoDbView> {
        let template = &self.shared.api.settings().table_name_template;
        let layout = || Ok::<_, std::convert::Infallible>(DynamoDbView::new(view, template).into());
        let Ok(layout) = self.views.get_or_insert_with(&view.id, layout);
        layout
    }
}

#[async_trait]
impl OnlineStore for DynamoDbStore {
    async fn read(&self, reads: &[ViewKeys<'_>], options: ReadOptions) -> Rows {
        let layouts: Vec<_> = reads.iter().map(|read| self.view(read.view)).collect();
        let size = self.shared.api.settings().batch_size;
        let apart = |table: &Arc<str>| self.shared.apart.get(table).is_some();
        let left = options.give_up_at.saturating_duration_since(Instant::now());
        let margin = MARGIN.min(left / 8);
        let until = options.give_up_at - margin;

        // Calls end with the set, and so with this read.
        let mut calls = JoinSet::new();
        for batch in batches(reads, &layouts, size, apart) {
            calls.spawn(self.shared.clone().settle(batch, until));
        }
        let mut rows = Answers::of(reads);
        while let Ok(Some(ended)) = timeout_at(until + margin / 2, calls.join_next()).await {
            match ended {
                Ok(Settled::Rows(outcomes)) => rows.put(outcomes),
                Ok(Settled::Apart(outcomes, batches)) => {
                    rows.put(outcomes);
                    for batch in batches {
                        calls.spawn(self.shared.clone().settle(batch, until));
                    }
                }
                Err(_panic) => rows.abandoned = true,
            }
        }
        rows.finish()
    }

    async fn probe(&self) -> Result<(), StoreError> {
        let until = Instant::now() + PROBE_TIMEOUT;
        self.shared.probe(until).await
    }
}

/// What became of a batch.
enum Settled {
    Rows(Vec<Outcome>),
    /// One of the tables that are left cannot be read: each is to be asked for itself.
    Apart(Vec<Outcome>, Vec<Batch>),
}

impl Shared {
    /// Asks until all keys of a batch have an outcome, or `until`.
    async fn settle(self: Arc<Self>, mut batch: Batch, until: Instant) -> Settled {
        let mut outcomes = Vec::new();
        let mut pause = MIN_PAUSE;
        loop {
            match self.api.get(&batch, until).await {
                Ok(answer) => {
                    self.can_be_read(&batch);
                    let absorbed = batch.absorb(answer);
                    outcomes.extend(absorbed.outcomes);
                    if batch.is_empty() {
                        return Settled::Rows(outcomes);
                    }
                    if absorbed.bytes >= FULL {
                        pause = MIN_PAUSE;
                        continue;
                    }
                }
                // None of them could be processed: the same as if all had been left out.
                Err(Failure::Throttled) => {}
                Err(Failure::Tables(error)) => {
                    let tables = batch.tables();
                    if tables.len() > 1 {
                        return Settled::Apart(outcomes, batch.split().collect());
                    }
                    tables.into_iter().for_each(|table| self.apart.insert(table, ()));
                    outcomes.extend(batch.fail(&error));
                    return Settled::Rows(outcomes);
                }
                Err(failure) => {
                    outcomes.extend(batch.fail(&failure.into_error()));
                    return Settled::Rows(outcomes);
                }
            }
            let jittered = pause.mul_f64(0.5 + fastrand::f64());
            if Instant::now() + jittered >= until {
                outcomes.extend(batch.fail(&unavailable(Fault::Throttled)));
                return Settled::Rows(outcomes);
            }
            sleep(jittered).await;
            pause = (2 * pause).min(MAX_PAUSE);
        }
    }

    fn can_be_read(&self, batch: &Batch) {
        batch.tables().iter().for_each(|table| {
            self.apart.remove(table);
        });
        if let Some(layout) = batch.any_layout() {
            let mut known = self.known.lock();
            if known.as_ref().is_none_or(|known| !Arc::ptr_eq(known, layout)) {
                *known = Some(layout.clone());
            }
        }
    }

    async fn probe(&self, until: Instant) -> Result<(), StoreError> {
        let known = self.known.lock().clone();
        let answer = match known {
            Some(layout) => {
                let mut batch = Batch::of_one(&layout, &EntityKey(Arc::default()));
                self.api.get(&batch, until).await.and_then(|answer| {
                    batch.absorb(answer);
                    // It answers, but would answer no read.
                    if batch.is_empty() { Ok(()) } else { Err(Failure::Throttled) }
                })
            }
            None => self.api.list_tables(until).await,
        };
        match answer {
            // Who may read need not be allowed to list tables; a table may be gone.
            Ok(()) | Err(Failure::Tables(_)) => Ok(()),
            Err(failure) => Err(failure.into_error()),
        }
    }
}

/// The rows of a read, as they come.
struct Answers {
    rows: Vec<Vec<Option<Result<crate::model::MaybeRow, StoreError>>>>,
    /// Whether DynamoDB said anything of any key.
    any: bool,
    abandoned: bool,
}

impl Answers {
    fn of(reads: &[ViewKeys<'_>]) -> Self {
        let rows = reads.iter().map(|read| vec![None; read.keys.len()]).collect();
        Self { rows, any: false, abandoned: false }
    }

    fn put(&mut self, outcomes: Vec<Outcome>) {
        for (place, outcome) in outcomes {
            use StoreError::{Corrupt, Refused};
            self.any |= matches!(outcome, Ok(_) | Err(Corrupt(_) | Refused(_)));
            self.rows[place.view][place.key] = Some(outcome);
        }
    }

    /// Where some keys were answered, others that were not are no sign of an outage.
    fn finish(self) -> Rows {
        let missing =
            || if self.abandoned { StoreError::abandoned() } else { StoreError::TimedOut };
        let row = |row: Option<_>| match row.unwrap_or_else(|| Err(missing())) {
            Err(error) if self.any && error.is_outage() => {
                Err(StoreError::NodeUnavailable(Arc::new(error)))
            }
            row => row,
        };
        self.rows.into_iter().map(|rows| rows.into_iter().map(row).collect()).collect()
    }
}
