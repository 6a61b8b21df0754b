//! Listeners, protocols, draining.
