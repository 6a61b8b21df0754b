//! One connection to one server, kept up in the background.
//!
//! ```text
//! Starting --> Up <--> Down(why)
//! ```
//!
//! A task of its own connects, drives the connection, notices that it broke, and connects again,
//! with pauses that grow. Readers look at the state and never wait for an attempt, except for the
//! first.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use backon::{BackoffBuilder, ExponentialBuilder};
use redis::{
    AsyncConnectionConfig, Pipeline, RedisConnectionInfo, RedisError, ServerErrorKind, Value,
    aio::MultiplexedConnection,
};
use tokio::{
    net::TcpStream,
    sync::{Notify, watch},
    task::AbortHandle,
    time::{Instant, sleep, timeout, timeout_at},
};
use tracing::{info, warn};

use super::{
    RedisSettings, StoreError,
    error::{self, Fault, unavailable},
    health::Health,
};

/// A connection that is kept up from its first use until it is dropped.
pub(super) struct Link {
    shared: Arc<Shared>,
    task: OnceLock<AbortHandle>,
}

struct Shared {
    settings: Arc<RedisSettings>,
    login: RedisConnectionInfo,
    state: watch::Sender<State>,
    hurry: Notify,
}

/// What is known of the connection.
#[derive(Clone)]
pub(super) enum State {
    /// The first attempt to connect is under way.
    Starting,
    /// There is a connection.
    Up(Live),
    /// There is none; attempts go on.
    Down(StoreError),
}

/// A connection that was there when it was asked for. Cheap to clone.
#[derive(Clone)]
pub(super) struct Live {
    connection: MultiplexedConnection,
    health: Arc<Health>,
}

/// Commands that wait for their turn on a connection, which are few unless the server stalls.
const QUEUE: usize = 1024;
/// How often an idle connection is tried, before a reader has to find out that it is dead.
const HEARTBEAT: Duration = Duration::from_secs(10);
const MIN_BACKOFF: Duration = Duration::from_millis(10);

impl Link {
    pub(super) fn new(settings: Arc<RedisSettings>) -> Self {
        let state = watch::Sender::new(State::Starting);
        let login = login(&settings);
        let shared = Arc::new(Shared { settings, login, state, hurry: Notify::new() });
        Self { shared, task: OnceLock::new() }
    }

    /// The state now. The first call begins to connect.
    pub(super) fn state(&self) -> State {
        self.start();
        self.shared.state.borrow().clone()
    }

    /// The end of the first attempt to connect, or what it is by now.
    pub(super) async fn settled(&self) -> Result<Live, StoreError> {
        self.start();
        let mut state = self.shared.state.subscribe();
        let state = state.wait_for(|state| !matches!(state, State::Starting)).await;
        state.expect("the sender lives as long as self").clone().into_result()
    }

    /// The end of the attempt to connect that is under way or comes next.
    pub(super) async fn outcome(&self) -> Result<Live, StoreError> {
        self.start();
        let mut state = self.shared.state.subscribe();
        if !matches!(*state.borrow_and_update(), State::Up(_)) {
            state.changed().await.expect("the sender lives as long as self");
        }
        state.borrow().clone().into_result()
    }

    /// Ends the pause between two attempts.
    pub(super) fn hurry(&self) {
        self.shared.hurry.notify_one();
    }

    /// The error of a reader that waited in vain for the first connection.
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
    fn into_result(self) -> Result<Live, StoreError> {
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
        // The jitter adds up to as much again.
        let pauses = ExponentialBuilder::new()
            .with_min_delay(MIN_BACKOFF)
            .with_max_delay(max_pause)
            .without_max_times()
            .with_jitter();
        let mut pause = pauses.build();
        loop {
            let (error, was_up) = self.connect_and_drive().await;
            if was_up {
                pause = pauses.build();
            }
            self.state.send_replace(State::Down(error));
            let pause = pause.next().unwrap_or(self.settings.max_backoff);
            tokio::select! {
                () = sleep(pause) => {}
                () = self.hurry.notified() => {}
            }
        }
    }

