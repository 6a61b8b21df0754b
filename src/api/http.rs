//! Feast's HTTP API: `POST /get-online-features` and `GET /health`.
//!
//! Where Feast's server calls a caller's mistake a server error, larder does not: the SDK would
//! repeat it. Bodies stay those of Feast. docs/compatibility.md lists all that differs.

use std::{any::Any, error::Error, sync::Arc};

use axum::{
    Router,
    body::{Body as HttpBody, to_bytes},
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{ALLOW, CONTENT_TYPE, LOCATION, RETRY_AFTER},
};
use http_body_util::LengthLimitError;
use serde_json::json;
use tokio::time::Instant;
use tower_http::catch_panic::CatchPanicLayer;

use super::{
    body::Body,
    call::{Answered, Api, Call},
    grpc::unknown_method,
    json::{Rendered, render},
    status::{Failure, feast_error},
};
use crate::proxy::{Coercion, Dialect};

/// Everything that no other route takes.
pub(super) fn routes(api: &Arc<Api>) -> Router {
    Router::new()
        .fallback(answer)
        .with_state(Arc::clone(api))
        .layer(CatchPanicLayer::custom(panicked))
}

const ONLINE_FEATURES: &str = "/get-online-features";
const HEALTH: &str = "/health";

/// What else Feast's server has, by the beginning of the path.
const ONLY_FEAST: [&str; 9] = [
    "/search",
    "/retrieve-online-documents",
    "/v1/vector_stores",
    "/push",
    "/write-to-online-store",
    "/materialize",
    "/materialize-incremental",
    "/chat",
    "/openapi.json",
];

async fn answer(State(api): State<Arc<Api>>, request: Request) -> Response {
    let path = normalize(request.uri().path());
    match path {
        ONLINE_FEATURES if request.method() == Method::POST => online_features(&api, request).await,
        ONLINE_FEATURES => wrong_method("POST"),
        HEALTH if request.method() == Method::GET => health(&api),
        HEALTH => wrong_method("GET"),
        _ if is_grpc(request.headers()) => unknown_method(path),
        _ if path.strip_suffix('/') == Some(ONLINE_FEATURES) => redirect(ONLINE_FEATURES),
        _ if path.strip_suffix('/') == Some(HEALTH) => redirect(HEALTH),
        _ if is_only_feasts(path) => only_feast(path),
        _ => detail(StatusCode::NOT_FOUND, "Not Found"),
    }
}

/// Feast's SDK puts its URL, which may end in a slash, before the path.
fn normalize(path: &str) -> &str {
    let slashes = path.bytes().take_while(|byte| *byte == b'/').count();
    &path[slashes.saturating_sub(1)..]
}

fn is_only_feasts(path: &str) -> bool {
    let below = |root: &str| {
        path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    ONLY_FEAST.iter().any(|root| below(root))
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    content_type.is_some_and(|content_type| content_type.starts_with(b"application/grpc"))
}

async fn online_features(api: &Api, request: Request) -> Response {
    let began = Instant::now();
    let (head, body) = request.into_parts();
    let response = match read(body, api.state.settings.max_body_bytes).await {
        Ok(body) => answer_body(api, &head.headers, &body, began).await,
        Err(response) => response,
    };
    if !response.status().is_success() {
        api.state.metrics.feast_request(false, 0);
    }
    api.count_request("http", "GetOnlineFeatures", response.status().as_str(), began);
    response
}

/// Reads a body whatever its content type says: clients of `curl` say that it is a form.
async fn read(body: HttpBody, limit: usize) -> Result<Bytes, Response> {
    to_bytes(body, limit).await.map_err(|error| {
        if error.source().is_some_and(|source| source.is::<LengthLimitError>()) {
            let message = format!("the body is larger than {limit} bytes");
            detail(StatusCode::PAYLOAD_TOO_LARGE, &message)
        } else {
            detail(StatusCode::BAD_REQUEST, "the body broke off")
        }
    })
}

async fn answer_body(api: &Api, headers: &HeaderMap, body: &[u8], began: Instant) -> Response {
    let mut body = match Body::parse(body) {
        Ok(body) => body,
        Err(invalid) => return json_response(StatusCode::UNPROCESSABLE_ENTITY, invalid.to_json()),
    };
    let settings = &api.state.settings;
    let call = Call {
        select: body.select(),
        columns: body.columns,
        full_names: body.full_names,
        dialect: Dialect {
            ttl_on_read: settings.ttl_on_read.http,
            status: settings.status,
            coercion: Coercion::Python,
        },
        headers,
    };
    match api.answer(call).await {
        Ok(Answered { answers, headers }) => {
            let Rendered { body: json, undecodable, tally } = render(&answers, body.view_metadata);
            api.count_undecodable(undecodable);
            api.count_answer(&answers, &tally, began.elapsed());
            let mut response = json_response(StatusCode::OK, json);
            response.headers_mut().extend(headers);
            response
        }
        Err(failure) => refuse(api, &failure),
    }
}

fn refuse(api: &Api, failure: &Failure) -> Response {
    let status = failure.outcome().status;
    let mut response = json_response(status, failure.to_json(&api.state.registry_status));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        // The least that it can say. A store that is down is asked several times in a second.
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// As Feast's: no body, and no word about the store.
fn health(api: &Api) -> Response {
    if api.is_serving() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }.into_response()
}

/// To the path without its slash, as Feast's server does.
fn redirect(path: &'static str) -> Response {
    (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, path)]).into_response()
}

fn wrong_method(allowed: &'static str) -> Response {
    let mut response = detail(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

/// 501, at which Feast's SDK neither tries again nor elsewhere.
fn only_feast(path: &str) -> Response {
    let message = format!(
        "larder does not answer {path}: it reads features of entities, and nothing else; ask \
         Feast's own feature server (`feast serve`)"
    );
    json_response(StatusCode::NOT_IMPLEMENTED, feast_error("FeastError", &message))
}

/// An error in the form of FastAPI.
fn detail(status: StatusCode, text: &str) -> Response {
    json_response(status, json!({ "detail": text }).to_string().into_bytes())
}

fn json_response(status: StatusCode, body: Vec<u8>) -> Response {
    let content_type = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    (status, content_type, body).into_response()
}

fn panicked(_: Box<dyn Any + Send>) -> Response {
    detail(StatusCode::INTERNAL_SERVER_ERROR, "larder failed to answer; its log says more")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leading_slashes_are_one() {
        for (path, normal) in [
            ("/health", "/health"),
            ("//health", "/health"),
            ("///health/", "/health/"),
            ("/", "/"),
            ("//", "/"),
            ("*", "*"),
        ] {
            assert_eq!(normalize(path), normal);
        }
    }

    #[test]
    fn what_only_feast_has_is_known_by_the_whole_segment() {
        for (path, known) in [
            ("/push", true),
            ("/v1/vector_stores/vs_1/search", true),
            ("/pushy", false),
            ("/v1", false),
        ] {
            assert_eq!(is_only_feasts(path), known, "{path}");
        }
    }
}
