//! Servers of a test's own: each a process on a free port with a folder, ended on drop.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// Installing a server takes its time on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) const USER: &str = "larder";
pub(crate) const PASSWORD: &str = "s3cret-pass-word";

/// In a service's folder: who issued its certificate, who did not, the certificate and its key.
pub(crate) const AUTHORITY: &str = "ca.pem";
pub(crate) const STRANGER: &str = "stranger.pem";
const SERVER: &str = "server.pem";
const SERVER_KEY: &str = "server.key";

/// A process that listens.
pub(crate) struct Service {
    process: Option<Child>,
    pub(crate) port: u16,
    pub(crate) folder: tempfile::TempDir,
    command: fn(&Self) -> Command,
}

impl Service {
    /// Starts what `command` says on a free port, in a folder that `prepare` fills.
    fn start(prepare: fn(&Path), command: fn(&Self) -> Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        let mut service = Self { process: None, port: 0, folder, command };
        // A port that was free may be another's by the time the server asks for it.
        for _ in 0..20 {
            service.port = free_port();
            if service.try_start() {
                return service;
            }
        }
        panic!("{:?} ends at once: {}", command(&service), service.log());
    }

    /// Starts it on the same port again, with what is in its folder.
    pub(crate) fn restart(&mut self) {
        assert!(self.try_start(), "it does not start again: {}", self.log());
    }

