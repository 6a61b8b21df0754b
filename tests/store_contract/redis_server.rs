//! A Redis server of a test's own: a process on a free port, with a directory, ended on drop.

use std::{
    net::{Ipv4Addr, TcpListener},
    os::unix::net::UnixStream,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use larder::store::{RedisSettings, Secret};
use redis::{Client, Connection};

pub(crate) struct RedisServer {
    process: Option<Child>,
    port: u16,
    directory: tempfile::TempDir,
    arguments: Vec<String>,
}

impl RedisServer {
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// With further arguments of `redis-server`.
    pub(crate) fn with(arguments: &[&str]) -> Self {
        let mut server = Self {
            process: None,
            port: 0,
            directory: tempfile::tempdir().unwrap(),
            arguments: arguments.iter().map(ToString::to_string).collect(),
        };
        // A port that was free may be another's by the time the server asks for it.
        for _ in 0..20 {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            server.port = listener.local_addr().unwrap().port();
            drop(listener);
            if server.try_start() {
                return server;
            }
        }
        panic!("redis-server ends at once; does it run by hand?");
    }

    /// Starts it on the same port, without any data.
    pub(crate) fn restart(&mut self) {
        assert!(self.try_start(), "the port of a server was taken while it was down");
    }

    /// Whether it runs, and listens.
    fn try_start(&mut self) -> bool {
        assert!(self.process.is_none());
        let socket = self.directory.path().join("socket");
        let _ = std::fs::remove_file(&socket);
        let process = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--appendonly", "no", "--dir"])
            .arg(self.directory.path())
            .arg("--unixsocket")
            .arg(&socket)
            .args(&self.arguments)
            .stdout(Stdio::null())
            .spawn()
            .expect("these tests need `redis-server` on the PATH: `apt-get install redis-server`");
        self.process = Some(process);
        // The socket is its own, whoever answers at the port, and comes after the port.
        let started = Instant::now();
        while UnixStream::connect(&socket).is_err() {
            let process = self.process.as_mut().expect("it was just started");
            if process.try_wait().unwrap().is_some() {
                self.process = None;
                return false;
            }
            assert!(started.elapsed() < Duration::from_secs(30), "redis-server does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    /// Kills it, which closes its connections.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Stops it from running, which leaves its connections open and silent.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.process.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// A connection to write by, as the user that may do everything.
    pub(crate) fn admin(&self) -> Connection {
        let client = Client::open(("127.0.0.1", self.port)).unwrap();
        client.get_connection_with_timeout(Duration::from_secs(20)).unwrap()
    }

    pub(crate) fn settings(&self) -> RedisSettings {
        RedisSettings {
            host: "127.0.0.1".into(),
            port: self.port,
            db: 0,
            username: None,
            password: None,
            connect_timeout: Duration::from_secs(2),
            max_backoff: Duration::from_millis(100),
        }
    }

    pub(crate) fn settings_of(&self, username: &str, password: &str) -> RedisSettings {
        RedisSettings {
            username: Some(username.into()),
            password: Some(Secret(password.into())),
            ..self.settings()
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // Also ends it while it is frozen.
        self.kill();
    }
}
