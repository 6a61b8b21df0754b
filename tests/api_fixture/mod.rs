//! Puts a proxy and its APIs together over a store, and calls them within the process.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::{fs, path::Path, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use larder::{
    api::{ApiSettings, ApiState, InFlight, Lifecycle, router},
    cache::FeatureCache,
    metrics::Metrics,
    model::KeyEncoding,
    proxy::{FeatureProxy, FreshnessTable, Parts, RequestLimits, RouteTable, StoreFacts},
    registry::{DecodeOptions, Registry, RegistryHandle, StatusHandle, decode},
    resilience::{Limits, ResilientStore},
    store::{OnlineStore, SqliteSettings, StoreSettings, connect},
};
use tokio::time::Instant;
use tonic::{Code, Status};
use tower::ServiceExt;

pub(crate) mod protobuf_json;

/// A server in this process.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) router: Router,
    pub(crate) registry: Arc<RegistryHandle>,
    pub(crate) metrics: Arc<Metrics>,
}

/// What a server is made of.
pub(crate) struct Setup {
    pub(crate) store: Arc<dyn OnlineStore>,
    /// As Feast calls the kind of store.
    pub(crate) kind: &'static str,
    pub(crate) registry: Option<Registry>,
    pub(crate) registry_status: StatusHandle,
    pub(crate) settings: ApiSettings,
    pub(crate) lifecycle: Arc<Lifecycle>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            store: golden_store(),
            kind: "sqlite",
            registry: Some(golden_registry("registry.db")),
            registry_status: StatusHandle::default(),
            settings: patient(),
            lifecycle: Lifecycle::new(Instant::now(), Duration::from_secs(20)),
        }
    }
}

impl Server {
    pub(crate) fn start(setup: Setup) -> Self {
        let Setup { store, kind, registry: snapshot, registry_status, settings, lifecycle } = setup;
        let metrics = Metrics::new();
        let registry = Arc::new(RegistryHandle::default());
        if let Some(snapshot) = snapshot {
            registry.publish(snapshot);
        }
        let name: Arc<str> = "default".into();
        // Machines that run tests are slow; what is slow on purpose sets a deadline.
        let limits = Limits { timeout: Duration::from_secs(10), ..Limits::default() };
        let store_metrics = metrics.store(&name);
        let proxy = FeatureProxy::new(Parts {
            registry: Arc::clone(&registry),
            freshness: FreshnessTable::default(),
            limits: RequestLimits::default(),
            cache: Arc::new(FeatureCache::new(64 << 20)),
            stores: vec![(
                ResilientStore::new(Arc::clone(&name), store, limits, store_metrics),
                StoreFacts { name, python_finds_everything: kind == "redis" },
            )],
            routes: RouteTable::default(),
            metrics: Arc::clone(&metrics),
        });
        let router = router(ApiState {
            proxy: Arc::new(proxy),
            metrics: Arc::clone(&metrics),
            registry: Arc::clone(&registry),
            registry_status,
            lifecycle,
            in_flight: Arc::new(InFlight::at_most(settings.max_in_flight)),
            settings,
        });
        Self { router, registry, metrics }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.router.clone().oneshot(request).await.expect("a router always answers")
    }

    /// Sends a JSON request with some headers.
    pub(crate) async fn post(&self, body: impl Into<Body>, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::post("/get-online-features");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.ask(request.body(body.into()).unwrap()).await
    }

    pub(crate) async fn ask(&self, request: Request<Body>) -> Answer {
        let response = self.send(request).await;
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: head.status.as_u16(), headers: head.headers, body }
    }

    /// Calls a gRPC method with one message, and waits for the end.
    pub(crate) async fn call(
        &self,
        path: &str,
        message: &[u8],
        metadata: &[(&str, &str)],
    ) -> Called {
        let (head, body) = self.send(grpc_request(path, message, metadata)).await.into_parts();
        let body = body.collect().await.unwrap();
        let trailers = body.trailers().cloned().unwrap_or_default();
        let status = Status::from_header_map(&trailers)
            .or_else(|| Status::from_header_map(&head.headers))
            .expect("every gRPC answer has a status");
        Called {
            http: head.status.as_u16(),
            code: status.code(),
            message: status.message().to_owned(),
            headers: head.headers,
            messages: messages(body.to_bytes()),
        }
    }
}

/// An answer over HTTP.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).expect("bodies are UTF-8")
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }
}

/// An answer over gRPC.
#[derive(Debug)]
pub(crate) struct Called {
    pub(crate) http: u16,
    pub(crate) code: Code,
    pub(crate) message: String,
    pub(crate) headers: HeaderMap,
    pub(crate) messages: Vec<Bytes>,
}

pub(crate) fn grpc_request(path: &str, message: &[u8], metadata: &[(&str, &str)]) -> Request<Body> {
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(message);
    let mut request = Request::post(path).header("content-type", "application/grpc");
    for (name, value) in metadata {
        request = request.header(*name, *value);
    }
    request.body(Body::from(frame)).unwrap()
}

/// Takes the frames of gRPC apart.
pub(crate) fn messages(mut body: Bytes) -> Vec<Bytes> {
    let mut messages = Vec::new();
    while !body.is_empty() {
        let head = body.split_to(5);
        assert_eq!(head[0], 0, "nothing is compressed");
        let length = u32::from_be_bytes(head[1..].try_into().unwrap());
        messages.push(body.split_to(length as usize));
    }
    messages
}

/// A registry that Feast wrote, beside the golden requests.
pub(crate) fn golden_registry(file: &str) -> Registry {
    let bytes = fs::read(Path::new("tests/golden/http/fixture").join(file)).unwrap();
    let options = DecodeOptions {
        project: "repo1".into(),
        key_encoding: KeyEncoding::V3,
        versioning: false,
        versioned_store: true,
        routing: None,
    };
    decode(&bytes, &options).unwrap()
}

/// The rows that belong to it, in SQLite.
pub(crate) fn golden_store() -> Arc<dyn OnlineStore> {
    let path = "tests/golden/http/fixture/online_store.db".into();
    connect(&StoreSettings::Sqlite(SqliteSettings { path, connections: 1 })).unwrap()
}

/// A server over the golden SQLite project.
pub(crate) fn golden_server() -> Server {
    Server::start(Setup::default())
}

/// Settings for tests that do not wait for time to pass.
pub(crate) fn patient() -> ApiSettings {
    ApiSettings { default_timeout: Duration::from_secs(30), ..ApiSettings::default() }
}
