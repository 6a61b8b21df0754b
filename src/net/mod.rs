//! Listeners, protocols, draining.

mod address;
mod listener;
mod routes;
mod serve;

pub use self::{
    address::{ListenAddress, NotAnAddress},
    listener::{BindError, Listener},
    routes::Routes,
    serve::{Server, Serving},
};
