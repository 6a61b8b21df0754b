//! Feast's registry server, over gRPC.
//!
//! It lists the objects of a project, kind by kind, and has no call that says whether anything
//! changed. So all is listed each time, and listed again if it is new, until two answers in a row
//! are the same: only then no change came in between.

use std::io;

use http::{Uri, uri::PathAndQuery};
use hyper_util::rt::TokioIo;
use prost::Message;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;
use tower::service_fn;
use xxhash_rust::xxh3::xxh3_64;

use super::{Fetched, Fetching, Marker, RegistryError};
use crate::{
    pb::{
        core,
        registry::{
            ListEntitiesRequest, ListEntitiesResponse, ListFeatureServicesRequest,
            ListFeatureServicesResponse, ListFeatureViewsRequest, ListFeatureViewsResponse,
            ListLabelViewsRequest, ListLabelViewsResponse, ListOnDemandFeatureViewsRequest,
            ListOnDemandFeatureViewsResponse, ListProjectsRequest, ListProjectsResponse,
            ListStreamFeatureViewsRequest, ListStreamFeatureViewsResponse,
        },
    },
    registry::{RemoteSettings, Token},
    tls,
};

const CREDENTIALS: &str = "its token, and that its owner may DESCRIBE the project's objects";

/// How often a registry is listed until two answers are the same.
const ATTEMPTS: usize = 4;

/// What grpcio's servers say of a method that they do not have. Proxies say something else.
const UNKNOWN_TO_THE_SERVER: &str = "Method not found!";

/// The largest token that is read, in bytes.
const MAX_TOKEN_BYTES: u64 = 64 << 10;

/// A registry server. Each read has a connection of its own: names are resolved, certificates and
/// token read anew.
#[derive(Debug)]
pub(super) struct RemoteSource {
    settings: RemoteSettings,
    /// Whether it has ever listed label views, which older servers do not have.
    lists_label_views: bool,
}

/// The calls of one read.
struct Calls<'a> {
    grpc: Grpc<Channel>,
    authorization: Option<MetadataValue<Ascii>>,
    fetching: Fetching<'a>,
}

impl RemoteSource {
    pub(super) fn new(settings: RemoteSettings) -> Self {
        Self { settings, lists_label_views: false }
    }

    pub(super) async fn fetch(&mut self, fetching: Fetching<'_>) -> Result<Fetched, RegistryError> {
        let mut calls = Calls::connect(&self.settings, fetching).await?;
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let bytes = self.list(&mut calls).await?.encode_to_vec();
            let marker = Marker::new(format!("{:016x}", xxh3_64(&bytes)));
            if fetching.known == Some(&marker) {
                return Ok(Fetched::Unchanged);
            }
            if last.as_ref() == Some(&marker) {
                return Ok(Fetched::Bytes { bytes, marker: Some(marker) });
            }
            last = Some(marker);
        }
        Err(RegistryError::BeingWritten { place: fetching.place.to_owned() })
    }

    async fn list(&mut self, calls: &mut Calls<'_>) -> Result<core::Registry, RegistryError> {
        let mut registry = core::Registry::default();
        let request = ListProjectsRequest { allow_cache: true };
        let found: Result<ListProjectsResponse, _> = calls.call("ListProjects", request, 0).await;
        registry.projects = found.map_err(|status| calls.failure("ListProjects", status))?.projects;

        // The server does not say whose an object is, and lists them in any order.
        macro_rules! list {
            ($method:literal, $request:ident, $response:ty, $field:ident) => {{
                let project = calls.fetching.project;
                let request = $request { project: project.to_owned(), allow_cache: true };
                let found: Result<$response, _> =
                    calls.call($method, request, registry.encoded_len()).await;
                found.map_err(|status| calls.failure($method, status)).map(|found| {
                    registry.$field = found.$field;
                    for object in &mut registry.$field {
                        object.spec.get_or_insert_default().project = project.to_owned();
                    }
                    registry.$field.sort_by_cached_key(Message::encode_to_vec);
                })
            }};
        }
        list!("ListEntities", ListEntitiesRequest, ListEntitiesResponse, entities)?;
        list!(
            "ListFeatureViews",
            ListFeatureViewsRequest,
            ListFeatureViewsResponse,
            feature_views
        )?;
        list!(
            "ListStreamFeatureViews",
            ListStreamFeatureViewsRequest,
            ListStreamFeatureViewsResponse,
            stream_feature_views
        )?;
        list!(
            "ListOnDemandFeatureViews",
            ListOnDemandFeatureViewsRequest,
            ListOnDemandFeatureViewsResponse,
            on_demand_feature_views
        )?;
        list!(
            "ListFeatureServices",
            ListFeatureServicesRequest,
            ListFeatureServicesResponse,
            feature_services
        )?;
        match list!("ListLabelViews", ListLabelViewsRequest, ListLabelViewsResponse, label_views) {
            Ok(()) => self.lists_label_views = true,
            // Once there were any, whoever stands before the server must not hide them.
            Err(RegistryError::Unimplemented { by_server: true, .. })
                if !self.lists_label_views => {}
            Err(error) => return Err(error),
        }
        Ok(registry)
    }
}

