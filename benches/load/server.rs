//! The servers under load, as processes of their own, and what they cost.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::client::Target;

/// A server; ended when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) tcp: Target,
    pub(crate) unix: Option<Target>,
    _dir: tempfile::TempDir,
}

impl Process {
    /// larder over the quickstart, with rows that stay fresh.
    pub(crate) async fn larder() -> Self {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let (port, socket) = (free_port(), dir.path().join("larder.sock"));
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let child = Command::new(env!("CARGO_BIN_EXE_larder"))
            .args(["serve", "--admin", "off", "--log-level", "warn"])
            .args(["--set", "freshness.ttl=1h", "--set", "store.timeout=5s"])
            .args(["--set", "requests.default_timeout=10s"])
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .args(["--listen", &format!("unix:{}", socket.display())])
            .arg("-c")
            .arg(root.join("examples/quickstart"))
            .stdin(Stdio::null())
            .spawn()
            .expect("larder starts");
        Self::ready(child, port, Some(Target::Unix(socket)), dir).await
    }

    /// This program as an echo server.
    pub(crate) async fn echo() -> Self {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let port = free_port();
        let program = std::env::current_exe().expect("a program has a path");
        let child = Command::new(program)
            .args(["--echo", &port.to_string()])
            .stdin(Stdio::null())
            .spawn()
            .expect("it starts again");
        Self::ready(child, port, None, dir).await
    }

    async fn ready(child: Child, port: u16, unix: Option<Target>, dir: tempfile::TempDir) -> Self {
        let tcp = Target::Tcp(port);
        for _ in 0..200 {
            if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                // The registry is loaded within moments of the listener's opening.
                tokio::time::sleep(Duration::from_millis(300)).await;
                return Self { child, tcp, unix, _dir: dir };
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("no server at port {port}");
    }

    /// The time on processors it has used so far.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        let stat = stat.expect("it runs");
        // The name, in parentheses, may have blanks; user and system time are fields 14 and 15.
        let (_, fields) = stat.rsplit_once(')').expect("proc(5)");
        let fields: Vec<_> = fields.split_whitespace().collect();
        let ticks: u64 =
            fields[11..13].iter().map(|field| field.parse::<u64>().expect("ticks")).sum();
        Duration::from_millis(ticks * 10)
    }

    /// The memory it has now, in bytes.
    pub(crate) fn rss_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("proc(5)");
        line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).expect("kB") << 10
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    listener.local_addr().expect("it is bound").port()
}
