//! Whether a connection still answers, judged by the commands that do not get an answer.

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::store::silence::Silence;

/// What is known of one connection.
#[derive(Default)]
pub(super) struct Health {
    silence: Mutex<Silence>,
    given_up: Notify,
}

/// A command that waits for its answer. Dropped without one, it counts against the connection.
pub(super) struct Waiting<'a> {
    health: &'a Health,
    sent: Instant,
    give_up_at: Instant,
    answered: bool,
}

impl Health {
    /// A command was sent and is of use until `give_up_at`.
    pub(super) fn wait(&self, sent: Instant, give_up_at: Instant) -> Waiting<'_> {
        Waiting { health: self, sent, give_up_at, answered: false }
    }

    /// Ends when the connection is given up.
    pub(super) async fn given_up(&self) {
        self.given_up.notified().await;
    }

    fn unanswered(&self, sent: Instant) {
        if self.silence.lock().unanswered(sent, Instant::now()) {
            self.given_up.notify_one();
        }
    }
}

impl Waiting<'_> {
    /// The server answered, be it with an error.
    pub(super) fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.answered {
            self.health.silence.lock().answered();
        } else if Instant::now() >= self.give_up_at {
            // Dropped before that, it says nothing: somebody lost interest.
            self.health.unanswered(self.sent);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{advance, timeout};

    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(400);

    async fn unanswered(health: &Health, times: u32) {
        for _ in 0..times {
            let now = Instant::now();
            let waiting = health.wait(now, now + TIMEOUT);
            advance(TIMEOUT).await;
            drop(waiting);
        }
    }

    async fn is_given_up(health: &Health) -> bool {
        timeout(Duration::ZERO, health.given_up()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_without_an_answer_is_too_long() {
        let health = Health::default();
        unanswered(&health, 2).await;
        assert!(!is_given_up(&health).await);
        unanswered(&health, 1).await;
        assert!(is_given_up(&health).await);
    }

    #[tokio::test(start_paused = true)]
    async fn any_answer_ends_the_silence() {
        let health = Health::default();
        unanswered(&health, 2).await;
        let now = Instant::now();
        health.wait(now, now + TIMEOUT).answered();
        unanswered(&health, 2).await;
        assert!(!is_given_up(&health).await);
    }

    #[tokio::test(start_paused = true)]
    async fn many_that_time_out_together_are_one_stall() {
        let health = Health::default();
        let now = Instant::now();
        let waiting: Vec<_> = (0..100).map(|_| health.wait(now, now + TIMEOUT)).collect();
        advance(TIMEOUT).await;
        drop(waiting);
        assert!(!is_given_up(&health).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_leaves_early_says_nothing() {
        let health = Health::default();
        for _ in 0..10 {
            let now = Instant::now();
            let waiting = health.wait(now, now + TIMEOUT);
            advance(TIMEOUT / 2).await;
            drop(waiting);
        }
        assert!(!is_given_up(&health).await);
    }
}
