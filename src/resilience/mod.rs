//! Keeps a failing store from failing the proxy: a bound on its reads, a timeout, and a circuit
//! breaker with probes in the background. Retries and hedges would live here, too.

mod breaker;
mod store;

use std::time::Duration;

pub use self::store::ResilientStore;

/// How much of a store's trouble is taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// How long one read may take; it goes on without its callers until then.
    pub timeout: Duration,
    /// Reads under way at once.
    pub max_in_flight: usize,
    /// Reads that wait for a place; more are refused.
    pub max_queue: usize,
    /// When to stop asking.
    pub breaker: BreakerPolicy,
}

/// When a circuit breaker opens, and how it looks for the store's return.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakerPolicy {
    /// Failures in a row that open it.
    pub consecutive_failures: u32,
    /// The share of failures that opens it, among at least [`min_calls`](Self::min_calls).
    pub failure_share: f64,
    /// Calls within a [`window`](Self::window) from which the share counts.
    pub min_calls: u32,
    /// How long calls are counted.
    pub window: Duration,
    /// The pause between probes of the background while it is open; varied by 20 %.
    pub probe_interval: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            timeout: Duration::from_millis(250),
            max_in_flight: 256,
            max_queue: 1024,
            breaker: BreakerPolicy::default(),
        }
    }
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            failure_share: 0.5,
            min_calls: 20,
            window: Duration::from_secs(1),
            probe_interval: Duration::from_millis(250),
        }
    }
}
