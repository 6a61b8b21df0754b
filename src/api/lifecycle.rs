//! Where larder is in its life: starting, serving, stopping.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// What of larder's life readiness and health depend on, beside the registry.
#[derive(Debug)]
pub struct Lifecycle {
    began: Instant,
    max_wait_millis: AtomicU64,
    /// Listeners that are not open yet.
    unopened: AtomicUsize,
    stopping: AtomicBool,
}

/// A listener that is not open yet, until this is dropped.
#[derive(Debug)]
pub struct Opening(Arc<Lifecycle>);

impl Lifecycle {
    /// The process began at `began`; its start counts as done after `max_wait` at the latest.
    pub fn new(began: Instant, max_wait: Duration) -> Arc<Self> {
        let lifecycle = Self {
            began,
            max_wait_millis: AtomicU64::default(),
            unopened: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
        };
        lifecycle.set_max_wait(max_wait);
        Arc::new(lifecycle)
    }

    /// Waits differently long, counted from the same beginning.
    pub fn set_max_wait(&self, max_wait: Duration) {
        let millis = u64::try_from(max_wait.as_millis()).unwrap_or(u64::MAX);
        self.max_wait_millis.store(millis, Ordering::Relaxed);
    }

    /// Counts a listener as not open, until what is returned is dropped.
    pub fn opening(self: &Arc<Self>) -> Opening {
        self.unopened.fetch_add(1, Ordering::Relaxed);
        Opening(Arc::clone(self))
    }

    /// From now on larder is stopping.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether all listeners are open, and larder is not stopping.
    pub fn is_listening(&self) -> bool {
        self.unopened.load(Ordering::Relaxed) == 0 && !self.stopping.load(Ordering::Relaxed)
    }

    /// Whether those who wait for larder's start may go on: it serves, or has had its time. Never
    /// tied to a store.
    pub fn has_started(&self, registry_is_loaded: bool, now: Instant) -> bool {
        let max_wait = Duration::from_millis(self.max_wait_millis.load(Ordering::Relaxed));
        let serves = registry_is_loaded && self.is_listening();
        serves || now.saturating_duration_since(self.began) >= max_wait
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.unopened.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_start_is_done_with_registry_and_listeners_or_after_its_time() {
        let began = Instant::now();
        let lifecycle = Lifecycle::new(began, 20 * SECOND);
        let opening = [lifecycle.opening(), lifecycle.opening()];
        assert!(!lifecycle.has_started(true, began));
        let [first, second] = opening;
        drop(first);
        assert!(!lifecycle.has_started(true, began), "one is still closed");
        drop(second);
        assert!(lifecycle.has_started(true, began));
        assert!(!lifecycle.has_started(false, began + 19 * SECOND));
        assert!(lifecycle.has_started(false, began + 20 * SECOND));

        lifecycle.set_max_wait(30 * SECOND);
        assert!(!lifecycle.has_started(false, began + 20 * SECOND));
        let _closed = lifecycle.opening();
        assert!(lifecycle.has_started(false, began + 30 * SECOND));
    }

    #[test]
    fn what_stops_no_longer_listens() {
        let lifecycle = Lifecycle::new(Instant::now(), SECOND);
        assert!(lifecycle.is_listening());
        lifecycle.stop();
        assert!(!lifecycle.is_listening());
    }
}
