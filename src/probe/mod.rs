//! What `larder ready` and `larder drain` ask of a larder that runs beside them.

mod drain;
mod ready;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::{linux::net::SocketAddrExt, unix::net as std_unix},
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
        ListenAddress::Abstract(name) => {
            let address = std_unix::SocketAddr::from_abstract_name(name)?;
            let stream = std_unix::UnixStream::connect_addr(&address)?;
            stream.set_nonblocking(true)?;
            Box::new(UnixStream::from_std(stream)?)
        }
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
