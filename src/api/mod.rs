//! What is seen from outside: gRPC, HTTP, and the admin endpoints.
//!
//! [`router`] serves both of Feast's APIs, HTTP and gRPC, from one port: `POST /get-online-features`
//! as Feast's feature server answers it, `feast.serving.ServingService` and Python's
//! `GrpcFeatureServer`, with health and reflection.

pub mod admin;
mod body;
mod call;
mod codec;
mod grpc;
mod health;
mod http;
mod invalid;
mod json;
mod json_value;
mod lifecycle;
mod message;
mod meta;
mod status;
mod tally;
mod wire;

use std::{sync::Arc, time::Duration};

use axum::Router;

use self::call::Api;
pub use self::{
    call::InFlight,
    lifecycle::{Lifecycle, Opening},
};
use crate::{
    metrics::Metrics,
    proxy::{FeatureProxy, StatusCompat, TtlOnRead},
    registry::{RegistryHandle, StatusHandle},
};

/// What the APIs need.
pub struct ApiState {
    /// Answers requests.
    pub proxy: Arc<FeatureProxy>,
    /// Counts them.
    pub metrics: Arc<Metrics>,
    /// Says whether there is anything to serve.
    pub registry: Arc<RegistryHandle>,
    /// Says why not.
    pub registry_status: StatusHandle,
    /// Says whether it has started.
    pub lifecycle: Arc<Lifecycle>,
    /// The requests under way; more are refused.
    pub in_flight: Arc<InFlight>,
    /// What operators may set.
    pub settings: ApiSettings,
}

/// What operators may set of the APIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiSettings {
    /// How long a request without a deadline of its own may take.
    pub default_timeout: Duration,
    /// The largest body of a request, in bytes; the largest message, over gRPC.
    pub max_body_bytes: usize,
    /// Requests under way at once; more are refused.
    pub max_in_flight: usize,
    /// How nulls and absences are reported.
    pub status: StatusCompat,
    /// What becomes of values older than their view's `ttl`.
    pub ttl_on_read: TtlOnReadByApi,
}

/// What becomes of values older than their view's `ttl`, for each API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TtlOnReadByApi {
    /// `POST /get-online-features`.
    pub http: TtlOnRead,
    /// `feast.serving.ServingService`.
    pub grpc: TtlOnRead,
    /// `GrpcFeatureServer`.
    pub python_grpc: TtlOnRead,
}

impl Default for ApiSettings {
    fn default() -> Self {
        Self {
            default_timeout: Duration::from_secs(1),
            max_body_bytes: 4 << 20,
            max_in_flight: 1024,
            status: StatusCompat::default(),
            ttl_on_read: TtlOnReadByApi::default(),
        }
    }
}

impl Default for TtlOnReadByApi {
    /// As Feast's servers of these APIs do.
    fn default() -> Self {
        Self { http: TtlOnRead::Off, grpc: TtlOnRead::Flag, python_grpc: TtlOnRead::Off }
    }
}

/// Serves HTTP and gRPC. A request that panics is answered; its connection lives on.
pub fn router(state: ApiState) -> Router {
    let api = Api::new(state);
    // gRPC has its own routes. All else, unknown gRPC methods included, is HTTP's to answer.
    grpc::routes(&api).merge(http::routes(&api))
}
