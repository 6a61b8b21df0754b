//! What `larder ready` and `larder drain` ask of a larder that runs beside them.

mod drain;
mod ready;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};

pub use self::{
    drain::{Drained, drain},
    ready::{NotReady, ready},
};
use crate::net::ListenAddress;

/// A connection to a server.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Connects to where a server listens; of one that listens everywhere, to this machine.
async fn connect(address: &ListenAddress) -> io::Result<Box<dyn Stream>> {
    Ok(match address {
        ListenAddress::Tcp(at) => Box::new(TcpStream::connect(reachable(*at)).await?),
        ListenAddress::Unix(path) => Box::new(UnixStream::connect(path).await?),
        ListenAddress::Abstract(name) => Box::new(UnixStream::connect(format!("\0{name}")).await?),
    })
}

fn reachable(mut at: SocketAddr) -> SocketAddr {
    if at.ip().is_unspecified() {
        at.set_ip(match at.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    at
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use tokio::net::UnixSocket;

    use super::*;

    #[tokio::test]
    async fn who_accepts_nothing_does_not_hold_up_who_asks() {
        let name = format!("larder-probe-test-{}", std::process::id());
        let socket = UnixSocket::new_stream().unwrap();
        socket.bind(format!("\0{name}")).unwrap();
        let _full = socket.listen(0).unwrap();
        let address = ListenAddress::Abstract(name);
        let _first = connect(&address).await.unwrap();
        let (done, ended) = mpsc::channel();
        let runtime = tokio::runtime::Handle::current();
        thread::spawn(move || {
            let _in_it = runtime.enter();
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            let mut second = Box::pin(connect(&address));
            done.send(second.as_mut().poll(&mut context).map(|it| it.is_ok()))
        });
        let ended = ended.recv_timeout(Duration::from_secs(60)).unwrap();
        assert_ne!(ended, std::task::Poll::Ready(true));
    }
}
