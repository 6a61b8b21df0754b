//! larder: a sidecar caching proxy for online features, drop-in for Feast.
//!
//! One request, top to bottom: [`proxy::FeatureProxy::get_online_features`]. Start reading there.
//!
//! # Layout
//!
//! | module | what it is |
//! |---|---|
//! | [`model`] | the words of the domain: values, entities, views, rows |
//! | [`registry`] | which features exist: snapshots, and the task that refreshes them |
//! | [`layout`] | how Feast lays rows out in each store: bytes in, rows out |
//! | [`store`] | the stores' clients: they send what a layout says |
//! | [`resilience`] | timeout, bounds and circuit breaker around a store |
//! | [`cache`] | rows in memory, what they are good for, request coalescing |
//! | [`proxy`] | the read path |
//! | [`tls`] | TLS towards stores and registries |
//! | [`api`] | gRPC, HTTP and the admin endpoints |
//! | [`net`] | listeners, protocols, draining |
//! | [`injector`] | larder into pods of Kubernetes |
//! | [`config`] | the files, the environment and the flags |
//! | [`probe`] | what `larder ready` and `larder drain` ask of a larder beside them |
//! | [`app`] | puts the parts together, runs them, stops them |
//!
//! `docs/ARCHITECTURE.md` says who may import whom and which invariants hold.

#![warn(clippy::unwrap_used)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that unwraps fails as it should"))]

pub mod api;
pub mod app;
pub mod cache;
pub mod cli;
pub mod clock;
pub mod config;
pub mod injector;
pub mod layout;
pub mod metrics;
pub mod model;
pub mod net;
pub mod pb;
pub mod probe;
pub mod proxy;
pub mod registry;
pub mod resilience;
mod spelling;
pub mod store;
pub mod tls;
