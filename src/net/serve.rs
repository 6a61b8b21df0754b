//! Accept loops: HTTP/1.1 and HTTP/2 told apart on one socket, in the clear or over TLS, and drained
//! in the end.

use std::{sync::Arc, time::Duration};

use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{sync::Semaphore, task::JoinHandle, time};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use super::{Listener, Routes, listener::Connection};

/// Serves at any number of listeners, until it is drained.
pub struct Server {
    protocols: auto::Builder<TokioExecutor>,
    connections: Arc<GracefulShutdown>,
    permits: Arc<Semaphore>,
    stop: CancellationToken,
    loops: TaskTracker,
}

/// Connections at once. A pod has one model, which has a few.
const MAX_CONNECTIONS: usize = 4096;

/// How long a connection may be silent before its first byte, and between the bytes of its head.
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
        self.accept(opening, routes, Security::Tls(tls.into()))
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
            stop: self.stop.clone(),
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
        let permits = Arc::clone(&self.permits);
        move || MAX_CONNECTIONS - permits.available_permits()
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
    Tls(tokio_rustls::TlsAcceptor),
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
    stop: CancellationToken,
    routes: Routes,
}

impl Accept {
    /// Runs until it is dropped.
    async fn run(self, listener: Listener) {
        loop {
            let permit = Arc::clone(&self.permits).acquire_owned();
            let permit = permit.await.expect("the semaphore is never closed");
            match listener.accept().await {
                Ok(connection) => self.spawn(connection, permit),
                Err(error) => {
                    // Out of file descriptors, mostly: a moment later there may be some.
                    warn!(address = %listener.address(), %error, "cannot accept a connection");
                    time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn spawn(&self, connection: Connection, permit: tokio::sync::OwnedSemaphorePermit) {
        let security = self.security.clone();
        let protocols = self.protocols.clone();
        let service = TowerToHyperService::new(self.routes.clone());
        let watcher = self.connections.watcher();
        let stop = self.stop.clone();
        tokio::spawn(async move {
            let _permit = permit;
            // hyper-util tells the protocols apart by the first bytes, and would wait for ever.
            let first_byte = time::timeout(HEAD_TIMEOUT, connection.readable());
            let spoke = tokio::select! {
                () = stop.cancelled() => false,
                readable = first_byte => matches!(readable, Ok(Ok(()))),
            };
            if !spoke {
                return;
            }
            let stream = connection.into_stream();
            let served = match security {
                Security::Plain => {
                    let served = protocols.serve_connection(TokioIo::new(stream), service);
                    watcher.watch(served.into_owned()).await
                }
                #[cfg(feature = "tls")]
                Security::Tls(acceptor) => {
                    let Some(stream) = shake(acceptor, stream, stop).await else { return };
                    let protocols = protocols.http1_only();
                    let served = protocols.serve_connection(TokioIo::new(stream), service);
                    watcher.watch(served.into_owned()).await
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
async fn shake<S: super::listener::Stream>(
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
