//! A Redis server of a test's own: a process on a free port, with a directory, ended on drop.

use std::{
    net::{Ipv4Addr, TcpListener},
    os::unix::net::UnixStream,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use larder::store::{
    RedisAccess, RedisAddress, RedisReadFrom, RedisSettings, RedisTopology, Secret,
};
use redis::{Client, Connection, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo};

pub(crate) struct RedisServer {
    process: Option<Child>,
    pub(crate) port: u16,
    directory: tempfile::TempDir,
    arguments: Vec<String>,
    /// User and password of whoever may do everything.
    pub(crate) admin: Option<(String, String)>,
    /// What a sentinel is told by a file, into which it writes what it finds out.
    config: Option<String>,
}

pub(crate) fn at(port: u16) -> RedisAddress {
    RedisAddress { host: "127.0.0.1".into(), port }
}

/// Settings of servers that ask for nothing.
pub(crate) fn settings(topology: RedisTopology) -> RedisSettings {
    RedisSettings {
        topology,
        access: RedisAccess {
            db: 0,
            username: None,
            password: None,
            tls: None,
            connect_timeout: Duration::from_secs(2),
        },
        read_from: RedisReadFrom::Master,
        connections: 2,
        max_backoff: Duration::from_millis(100),
    }
}

/// A port that was free, as is the one that a node of a cluster opens besides.
pub(crate) fn free_port() -> u16 {
    loop {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        if port < 55_000 && TcpListener::bind((Ipv4Addr::LOCALHOST, port + 10_000)).is_ok() {
            return port;
        }
    }
}

impl RedisServer {
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// With further arguments of `redis-server`, in which `{port}` and `{dir}` are its own.
    pub(crate) fn with(arguments: &[&str]) -> Self {
        let mut server = Self {
            process: None,
            port: 0,
            directory: tempfile::tempdir().unwrap(),
            arguments: arguments.iter().map(ToString::to_string).collect(),
            admin: None,
            config: None,
        };
        server.start_somewhere();
        server
    }

    /// A sentinel of this configuration, on a port of its own or on this one.
    pub(crate) fn sentinel(config: &str, port: Option<u16>) -> Self {
        let mut server = Self {
            process: None,
            port: port.unwrap_or(0),
            directory: tempfile::tempdir().unwrap(),
            arguments: vec!["--sentinel".into()],
            admin: None,
            config: Some(config.into()),
        };
        match port {
            Some(_) => server.restart(),
            None => server.start_somewhere(),
        }
        server
    }

    fn start_somewhere(&mut self) {
        // A port that was free may be another's by the time the server asks for it.
        for _ in 0..20 {
            self.port = free_port();
            if self.try_start() {
                return;
            }
        }
        panic!("redis-server ends at once; does it run by hand?");
    }

    pub(crate) fn is_running(&self) -> bool {
        self.process.is_some()
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
        let mut command = Command::new("redis-server");
        if let Some(config) = &self.config {
            let path = self.directory.path().join("sentinel.conf");
            std::fs::write(&path, config).unwrap();
            command.arg(path);
        } else {
            command.args(["--save", "", "--appendonly", "no"]);
        }
        let process = command
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--dir"])
            .arg(self.directory.path())
            .arg("--unixsocket")
            .arg(&socket)
            .args(self.arguments.iter().map(|argument| {
                let directory = self.directory.path().to_str().unwrap();
                argument.replace("{port}", &self.port.to_string()).replace("{dir}", directory)
            }))
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
        let mut login = RedisConnectionInfo::default();
        if let Some((user, password)) = &self.admin {
            login = login.set_username(user).set_password(password);
        }
        let socket = ConnectionAddr::Unix(self.directory.path().join("socket"));
        let info = socket.into_connection_info().unwrap().set_redis_settings(login);
        let client = Client::open(info).unwrap();
        client.get_connection_with_timeout(Duration::from_secs(20)).unwrap()
    }

    /// What `INFO` says of it, on one subject.
    pub(crate) fn info(&self, section: &str) -> String {
        let ask = || redis::cmd("INFO").arg(section).query(&mut self.admin());
        // A sentinel that promotes a server ends its connections once.
        ask().or_else(|_| ask()).unwrap()
    }

    /// How many HMGETs it was sent.
    pub(crate) fn hmgets(&self) -> u64 {
        let statistics = self.info("commandstats");
        let calls = statistics.split("cmdstat_hmget:calls=").nth(1);
        calls.map_or(0, |calls| calls.split(',').next().unwrap().parse().unwrap())
    }

    pub(crate) fn settings(&self) -> RedisSettings {
        settings(RedisTopology::Single(at(self.port)))
    }

    pub(crate) fn settings_of(&self, username: &str, password: &str) -> RedisSettings {
        let mut settings = self.settings();
        settings.access.username = Some(username.into());
        settings.access.password = Some(Secret(password.into()));
        settings
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // Also ends it while it is frozen.
        self.kill();
    }
}
