//! Listeners, protocols, draining.

mod address;
mod listener;
mod serve;

pub use self::{
    address::{ListenAddress, NotAnAddress},
    listener::{BindError, Listener},
    serve::Server,
};
