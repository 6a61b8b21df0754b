//! `grpc.health.v1.Health`: serving once a feature registry is loaded.
//!
//! `larder.startup` is another question: whether whoever waits for larder's start may go on.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Interval, MissedTickBehavior, interval};
use tonic::{Request, Response, Status, async_trait, codegen::tokio_stream::Stream};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_server::Health,
};

use super::call::Api;
use crate::clock;

/// The services that may be asked for; the first is the server as a whole.
const SERVICES: [&str; 3] = ["", "feast.serving.ServingService", "GrpcFeatureServer"];

/// The service that says whether the start is done.
const STARTUP: &str = "larder.startup";

/// How often a watcher is told of a change.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Says whether there is anything to serve.
pub(super) struct HealthService(pub(super) Arc<Api>);

#[async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = &request.get_ref().service;
        if !is_known(service) {
            return Err(Status::not_found(format!("unknown service `{service}`")));
        }
        Ok(Response::new(answer(serving(&self.0, service))))
    }

    type WatchStream = Watch;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Watch>, Status> {
        let mut interval = interval(WATCH_INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let service = request.into_inner().service;
        Ok(Response::new(Watch { api: Arc::clone(&self.0), service, interval, last: None }))
    }
}

/// Tells the status at once, and whenever it is found to have changed.
pub(super) struct Watch {
    api: Arc<Api>,
    service: String,
    interval: Interval,
    last: Option<ServingStatus>,
}

impl Stream for Watch {
    type Item = Result<HealthCheckResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            std::task::ready!(self.interval.poll_tick(context));
            let status = if is_known(&self.service) {
                serving(&self.api, &self.service)
            } else {
                ServingStatus::ServiceUnknown
            };
            if self.last.replace(status) != Some(status) {
                return Poll::Ready(Some(Ok(answer(status))));
            }
        }
    }
}

fn is_known(service: &str) -> bool {
    SERVICES.contains(&service) || service == STARTUP
}

fn serving(api: &Api, service: &str) -> ServingStatus {
    let loaded = api.is_serving();
    let serving = match service {
        STARTUP => api.state.lifecycle.has_started(loaded, clock::now().instant),
        _ => loaded,
    };
    if serving { ServingStatus::Serving } else { ServingStatus::NotServing }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}
