//! Where a server listens, as text and back. Pure: nothing is resolved or opened here.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::{fmt, path::PathBuf, str::FromStr};

/// An address to listen at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// `127.0.0.1:6566`, `[::1]:6566`, `localhost:6566`, or `:6566` for every IPv4 interface.
    Tcp(SocketAddr),
    /// `unix:PATH`: a socket in the file system.
    Unix(PathBuf),
    /// `unix-abstract:NAME`: a Linux socket without a file, seen within the network namespace.
    Abstract(String),
}

/// Text that is no [`ListenAddress`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no address to listen at")]
pub struct NotAnAddress(pub String);

impl ListenAddress {
    /// Whether both cannot be listened at. Port 0 stands for any free port and clashes with none.
    pub fn clashes_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(this), Self::Tcp(that)) => {
                let overlap = this.ip() == that.ip()
                    || this.ip().is_unspecified()
                    || that.ip().is_unspecified();
                this.port() != 0 && this.port() == that.port() && overlap
            }
            _ => self == other,
        }
    }
}

// `sockaddr_un` has room for 108 bytes, one of which is a zero.
const MAX_UNIX_BYTES: usize = 107;

impl FromStr for ListenAddress {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let fits =
            |name: &str| !name.is_empty() && name.len() <= MAX_UNIX_BYTES && !name.contains('\0');
        let address = if let Some(name) = text.strip_prefix("unix-abstract:") {
            fits(name).then(|| Self::Abstract(name.to_owned()))
        } else if let Some(path) = text.strip_prefix("unix:") {
            // gRPC clients also write `unix:///path`.
            let path = path.strip_prefix("//").unwrap_or(path);
            fits(path).then(|| Self::Unix(path.into()))
        } else {
            tcp(text).map(Self::Tcp)
        };
        address.ok_or_else(|| NotAnAddress(text.to_owned()))
    }
}

fn tcp(text: &str) -> Option<SocketAddr> {
    let by_name =
        |ip: Ipv4Addr, port: &str| Some(SocketAddr::new(IpAddr::V4(ip), port.parse().ok()?));
    if let Some(port) = text.strip_prefix("localhost:") {
        by_name(Ipv4Addr::LOCALHOST, port)
    } else if let Some(port) = text.strip_prefix(':').or_else(|| text.strip_prefix("*:")) {
        by_name(Ipv4Addr::UNSPECIFIED, port)
    } else {
        text.parse().ok()
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Abstract(name) => write!(f, "unix-abstract:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        let parsed = text.parse::<ListenAddress>().map(|address| address.to_string());
        assert_eq!(parsed.ok().as_deref(), expected, "{text}");
    }

    #[test]
    fn every_spelling_has_one_meaning() {
        check("127.0.0.1:6566", Some("127.0.0.1:6566"));
        check("localhost:6566", Some("127.0.0.1:6566"));
        check(":6566", Some("0.0.0.0:6566"));
        check("*:6566", Some("0.0.0.0:6566"));
        check("[::]:6566", Some("[::]:6566"));
        check("unix:/run/larder.sock", Some("unix:/run/larder.sock"));
        check("unix:///run/larder.sock", Some("unix:/run/larder.sock"));
        check("unix:larder.sock", Some("unix:larder.sock"));
        check("unix-abstract:larder", Some("unix-abstract:larder"));
    }

    #[test]
    fn what_cannot_be_listened_at_is_refused() {
        for text in ["", "6566", "127.0.0.1", ":70000", ":", "example.org:1", "unix:"] {
            check(text, None);
        }
        check("unix-abstract:", None);
        check(&format!("unix:{}", "x".repeat(107)), Some(&format!("unix:{}", "x".repeat(107))));
        check(&format!("unix:{}", "x".repeat(108)), None);
    }

    #[test]
    fn a_port_of_every_interface_clashes_with_the_same_port_of_one() {
        let clash = |a: &str, b: &str| {
            a.parse::<ListenAddress>().unwrap().clashes_with(&b.parse().unwrap())
        };
        assert!(clash(":6566", "127.0.0.1:6566"));
        assert!(clash("127.0.0.1:6566", "127.0.0.1:6566"));
        assert!(clash("unix:/a", "unix:/a"));
        assert!(!clash("127.0.0.1:6566", "127.0.0.2:6566"));
        assert!(!clash("127.0.0.1:6566", "127.0.0.1:6567"));
        assert!(!clash("127.0.0.1:0", "127.0.0.1:0"));
        assert!(!clash("unix:/a", "unix-abstract:/a"));
    }
}
