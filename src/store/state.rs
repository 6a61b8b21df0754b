//! What is known of a connection, or a session, that a task of its own keeps up.
//!
//! ```text
//! Starting --> Up <--> Down(why)
//! ```
//!
//! Readers look at it and never wait for an attempt to connect, except for the first.

use std::time::Duration;

use backon::ExponentialBuilder;
use tokio::sync::watch;

use super::StoreError;

/// What is known.
#[derive(Clone)]
pub(super) enum State<T> {
    /// The first attempt to connect is under way.
    Starting,
    /// It is there.
    Up(T),
    /// It is not; attempts go on.
    Down(StoreError),
}

/// The state, which one task sets.
pub(super) struct StateCell<T>(watch::Sender<State<T>>);

impl<T: Clone> StateCell<T> {
    /// That of the first attempt to connect.
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(State::Starting))
    }

    /// The state now.
    pub(super) fn now(&self) -> State<T> {
        self.0.borrow().clone()
    }

    /// For the task that connects.
    pub(super) fn set(&self, state: State<T>) {
        self.0.send_replace(state);
    }

    /// The end of the first attempt to connect, or what it is by now.
    pub(super) async fn settled(&self) -> Result<T, StoreError> {
        let mut state = self.0.subscribe();
        let state = state.wait_for(|state| !matches!(state, State::Starting)).await;
        state.expect("the sender lives as long as self").clone().into_result()
    }

    /// The end of the attempt to connect that is under way or comes next.
    pub(super) async fn outcome(&self) -> Result<T, StoreError> {
        let mut state = self.0.subscribe();
        if !matches!(*state.borrow_and_update(), State::Up(_)) {
            state.changed().await.expect("the sender lives as long as self");
        }
        state.borrow().clone().into_result()
    }
}

impl<T> State<T> {
    fn into_result(self) -> Result<T, StoreError> {
        match self {
            Self::Up(live) => Ok(live),
            Self::Down(error) => Err(error),
            Self::Starting => Err(StoreError::TimedOut),
        }
    }
}

/// Pauses between attempts, which grow from `min` to half of `max`: the jitter adds up to as much
/// again.
pub(super) fn pauses(min: Duration, max: Duration) -> ExponentialBuilder {
    ExponentialBuilder::new()
        .with_min_delay(min)
        .with_max_delay(max.max(2 * min) / 2)
        .without_max_times()
        .with_jitter()
}