    /// One connection, from the attempt to its end. Says why it ended, and whether it ever worked.
    async fn connect_and_drive(&self) -> (StoreError, bool) {
        let attempt = timeout(self.settings.connect_timeout, self.connect()).await;
        let (connection, driver) = match attempt {
            Ok(Ok(connected)) => connected,
            Ok(Err(error)) => return (error::of_connect(self.address(), error), false),
            Err(_) => return (self.never_answered(), false),
        };
        let live = Live { connection, health: Arc::new(Health::default()) };
        tokio::pin!(driver);
        let ready = live.ping(Instant::now() + self.settings.connect_timeout);
        let ready = tokio::select! {
            biased;
            ready = ready => ready,
            () = &mut driver => Err(self.lost("the server closed it at once")),
        };
        match ready {
            Ok(()) => {}
            Err(StoreError::TimedOut) => return (self.never_answered(), false),
            Err(error) => return (error, false),
        }

        info!(address = self.address(), "connected to redis");
        self.state.send_replace(State::Up(live.clone()));
        let why = tokio::select! {
            biased;
            () = &mut driver => "the server closed it",
            () = live.health.given_up() => "it stayed without an answer",
            () = live.heartbeat(self.settings.connect_timeout) => "an idle connection was dead",
        };
        warn!(address = self.address(), why, "lost the connection to redis");
        (self.lost(why), true)
    }

    async fn connect(
        &self,
    ) -> Result<(MultiplexedConnection, impl Future<Output = ()>), RedisError> {
        let settings = &*self.settings;
        let stream = TcpStream::connect((&*settings.host, settings.port)).await?;
        stream.set_nodelay(true)?;
        // No timeout of the client's: every command has one of its own.
        let config =
            AsyncConnectionConfig::new().set_response_timeout(None).set_pipeline_buffer_size(QUEUE);
        MultiplexedConnection::new_with_config(&self.login, stream, config).await
    }

    fn never_answered(&self) -> StoreError {
        unavailable(Fault::ConnectTimeout { address: self.address() })
    }

    fn lost(&self, why: &'static str) -> StoreError {
        unavailable(Fault::Lost { address: self.address(), why })
    }

    fn address(&self) -> String {
        format!("{}:{}", self.settings.host, self.settings.port)
    }
}

fn login(settings: &RedisSettings) -> RedisConnectionInfo {
    // RESP2 without CLIENT SETINFO: what old servers, proxies and users with few rights allow.
    let mut login = RedisConnectionInfo::default().set_db(settings.db).set_skip_set_lib_name();
    if let Some(username) = &settings.username {
        login = login.set_username(username);
    }
    if let Some(password) = &settings.password {
        login = login.set_password(&password.0);
    }
    login
}

impl Live {
    /// Sends the commands and waits for all replies, errors among them. Dropping it is harmless.
    pub(super) async fn send(
        &self,
        pipeline: &Pipeline,
        give_up_at: Instant,
    ) -> Result<Vec<Value>, StoreError> {
        let mut connection = self.connection.clone();
        // Also if the caller drops this at that very time.
        let waiting = self.health.wait(Instant::now(), give_up_at);
        let replies = connection.send_packed_commands(pipeline, 0, pipeline.len());
        let replies = timeout_at(give_up_at, replies).await.map_err(|_| StoreError::TimedOut)?;
        waiting.answered();
        replies.map_err(|error| unavailable(Fault::Command(error)))
    }

    /// Whether the server would answer a read.
    pub(super) async fn ping(&self, give_up_at: Instant) -> Result<(), StoreError> {
        let mut ping = Pipeline::with_capacity(1);
        ping.cmd("PING");
        match self.send(&ping, give_up_at).await?.first() {
            // Who may read need not be allowed to ping.
            Some(Value::ServerError(error)) if error.kind() != Some(ServerErrorKind::NoPerm) => {
                Err(error::of_server(error))
            }
            _ => Ok(()),
        }
    }

    /// Ends when the server does not answer any more.
    async fn heartbeat(&self, patience: Duration) {
        loop {
            sleep(HEARTBEAT).await;
            if let Err(StoreError::TimedOut) = self.ping(Instant::now() + patience).await {
                return;
            }
        }
    }
}
