//! Sockets that are listened at: TCP, Unix sockets with a file, and abstract ones.

use std::{
    fs, io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::{FileTypeExt, PermissionsExt},
            net as std_unix,
        },
    },
    path::{Path, PathBuf},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
};

use super::ListenAddress;

/// An open listener.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    address: ListenAddress,
    /// Removed when the listener goes.
    _file: Option<SocketFile>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// An address that could not be listened at.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen at {address}")]
pub struct BindError {
    address: ListenAddress,
    #[source]
    source: io::Error,
}

/// An accepted connection.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for S {}

impl Listener {
    /// Opens a listener. A socket file that nobody listens at any more is replaced; `unix_mode` are
    /// the new one's permissions.
    pub fn bind(address: &ListenAddress, unix_mode: u32) -> Result<Self, BindError> {
        let error = |source| BindError { address: address.clone(), source };
        let (socket, file) = match address {
            ListenAddress::Tcp(at) => (bind_tcp(*at).map_err(error)?, None),
            ListenAddress::Unix(path) => {
                let (socket, file) = bind_unix(path, unix_mode).map_err(error)?;
                (socket, Some(file))
            }
            ListenAddress::Abstract(name) => (bind_abstract(name).map_err(error)?, None),
        };
        let address = match &socket {
            // Port 0 has become a real one.
            Socket::Tcp(listener) => ListenAddress::Tcp(listener.local_addr().map_err(error)?),
            Socket::Unix(_) => address.clone(),
        };
        Ok(Self { socket, address, _file: file })
    }

    /// Where it listens; a port of 0 has become the one that was given.
    pub fn address(&self) -> &ListenAddress {
        &self.address
    }

    pub(super) async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Answers are small, and a caller waits for each.
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            Socket::Unix(listener) => Ok(Box::new(listener.accept().await?.0)),
        }
    }
}

fn bind_tcp(at: std::net::SocketAddr) -> io::Result<Socket> {
    // Tokio's own bind would have to be awaited; SO_REUSEADDR is set by both.
    let listener = std::net::TcpListener::bind(at)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener).map(Socket::Tcp)
}

fn bind_abstract(name: &str) -> io::Result<Socket> {
    let address = std_unix::SocketAddr::from_abstract_name(name)?;
    let listener = std_unix::UnixListener::bind_addr(&address)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener).map(Socket::Unix)
}

/// Binds beside the path and moves the socket there, so that a client never meets a path without
/// one, nor one without permissions.
fn bind_unix(path: &Path, mode: u32) -> io::Result<(Socket, SocketFile)> {
    refuse_foreign(path)?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(beside);
    // In a container every process has the same number: one that was killed here may have left it.
    refuse_foreign(&beside)?;
    let _ = fs::remove_file(&beside);
    let listener = std_unix::UnixListener::bind(&beside)?;
    let moved = fs::set_permissions(&beside, fs::Permissions::from_mode(mode))
        .and_then(|()| fs::rename(&beside, path));
    if let Err(error) = moved {
        let _ = fs::remove_file(&beside);
        return Err(error);
    }
    listener.set_nonblocking(true)?;
    let inode = inode(path);
    let file = SocketFile { path: path.to_owned(), inode };
    Ok((Socket::Unix(UnixListener::from_std(listener)?), file))
}

/// Fails where something else is than a socket that nobody listens at.
fn refuse_foreign(path: &Path) -> io::Result<()> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        let message = "there is something else at this path; remove it, or use another path";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
    }
    // A datagram is for no stream socket, which is found out without troubling who has it: a stream
    // would wait for as long as it takes that process to accept it.
    let connected = std_unix::UnixDatagram::unbound()?.connect(path);
    match connected.map_err(|error| (error.kind(), error)) {
        // Nobody listens; or the socket has just gone.
        Err((io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound, _)) => Ok(()),
        // Whether somebody does cannot be told: it is another user's.
        Err((io::ErrorKind::PermissionDenied, error)) => Err(error),
        // It is a stream's.
        Err(_) | Ok(()) => {
            Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there"))
        }
    }
}

/// A socket's file: removed in the end, unless another process has put its own there.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: Option<u64>,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.inode.is_some() && inode(&self.path) == self.inode {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    fs::symlink_metadata(path).ok().map(|metadata| metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_left_behind_is_replaced_and_one_in_use_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let address = ListenAddress::Unix(path.clone());
        drop(std_unix::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "std leaves the file");

        let listener = Listener::bind(&address, 0o600).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let error = Listener::bind(&address, 0o600).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);

        drop(listener);
        assert!(!path.exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn what_a_killed_process_of_the_same_number_left_is_replaced_and_a_file_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let beside = dir.path().join(format!("s.sock.{}", std::process::id()));
        drop(std_unix::UnixListener::bind(&path).unwrap());
        drop(std_unix::UnixListener::bind(&beside).unwrap());
        let listener = Listener::bind(&ListenAddress::Unix(path.clone()), 0o666).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
        assert!(!beside.exists());
        drop(listener);

        fs::write(&beside, "precious").unwrap();
        Listener::bind(&ListenAddress::Unix(path), 0o666).unwrap_err();
        assert_eq!(fs::read(&beside).unwrap(), b"precious");
    }

    #[tokio::test]
    async fn who_accepts_nothing_is_asked_nothing_and_keeps_its_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let socket = tokio::net::UnixSocket::new_stream().unwrap();
        socket.bind(&path).unwrap();
        let _full = socket.listen(0).unwrap();
        let _first = tokio::net::UnixStream::connect(&path).await.unwrap();
        tokio::net::UnixStream::connect(&path).await.unwrap_err();
        let (done, bound) = std::sync::mpsc::channel();
        let runtime = tokio::runtime::Handle::current();
        std::thread::spawn(move || {
            let _in_it = runtime.enter();
            done.send(Listener::bind(&ListenAddress::Unix(path), 0o600))
        });
        let error = bound.recv_timeout(std::time::Duration::from_secs(60)).unwrap().unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn a_file_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        fs::write(&path, "precious").unwrap();
        Listener::bind(&ListenAddress::Unix(path.clone()), 0o600).unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }
}
