//! What is served: `POST /mutate` for the API server, over TLS, and health and metrics.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header::CONTENT_LENGTH, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::{
    sync::Semaphore,
    time::{self, Instant},
};
use tower_http::catch_panic::CatchPanicLayer;
use tracing::{debug, info, warn};

use super::{
    Readiness,
    metrics::InjectorMetrics,
    review::{self, Answered, Outcome},
};
use crate::injector::Settings;

/// The largest request. The API server takes objects of 3 MiB.
const MAX_BODY: usize = 8 << 20;

/// Requests at once; more are refused. The API server has done with each after its timeout.
const MAX_IN_FLIGHT: usize = 256;

/// Bytes of bodies at once: more wait. They bound the memory that requests take.
const MAX_BODIES: usize = 4 * MAX_BODY;

/// How long a body may take to come: longer than any webhook's `timeoutSeconds` serves nobody.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// What the handlers share.
pub(super) struct Injector {
    pub(super) settings: Arc<ArcSwap<Settings>>,
    pub(super) metrics: Arc<InjectorMetrics>,
    requests: Semaphore,
    bodies: Semaphore,
}

impl Injector {
    pub(super) fn new(
        settings: Arc<ArcSwap<Settings>>,
        metrics: Arc<InjectorMetrics>,
    ) -> Arc<Self> {
        let (requests, bodies) = (Semaphore::new(MAX_IN_FLIGHT), Semaphore::new(MAX_BODIES));
        Arc::new(Self { settings, metrics, requests, bodies })
    }
}

/// Serves the API server.
pub(super) fn webhook(injector: Arc<Injector>) -> Router {
    Router::new().route("/mutate", post(mutate)).layer(CatchPanicLayer::new()).with_state(injector)
}

/// Serves `/livez`, `/readyz` and `/metrics`.
pub(super) fn admin(readiness: Arc<Readiness>, metrics: Arc<InjectorMetrics>) -> Router {
    let ready = move || async move {
        match readiness.problem() {
            None => (StatusCode::OK, "ok\n".to_owned()),
            Some(problem) => (StatusCode::SERVICE_UNAVAILABLE, format!("{problem}\n")),
        }
    };
    let metrics = move || async move {
        let content_type = "text/plain; version=0.0.4; charset=utf-8";
        ([(CONTENT_TYPE, content_type)], metrics.render())
    };
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
}

async fn mutate(State(injector): State<Arc<Injector>>, request: Request) -> Response {
    let began = Instant::now();
    let answered = answer(&injector, request).await;
    let outcome = answered.as_ref().map_or(Outcome::Invalid, |answered| answered.outcome);
    injector.metrics.request(outcome, began.elapsed());
    match answered {
        Ok(answered) => {
            tell(&answered);
            ([(CONTENT_TYPE, "application/json")], answered.body).into_response()
        }
        Err((status, why)) => {
            debug!(%status, why, "a request was refused");
            (status, format!("{why}\n")).into_response()
        }
    }
}

async fn answer(injector: &Injector, request: Request) -> Result<Answered, (StatusCode, String)> {
    let busy = |_| (StatusCode::SERVICE_UNAVAILABLE, "too many requests at once".to_owned());
    let _entered = injector.requests.try_acquire().map_err(busy)?;
    let too_large = || {
        let why = format!("a request has at most {MAX_BODY} bytes");
        (StatusCode::PAYLOAD_TOO_LARGE, why)
    };
    let expected = length(request.headers()).unwrap_or(MAX_BODY);
    let expected = u32::try_from(expected).ok().filter(|length| *length as usize <= MAX_BODY);
    let expected = expected.ok_or_else(too_large)?;
    let body = async {
        let room = injector.bodies.acquire_many(expected).await;
        (room, Limited::new(request.into_body(), MAX_BODY).collect().await)
    };
    let Ok((_room, body)) = time::timeout(BODY_TIMEOUT, body).await else {
        return Err((StatusCode::REQUEST_TIMEOUT, "the body did not come in time".to_owned()));
    };
    let body = body.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
        Some(_) => too_large(),
        None => (StatusCode::BAD_REQUEST, format!("the body did not come: {error}")),
    })?;
    let settings = injector.settings.load();
    review::answer(&body.to_bytes(), &settings)
        .map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))
}

fn length(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Pods are made now and then, so each that gets larder, or should and does not, is worth a line.
fn tell(answered: &Answered) {
    let Answered { pod, warnings, outcome, .. } = answered;
    let (namespace, name) = (&pod.namespace, &pod.name);
    match outcome {
        Outcome::Injected => info!(?namespace, pod = ?name, ?warnings, "larder was added"),
        Outcome::Skipped if warnings.is_empty() => {
            debug!(?namespace, pod = ?name, "nothing to do");
        }
        Outcome::Skipped | Outcome::Invalid => {
            warn!(?namespace, pod = ?name, ?warnings, "larder was not added");
        }
    }
}
