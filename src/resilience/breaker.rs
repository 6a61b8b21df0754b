//! A circuit breaker, as a state machine. Pure: the time is an argument.

use super::BreakerPolicy;
use crate::model::Tick;

/// Counts how calls end, and says when to stop making them.
///
/// Open, it stays open until [`close`](Self::close): whoever looks for the store's return calls it.
#[derive(Debug)]
pub(super) struct CircuitBreaker {
    policy: BreakerPolicy,
    open: bool,
    /// Failures since the last success.
    in_a_row: u32,
    window_began: Tick,
    calls: u32,
    failures: u32,
}

impl CircuitBreaker {
    /// A closed breaker.
    pub(super) fn new(policy: BreakerPolicy) -> Self {
        let window_began = Tick(i64::MIN);
        Self { policy, open: false, in_a_row: 0, window_began, calls: 0, failures: 0 }
    }

    /// Learns how a call ended. `true` if it opened the breaker.
    ///
    /// What ends while it is open began before: it says nothing new.
    pub(super) fn record(&mut self, succeeded: bool, now: Tick) -> bool {
        if self.open {
            return false;
        }
        if u128::from(now.millis_since(self.window_began)) >= self.policy.window.as_millis() {
            (self.window_began, self.calls, self.failures) = (now, 0, 0);
        }
        self.calls += 1;
        if succeeded {
            self.in_a_row = 0;
            return false;
        }
        self.failures += 1;
        self.in_a_row += 1;
        let share = f64::from(self.failures) / f64::from(self.calls);
        self.open = self.in_a_row >= self.policy.consecutive_failures
            || self.calls >= self.policy.min_calls && share >= self.policy.failure_share;
        self.open
    }

    /// Lets calls through again, as if none had ever failed.
    pub(super) fn close(&mut self) {
        *self = Self::new(self.policy);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const POLICY: BreakerPolicy = BreakerPolicy {
        consecutive_failures: 3,
        failure_share: 0.5,
        min_calls: 6,
        window: Duration::from_secs(1),
        probe_interval: Duration::from_millis(250),
    };

    /// Feeds one call after the other, `step` ms apart; says after which one it opened.
    fn opens_after(calls: &str, step: i64) -> Option<usize> {
        let mut breaker = CircuitBreaker::new(POLICY);
        calls.bytes().enumerate().find_map(|(place, call)| {
            breaker.record(call == b'+', Tick(place as i64 * step)).then_some(place + 1)
        })
    }

    #[test]
    fn failures_in_a_row_open_it_however_slowly_they_come() {
        assert_eq!(opens_after("---", 10_000), Some(3));
        assert_eq!(opens_after("--+--+--+", 10_000), None);
    }

    #[test]
    fn a_share_of_failures_opens_it_once_there_are_enough_calls_in_the_window() {
        assert_eq!(opens_after("+-+-+-", 10), Some(6));
        assert_eq!(opens_after("+-+-+-", 200), None, "the window is over before the sixth");
        assert_eq!(opens_after("++-++-++-", 10), None);
    }

    #[test]
    fn closed_again_it_has_forgotten_everything() {
        let mut breaker = CircuitBreaker::new(POLICY);
        assert!((0..3).any(|tick| breaker.record(false, Tick(tick))));
        assert!(!breaker.record(false, Tick(4)), "it is open already");
        breaker.close();
        assert!(!breaker.record(false, Tick(5)));
        assert!(!breaker.record(false, Tick(6)));
        assert!(breaker.record(false, Tick(7)));
    }
}
