//! Accept loops: HTTP/1.1 and HTTP/2 told apart on one socket, in the clear or over TLS, and drained
//! in the end.

use std::{sync::Arc, time::Duration};

use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
    time,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use super::{Listener, Routes, listener::Stream, opening::Opening};

/// Serves at any number of listeners, until it is drained.
pub struct Server {
    protocols: auto::Builder<TokioExecutor>,
    connections: Arc<GracefulShutdown>,
    permits: Arc<Semaphore>,
    stop: CancellationToken,
    loops: TaskTracker,
    /// A task for each connection.
    tasks: TaskTracker,
}

/// Connections at once. A pod has one model, which has a few.
const MAX_CONNECTIONS: usize = 4096;

/// How long each of these may take: a TLS handshake; the bytes that tell HTTP/1.1 and HTTP/2 apart;
/// all of an HTTP/1.1 request's head, and the wait for it.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

impl Server {
    /// Serves nothing yet. Stops accepting when `stop` is cancelled.
    pub fn new(stop: CancellationToken) -> Self {
        let mut protocols = auto::Builder::new(TokioExecutor::new());
        protocols.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        protocols
            .http2()
            .timer(TokioTimer::new())
            // One large request must not hold up those beside it on the connection.
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .max_concurrent_streams(1024)
            // What a client that vanished holds is given up in time.
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(20));
        Self {
            protocols,
            connections: Arc::new(GracefulShutdown::new()),
            permits: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            stop,
            loops: TaskTracker::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// How long a connection may be idle between two requests of HTTP/1.1, and take for the head of
    /// one, instead of half a minute. Listeners that are served already keep theirs.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.protocols.http1().header_read_timeout(timeout);
        self
    }

    /// Accepts in the background, as soon as the listener is open.
    pub fn serve(
        &self,
        opening: impl Future<Output = Listener> + Send + 'static,
        routes: Routes,
    ) -> Serving {
        self.accept(opening, routes, Security::Plain)
    }

    /// As [`serve`](Self::serve), over TLS, with HTTP/1.1 alone.
    #[cfg(feature = "tls")]
    pub fn serve_tls(
        &self,
        opening: impl Future<Output = Listener> + Send + 'static,
        routes: Routes,
        tls: Arc<rustls::ServerConfig>,
    ) -> Serving {
        let security = Security::Tls { acceptor: tls.into(), stop: self.stop.clone() };
        self.accept(opening, routes, security)
    }

    fn accept(
        &self,
        opening: impl Future<Output = Listener> + Send + 'static,
        routes: Routes,
        security: Security,
    ) -> Serving {
        let stop = self.stop.child_token();
        let accept = Accept {
            security,
            protocols: self.protocols.clone(),
            connections: Arc::clone(&self.connections),
            permits: Arc::clone(&self.permits),
            tasks: self.tasks.clone(),
            routes,
        };
        let closed = stop.clone();
        let accepting = self.loops.spawn(async move {
            let run = async { accept.run(opening.await).await };
            tokio::select! {
                () = closed.cancelled() => {}
                () = run => {}
            }
        });
        Serving { stop, accepting }
    }

    /// How many connections there are.
    pub fn connections(&self) -> impl Fn() -> usize + Send + Sync + 'static {
        let tasks = self.tasks.clone();
        move || tasks.len()
    }

    /// Waits for the requests under way, for `grace` at most. `false` if some were cut off.
    ///
    /// To be called once `stop` was cancelled.
    pub async fn drain(self, grace: Duration) -> bool {
        let drained = async {
            self.loops.close();
            self.loops.wait().await;
            // Only accept loops hold it, and they have ended.
            if let Ok(connections) = Arc::try_unwrap(self.connections) {
                connections.shutdown().await;
            }
        };
        time::timeout(grace, drained).await.is_ok()
    }
}

/// What a connection's bytes go through.
#[derive(Clone)]
enum Security {
    Plain,
    #[cfg(feature = "tls")]
    Tls {
        acceptor: tokio_rustls::TlsAcceptor,
        stop: CancellationToken,
    },
}

/// A listener that is served.
#[derive(Debug)]
pub struct Serving {
    stop: CancellationToken,
    accepting: JoinHandle<()>,
}

impl Serving {
    /// Accepts no more, and waits until the listener is closed. Its connections live on.
    pub async fn close(self) {
        self.stop.cancel();
        // It does not panic; and if it did, it would be closed, too.
        let _ = self.accepting.await;
    }
}

