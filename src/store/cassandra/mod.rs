//! Cassandra and ScyllaDB: a table for each view, a prepared read for each partition, each of them
//! to a node that has it.
//!
//! The driver chooses nodes and shards, and neither repeats a request nor sends it twice. `link`
//! keeps the session up, `session` makes one, `table` reads a view, `error` says what went wrong.

mod error;
mod link;
mod session;
mod table;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::{StreamExt, stream::FuturesUnordered};
use quick_cache::sync::Cache;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep_until, timeout_at},
};

use self::{
    error::Failure,
    link::Link,
    session::Live,
    table::{Answer, Table},
};
use super::{
    CassandraSettings, OnlineStore, ReadOptions, Rows, StoreError, ViewKeys, fail_all, state::State,
};
use crate::model::{FeatureView, ViewId};

/// A cluster of Cassandra or ScyllaDB.
///
/// Connected to when it is first used, and kept connected in the background until it is dropped.
pub struct CassandraStore {
    settings: Arc<CassandraSettings>,
    link: Link,
    tables: Cache<ViewId, Arc<Table>>,
    /// Partitions that may be read at once, by all readers together.
    places: Semaphore,
}

/// How many views' statements are kept; those of others are prepared again.
const MAX_VIEWS: usize = 4096;
/// How long a probe waits.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

impl CassandraStore {
    /// A store that is not connected yet. Neither waits nor fails.
    pub fn new(settings: CassandraSettings) -> Self {
        let settings = Arc::new(settings);
        Self {
            link: Link::new(settings.clone()),
            tables: Cache::new(MAX_VIEWS),
            places: Semaphore::new(settings.max_concurrent_reads),
            settings,
        }
    }

    /// The session that there is, or that the first attempt makes before `until`.
    async fn session(&self, until: Instant) -> Result<Arc<Live>, StoreError> {
        match self.link.state() {
            State::Up(live) => Ok(live),
            State::Down(error) => Err(error),
            State::Starting => match timeout_at(until, self.link.settled()).await {
                Ok(settled) => settled,
                Err(_) => Err(self.link.never_connected()),
            },
        }
    }

    fn table(&self, view: &FeatureView) -> Arc<Table> {
        let table = || {
            let table = Table::new(&self.settings.keyspace, view);
            Ok::<_, std::convert::Infallible>(Arc::new(table))
        };
        let Ok(table) = self.tables.get_or_insert_with(&view.id, table);
        table
    }

    /// All answers that came in time, in the order of views and keys.
    async fn answers(
        &self,
        live: &Live,
        reads: &[ViewKeys<'_>],
        until: Instant,
    ) -> Vec<Vec<Option<Answer>>> {
        let tables: Vec<_> = reads.iter().map(|read| self.table(read.view)).collect();
        let mut answers: Vec<Vec<Option<Answer>>> =
            reads.iter().map(|read| read.keys.iter().map(|_| None).collect()).collect();
        let read = async |view: usize, key: usize| {
            let _place = self.places.acquire().await.expect("the semaphore is never closed");
            (view, key, tables[view].read(live, &reads[view].keys[key]).await)
        };
        let mut wanted = reads
            .iter()
            .enumerate()
            .flat_map(|(view, read)| (0..read.keys.len()).map(move |key| (view, key)));
        let mut under_way = FuturesUnordered::new();
        for (view, key) in wanted.by_ref().take(self.settings.max_concurrent_reads) {
            under_way.push(read(view, key));
        }
        let mut give_up = std::pin::pin!(sleep_until(until));
        loop {
            tokio::select! {
                biased;
                answer = under_way.next() => {
                    let Some((view, key, answer)) = answer else { break };
                    answers[view][key] = Some(answer);
                    if let Some((view, key)) = wanted.next() {
                        under_way.push(read(view, key));
                    }
                }
                () = &mut give_up => break,
            }
        }
        answers
    }
}

#[async_trait]
impl OnlineStore for CassandraStore {
    async fn read(&self, reads: &[ViewKeys<'_>], options: ReadOptions) -> Rows {
        let live = match self.session(options.give_up_at).await {
            Ok(live) => live,
            Err(error) => return fail_all(reads, &error),
        };
        let answers = self.answers(&live, reads, options.give_up_at).await;
        let failures = || {
            answers.iter().flatten().filter_map(|answer| match answer {
                Some(Err(failure)) => Some(failure),
                _ => None,
            })
        };
        if failures().any(|failure| matches!(failure, Failure::Part(_) | Failure::Cluster(_))) {
            self.link.trouble();
        }
        settle(answers, live.has_others())
    }

    async fn probe(&self) -> Result<(), StoreError> {
        let until = Instant::now() + PROBE_TIMEOUT;
        let live = match self.link.state() {
            State::Up(live) => live,
            State::Down(error @ StoreError::Refused(_)) => return Err(error),
            State::Starting | State::Down(_) => {
                self.link.hurry();
                match timeout_at(until, self.link.outcome()).await {
                    Ok(outcome) => outcome?,
                    Err(_) => return Err(self.link.never_connected()),
                }
            }
        };
        match timeout_at(until, live.ping()).await {
            Ok(answer) => {
                if answer.is_err() {
                    self.link.trouble();
                }
                answer
            }
            Err(_) => Err(StoreError::TimedOut),
        }
    }
}

/// Rows of the answers. What one of many lacks is of a node; what all lack is of the cluster.
fn settle(answers: Vec<Vec<Option<Answer>>>, has_others: bool) -> Rows {
    let answered = answers.iter().flatten().flatten().any(|answer| match answer {
        Ok(_) => true,
        Err(failure) => failure.is_answer(),
    });
    let row = |answer: Option<Answer>| {
        answer
            .unwrap_or(Err(Failure::Late))
            .unwrap_or_else(|failure| Err(failure.into_error(answered, has_others)))
    };
    answers.into_iter().map(|answers| answers.into_iter().map(row).collect()).collect()
}
