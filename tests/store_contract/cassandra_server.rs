//! A Cassandra server for all tests of this process: it takes seconds to start. It ends with the
//! process.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{OnceLock, mpsc},
    thread,
    time::{Duration, Instant},
};

use scylla::client::{session::Session, session_builder::SessionBuilder};

/// One server, with a folder of its own.
pub(crate) struct Server {
    pub(crate) port: u16,
    /// Its certificate's authority, if it speaks TLS and asks for a login.
    pub(crate) ca: Option<std::path::PathBuf>,
    folder: tempfile::TempDir,
}

pub(crate) const LOGIN: &str = "cassandra";

/// A server that speaks plain CQL, to anybody.
pub(crate) fn plain() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::start(false))
}

/// A server that speaks TLS, to users with a password.
pub(crate) fn secure() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::start(true))
}

impl Server {
    fn start(secure: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ca = secure.then(|| certificates(folder.path()));
        for _ in 0..20 {
            // A port that was free may be another's by the time the server asks for it.
            let port = free_port();
            let (started, outcome) = mpsc::channel();
            let path = folder.path().to_owned();
            // The system ends the server with the thread that started it, which lasts as long as
            // the process.
            thread::spawn(move || {
                let mut server = spawn(&path, port, 0);
                started.send(until_it_runs(&mut server, &path)).unwrap();
                loop {
                    thread::park();
                }
            });
            if outcome.recv().unwrap() {
                return Self { port, ca, folder };
            }
        }
        panic!("Cassandra ends at once: {}", log(folder.path()));
    }

    /// A session of a user who may do everything.
    pub(crate) async fn admin(&self) -> Session {
        let started = Instant::now();
        loop {
            let mut builder =
                SessionBuilder::new().known_node_addr((Ipv4Addr::LOCALHOST, self.port).into());
            if let Some(ca) = &self.ca {
                let settings =
                    larder::tls::TlsSettings { ca: Some(ca.clone()), ..Default::default() };
                let tls = larder::tls::client_config(&settings).unwrap();
                builder = builder.user(LOGIN, LOGIN).tls_context(Some(std::sync::Arc::new(tls)));
            }
            match builder.build().await {
                Ok(session) => return session,
                Err(error) if started.elapsed() > Duration::from_secs(60) => {
                    panic!("Cassandra lets nobody in: {error}: {}", log(self.folder.path()))
                }
                // The first user is made a moment after the port is open.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

/// A cluster of two nodes, of a test's own. It ends with the thread of the test.
pub(crate) struct Cluster {
    pub(crate) port: u16,
    nodes: [(tempfile::TempDir, Child); 2],
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let port = free_port();
        let node = |number| {
            let folder = tempfile::tempdir().unwrap();
            let mut node = spawn(folder.path(), port, number);
            assert!(until_it_runs(&mut node, folder.path()), "{}", log(folder.path()));
            (folder, node)
        };
        Self { port, nodes: [0, 1].map(node) }
    }

    /// Kills the second node.
    pub(crate) fn kill(&mut self) {
        let (_, node) = &mut self.nodes[1];
        node.kill().unwrap();
        node.wait().unwrap();
    }

    /// Starts it again.
    pub(crate) fn restart(&mut self) {
        let (folder, node) = &mut self.nodes[1];
        std::fs::remove_file(folder.path().join("log")).unwrap();
        *node = spawn(folder.path(), self.port, 1);
        assert!(until_it_runs(node, folder.path()), "{}", log(folder.path()));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for (_, node) in &mut self.nodes {
            let _ = (node.kill(), node.wait());
        }
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

fn spawn(folder: &Path, port: u16, number: usize) -> Child {
    if std::env::var_os("CASSANDRA_HOME").is_none() {
        panic!(
            "these tests need Cassandra in a folder that CASSANDRA_HOME names: see scripts/test"
        );
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/services/cassandra");
    Command::new(script)
        .arg(folder)
        .args([port.to_string(), number.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Whether it is up, rather than at its end.
fn until_it_runs(server: &mut Child, folder: &Path) -> bool {
    let started = Instant::now();
    // Its own word, whoever listens at the port.
    while !log(folder).contains("Starting listening for CQL clients") {
        if server.try_wait().unwrap().is_some() {
            return false;
        }
        assert!(started.elapsed() < Duration::from_secs(180), "{}", log(folder));
        thread::sleep(Duration::from_millis(50));
    }
    true
}

fn log(folder: &Path) -> String {
    fs::read_to_string(folder.join("log")).unwrap_or_default()
}

/// A certificate for 127.0.0.1 and one of its authority, which is returned.
fn certificates(folder: &Path) -> std::path::PathBuf {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &ca).unwrap();
    fs::write(folder.join("ca.pem"), ca.pem()).unwrap();
    let server = format!("{}{}", key.serialize_pem(), certificate.pem());
    fs::write(folder.join("server.pem"), server).unwrap();
    folder.join("ca.pem")
}
