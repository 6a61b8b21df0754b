//! What is known of servers that come and go, kept up in the background.
//!
//! A task of its own looks again at intervals, and soon after an alarm: a connection that broke, a
//! slot that moved. Looks that change nothing are farther and farther apart, so that an outage is
//! no storm of questions. Readers never wait for a look, except for the first that succeeds.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    task::AbortHandle,
    time::{Instant, sleep, timeout_at},
};
use tracing::{info, warn};

use super::StoreError;

/// Finds out which servers there are.
pub(super) trait Scout: Send + Sync + 'static {
    /// What it finds out.
    type Topology: Send + Sync + 'static;

    /// How long nothing happens before it looks again.
    const QUIET: Duration;

    /// What is to be known now; `known` itself if that still holds. Bounded in time.
    fn look(
        &self,
        known: Option<Arc<Self::Topology>>,
    ) -> impl Future<Output = Result<Arc<Self::Topology>, StoreError>> + Send;
}

/// Keeps up what a scout finds, from the first use until it is dropped.
pub(super) struct Follower<S: Scout> {
    shared: Arc<Shared<S>>,
    task: OnceLock<AbortHandle>,
}

struct Shared<S: Scout> {
    scout: S,
    alarm: Arc<Notify>,
    max_pause: Duration,
    known: watch::Sender<Known<S::Topology>>,
}

enum Known<T> {
    /// The first look is under way.
    Starting,
    Found(Arc<T>),
    /// No look has succeeded yet.
    Failed(StoreError),
}

impl<S: Scout> Follower<S> {
    /// Follows from the first use on. Looks again soon after `alarm`, and after at most
    /// `max_backoff` until something is found.
    pub(super) fn new(scout: S, alarm: Arc<Notify>, max_backoff: Duration) -> Self {
        let known = watch::Sender::new(Known::Starting);
        let max_pause = max_backoff.clamp(MIN_PAUSE, MAX_PAUSE);
        let shared = Arc::new(Shared { scout, alarm, max_pause, known });
        Self { shared, task: OnceLock::new() }
    }

    /// What was found last; waits for the first look until `until`. None if that takes longer.
    pub(super) async fn topology(
        &self,
        until: Instant,
    ) -> Option<Result<Arc<S::Topology>, StoreError>> {
        self.task.get_or_init(|| {
            let shared = self.shared.clone();
            tokio::spawn(async move { shared.keep_up().await }).abort_handle()
        });
        if let Some(known) = self.shared.known.borrow().outcome() {
            return Some(known);
        }
        let mut known = self.shared.known.subscribe();
        let first = known.wait_for(|known| !matches!(known, Known::Starting));
        let first = timeout_at(until, first).await.ok()?;
        first.expect("the sender lives as long as self").outcome()
    }

    pub(super) fn scout(&self) -> &S {
        &self.shared.scout
    }

    /// Has it look again soon.
    pub(super) fn alarm(&self) {
        self.shared.alarm.notify_one();
    }
}

impl<S: Scout> Drop for Follower<S> {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

impl<T> Known<T> {
    fn outcome(&self) -> Option<Result<Arc<T>, StoreError>> {
        match self {
            Self::Starting => None,
            Self::Found(found) => Some(Ok(found.clone())),
            Self::Failed(error) => Some(Err(error.clone())),
        }
    }
}

impl<S: Scout> Shared<S> {
    /// Looks, again and again. Ends with the follower.
    async fn keep_up(&self) {
        let mut known: Option<Arc<S::Topology>> = None;
        let mut pace = Pace::new(self.max_pause);
        let mut failing = false;
        loop {
            let mut changed = false;
            match self.scout.look(known.clone()).await {
                Ok(found) => {
                    changed = known.as_ref().is_none_or(|known| !Arc::ptr_eq(known, &found));
                    if changed {
                        self.known.send_replace(Known::Found(found.clone()));
                        known = Some(found);
                    }
                    if failing {
                        info!("redis tells again which servers there are");
                    }
                    failing = false;
                }
                Err(error) => {
                    if !failing {
                        let why = error.chain();
                        warn!(why, "redis does not tell which servers there are");
                    }
                    failing = true;
                    if known.is_none() {
                        self.known.send_replace(Known::Failed(error));
                    }
                }
            }
            sleep(vary(pace.pause_after(changed))).await;
            if known.is_none() {
                continue;
            }
            tokio::select! {
                () = self.alarm.notified() => {}
                () = sleep(vary(S::QUIET)) => pace.rest(),
            }
        }
    }
}

/// The least time between two looks ...
const MIN_PAUSE: Duration = Duration::from_millis(50);
/// ... which doubles up to this while they change nothing.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// How long to wait between looks, however many alarms there are. Pure.
struct Pace {
    pause: Duration,
    max: Duration,
}

impl Pace {
    fn new(max: Duration) -> Self {
        Self { pause: MIN_PAUSE, max }
    }

    /// The pause after a look.
    fn pause_after(&mut self, changed: bool) -> Duration {
        if changed {
            self.rest();
        }
        let pause = self.pause;
        self.pause = (2 * pause).min(self.max);
        pause
    }

    /// Nothing happened for a while.
    fn rest(&mut self) {
        self.pause = MIN_PAUSE;
    }
}

/// By up to a quarter, so that larders that lost the same server do not ask together.
fn vary(pause: Duration) -> Duration {
    pause.mul_f64(0.75 + 0.5 * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn looks_that_change_nothing_are_farther_and_farther_apart() {
        let mut pace = Pace::new(Duration::from_millis(300));
        let pauses = [false; 5].map(|changed| pace.pause_after(changed).as_millis());
        assert_eq!(pauses, [50, 100, 200, 300, 300]);
        assert_eq!(pace.pause_after(true).as_millis(), 50);
        assert_eq!(pace.pause_after(false).as_millis(), 100);
        pace.rest();
        assert_eq!(pace.pause_after(false).as_millis(), 50);
    }

    /// Finds the same at each look.
    struct Same(AtomicUsize);

    impl Scout for Same {
        type Topology = usize;
        const QUIET: Duration = Duration::from_secs(100);

        async fn look(&self, known: Option<Arc<usize>>) -> Result<Arc<usize>, StoreError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(known.unwrap_or_else(|| Arc::new(7)))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_storm_of_alarms_is_few_looks() {
        let follower =
            Follower::new(Same(AtomicUsize::new(0)), Arc::default(), Duration::from_secs(9));
        let found = follower.topology(Instant::now() + Duration::from_secs(1)).await;
        assert_eq!(*found.unwrap().unwrap(), 7);
        for _ in 0..10_000 {
            follower.alarm();
            sleep(Duration::from_millis(1)).await;
        }
        let looks = follower.scout().0.load(Ordering::Relaxed);
        assert!((10..=22).contains(&looks), "{looks} looks in 10 s");
    }

    #[tokio::test(start_paused = true)]
    async fn an_alarm_after_quiet_is_looked_into_at_once() {
        let follower =
            Follower::new(Same(AtomicUsize::new(0)), Arc::default(), Duration::from_secs(9));
        let _ = follower.topology(Instant::now() + Duration::from_secs(1)).await;
        sleep(Duration::from_secs(200)).await;
        let before = follower.scout().0.load(Ordering::Relaxed);
        follower.alarm();
        sleep(Duration::from_millis(100)).await;
        assert_eq!(follower.scout().0.load(Ordering::Relaxed), before + 1);
    }
}
