//! The session with a cluster, kept up in the background.
//!
//! A task of its own connects, watches whether any node is left, and connects anew when none is,
//! with pauses that grow: that also asks DNS again. A node that is gone while others are left is
//! the driver's to find again.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use backon::BackoffBuilder;
use tokio::{
    sync::Notify,
    task::AbortHandle,
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

use super::{
    CassandraSettings, StoreError,
    error::Fault,
    session::{self, Live},
};
use crate::store::state::{State, StateCell, pauses};

/// A session that is kept up from its first use until it is dropped.
pub(super) struct Link {
    shared: Arc<Shared>,
    task: OnceLock<AbortHandle>,
}

struct Shared {
    settings: Arc<CassandraSettings>,
    state: StateCell<Arc<Live>>,
    hurry: Notify,
    trouble: Notify,
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
        let state = StateCell::new();
        let shared = Shared { settings, state, hurry: Notify::new(), trouble: Notify::new() };
        Self { shared: Arc::new(shared), task: OnceLock::new() }
    }

    /// The state now. The first call begins to connect.
    pub(super) fn state(&self) -> State<Arc<Live>> {
        self.start();
        self.shared.state.now()
    }

    /// The end of the first attempt to connect, or what it is by now.
    pub(super) async fn settled(&self) -> Result<Arc<Live>, StoreError> {
        self.start();
        self.shared.state.settled().await
    }

    /// The end of the attempt to connect that is under way or comes next.
    pub(super) async fn outcome(&self) -> Result<Arc<Live>, StoreError> {
        self.start();
        self.shared.state.outcome().await
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

impl Shared {
    /// Connects, again and again. Ends with the link.
    async fn keep_up(&self) {
        let usual = pauses(MIN_BACKOFF, self.settings.max_backoff);
        let after_refusals = pauses(MIN_REFUSED_BACKOFF, MAX_REFUSED_BACKOFF);
        let (mut pauses, mut refused) = (usual.build(), after_refusals.build());
        loop {
            let (error, lasted) = self.connect_and_watch().await;
            if lasted >= STEADY {
                pauses = usual.build();
            }
            let is_refusal = matches!(error, StoreError::Refused(_));
            self.state.set(State::Down(error));
            if is_refusal {
                sleep(refused.next().unwrap_or(MAX_REFUSED_BACKOFF)).await;
                continue;
            }
            refused = after_refusals.build();
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
        self.state.set(State::Up(live.clone()));
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
