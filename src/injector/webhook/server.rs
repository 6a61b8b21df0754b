//! What is served: `POST /mutate` for the API server, over TLS, and health and metrics.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use axum::{
    Router,
    body::{Body, HttpBody},
    extract::{Request, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http_body_util::BodyExt;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{self, Instant},
};
use tower_http::catch_panic::CatchPanicLayer;
use tracing::{debug, info, warn};

use super::{
    Readiness,
    metrics::InjectorMetrics,
    review::{self, Answered, Outcome},
};
use crate::{clock, injector::Settings};

/// The largest request. The API server takes objects of 3 MiB.
const MAX_BODY: usize = 8 << 20;

/// Requests at once; more are refused. The API server has done with each after its timeout.
const MAX_IN_FLIGHT: usize = 256;

/// So much of each body needs no room: hardly a pod is larger, and those few that are, or pretend
/// to be, do not stand in its way.
const FREE_BODY: usize = 64 << 10;

/// Bytes of bodies beyond that at once; more are refused. With what [`MAX_IN_FLIGHT`] have free they
/// bound what was received; what is made of it, [`MAX_DECIDING`] bounds.
const MAX_BODIES: usize = 2 * MAX_BODY;

/// Pods that are read and decided upon at once; more wait, for milliseconds. Each may take several
/// times its text.
const MAX_DECIDING: usize = 1;

/// How long a body may take to come. The API server gives a webhook 2 s, as the chart has it.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// What the handlers share.
pub(super) struct Injector {
    pub(super) settings: Arc<ArcSwap<Settings>>,
    pub(super) metrics: Arc<InjectorMetrics>,
    requests: Semaphore,
    bodies: Semaphore,
    deciding: Semaphore,
}

impl Injector {
    pub(super) fn new(
        settings: Arc<ArcSwap<Settings>>,
        metrics: Arc<InjectorMetrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            settings,
            metrics,
            requests: Semaphore::new(MAX_IN_FLIGHT),
            bodies: Semaphore::new(MAX_BODIES),
            deciding: Semaphore::new(MAX_DECIDING),
        })
    }
}

/// Serves the API server.
pub(super) fn webhook(injector: Arc<Injector>) -> Router {
    Router::new().route("/mutate", post(mutate)).layer(CatchPanicLayer::new()).with_state(injector)
}

/// Serves `/livez`, `/readyz` and `/metrics`.
pub(super) fn admin(readiness: Arc<Readiness>, metrics: Arc<InjectorMetrics>) -> Router {
    let ready = move || async move {
        match readiness.problem(clock::now().unix_seconds) {
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

/// A status, and why.
type Refusal = (StatusCode, String);

async fn answer(injector: &Injector, request: Request) -> Result<Answered, Refusal> {
    let _entered = injector.requests.try_acquire().map_err(|_| busy())?;
    let body = time::timeout(BODY_TIMEOUT, receive(&injector.bodies, request.into_body())).await;
    let Ok(body) = body else {
        return Err((StatusCode::REQUEST_TIMEOUT, "the body did not come in time".to_owned()));
    };
    let (body, _room) = body?;
    let _turn = injector.deciding.acquire().await.map_err(|_| busy())?;
    let settings = injector.settings.load();
    review::answer(&body, &settings).map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))
}

/// A body, with the room that it takes. Room is taken for what came, not for what is announced.
async fn receive(room: &Semaphore, mut body: Body) -> Result<(Vec<u8>, Room<'_>), Refusal> {
    let too_large = || {
        let why = format!("a request has at most {MAX_BODY} bytes");
        (StatusCode::PAYLOAD_TOO_LARGE, why)
    };
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(too_large());
    }
    let mut received = Vec::new();
    let mut taken: Room<'_> = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            (StatusCode::BAD_REQUEST, format!("the body did not come: {error}"))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        let length = received.len() + data.len();
        if length > MAX_BODY {
            return Err(too_large());
        }
        let needed = length.saturating_sub(received.len().max(FREE_BODY));
        let needed = u32::try_from(needed).map_err(|_| busy())?;
        let more = room.try_acquire_many(needed).map_err(|_| busy())?;
        match &mut taken {
            Some(taken) => taken.merge(more),
            None => taken = Some(more),
        }
        received.extend_from_slice(&data);
    }
    Ok((received, taken))
}

type Room<'a> = Option<SemaphorePermit<'a>>;

fn busy() -> Refusal {
    (StatusCode::SERVICE_UNAVAILABLE, "too many requests at once".to_owned())
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
