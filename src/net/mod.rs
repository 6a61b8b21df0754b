//! Listeners, protocols, draining.

mod address;
mod listener;
mod opening;
mod routes;
mod serve;

pub use self::{
    address::{ListenAddress, NotAnAddress},
    listener::{BindError, Listener},
    routes::Routes,
    serve::{Server, Serving},
};
