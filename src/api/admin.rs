//! The admin endpoints: `/livez`, `/readyz`, `/metrics`, `/status`.
//!
//! Readiness is that the registry is loaded and the listeners are open. It is never tied to a
//! store: an outage of one must not take every replica out of its Service.

use std::{fmt::Write, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use serde_json::json;

use super::{InFlight, Lifecycle};
use crate::{
    clock::Now,
    metrics::Metrics,
    proxy::FeatureProxy,
    registry::{RegistryHandle, StatusHandle},
};

/// What the admin endpoints tell of.
pub struct AdminState {
    /// The read path.
    pub proxy: Arc<FeatureProxy>,
    /// Everything that is counted.
    pub metrics: Arc<Metrics>,
    /// The registry in force.
    pub registry: Arc<RegistryHandle>,
    /// How its refreshes go.
    pub registry_status: StatusHandle,
    /// The requests under way.
    pub in_flight: Arc<InFlight>,
    /// Whether larder is starting or stopping.
    pub lifecycle: Arc<Lifecycle>,
    /// How many connections there are at the serving addresses.
    pub connections: Box<dyn Fn() -> usize + Send + Sync>,
    /// The clock.
    pub now: fn() -> Now,
}

/// Serves them.
pub fn router(state: AdminState) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .with_state(Arc::new(state))
}

async fn readyz(State(state): State<Arc<AdminState>>) -> impl IntoResponse {
    let registry = state.registry_status.load();
    let mut text = String::new();
    if !registry.is_loaded() {
        let why = registry.last_error.as_deref().unwrap_or("it was not read yet");
        if registry.told.is_none() {
            text.push_str("the feature registry is not loaded: ");
        }
        let _ = writeln!(text, "{why}");
    }
    if !state.lifecycle.is_listening() {
        text.push_str("the listeners are not open\n");
    }
    if text.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, text)
    }
}

async fn metrics(State(state): State<Arc<AdminState>>) -> impl IntoResponse {
    state.set_gauges();
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], state.metrics.render())
}

async fn status(State(state): State<Arc<AdminState>>) -> impl IntoResponse {
    let proxy = state.proxy.status();
    let registry = state.registry_status.load();
    let snapshot = state.registry.load();
    let stores: Vec<_> = proxy
        .stores
        .iter()
        .map(|store| json!({ "name": &*store.name, "breaker": if store.open { "open" } else { "closed" } }))
        .collect();
    let status = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "listening": state.lifecycle.is_listening(),
        "connections": (state.connections)(),
        "requests": { "under_way": state.in_flight.count(), "total": state.in_flight.total() },
        "registry": {
            "loaded": registry.is_loaded(),
            "project": snapshot.as_ref().map(|registry| registry.project.to_string()),
            "generation": snapshot.as_ref().map(|registry| registry.generation),
            "feature_views": snapshot.as_ref().map(|registry| registry.views.len()),
            "feature_services": snapshot.as_ref().map(|registry| registry.services.len()),
            "last_updated_unix": registry.last_updated_unix,
            "age_seconds": registry.age_seconds((state.now)().unix_seconds),
            "warnings": registry.warnings,
            "last_error": registry.last_error.as_deref(),
            "consecutive_failures": registry.consecutive_failures,
            "from_disk_copy": registry.from_disk_copy,
        },
        "cache": {
            "entries": proxy.cache.entries,
            "bytes": proxy.cache.bytes,
            "max_bytes": proxy.cache.max_bytes,
            "evictions": proxy.cache.evictions,
        },
        "rows_being_read": proxy.rows_being_read,
        "stores": stores,
    });
    ([(CONTENT_TYPE, "application/json")], status.to_string())
}

impl AdminState {
    /// Sets the gauges that are asked for, not counted.
    fn set_gauges(&self) {
        let proxy = self.proxy.status();
        let registry = self.registry_status.load();
        let metrics = &self.metrics;
        let set = |name, value: f64| metrics.gauge(name, &[]).set(value);
        set("larder_cache_entries", proxy.cache.entries as f64);
        set("larder_cache_bytes", proxy.cache.bytes as f64);
        set("larder_cache_max_bytes", proxy.cache.max_bytes as f64);
        set("larder_flights", proxy.rows_being_read as f64);
        set("larder_connections", (self.connections)() as f64);
        set("larder_requests_in_flight", self.in_flight.count() as f64);
        set("larder_registry_loaded", if registry.is_loaded() { 1.0 } else { 0.0 });
        set("larder_registry_consecutive_failures", f64::from(registry.consecutive_failures));
        set("larder_registry_from_disk_copy", if registry.from_disk_copy { 1.0 } else { 0.0 });
        if let Some(age) = registry.age_seconds((self.now)().unix_seconds) {
            set("larder_registry_snapshot_age_seconds", age as f64);
        }
        if let Some(updated) = registry.last_updated_unix {
            set("larder_registry_last_updated_seconds", updated as f64);
        }
        metrics.set_counter("larder_registry_errors_total", &[], registry.failures);
        metrics.set_counter("larder_cache_evictions_total", &[], proxy.cache.evictions);
    }
}
