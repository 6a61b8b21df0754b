//! The whole read path, over a store in memory and with a paused clock.

mod coalescing;
mod fixture;
mod resilience;
mod routes;
mod staleness;
mod unavailable;
