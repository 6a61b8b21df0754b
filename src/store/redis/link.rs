//! One connection to one server, kept up in the background.
//!
//! A task of its own connects, drives the connection, notices that it broke, and connects again,
//! with pauses that grow.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use backon::BackoffBuilder;
use redis::{Pipeline, Value, aio::MultiplexedConnection};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    RedisAccess, RedisAddress, StoreError,
    connect::{Driver, connect, drive_while, never_answered},
    error::{self, Fault, unavailable},
    health::Health,
    role::{self, Duty, Role},
};
use crate::store::state::{State, StateCell, pauses};

/// A connection that is kept up from its first use until it is dropped.
///
/// Once dropped it makes no new connection; reads under way on the old one may finish.
pub(super) struct Link {
    shared: Arc<Shared>,
    begun: OnceLock<()>,
}

/// Whom a link connects to, and how.
#[derive(Clone)]
pub(super) struct Endpoint {
    pub(super) address: RedisAddress,
    pub(super) access: Arc<RedisAccess>,
    pub(super) duty: Duty,
    /// The longest pause between attempts to connect.
    pub(super) max_backoff: Duration,
    /// Told when an attempt fails or a connection breaks: the server may have been replaced.
    pub(super) alarm: Option<Arc<Notify>>,
}

struct Shared {
    endpoint: Endpoint,
    state: StateCell<Live>,
    hurry: Notify,
    retired: CancellationToken,
}

/// A connection that was there when it was asked for. Cheap to clone.
#[derive(Clone)]
pub(super) struct Live {
    connection: MultiplexedConnection,
    health: Arc<Health>,
}

/// How a connection ended.
enum End {
    /// It never came to be.
    Failed(StoreError),
    /// It was used, for so long, and broke.
    Lost(StoreError, Duration),
    /// Nobody wants it any more.
    Retired,
}

/// How often an idle connection is tried, before a reader has to find out that it is dead.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// How often a server is asked for its role, if it must have one.
const ROLE_CHECK: Duration = Duration::from_secs(1);
const MIN_BACKOFF: Duration = Duration::from_millis(10);
/// After a connection that lasted so long, pauses begin anew.
const STEADY: Duration = Duration::from_secs(1);
/// How long a connection that is not wanted any more waits for reads that have longer deadlines
/// than anyone should.
const MAX_FAREWELL: Duration = Duration::from_secs(60);

impl Link {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        let state = StateCell::new();
        let (hurry, retired) = (Notify::new(), CancellationToken::new());
        let shared = Arc::new(Shared { endpoint, state, hurry, retired });
        Self { shared, begun: OnceLock::new() }
    }

    /// The state now. The first call begins to connect.
    pub(super) fn state(&self) -> State<Live> {
        self.start();
        self.shared.state.now()
    }

    /// The end of the first attempt to connect, or what it is by now.
    pub(super) async fn settled(&self) -> Result<Live, StoreError> {
        self.start();
        self.shared.state.settled().await
    }

    /// The end of the attempt to connect that is under way or comes next.
    pub(super) async fn outcome(&self) -> Result<Live, StoreError> {
        self.start();
        self.shared.state.outcome().await
    }

    /// Ends the pause between two attempts.
    pub(super) fn hurry(&self) {
        self.shared.hurry.notify_one();
    }

    /// The error of a reader that waited in vain for the first connection.
    pub(super) fn never_connected(&self) -> StoreError {
        never_answered(&self.shared.endpoint.address)
    }

    /// Begins to connect, unless it has.
    pub(super) fn start(&self) {
        self.begun.get_or_init(|| {
            let shared = self.shared.clone();
            tokio::spawn(async move { shared.keep_up().await });
        });
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.retired.cancel();
    }
}

impl Shared {
    /// Connects, again and again. Ends with the link.
    async fn keep_up(&self) {
        let pauses = pauses(MIN_BACKOFF, self.endpoint.max_backoff);
        let mut pause = pauses.build();
        loop {
            let error = match self.connect_and_drive().await {
                End::Failed(error) => error,
                End::Lost(error, lasted) => {
                    if lasted >= STEADY {
                        pause = pauses.build();
                    }
                    error
                }
                End::Retired => return,
            };
            self.state.set(State::Down(error));
            if let Some(alarm) = &self.endpoint.alarm {
                alarm.notify_one();
            }
            let pause = pause.next().unwrap_or(self.endpoint.max_backoff);
            tokio::select! {
                () = sleep(pause) => {}
                () = self.hurry.notified() => {}
                () = self.retired.cancelled() => return,
            }
        }
    }

