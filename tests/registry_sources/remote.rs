//! `registry_type: remote`: a server that answers as it is told. Feast's own is asked by
//! `tests/sdk/test_registries.py`.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{Path, Request, State},
    response::Response,
    routing::post,
};
use larder::{
    model::Secret,
    registry::{
        FetchLimits, Fetched, RegistryError, RegistrySettings, RegistrySource, RemoteSettings,
        Token,
    },
};
use parking_lot::Mutex;
use prost::Message;
use tonic::{Code, Status, metadata::MetadataMap};
use tonic_prost::ProstCodec;
use tower::service_fn;

use crate::world::{PROJECT, error, golden_registry, snapshot, source, without_pair_stats};

const TOKEN: &str = "t0ken-of-larder";

/// Any list that a registry server answers with.
#[derive(Clone, PartialEq, Message)]
struct Objects {
    #[prost(bytes = "vec", repeated, tag = "1")]
    objects: Vec<Vec<u8>>,
}

/// Any request for one.
#[derive(Clone, PartialEq, Message)]
struct Asked {
    #[prost(string, tag = "1")]
    project: String,
    #[prost(bool, tag = "2")]
    allow_cache: bool,
}

#[derive(Default)]
struct Script {
    lists: HashMap<&'static str, Objects>,
    /// What a call fails with, instead of its list.
    refusals: HashMap<&'static str, Status>,
    /// Whether each answer differs from the one before.
    restless: bool,
    /// The `authorization` of the last call.
    authorization: Option<String>,
    calls: usize,
}

struct Server {
    script: Arc<Mutex<Script>>,
    address: SocketAddr,
}

impl Server {
    async fn start() -> Self {
        let script = Arc::new(Mutex::new(Script::default()));
        let router = Router::new()
            .route("/feast.registry.RegistryServer/ListProjects", post(list_projects))
            .route("/feast.registry.RegistryServer/{method}", post(list))
            .with_state(Arc::clone(&script));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        let server = Self { script, address };
        server.has(golden_registry());
        server
    }

    /// Lists what a registry has, without the projects of its objects.
    fn has(&self, registry: larder::pb::core::Registry) {
        let mut script = self.script.lock();
        macro_rules! lists {
            ($($method:literal $field:ident)*) => { $(
                let objects = registry.$field.into_iter().map(|mut object| {
                    object.spec.as_mut().unwrap().project.clear();
                    object.encode_to_vec()
                });
                script.lists.insert($method, Objects { objects: objects.collect() });
            )* };
        }
        lists! {
            "ListEntities" entities
            "ListFeatureViews" feature_views
            "ListStreamFeatureViews" stream_feature_views
            "ListOnDemandFeatureViews" on_demand_feature_views
            "ListLabelViews" label_views
            "ListFeatureServices" feature_services
        }
        let projects = registry.projects.iter().map(Message::encode_to_vec).collect();
        script.lists.insert("ListProjects", Objects { objects: projects });
    }

    fn refuses(&self, method: &'static str, status: Status) {
        self.script.lock().refusals.insert(method, status);
    }

    fn settings(&self) -> RemoteSettings {
        RemoteSettings {
            address: self.address.to_string(),
            tls: None,
            authority: None,
            token: Some(Token::Text(Secret(TOKEN.into()))),
        }
    }

    fn source(&self) -> RegistrySource {
        source(RegistrySettings::Remote(self.settings()), FetchLimits::default())
    }
}

async fn list(
    State(script): State<Arc<Mutex<Script>>>,
    Path(method): Path<String>,
    request: Request,
) -> Response {
    let answer = |request: tonic::Request<Asked>| {
        let asked = request.get_ref();
        assert_eq!((&*asked.project, asked.allow_cache), (PROJECT, true));
        std::future::ready(script.lock().answer(&method, request.metadata()))
    };
    let mut grpc = tonic::server::Grpc::new(ProstCodec::<Objects, Asked>::default());
    grpc.unary(service_fn(answer), request).await.map(Body::new)
}

async fn list_projects(State(script): State<Arc<Mutex<Script>>>, request: Request) -> Response {
    let answer = |request: tonic::Request<()>| {
        std::future::ready(script.lock().answer("ListProjects", request.metadata()))
    };
    let mut grpc = tonic::server::Grpc::new(ProstCodec::<Objects, ()>::default());
    grpc.unary(service_fn(answer), request).await.map(Body::new)
}

impl Script {
    fn answer(
        &mut self,
        method: &str,
        metadata: &MetadataMap,
    ) -> Result<tonic::Response<Objects>, Status> {
        self.calls += 1;
        let header = metadata.get("authorization");
        self.authorization = header.map(|value| value.to_str().unwrap().to_owned());
        if let Some(status) = self.refusals.get(method) {
            return Err(status.clone());
        }
        let mut list = self.lists[method].clone();
        if self.restless && method == "ListEntities" {
            list.objects.truncate(self.calls % 3 + 1);
        }
        Ok(tonic::Response::new(list))
    }
}

