//! A SQLite file: point reads by a few threads, never by the runtime's.
//!
//! Each read of a view is a job in one bounded queue. `reader` is what a thread does with it.

mod reader;

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use self::reader::Reader;
use super::{OnlineStore, ReadOptions, Rows, SqliteSettings, StoreError, ViewKeys};
use crate::{
    layout::sqlite::SqliteView,
    model::{EntityKey, FeatureView, MaybeRow, ViewId},
};

/// A SQLite file that Feast wrote.
///
/// Opened when it is first read, and again when it was replaced or is back. Its threads end with
/// it.
pub struct SqliteStore {
    jobs: mpsc::Sender<Job>,
    views: Cache<ViewId, Arc<SqliteView>>,
}

/// Reads that wait for a thread; more are refused.
const QUEUE: usize = 1024;
/// How many views' layouts are kept; those of others are made again.
const MAX_VIEWS: usize = 4096;
/// How long a probe waits.
const PROBE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(1);

type ViewRows = Vec<Result<MaybeRow, StoreError>>;

/// What a thread is asked for.
struct Job {
    task: Task,
    give_up_at: Instant,
}

enum Task {
    Read { view: Arc<SqliteView>, keys: Vec<EntityKey>, reply: oneshot::Sender<ViewRows> },
    Probe(oneshot::Sender<Result<(), StoreError>>),
}

impl SqliteStore {
    /// A store that is not opened yet. Neither waits nor fails.
    pub fn new(settings: &SqliteSettings) -> Self {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..settings.connections.max(1) {
            let (queue, mut reader) = (queue.clone(), Reader::new(settings.path.clone()));
            let work = move || {
                while let Some(job) = next(&queue) {
                    job.run(&mut reader);
                }
            };
            std::thread::Builder::new()
                .name("larder-sqlite".into())
                .spawn(work)
                .expect("a process that cannot start a thread cannot go on");
        }
        Self { jobs, views: Cache::new(MAX_VIEWS) }
    }

    fn view(&self, view: &FeatureView) -> Arc<SqliteView> {
        let layout = || Ok::<_, std::convert::Infallible>(Arc::new(SqliteView::new(view)));
        let Ok(layout) = self.views.get_or_insert_with(&view.id, layout);
        layout
    }

    fn submit(&self, task: Task, give_up_at: Instant) -> Result<(), StoreError> {
        self.jobs.try_send(Job { task, give_up_at }).map_err(|_| StoreError::Overloaded)
    }
}

#[async_trait]
impl OnlineStore for SqliteStore {
    async fn read(&self, reads: &[ViewKeys<'_>], options: ReadOptions) -> Rows {
        let submit = |read: &ViewKeys<'_>| {
            let (reply, answer) = oneshot::channel();
            let task = Task::Read { view: self.view(read.view), keys: read.keys.into(), reply };
            self.submit(task, options.give_up_at).map(|()| answer)
        };
        let answers: Vec<_> = reads.iter().map(submit).collect();
        let mut rows = Vec::with_capacity(reads.len());
        for (read, answer) in reads.iter().zip(answers) {
            let answered = match answer {
                Ok(answer) => answer_of(answer, options.give_up_at).await,
                Err(error) => Err(error),
            };
            let fail = |error| vec![Err(error); read.keys.len()];
            rows.push(answered.unwrap_or_else(fail));
        }
        rows
    }

    async fn probe(&self) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        let give_up_at = Instant::now() + PROBE_TIMEOUT;
        self.submit(Task::Probe(reply), give_up_at)?;
        answer_of(answer, give_up_at).await?
    }
}

async fn answer_of<T>(answer: oneshot::Receiver<T>, give_up_at: Instant) -> Result<T, StoreError> {
    match timeout_at(give_up_at, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        // A thread passed it over, as it was too late.
        Ok(Err(_)) | Err(_) => Err(StoreError::TimedOut),
    }
}

/// The next job; none when the store is gone. Waits.
fn next(queue: &Mutex<mpsc::Receiver<Job>>) -> Option<Job> {
    // Whoever holds the lock waits for a job, the other threads for the lock.
    queue.lock().blocking_recv()
}

impl Job {
    /// Does the work, unless nobody waits for it any more.
    fn run(self, reader: &mut Reader) {
        let patience = self.give_up_at.saturating_duration_since(Instant::now());
        if patience.is_zero() {
            return;
        }
        // A part of it, so that there is time to say that the file was locked.
        let patience = patience * 3 / 4;
        // That nobody waits any more is no harm.
        match self.task {
            Task::Read { view, keys, reply } if !reply.is_closed() => {
                let _ = reply.send(reader.read(&view, &keys, patience));
            }
            Task::Probe(reply) if !reply.is_closed() => {
                let _ = reply.send(reader.probe(patience));
            }
            Task::Read { .. } | Task::Probe(_) => {}
        }
    }
}