    /// One connection, from the attempt to its end.
    async fn connect_and_drive(&self) -> End {
        let Endpoint { address, duty, .. } = &self.endpoint;
        let (live, mut driver) = tokio::select! {
            ready = self.ready() => match ready {
                Ok(ready) => ready,
                Err(error) => return End::Failed(error),
            },
            () = self.retired.cancelled() => return End::Retired,
        };
        info!(%address, ?duty, "connected to redis");
        let connected = Instant::now();
        self.state.set(State::Up(live.clone()));
        let why = tokio::select! {
            biased;
            _ = &mut driver => Some(self.lost("the server closed it")),
            () = live.health.given_up() => Some(self.lost("it stayed without an answer")),
            error = self.heartbeat(&live) => Some(error),
            () = self.retired.cancelled() => None,
        };
        if let Some(error) = why {
            warn!(%address, why = error.chain(), "lost the connection to redis");
            return End::Lost(error, connected.elapsed());
        }
        // Whoever reads holds the connection, and the driver ends once nobody does.
        self.state.set(State::Down(self.lost("the server is not used any more")));
        drop(live);
        let _ = timeout(MAX_FAREWELL, driver).await;
        End::Retired
    }

    /// A connection to a server that is what it should be, and answers.
    async fn ready(&self) -> Result<(Live, Driver), StoreError> {
        let Endpoint { address, access, .. } = &self.endpoint;
        let (connection, mut driver) = connect(address, access).await?;
        let live = Live { connection, health: Arc::new(Health::default()) };
        let greeting = self.greet(&live, Instant::now() + access.connect_timeout);
        match drive_while(&mut driver, address, greeting).await.flatten() {
            Ok(()) => Ok((live, driver)),
            Err(StoreError::TimedOut) => Err(never_answered(address)),
            Err(error) => Err(error),
        }
    }

    /// Finds out whether the server is what it should be, and answers.
    async fn greet(&self, live: &Live, until: Instant) -> Result<(), StoreError> {
        let Endpoint { address, duty, .. } = &self.endpoint;
        let mut greeting = Pipeline::with_capacity(5);
        let readonly = *duty == Duty::Replica { readonly: true };
        if readonly {
            greeting.cmd("READONLY");
        }
        greeting.cmd("INFO").arg("server");
        if duty.wants_role() {
            ask_for_role(&mut greeting);
        }
        greeting.cmd("PING");
        let replies = live.send(&greeting, until).await?;
        let mut replies = replies.iter();
        let mut next = || replies.next().unwrap_or(&Value::Nil);
        if readonly && let Value::ServerError(error) = next() {
            return Err(error::of_server(error));
        }
        if let Some(version) = role::too_old(next()) {
            let fault = Fault::TooOld { address: address.clone(), version };
            return Err(StoreError::Refused(Arc::new(fault)));
        }
        if duty.wants_role() {
            self.check_role(Role::of(next(), next()))?;
        }
        answered_ping(next())
    }

    fn check_role(&self, role: Role) -> Result<(), StoreError> {
        let Some((is, wanted)) = self.endpoint.duty.objection(role) else { return Ok(()) };
        let fault = Fault::Role { address: self.endpoint.address.clone(), is, wanted };
        match role {
            Role::Unknown => Err(StoreError::Refused(Arc::new(fault))),
            _ => Err(unavailable(fault)),
        }
    }

    /// Ends when the server does not answer any more, or is not what it was.
    async fn heartbeat(&self, live: &Live) -> StoreError {
        let patience = self.endpoint.access.connect_timeout;
        let wants_role = self.endpoint.duty.wants_role();
        let interval = if wants_role { ROLE_CHECK } else { HEARTBEAT };
        let mut sign = Pipeline::with_capacity(2);
        if wants_role {
            ask_for_role(&mut sign);
        } else {
            sign.cmd("PING");
        }
        loop {
            // Many connections to one server do not beat together.
            sleep(interval.mul_f64(0.8 + 0.4 * fastrand::f64())).await;
            match live.send(&sign, Instant::now() + patience).await {
                Err(StoreError::TimedOut) => return self.lost("an idle connection was dead"),
                Ok(replies) if wants_role && replies.len() == 2 => {
                    if let Err(error) = self.check_role(Role::of(&replies[0], &replies[1])) {
                        return error;
                    }
                }
                _ => {}
            }
        }
    }

    fn lost(&self, why: &'static str) -> StoreError {
        unavailable(Fault::Lost { address: self.endpoint.address.clone(), why })
    }
}

fn ask_for_role(pipeline: &mut Pipeline) {
    pipeline.cmd("ROLE").cmd("INFO").arg("replication");
}

/// Whether a reply to PING shows that the server would answer a read.
fn answered_ping(reply: &Value) -> Result<(), StoreError> {
    match reply {
        // Who may read need not be allowed to ping.
        Value::ServerError(error) if !role::is_forbidden(reply) => Err(error::of_server(error)),
        _ => Ok(()),
    }
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
        answered_ping(self.send(&ping, give_up_at).await?.first().unwrap_or(&Value::Nil))
    }
}
