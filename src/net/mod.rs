//! Listeners, protocols, draining.

mod address;

pub use self::address::{ListenAddress, NotAnAddress};