impl<'a> Calls<'a> {
    async fn connect(
        settings: &RemoteSettings,
        fetching: Fetching<'a>,
    ) -> Result<Self, RegistryError> {
        let failed = |error| RegistryError::unreadable(fetching.place, error);
        let authorization = authorization(settings.token.as_ref()).await.map_err(failed)?;
        let channel = channel(settings).await.map_err(failed)?;
        Ok(Self { grpc: Grpc::new(channel), authorization, fetching })
    }

    /// `present`: the bytes that were received before, and count towards the bound.
    async fn call<Q, A>(
        &mut self,
        method: &'static str,
        message: Q,
        present: usize,
    ) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let max_bytes = usize::try_from(self.fetching.limits.max_bytes).unwrap_or(usize::MAX);
        let left = max_bytes.saturating_sub(present);
        let mut grpc = self.grpc.clone().max_decoding_message_size(left);
        let path = format!("/feast.registry.RegistryServer/{method}");
        let path = PathAndQuery::from_maybe_shared(path).expect("a method's name is a path");
        let mut request = Request::new(message);
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
        let answered = grpc.unary(request, path, ProstCodec::<Q, A>::default()).await;
        answered.map(tonic::Response::into_inner)
    }

    fn failure(&self, method: &'static str, status: Status) -> RegistryError {
        let place = self.fetching.place.to_owned();
        match status.code() {
            Code::Unauthenticated | Code::PermissionDenied => {
                RegistryError::Refused { place, check: CREDENTIALS, cause: status.into() }
            }
            Code::Unimplemented => {
                let by_server = status.message() == UNKNOWN_TO_THE_SERVER;
                RegistryError::Unimplemented { place, method, by_server, cause: status.into() }
            }
            Code::OutOfRange if status.message().contains("message length too large") => {
                let max_bytes = self.fetching.limits.max_bytes;
                RegistryError::TooLarge { place, max_bytes }
            }
            _ => RegistryError::Unreadable { place, cause: status.into() },
        }
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The header that shows who larder is. An error does not have the token.
async fn authorization(token: Option<&Token>) -> Result<Option<MetadataValue<Ascii>>, BoxError> {
    let text = match token {
        None => return Ok(None),
        Some(Token::Text(text)) => text.0.clone(),
        Some(Token::File(path)) => {
            let mut text = String::new();
            let named = |error: io::Error| format!("token `{}`: {error}", path.display());
            let file = tokio::fs::File::open(path).await.map_err(named)?;
            file.take(MAX_TOKEN_BYTES).read_to_string(&mut text).await.map_err(named)?;
            text
        }
    };
    let header = format!("Bearer {}", text.trim()).parse::<MetadataValue<Ascii>>();
    let mut header = header.map_err(|_| "the token has characters that no header can have")?;
    header.set_sensitive(true);
    Ok(Some(header))
}

/// What a connection is, with TLS and without.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn channel(settings: &RemoteSettings) -> Result<Channel, BoxError> {
    let address = settings.address.clone();
    let authority = settings.authority.as_deref().unwrap_or(&address);
    let scheme = if settings.tls.is_some() { "https" } else { "http" };
    let origin: Uri = format!("{scheme}://{authority}").parse()?;
    let tls = match settings.tls.clone() {
        None => None,
        Some(tls) => {
            let config = tokio::task::spawn_blocking(move || tls::client_config(&tls)).await?;
            let mut config = config?;
            config.alpn_protocols = vec![b"h2".to_vec()];
            let host = origin.host().unwrap_or_default().trim_matches(['[', ']']);
            Some((
                TlsConnector::from(std::sync::Arc::new(config)),
                ServerName::try_from(host.to_owned())?,
            ))
        }
    };
    let connector = service_fn(move |_: Uri| {
        let (address, tls) = (address.clone(), tls.clone());
        async move {
            let tcp = TcpStream::connect(&address).await?;
            tcp.set_nodelay(true)?;
            let stream: Box<dyn Stream> = match tls {
                None => Box::new(tcp),
                Some((connector, name)) => Box::new(connector.connect(name, tcp).await?),
            };
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    });
    // The scheme of the connection is not that of the requests: tonic would speak TLS itself.
    let endpoint = Endpoint::from_shared(format!("http://{}", settings.address))?
        .origin(origin)
        .user_agent(concat!("larder/", env!("CARGO_PKG_VERSION")))?;
    Ok(endpoint.connect_with_connector(connector).await?)
}