    fn try_start(&mut self) -> bool {
        assert!(self.process.is_none());
        let log = fs::File::create(self.folder.path().join("log")).unwrap();
        let mut command = (self.command)(self);
        let command = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let process = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        self.process = Some(process);
        let started = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            if self.process.as_mut().unwrap().try_wait().unwrap().is_some() {
                self.process = None;
                return false;
            }
            assert!(started.elapsed() < PATIENCE, "it does not listen: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }

    /// Ends it, at once and with all of its processes.
    pub(crate) fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        // PostgreSQL's immediate shutdown; the others end of it, too.
        let _ = Command::new("kill").args(["-QUIT", &process.id().to_string()]).status();
        let told = Instant::now();
        while process.try_wait().unwrap().is_none() {
            if told.elapsed() > Duration::from_secs(10) {
                process.kill().unwrap();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// A PostgreSQL with a user who may do everything.
pub(crate) fn postgres() -> Service {
    let service = Service::start(
        |folder| {
            let data = owned_by("postgres", &folder.join("data"));
            let password = folder.join("password");
            fs::write(&password, PASSWORD).unwrap();
            certificates(folder, "postgres");
            run(as_user("postgres", postgres_program("initdb"))
                .args(["-U", USER, "-A", "scram-sha-256", "--no-sync", "-E", "UTF8", "-D"])
                .arg(data)
                .arg(format!("--pwfile={}", password.display())));
        },
        |service| {
            let data = service.folder.path().join("data");
            let mut command = as_user("postgres", postgres_program("postgres"));
            command.arg("-D").arg(&data).arg("-k").arg(&data);
            command.args(["-p", &service.port.to_string(), "-c", "listen_addresses=127.0.0.1"]);
            command.args(["-c", "fsync=off", "-c", "ssl=on"]);
            for (setting, file) in [("ssl_cert_file", SERVER), ("ssl_key_file", SERVER_KEY)] {
                let file = service.folder.path().join(file);
                command.arg("-c").arg(format!("{setting}={}", file.display()));
            }
            command
        },
    );
    let mut psql = Command::new("psql");
    psql.args(["-h", "127.0.0.1", "-U", USER, "-p", &service.port.to_string(), "-d", "postgres"]);
    psql.args(["-c", "SELECT 1"]).env("PGPASSWORD", PASSWORD);
    run_until(&mut psql);
    service
}

/// A MariaDB with a user who may do everything, and a stranger who may do nothing.
pub(crate) fn mariadb() -> Service {
    let service = Service::start(
        |folder| {
            let data = owned_by("mysql", &folder.join("data"));
            certificates(folder, "mysql");
            let mut install = Command::new(program("mariadb-install-db", "mariadb-server"));
            install.args(["--no-defaults", "--auth-root-authentication-method=normal"]);
            install.arg("--skip-test-db");
            if is_root() {
                install.arg("--user=mysql");
            }
            run(install.arg(format!("--datadir={}", data.display())));
        },
        |service| {
            let data = service.folder.path().join("data");
            let mut command = as_user("mysql", program("mariadbd", "mariadb-server"));
            command.args(["--no-defaults", "--bind-address=127.0.0.1", "--skip-networking=0"]);
            command.arg(format!("--datadir={}", data.display()));
            command.arg(format!("--socket={}", data.join("socket").display()));
            command.arg(format!("--port={}", service.port));
            command.args(["--innodb-flush-log-at-trx-commit=0", "--skip-name-resolve"]);
            for (option, file) in [("ssl-cert", SERVER), ("ssl-key", SERVER_KEY)] {
                let file = service.folder.path().join(file);
                command.arg(format!("--{option}={}", file.display()));
            }
            command
        },
    );
    let statements = format!(
        "CREATE USER {USER} IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON *.* TO {USER}; \
         CREATE USER stranger IDENTIFIED BY '{PASSWORD}'; GRANT USAGE ON *.* TO stranger"
    );
    let mut client = Command::new(program("mariadb", "mariadb-client"));
    client.args(["--no-defaults", "-u", "root", "-h", "127.0.0.1", "-e", &statements]);
    run_until(client.arg(format!("--port={}", service.port)));
    service
}

/// versitygw, an S3 server over a folder, with one bucket.
pub(crate) fn versitygw(bucket: &str) -> Service {
    let service = Service::start(
        |folder| fs::create_dir(folder.join("data")).unwrap(),
        |service| {
            let program = std::env::var_os("VERSITYGW").expect(
                "these tests need versitygw: `scripts/test` installs it, and names it in VERSITYGW",
            );
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL"]).arg(program).args(["--quiet", "--port"]);
            command.arg(format!("127.0.0.1:{}", service.port));
            command.args(["--access", USER, "--secret", PASSWORD, "posix"]);
            command.arg(service.folder.path().join("data"));
            command
        },
    );
    fs::create_dir(service.folder.path().join("data").join(bucket)).unwrap();
    service
}

fn program(name: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    let found = folders.map(|folder| folder.join(name)).find(|file| file.exists());
    found.unwrap_or_else(|| {
        panic!("these tests need `{name}` on the PATH: `apt-get install {package}`")
    })
}

/// Debian keeps PostgreSQL's server off the PATH, in a folder for each version.
fn postgres_program(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<_> = versions.map(|version| version.path().join("bin").join(name)).collect();
    found.retain(|file| file.exists());
    found.sort();
    found.pop().unwrap_or_else(|| program(name, "postgresql"))
}

/// A new folder that a server may write to, which refuses to run as root.
fn owned_by(user: &str, folder: &Path) -> PathBuf {
    fs::create_dir(folder).unwrap();
    if is_root() {
        // Its parent is ours alone otherwise.
        run(Command::new("chmod").arg("755").arg(folder.parent().unwrap()));
        run(Command::new("chown").arg(user).arg(folder));
    }
    folder.to_owned()
}

/// A certificate for `localhost`, which that user may read.
fn certificates(folder: &Path, user: &str) {
    let authority = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        fs::write(folder.join(name), params.self_signed(&key).unwrap().pem()).unwrap();
        Issuer::new(params, key)
    };
    authority(STRANGER);
    let (issuer, key) = (authority(AUTHORITY), KeyPair::generate().unwrap());
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    fs::write(folder.join(SERVER), params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
    let key_file = folder.join(SERVER_KEY);
    fs::write(&key_file, key.serialize_pem()).unwrap();
    run(Command::new("chmod").arg("600").arg(&key_file));
    if is_root() {
        run(Command::new("chown").arg(user).arg(&key_file));
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// The program as that user, if we are root; it ends with us.
fn as_user(user: &str, program: PathBuf) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).current_dir("/");
    if is_root() {
        let user = format!("--reuid={user}");
        let group = user.replace("reuid", "regid");
        command.args([&user, &group, "--init-groups"]);
    }
    command.arg(program);
    command
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// Until it succeeds: a server that listens may not answer yet.
fn run_until(command: &mut Command) {
    let begun = Instant::now();
    loop {
        let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        if output.status.success() {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{command:?}: {output:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
