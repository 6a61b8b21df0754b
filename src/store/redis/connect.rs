//! One connection, from the name of a host to a login.

use std::{future::Future, pin::Pin, sync::Arc};
#[cfg(feature = "tls")]
use std::{
    io,
    task::{Context, Poll},
};

use redis::{AsyncConnectionConfig, RedisConnectionInfo, aio::MultiplexedConnection};
#[cfg(feature = "tls")]
use tokio::io::ReadBuf;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

use super::{
    RedisAccess, RedisAddress, StoreError,
    error::{self, Fault, unavailable},
};

/// Drives a connection until it ends, which it does, too, once nobody holds the connection. Says
/// what was wrong with TLS, if that ended it: a server refuses a client's certificate when it
/// likes.
pub(super) type Driver = Pin<Box<dyn Future<Output = Option<TlsFailure>> + Send>>;

/// What was wrong with TLS.
pub(super) type TlsFailure = Box<dyn std::error::Error + Send + Sync>;

/// Commands that wait for their turn on a connection, which are few unless the server stalls.
const QUEUE: usize = 1024;

/// Connects and logs in, within the time that an attempt may take. Resolves the host anew, and
/// reads certificates anew.
pub(super) async fn connect(
    address: &RedisAddress,
    access: &RedisAccess,
) -> Result<(MultiplexedConnection, Driver), StoreError> {
    match timeout(access.connect_timeout, attempt(address, access)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(never_answered(address)),
    }
}

pub(super) fn never_answered(address: &RedisAddress) -> StoreError {
    unavailable(Fault::ConnectTimeout { address: address.clone() })
}

async fn attempt(
    address: &RedisAddress,
    access: &RedisAccess,
) -> Result<(MultiplexedConnection, Driver), StoreError> {
    let failed = |error: std::io::Error| error::of_connect(address, error.into());
    let stream = TcpStream::connect((&*address.host, address.port)).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    match &access.tls {
        None => {
            let (connection, driver) = log_in(stream, address, access).await?;
            Ok((
                connection,
                Box::pin(async move {
                    driver.await;
                    None
                }),
            ))
        }
        #[cfg(feature = "tls")]
        Some(tls) => {
            let (stream, failure) = Noting::new(tls_over(stream, address, tls).await?);
            match log_in(stream, address, access).await {
                Ok((connection, driver)) => {
                    let driver = async move {
                        driver.await;
                        failure.lock().take()
                    };
                    Ok((connection, Box::pin(driver)))
                }
                Err(error) => match failure.lock().take() {
                    Some(failure) => Err(tls_error(address, failure)),
                    None => Err(error),
                },
            }
        }
        #[cfg(not(feature = "tls"))]
        Some(_) => Err(tls_error(address, "this larder was built without `tls`")),
    }
}

async fn log_in(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    address: &RedisAddress,
    access: &RedisAccess,
) -> Result<(MultiplexedConnection, Pin<Box<dyn Future<Output = ()> + Send>>), StoreError> {
    // No timeout of the client's: every command has one of its own.
    let config =
        AsyncConnectionConfig::new().set_response_timeout(None).set_pipeline_buffer_size(QUEUE);
    let connected = MultiplexedConnection::new_with_config(&login(access), stream, config).await;
    let (connection, driver) = connected.map_err(|source| error::of_connect(address, source))?;
    Ok((connection, Box::pin(driver)))
}

fn login(access: &RedisAccess) -> RedisConnectionInfo {
    // RESP2 without CLIENT SETINFO: what old servers, proxies and users with few rights allow.
    let mut login = RedisConnectionInfo::default().set_db(access.db).set_skip_set_lib_name();
    if let Some(username) = &access.username {
        login = login.set_username(username);
    }
    if let Some(password) = &access.password {
        login = login.set_password(&password.0);
    }
    login
}

#[cfg(feature = "tls")]
async fn tls_over(
    stream: TcpStream,
    address: &RedisAddress,
    settings: &crate::tls::TlsSettings,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, StoreError> {
    let settings = settings.clone();
    let config = tokio::task::spawn_blocking(move || crate::tls::client_config(&settings)).await;
    let config = match config {
        Ok(Ok(config)) => Arc::new(config),
        Ok(Err(error)) => return Err(tls_error(address, error)),
        Err(panicked) => return Err(tls_error(address, panicked)),
    };
    let name = rustls::pki_types::ServerName::try_from(address.host.clone());
    let name = name.map_err(|error| tls_error(address, error))?;
    let connector = tokio_rustls::TlsConnector::from(config);
    connector.connect(name, stream).await.map_err(|error| error::of_connect(address, error.into()))
}

/// A stream that keeps what is wrong with TLS: whoever waits for an answer may not be told.
#[cfg(feature = "tls")]
struct Noting<S> {
    stream: S,
    failure: Arc<parking_lot::Mutex<Option<TlsFailure>>>,
}

#[cfg(feature = "tls")]
impl<S> Noting<S> {
    fn new(stream: S) -> (Self, Arc<parking_lot::Mutex<Option<TlsFailure>>>) {
        let failure = Arc::default();
        (Self { stream, failure: Arc::clone(&failure) }, failure)
    }

    fn note<T>(&self, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &outcome
            && let Some(of_tls) = error.get_ref().and_then(|inner| inner.downcast_ref())
        {
            let of_tls: &rustls::Error = of_tls;
            self.failure.lock().get_or_insert_with(|| Box::new(of_tls.clone()));
        }
        outcome
    }
}

#[cfg(feature = "tls")]
impl<S: AsyncRead + Unpin> AsyncRead for Noting<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.note(outcome)
    }
}

#[cfg(feature = "tls")]
impl<S: AsyncWrite + Unpin> AsyncWrite for Noting<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note(outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(context);
        self.note(outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

pub(super) fn tls_error(address: &RedisAddress, source: impl Into<TlsFailure>) -> StoreError {
    StoreError::Refused(Arc::new(Fault::Tls { address: address.clone(), source: source.into() }))
}