struct Accept {
    security: Security,
    protocols: auto::Builder<TokioExecutor>,
    connections: Arc<GracefulShutdown>,
    permits: Arc<Semaphore>,
    tasks: TaskTracker,
    routes: Routes,
}

impl Accept {
    /// Runs until it is dropped.
    async fn run(self, listener: Listener) {
        loop {
            let permit = Arc::clone(&self.permits).acquire_owned();
            let permit = permit.await.expect("the semaphore is never closed");
            match listener.accept().await {
                Ok(stream) => self.spawn(stream, permit),
                Err(error) => {
                    // Out of file descriptors, mostly: a moment later there may be some.
                    warn!(address = %listener.address(), %error, "cannot accept a connection");
                    time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn spawn(&self, stream: Box<dyn Stream>, permit: OwnedSemaphorePermit) {
        let security = self.security.clone();
        let protocols = self.protocols.clone();
        let service = TowerToHyperService::new(self.routes.clone());
        let watcher = self.connections.watcher();
        self.tasks.spawn(async move {
            let _permit = permit;
            let served = match security {
                Security::Plain => {
                    let stream = TokioIo::new(Opening::new(stream, HEAD_TIMEOUT));
                    watcher.watch(protocols.serve_connection(stream, service).into_owned()).await
                }
                #[cfg(feature = "tls")]
                Security::Tls { acceptor, stop } => {
                    let Some(stream) = shake(acceptor, stream, stop).await else { return };
                    let (protocols, stream) = (protocols.http1_only(), TokioIo::new(stream));
                    watcher.watch(protocols.serve_connection(stream, service).into_owned()).await
                }
            };
            if let Err(error) = served {
                debug!(%error, "a connection ended with an error");
            }
        });
    }
}

/// Shakes hands, within [`HEAD_TIMEOUT`].
#[cfg(feature = "tls")]
async fn shake<S: Stream>(
    acceptor: tokio_rustls::TlsAcceptor,
    stream: S,
    stop: CancellationToken,
) -> Option<tokio_rustls::server::TlsStream<S>> {
    let shaken = tokio::select! {
        () = stop.cancelled() => return None,
        shaken = time::timeout(HEAD_TIMEOUT, acceptor.accept(stream)) => shaken.ok()?,
    };
    shaken.inspect_err(|error| debug!(%error, "a TLS handshake failed")).ok()
}

#[cfg(test)]
mod tests {
    use axum::{Router, routing};
    use tokio::{
        io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
        net::UnixStream,
        time::Instant,
    };

    use super::*;
    use crate::net::ListenAddress;

    /// A server at a socket, and the folder of that.
    struct Served {
        server: Server,
        stop: CancellationToken,
        dir: tempfile::TempDir,
    }

    impl Served {
        fn new() -> Self {
            let stop = CancellationToken::new();
            Self { server: Server::new(stop.clone()), stop, dir: tempfile::tempdir().unwrap() }
        }

        fn listener(&self, name: &str) -> impl Future<Output = Listener> + Send + 'static {
            let address = ListenAddress::Unix(self.dir.path().join(name));
            let listener = Listener::bind(&address, 0o600).unwrap();
            async { listener }
        }

        async fn connect(&self, name: &str) -> UnixStream {
            UnixStream::connect(self.dir.path().join(name)).await.unwrap()
        }
    }

    fn routes() -> Routes {
        Routes::new(Router::new().route("/", routing::get(|| async { "here" })))
    }

    /// How long a client is waited for that says this and no more.
    async fn patience(mut client: impl AsyncRead + AsyncWrite + Unpin, said: &[u8]) -> Duration {
        let began = Instant::now();
        client.write_all(said).await.unwrap();
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer).await;
        began.elapsed()
    }

    async fn ask(client: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
        client.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
        let mut answer = [0; 512];
        let length = client.read(&mut answer).await.unwrap();
        let answer = str::from_utf8(&answer[..length]).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("here"), "{answer}");
    }

    async fn ask_by_h2(client: &mut h2::client::SendRequest<bytes::Bytes>) {
        let request = http::Request::get("http://localhost/").body(()).unwrap();
        let (response, _) = client.send_request(request, true).unwrap();
        assert_eq!(response.await.unwrap().status(), 200);
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_go_on_is_not_waited_for() {
        let served = Served::new();
        served.server.serve(served.listener("s"), routes());
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        for said in [&b""[..], b"P", b"PRI", &preface[..23], b"G", b"GET / HTTP/1.1\r\nhost: h\r\n"]
        {
            let waited = patience(served.connect("s").await, said).await;
            let said = String::from_utf8_lossy(said);
            assert!(waited >= HEAD_TIMEOUT && waited < 2 * HEAD_TIMEOUT, "{said}: {waited:?}");
        }
        assert_eq!(served.server.connections()(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_idles_in_between_stays() {
        let served = Served::new();
        served.server.serve(served.listener("s"), routes());
        let mut kept = served.connect("s").await;
        for _ in 0..5 {
            ask(&mut kept).await;
            time::sleep(HEAD_TIMEOUT - Duration::from_secs(1)).await;
        }
        let (client, connection) = h2::client::handshake(served.connect("s").await).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut client = client.ready().await.unwrap();
        for _ in 0..3 {
            ask_by_h2(&mut client).await;
            time::sleep(20 * HEAD_TIMEOUT).await;
        }
        assert!(!connection.is_finished());

        // The first bytes may come in pieces, and slowly.
        let mut slow = served.connect("s").await;
        for piece in [&b"G"[..], b"ET / HTTP/1.1\r\nho", b"st: h\r\n"] {
            slow.write_all(piece).await.unwrap();
            time::sleep(HEAD_TIMEOUT / 4).await;
        }
        slow.write_all(b"\r\n").await.unwrap();
        assert!(slow.read(&mut [0; 512]).await.unwrap() > 0);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_has_not_said_anything_yet_is_closed_in_the_end() {
        let served = Served::new();
        served.server.serve(served.listener("s"), routes());
        let mut silent = [served.connect("s").await, served.connect("s").await];
        silent[1].write_all(b"PRI").await.unwrap();
        let connections = served.server.connections();
        while connections() < 2 {
            tokio::task::yield_now().await;
        }
        let began = Instant::now();
        served.stop.cancel();
        assert!(served.server.drain(Duration::from_secs(600)).await);
        for client in &mut silent {
            let _ = client.read(&mut [0]).await;
        }
        assert_eq!((connections(), began.elapsed()), (0, Duration::ZERO));
    }

    #[tokio::test]
    async fn connections_are_counted_and_listeners_are_not() {
        let served = Served::new();
        served.server.serve(served.listener("a"), routes());
        served.server.serve(served.listener("b"), routes());
        let connections = served.server.connections();
        let (mut a, mut b) = (served.connect("a").await, served.connect("b").await);
        ask(&mut a).await;
        ask(&mut b).await;
        assert_eq!(connections(), 2);
        drop((a, b));
        let mut last = served.connect("a").await;
        let gone = async {
            while connections() != 1 {
                time::sleep(Duration::from_millis(1)).await;
            }
        };
        time::timeout(Duration::from_secs(60), gone).await.unwrap();
        ask(&mut last).await;
    }

    #[cfg(feature = "tls")]
    mod tls {
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};

        use super::*;

        /// Certificate and key of `localhost`, as server and client have them.
        fn configs() -> (Arc<rustls::ServerConfig>, rustls::ClientConfig) {
            let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            let certificate = CertificateDer::from(issued.cert.der().to_vec());
            let key = PrivateKeyDer::try_from(issued.signing_key.serialize_der()).unwrap();
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![certificate.clone()], key)
                .unwrap();
            let mut roots = rustls::RootCertStore::empty();
            roots.add(certificate).unwrap();
            let client = rustls::ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            (Arc::new(server), client)
        }

        #[tokio::test(start_paused = true)]
        async fn who_does_not_go_on_is_not_waited_for() {
            for idle in [HEAD_TIMEOUT, 4 * HEAD_TIMEOUT] {
                let mut served = Served::new();
                served.server = served.server.idle_timeout(idle);
                let (tls, client) = configs();
                served.server.serve_tls(served.listener("s"), routes(), tls);
                let client = tokio_rustls::TlsConnector::from(Arc::new(client));
                let connect = async || {
                    let stream = served.connect("s").await;
                    client.connect("localhost".try_into().unwrap(), stream).await.unwrap()
                };
                let waited = patience(served.connect("s").await, b"").await;
                assert_eq!(waited.as_secs(), HEAD_TIMEOUT.as_secs(), "no handshake");
                let waited = patience(connect().await, b"").await;
                assert_eq!(waited.as_secs(), idle.as_secs(), "silent");

                let mut kept = connect().await;
                for _ in 0..3 {
                    ask(&mut kept).await;
                    time::sleep(idle - Duration::from_secs(1)).await;
                }
            }
        }
    }
}
