//! What a test does to connections on their way to a Cassandra server that others use, too.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::Mutex;

/// A port that leads to a server: can be closed, and can hold back what the server says.
pub(crate) struct Proxy {
    address: Ipv4Addr,
    port: u16,
    target: u16,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    closed: AtomicBool,
    holding: AtomicBool,
    executed: AtomicUsize,
    hold_at: AtomicUsize,
    announced: AtomicUsize,
    streams: Mutex<Vec<TcpStream>>,
}

const STEP: Duration = Duration::from_millis(2);

impl Proxy {
    pub(crate) fn to(target: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let address = Ipv4Addr::LOCALHOST;
        let mut proxy = Self { address, port, target, shared: Arc::default(), accepting: None };
        proxy.accept(listener);
        proxy
    }

    /// The same port of another address, which leads to the same server.
    pub(crate) fn beside(&self, address: Ipv4Addr) -> Self {
        let listener = TcpListener::bind((address, self.port)).unwrap();
        let mut proxy = Self { address, shared: Arc::default(), accepting: None, ..*self };
        proxy.accept(listener);
        proxy
    }

    /// Says on all connections that there is a new node: whoever follows the cluster looks at it.
    pub(crate) fn announce(&self) {
        self.shared.announced.fetch_add(1, SeqCst);
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Cuts all connections, and refuses new ones.
    pub(crate) fn close(&mut self) {
        self.shared.closed.store(true, SeqCst);
        if let Some(accepting) = self.accepting.take() {
            accepting.join().unwrap();
        }
        self.cut();
    }

    /// Cuts all connections.
    pub(crate) fn cut(&self) {
        for stream in self.shared.streams.lock().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Accepts connections again.
    pub(crate) fn open(&mut self) {
        self.shared.closed.store(false, SeqCst);
        self.accept(TcpListener::bind((self.address, self.port)).unwrap());
    }

    /// Holds back what the server says, on connections that stay open.
    pub(crate) fn hold(&self, holding: bool) {
        self.shared.holding.store(holding, SeqCst);
    }

    /// Holds back what the server says from when this many prepared statements were sent to it.
    pub(crate) fn hold_at(&self, executed: usize) {
        self.shared.hold_at.store(executed, SeqCst);
    }

    /// How many prepared statements were sent to the server.
    pub(crate) fn executed(&self) -> usize {
        self.shared.executed.load(SeqCst)
    }

    fn accept(&mut self, listener: TcpListener) {
        listener.set_nonblocking(true).unwrap();
        let (shared, target) = (self.shared.clone(), self.target);
        self.accepting = Some(thread::spawn(move || {
            while !shared.closed.load(SeqCst) {
                match listener.accept() {
                    Ok((client, _)) => shared.connect(client, target),
                    Err(_) => thread::sleep(STEP),
                }
            }
        }));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn connect(self: &Arc<Self>, client: TcpStream, target: u16) {
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) else { return };
        for stream in [&client, &server] {
            stream.set_nonblocking(false).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            self.streams.lock().push(stream.try_clone().unwrap());
        }
        for (from, to, to_server) in [
            (client.try_clone().unwrap(), server.try_clone().unwrap(), true),
            (server, client, false),
        ] {
            let shared = self.clone();
            thread::spawn(move || shared.forward(from, to, to_server));
        }
    }

    fn forward(&self, mut from: TcpStream, mut to: TcpStream, to_server: bool) {
        let mut buffer = vec![0; 64 << 10];
        let mut frames = Frames::default();
        let mut announced = self.announced.load(SeqCst);
        loop {
            if !to_server && frames.is_between() && announced < self.announced.load(SeqCst) {
                announced += 1;
                if to.write_all(&new_node()).is_err() {
                    break;
                }
            }
            let length = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(e) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&e.kind()) => {
                    if self.closed.load(SeqCst) {
                        break;
                    }
                    continue;
                }
                Err(_) => break,
            };
            let new = frames.executes(&buffer[..length]);
            if to_server {
                let executed = self.executed.fetch_add(new, SeqCst) + new;
                if new > 0 && executed == self.hold_at.load(SeqCst) {
                    self.holding.store(true, SeqCst);
                }
            }
            while !to_server && self.holding.load(SeqCst) && !self.closed.load(SeqCst) {
                thread::sleep(STEP);
            }
            if to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }
}

/// The event of a new node, whose address is of no account.
fn new_node() -> Vec<u8> {
    let text = |text: &str| [&[0, text.len() as u8], text.as_bytes()].concat();
    let address = [&[4, 127, 0, 0, 1][..], &9042_u32.to_be_bytes()].concat();
    let body = [text("TOPOLOGY_CHANGE"), text("NEW_NODE"), address].concat();
    [&[0x84, 0, 0xff, 0xff, 0x0c][..], &(body.len() as u32).to_be_bytes(), &body].concat()
}

/// Frames of CQL, version 4, in a stream of bytes that is not encrypted.
#[derive(Default)]
struct Frames {
    header: Vec<u8>,
    body: usize,
}

impl Frames {
    /// Whether a frame has just ended.
    fn is_between(&self) -> bool {
        self.header.is_empty() && self.body == 0
    }

    /// How many frames that execute a prepared statement begin in these bytes.
    fn executes(&mut self, bytes: &[u8]) -> usize {
        const EXECUTE: u8 = 0x0a;
        let mut count = 0;
        for byte in bytes {
            if self.body > 0 {
                self.body -= 1;
                continue;
            }
            self.header.push(*byte);
            if let [_, _, _, _, opcode, length @ ..] = &self.header[..]
                && let Ok(length) = <[u8; 4]>::try_from(length)
            {
                count += usize::from(*opcode == EXECUTE);
                self.body = u32::from_be_bytes(length) as usize;
                self.header.clear();
            }
        }
        count
    }
}