#[tokio::test]
async fn a_project_is_listed_and_listed_again_only_if_it_changed() {
    let server = Server::start().await;
    let mut source = server.source();
    let fetched = source.fetch(None, 0).await.unwrap();
    let registry = snapshot(&fetched);
    let expected = golden_registry();
    assert_eq!(
        registry.views.len(),
        expected.feature_views.len()
            + expected.label_views.len()
            + expected.on_demand_feature_views.len()
    );
    assert_eq!(registry.services.len(), expected.feature_services.len());
    assert!(registry.entities.contains_key("driver"));
    let authorization = server.script.lock().authorization.clone();
    assert_eq!(authorization.as_deref(), Some("Bearer t0ken-of-larder"));

    let Fetched::Bytes { marker, .. } = fetched else { unreachable!() };
    assert!(marker.is_some());
    let before = server.script.lock().calls;
    let again = source.fetch(marker.as_ref(), 0).await.unwrap();
    assert!(matches!(again, Fetched::Unchanged));
    assert_eq!(server.script.lock().calls - before, 7);

    // In another order it is the same.
    server.script.lock().lists.get_mut("ListFeatureViews").unwrap().objects.reverse();
    assert!(matches!(source.fetch(marker.as_ref(), 0).await.unwrap(), Fetched::Unchanged));

    server.has(without_pair_stats());
    let changed = snapshot(&source.fetch(marker.as_ref(), 0).await.unwrap());
    assert_eq!(changed.views.len() + 1, registry.views.len());
    assert!(!changed.views.contains_key("pair_stats"));
}

#[tokio::test]
async fn a_registry_that_changes_between_two_lists_is_not_taken() {
    let server = Server::start().await;
    server.script.lock().restless = true;
    let being_written = server.source().fetch(None, 0).await;
    assert!(matches!(being_written, Err(RegistryError::BeingWritten { .. })), "{being_written:?}");
}

#[tokio::test]
async fn a_call_that_is_refused_fails_the_read_and_is_told_without_the_token() {
    let server = Server::start().await;
    for code in [Code::PermissionDenied, Code::Unauthenticated] {
        server.refuses("ListFeatureViews", Status::new(code, "not you"));
        let text = error(&mut server.source()).await;
        assert!(text.contains("check its token") && text.contains("not you"), "{text}");
        assert!(!text.contains(TOKEN), "{text}");
    }
    for code in [Code::Unimplemented, Code::Unavailable, Code::Internal, Code::NotFound] {
        server.refuses("ListFeatureServices", Status::new(code, "Method not found!"));
        assert!(server.source().fetch(None, 0).await.is_err());
    }
}

#[tokio::test]
async fn label_views_are_missing_only_where_feasts_server_never_had_them() {
    let server = Server::start().await;
    let views = snapshot(&server.source().fetch(None, 0).await.unwrap()).views.len();
    let mut source = server.source();
    // grpcio's servers say this of a method that they do not have.
    server.refuses("ListLabelViews", Status::unimplemented("Method not found!"));
    assert_eq!(snapshot(&source.fetch(None, 0).await.unwrap()).views.len() + 1, views);

    server.refuses("ListLabelViews", Status::unimplemented("unknown path"));
    let text = error(&mut source).await;
    assert!(text.contains("does not know `ListLabelViews`"), "{text}");

    server.script.lock().refusals.clear();
    assert_eq!(snapshot(&source.fetch(None, 0).await.unwrap()).views.len(), views);
    server.refuses("ListLabelViews", Status::unimplemented("Method not found!"));
    assert!(source.fetch(None, 0).await.is_err(), "there were some");
}

#[tokio::test]
async fn more_than_the_bound_is_refused() {
    let server = Server::start().await;
    let limits = FetchLimits { max_bytes: 500, ..FetchLimits::default() };
    let mut small = source(RegistrySettings::Remote(server.settings()), limits);
    let refused = small.fetch(None, 0).await;
    assert!(matches!(refused, Err(RegistryError::TooLarge { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_token_file_is_read_each_time() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    let settings = RemoteSettings { token: Some(Token::File(token.clone())), ..server.settings() };
    let mut source = source(RegistrySettings::Remote(settings), FetchLimits::default());
    assert!(error(&mut source).await.contains("token"));
    for text in ["first", "second\n"] {
        std::fs::write(&token, text).unwrap();
        source.fetch(None, 0).await.unwrap();
        let seen = server.script.lock().authorization.clone();
        assert_eq!(seen, Some(format!("Bearer {}", text.trim())));
    }
    std::fs::write(&token, "not\u{1}s3cret").unwrap();
    let text = error(&mut source).await;
    assert!(text.contains("no header can have") && !text.contains("s3cret"), "{text}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let port = crate::services::free_port();
    let settings = RemoteSettings {
        address: format!("127.0.0.1:{port}"),
        tls: None,
        authority: None,
        token: None,
    };
    let mut source = source(RegistrySettings::Remote(settings), FetchLimits::default());
    let text = error(&mut source).await;
    assert!(
        text.starts_with(&format!("registry `grpc://127.0.0.1:{port}` cannot be read: ")),
        "{text}"
    );
}
