//! The session with a cluster, kept up in the background.
//!
//! ```text
//! Starting --> Up <--> Down(why)
//! ```
//!
//! A task of its own connects, watches whether any node is left, and connects anew when none is,
//! with pauses that grow: that also asks DNS again. A node that is gone while others are left is
//! the driver's to find again. Readers look at the state and never wait for an attempt, except for
//! the first.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::{
    sync::{Notify, watch},
    task::AbortHandle,
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

use super::{
    CassandraSettings, StoreError,
    error::Fault,
    session::{self, Live},
};

/// A session that is kept up from its first use until it is dropped.
pub(super) struct Link {
    shared: Arc<Shared>,
    task: OnceLock<AbortHandle>,
}

struct Shared {
    settings: Arc<CassandraSettings>,
    state: watch::Sender<State>,
    hurry: Notify,
    trouble: Notify,
}

/// What is known of the session.
#[derive(Clone)]
pub(super) enum State {
    /// The first attempt to connect is under way.
    Starting,
    /// There is a session, and a node to ask.
    Up(Arc<Live>),
    /// There is none; attempts go on.
    Down(StoreError),
}

/// An attempt connects to a node, learns about the cluster, and connects to the others.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is looked whether a node is left.
const LOOK: Duration = Duration::from_millis(100);
const MIN_BACKOFF: Duration = Duration::from_millis(10);
/// Pauses after a refusal, which ends when somebody acts.
const MIN_REFUSED_BACKOFF: Duration = Duration::from_millis(250);
const MAX_REFUSED_BACKOFF: Duration = Duration::from_secs(15);
/// After a session that lasted so long, pauses begin anew.
const STEADY: Duration = Duration::from_secs(1);

impl Link {
    pub(super) fn new(settings: Arc<CassandraSettings>) -> Self {
        let state = watch::Sender::new(State::Starting);
        let shared = Shared { settings, state, hurry: Notify::new(), trouble: Notify::new() };
        Self { shared: Arc::new(shared), task: OnceLock::new() }
    }

    /// The state now. The first call begins to connect.
    pub(super) fn state(&self) -> State {
        self.start();
        self.shared.state.borrow().clone()
    }

    /// The end of the first attempt to connect, or what it is by now.
    pub(super) async fn settled(&self) -> Result<Arc<Live>, StoreError> {
        self.start();
        let mut state = self.shared.state.subscribe();
        let state = state.wait_for(|state| !matches!(state, State::Starting)).await;
        state.expect("the sender lives as long as self").clone().into_result()
    }

    /// The end of the attempt to connect that is under way or comes next.
    pub(super) async fn outcome(&self) -> Result<Arc<Live>, StoreError> {
        self.start();
        let mut state = self.shared.state.subscribe();
        if !matches!(*state.borrow_and_update(), State::Up(_)) {
            state.changed().await.expect("the sender lives as long as self");
        }
        state.borrow().clone().into_result()
    }

    /// Ends the pause between two attempts, unless the last was refused.
    pub(super) fn hurry(&self) {
        self.shared.hurry.notify_one();
    }

    /// A reader saw a connection break: it is looked at once whether a node is left.
    pub(super) fn trouble(&self) {
        self.shared.trouble.notify_one();
    }

    /// The error of a reader that waited in vain for the first session.
    pub(super) fn never_connected(&self) -> StoreError {
        self.shared.never_answered()
    }

    fn start(&self) {
        self.task.get_or_init(|| {
            let shared = self.shared.clone();
            tokio::spawn(async move { shared.keep_up().await }).abort_handle()
        });
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

impl State {
    fn into_result(self) -> Result<Arc<Live>, StoreError> {
        match self {
            Self::Up(live) => Ok(live),
            Self::Down(error) => Err(error),
            Self::Starting => Err(StoreError::TimedOut),
        }
    }
}

impl Shared {
    /// Connects, again and again. Ends with the link.
    async fn keep_up(&self) {
        let max_pause = self.settings.max_backoff.max(2 * MIN_BACKOFF) / 2;
        let mut pauses = backoff(MIN_BACKOFF, max_pause).build();
        let mut refused = backoff(MIN_REFUSED_BACKOFF, MAX_REFUSED_BACKOFF / 2).build();
        loop {
            let (error, lasted) = self.connect_and_watch().await;
            if lasted >= STEADY {
                pauses = backoff(MIN_BACKOFF, max_pause).build();
            }
            let is_refusal = matches!(error, StoreError::Refused(_));
            self.state.send_replace(State::Down(error));
            if is_refusal {
                sleep(refused.next().unwrap_or(MAX_REFUSED_BACKOFF)).await;
                continue;
            }
            refused = backoff(MIN_REFUSED_BACKOFF, MAX_REFUSED_BACKOFF / 2).build();
            tokio::select! {
                () = sleep(pauses.next().unwrap_or(self.settings.max_backoff)) => {}
                () = self.hurry.notified() => {}
            }
        }
    }

    /// One session, from the attempt to its end. Says why it ended, and how long it worked.
    async fn connect_and_watch(&self) -> (StoreError, Duration) {
        let live = match timeout(ATTEMPT_TIMEOUT, session::open(&self.settings)).await {
            Ok(Ok(live)) => Arc::new(live),
            Ok(Err(error)) => return (error, Duration::ZERO),
            Err(_) => return (self.never_answered(), Duration::ZERO),
        };
        info!(
            keyspace = self.settings.keyspace,
            datacenter = live.datacenter.as_deref().unwrap_or("unknown"),
            nodes = live.nodes(),
            connected = live.connected(),
            "connected to cassandra",
        );
        let began = Instant::now();
        self.state.send_replace(State::Up(live.clone()));
        while live.connected() > 0 {
            tokio::select! {
                () = sleep(LOOK) => {}
                () = self.trouble.notified() => {}
            }
        }
        warn!(keyspace = self.settings.keyspace, "lost all connections to cassandra");
        (StoreError::Unavailable(Arc::new(Fault::Lost)), began.elapsed())
    }

    fn never_answered(&self) -> StoreError {
        let hosts = self.settings.hosts.join(", ");
        StoreError::Unavailable(Arc::new(Fault::ConnectTimeout { hosts }))
    }
}

/// Pauses that grow from `min` to `max`, with a jitter of up to as much again.
fn backoff(min: Duration, max: Duration) -> ExponentialBuilder {
    ExponentialBuilder::new()
        .with_min_delay(min)
        .with_max_delay(max)
        .without_max_times()
        .with_jitter()
}
