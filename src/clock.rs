//! The one place that reads a clock. Everything else is told the time.

use std::{
    sync::OnceLock,
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;

use crate::model::Tick;

/// A moment, by each of the clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For deadlines.
    pub instant: Instant,
    /// For ages within this process: never jumps.
    pub tick: Tick,
    /// For ages of what other systems wrote: seconds since the Unix epoch.
    pub unix_seconds: i64,
}

/// Reads the clocks. Once per request, at its edge.
pub fn now() -> Now {
    // Tokio's clock, so that tests can pause it.
    let instant = Instant::now();
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    Now {
        instant,
        tick: tick(instant),
        unix_seconds: since_epoch.map_or(0, |elapsed| elapsed.as_secs() as i64),
    }
}

/// The tick of an instant. The first call sets the zero.
fn tick(instant: Instant) -> Tick {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = *START.get_or_init(|| instant);
    let millis =
        |duration: std::time::Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    match instant.checked_duration_since(start) {
        Some(elapsed) => Tick(millis(elapsed)),
        None => Tick(-millis(start.duration_since(instant))),
    }
}
