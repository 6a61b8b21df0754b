//! One connection, from the name of a host to a login.

#[cfg(feature = "tls")]
use std::task::{Context, Poll};
use std::{
    future::Future,
    io,
    net::{SocketAddr, ToSocketAddrs},
    pin::{Pin, pin},
    sync::Arc,
};

use redis::{
    AsyncConnectionConfig, Pipeline, RedisConnectionInfo, Value, aio::MultiplexedConnection,
};
#[cfg(feature = "tls")]
use tokio::io::ReadBuf;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Semaphore,
    task::spawn_blocking,
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

/// Look-ups of hosts under way. Each takes up a thread until it ends, though nobody waits for it
/// any more.
static LOOK_UPS: Semaphore = Semaphore::const_new(8);

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

/// Connects, asks, and leaves: replies to all commands, errors among them.
pub(super) async fn ask_once(
    address: &RedisAddress,
    access: &RedisAccess,
    questions: &Pipeline,
) -> Result<Vec<Value>, StoreError> {
    let (mut connection, mut driver) = connect(address, access).await?;
    let replies = connection.send_packed_commands(questions, 0, questions.len());
    let replies = timeout(access.connect_timeout, replies);
    match drive_while(&mut driver, address, replies).await? {
        Ok(replies) => replies.map_err(|source| error::of_connect(address, source)),
        Err(_) => Err(never_answered(address)),
    }
}

/// Waits for what is asked first on a connection, or why that ended.
pub(super) async fn drive_while<T>(
    driver: &mut Driver,
    address: &RedisAddress,
    asked: impl Future<Output = T>,
) -> Result<T, StoreError> {
    tokio::select! {
        // First, since what was asked fails with the connection.
        biased;
        why = driver => Err(match why {
            Some(of_tls) => tls_error(address, of_tls),
            None => {
                let why = "the server closed it at once";
                unavailable(Fault::Lost { address: address.clone(), why })
            }
        }),
        asked = asked => Ok(asked),
    }
}

pub(super) fn never_answered(address: &RedisAddress) -> StoreError {
    unavailable(Fault::ConnectTimeout { address: address.clone() })
}

async fn attempt(
    address: &RedisAddress,
    access: &RedisAccess,
) -> Result<(MultiplexedConnection, Driver), StoreError> {
    let failed = |error: io::Error| error::of_connect(address, error.into());
    let found = resolve(address).await.map_err(failed)?;
    let stream = TcpStream::connect(&found[..]).await.map_err(failed)?;
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

async fn resolve(address: &RedisAddress) -> io::Result<Vec<SocketAddr>> {
    // Waits for no look-up that hangs.
    if let Ok(ip) = address.host.parse() {
        return Ok(vec![SocketAddr::new(ip, address.port)]);
    }
    let host = (address.host.clone(), address.port);
    look_up(&LOOK_UPS, move || host.to_socket_addrs().map(Iterator::collect)).await
}

/// Looks a host up on a thread. The permit is the thread's, which dropping this does not end.
async fn look_up<T: Send + 'static>(
    permits: &'static Semaphore,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let permit = permits.acquire().await.map_err(io::Error::other)?;
    let found = spawn_blocking(move || {
        let _permit = permit;
        work()
    });
    found.await.map_err(io::Error::other)?
}

async fn log_in(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    address: &RedisAddress,
    access: &RedisAccess,
) -> Result<(MultiplexedConnection, Pin<Box<dyn Future<Output = ()> + Send>>), StoreError> {
    // No timeout of the client's: every command has one of its own.
    let config =
        AsyncConnectionConfig::new().set_response_timeout(None).set_pipeline_buffer_size(QUEUE);
    // RESP2 without CLIENT SETINFO: what old servers, proxies and users with few rights allow.
    // The client's own login would not tell why a server refuses it.
    let silent = RedisConnectionInfo::default().set_skip_set_lib_name();
    let failed = |source| error::of_connect(address, source);
    let connected = MultiplexedConnection::new_with_config(&silent, stream, config).await;
    let (mut connection, driver) = connected.map_err(failed)?;
    let mut driver = Box::pin(driver);
    let login = login(access);
    if !login.is_empty() {
        let mut replies = pin!(connection.send_packed_commands(&login, 0, login.len()));
        let replies = tokio::select! {
            replies = &mut replies => replies,
            // A server may answer and close.
            () = &mut driver => replies.await,
        };
        for reply in &replies.map_err(failed)? {
            if let Value::ServerError(error) = reply {
                return Err(error::of_login(address, error));
            }
        }
    }
    Ok((connection, driver))
}

fn login(access: &RedisAccess) -> Pipeline {
    let mut login = Pipeline::new();
    if let Some(password) = &access.password {
        login.cmd("AUTH");
        if let Some(username) = &access.username {
            login.arg(username);
        }
        login.arg(&password.0);
    }
    if access.db != 0 {
        login.cmd("SELECT").arg(access.db);
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
    let config = spawn_blocking(move || crate::tls::client_config(&settings)).await;
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

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use super::*;

    #[tokio::test]
    async fn look_ups_that_hang_take_up_few_threads() {
        static PERMITS: Semaphore = Semaphore::const_new(2);
        let (begun, begins) = mpsc::channel();
        let (end, ends) = mpsc::channel::<()>();
        let ends = Arc::new(parking_lot::Mutex::new(ends));
        for _ in 0..5 {
            let (begun, ends) = (begun.clone(), ends.clone());
            let hang = move || {
                let _ = begun.send(());
                let _ = ends.lock().recv();
                Ok(())
            };
            let hangs = timeout(Duration::from_millis(50), look_up(&PERMITS, hang));
            assert!(hangs.await.is_err());
        }
        drop((begun, end));
        assert_eq!(begins.iter().count(), 2);
    }
}
