//! The few requests that the injector makes of the Kubernetes API server, as a pod's own service
//! account.
//!
//! Each has a connection of its own: there are a few a minute, and the token, the authorities and
//! the address are looked at anew. Nothing is tried again here.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::{net::TcpStream, time};
use tokio_rustls::TlsConnector;

use crate::tls::{TlsError, TlsSettings, client_config};

/// Where the API server is, and as whom it is asked.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// The host of the API server: a name or an address, IPv6 without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The folder with `token` and `ca.crt`, which are read for each request.
    pub service_account: PathBuf,
}

/// Why there is no answer that is of use.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClusterError {
    /// A file of the service account cannot be read.
    #[error("`{}` cannot be read", path.display())]
    ServiceAccount {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The service account's authorities are of no use.
    #[error("TLS towards the API server cannot be set up")]
    Tls(#[from] TlsError),
    /// There is no connection, or it ended.
    #[error("the API server at {server} cannot be reached")]
    Unreachable {
        /// Where it should be.
        server: String,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer took too long.
    #[error("the API server gave no answer within {} s", TIMEOUT.as_secs())]
    TimedOut,
    /// It refuses.
    #[error("{method} {path}: {status}: {message}")]
    Refused {
        /// What was to be done.
        method: Method,
        /// With what.
        path: String,
        /// The answer.
        status: StatusCode,
        /// What it says.
        message: String,
    },
    /// The answer is not what it should be.
    #[error("{method} {path}: the answer is no JSON object")]
    NotUnderstood {
        /// What was to be done.
        method: Method,
        /// With what.
        path: String,
    },
}

/// For a request from beginning to end.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The largest answer: an object is at most 3 MiB.
const MAX_ANSWER: usize = 4 << 20;

/// How much of what the API server says is kept.
const MAX_MESSAGE: usize = 300;

/// A change of some fields, with lists merged by their keys.
const STRATEGIC_MERGE: &str = "application/strategic-merge-patch+json";
const JSON: &str = "application/json";

/// Who is said to own the fields that are set.
const FIELD_MANAGER: &str = "?fieldManager=larder-injector";

impl ClusterError {
    /// Whether the object is not there.
    pub(super) fn is_not_found(&self) -> bool {
        self.status() == Some(StatusCode::NOT_FOUND)
    }

    /// Whether somebody else was faster.
    pub(super) fn is_conflict(&self) -> bool {
        self.status() == Some(StatusCode::CONFLICT)
    }

    fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }
}

impl Cluster {
    /// Reads an object.
    pub(super) async fn get(&self, path: &str) -> Result<Value, ClusterError> {
        self.request(Method::GET, path, JSON, None).await
    }

    /// Makes an object.
    pub(super) async fn create(&self, path: &str, object: &Value) -> Result<Value, ClusterError> {
        self.request(Method::POST, &format!("{path}{FIELD_MANAGER}"), JSON, Some(object)).await
    }

    /// Puts an object in the place of the one whose `resourceVersion` it has.
    pub(super) async fn replace(&self, path: &str, object: &Value) -> Result<Value, ClusterError> {
        self.request(Method::PUT, &format!("{path}{FIELD_MANAGER}"), JSON, Some(object)).await
    }

    /// Changes fields of an object.
    pub(super) async fn merge(&self, path: &str, fields: &Value) -> Result<Value, ClusterError> {
        let path = format!("{path}{FIELD_MANAGER}");
        self.request(Method::PATCH, &path, STRATEGIC_MERGE, Some(fields)).await
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Option<&Value>,
    ) -> Result<Value, ClusterError> {
        let asked = self.ask(&method, path, content_type, body);
        let (status, answer) =
            time::timeout(TIMEOUT, asked).await.map_err(|_| ClusterError::TimedOut)??;
        let answer: Option<Value> = serde_json::from_slice(&answer).ok();
        let path = path.to_owned();
        if !status.is_success() {
            let message = answer.as_ref().and_then(|answer| answer["message"].as_str());
            let message = message.unwrap_or_default().chars().take(MAX_MESSAGE).collect();
            return Err(ClusterError::Refused { method, path, status, message });
        }
        match answer {
            Some(answer) if answer.is_object() => Ok(answer),
            _ => Err(ClusterError::NotUnderstood { method, path }),
        }
    }

    async fn ask(
        &self,
        method: &Method,
        path: &str,
        content_type: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, bytes::Bytes), ClusterError> {
        let this = self.clone();
        let read = tokio::task::spawn_blocking(move || this.credentials()).await;
        let (token, tls) = read.map_err(|error| self.unreachable(error))??;

        let connect = TcpStream::connect((self.host.as_str(), self.port));
        let stream = connect.await.map_err(|error| self.unreachable(error))?;
        let name = ServerName::try_from(self.host.clone());
        let name = name.map_err(|error| self.unreachable(error))?;
        let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await;
        let stream = TokioIo::new(stream.map_err(|error| self.unreachable(error))?);
        let shaken = hyper::client::conn::http1::handshake(stream).await;
        let (mut sender, connection) = shaken.map_err(|error| self.unreachable(error))?;
        // It ends when the sender goes.
        let connection = tokio::spawn(connection);

        let body = body.map(Value::to_string).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.authority())
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::USER_AGENT, concat!("larder/", env!("CARGO_PKG_VERSION")))
            .header(header::ACCEPT, JSON)
            .header(header::CONTENT_TYPE, content_type)
            .body(Full::new(bytes::Bytes::from(body)));
        let request = request.map_err(|error| self.unreachable(error))?;
        let answered = async {
            let answer = sender.send_request(request).await?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>((head.status, body))
        };
        let answered = answered.await;
        connection.abort();
        answered.map_err(|source| ClusterError::Unreachable { server: self.authority(), source })
    }

    /// The token, and whom to trust. Blocks for as long as the files take.
    fn credentials(&self) -> Result<(String, rustls::ClientConfig), ClusterError> {
        let path = self.service_account.join("token");
        let token = std::fs::read_to_string(&path)
            .map_err(|source| ClusterError::ServiceAccount { path, source })?;
        let ca = Some(self.service_account.join("ca.crt"));
        let tls = client_config(&TlsSettings { ca, ..TlsSettings::default() })?;
        Ok((token.trim().to_owned(), tls))
    }

    fn unreachable(
        &self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> ClusterError {
        ClusterError::Unreachable { server: self.authority(), source: source.into() }
    }

    fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}
