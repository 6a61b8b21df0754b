//! Feature repositories, and larders that serve them at Unix sockets.

use std::{
    env, fs,
    io::{Read, Write},
    os::unix::{fs::symlink, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

/// What nothing here takes, however slow the machine is.
pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) const LARDER: &str = env!("CARGO_BIN_EXE_larder");

/// A request that the quickstart answers with 200.
pub(crate) const FEATURES: &str =
    r#"{"features": ["user_profile:age"], "entities": {"user_id": [1]}}"#;

/// A folder for a feature repository, and for sockets.
pub(crate) struct World {
    dir: tempfile::TempDir,
}

/// A larder.
pub(crate) struct Larder {
    child: Child,
    log: PathBuf,
}

/// An answer over HTTP.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl World {
    /// With no repository as yet, but a folder for it.
    pub(crate) fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("repo")).unwrap();
        Self { dir }
    }

    /// With the quickstart's.
    pub(crate) fn quickstart() -> Self {
        let world = Self::empty();
        world.add_quickstart(&world.repo());
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn repo(&self) -> PathBuf {
        self.path("repo")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("larder.sock")
    }

    pub(crate) fn admin(&self) -> PathBuf {
        self.path("admin.sock")
    }

    /// The quickstart's files, side by side, as a ConfigMap would have them.
    pub(crate) fn add_quickstart(&self, folder: &Path) {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/quickstart/data");
        for name in ["online.db", "registry.db"] {
            fs::copy(data.join(name), folder.join(name)).unwrap();
        }
        let yaml = "project: quickstart\nregistry: registry.db\n\
                    online_store: {type: sqlite, path: online.db}\n";
        // The last one: what waits for it finds the others.
        fs::write(folder.join("new"), yaml).unwrap();
        fs::rename(folder.join("new"), folder.join("feature_store.yaml")).unwrap();
    }

    /// Changes the repository as a kubelet changes the mount of a ConfigMap: all files at once, by
    /// one link.
    pub(crate) fn mount(&self, version: &str, fill: impl FnOnce(&Path)) {
        let versioned = self.repo().join(version);
        fs::create_dir(&versioned).unwrap();
        fill(&versioned);
        for file in fs::read_dir(&versioned).unwrap() {
            let name = file.unwrap().file_name();
            let _ = symlink(Path::new("..data").join(&name), self.repo().join(&name));
        }
        symlink(version, self.repo().join("..tmp")).unwrap();
        fs::rename(self.repo().join("..tmp"), self.repo().join("..data")).unwrap();
    }

    /// `larder` with this command, in no environment of this process's that could matter.
    pub(crate) fn command(&self, command: &str) -> Command {
        let mut larder = Command::new(LARDER);
        larder.arg(command).current_dir(self.dir.path()).stdin(Stdio::null());
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            if ["LARDER_", "FEAST_", "FEATURE_STORE_"].iter().any(|start| text.starts_with(start)) {
                larder.env_remove(name);
            }
        }
        larder
    }

    pub(crate) fn serve(&self, change: impl FnOnce(&mut Command)) -> Larder {
        let mut command = self.command("serve");
        command.arg("-c").arg(self.repo());
        command.arg("--listen").arg(unix(&self.socket()));
        command.arg("--admin").arg(unix(&self.admin()));
        change(&mut command);
        self.spawn(command)
    }

    pub(crate) fn spawn(&self, mut command: Command) -> Larder {
        let log = self.path("log");
        let file = fs::OpenOptions::new().append(true).create(true).open(&log).unwrap();
        Larder { child: command.stderr(file).spawn().unwrap(), log }
    }

    /// Asks whether it is ready, and says why not.
    pub(crate) fn ready(&self) -> Result<(), String> {
        let output = self.command("ready").arg("--socket").arg(self.socket()).output().unwrap();
        let why = told(&output);
        match output.status.code() {
            Some(0) if why.is_empty() => Ok(()),
            Some(1) if why.lines().count() == 1 => Err(why),
            _ => panic!("{output:?}"),
        }
    }

    pub(crate) fn ask_admin(&self, path: &str) -> Option<Answer> {
        get(&self.admin(), path)
    }

    /// Asks for features, on a connection of its own.
    pub(crate) fn ask(&self) -> Option<Answer> {
        exchange(&mut UnixStream::connect(self.socket()).ok()?, &post(FEATURES, ""))
    }
}

impl Larder {
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for something of it.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, is_so: impl Fn() -> bool) {
        let began = Instant::now();
        while !is_so() {
            let log = self.log();
            assert!(began.elapsed() < LONG, "{what}:\n{log}");
            assert_eq!(self.has_ended(), None, "{what}:\n{log}");
            pause();
        }
    }

    /// Its exit code, once it ends by itself.
    #[track_caller]
    pub(crate) fn ends(&mut self) -> Option<i32> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.has_ended() {
                return status.code();
            }
            assert!(began.elapsed() < LONG, "it does not end:\n{}", self.log());
            pause();
        }
    }
}

impl Drop for Larder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn pause() {
    thread::sleep(Duration::from_millis(10));
}

pub(crate) fn unix(path: &Path) -> String {
    format!("unix:{}", path.display())
}

/// What it wrote to standard error.
pub(crate) fn told(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A request for features, with more headers.
pub(crate) fn post(body: &str, headers: &str) -> String {
    format!(
        "POST /get-online-features HTTP/1.1\r\nhost: larder\r\n{headers}content-length: {}\r\n\r\n\
         {body}",
        body.len()
    )
}

pub(crate) fn get(socket: &Path, path: &str) -> Option<Answer> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: larder\r\n\r\n");
    exchange(&mut UnixStream::connect(socket).ok()?, &request)
}

/// Sends a request and reads the answer; the connection may be used again.
pub(crate) fn exchange(stream: &mut UnixStream, request: &str) -> Option<Answer> {
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(request.as_bytes()).ok()?;
    read_answer(stream)
}

pub(crate) fn read_answer(stream: &mut UnixStream) -> Option<Answer> {
    let head = read_head(stream)?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
    let mut body = vec![0; length.parse().ok()?];
    stream.read_exact(&mut body).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, body: String::from_utf8(body).ok()? })
}

/// Reads up to the empty line.
pub(crate) fn read_head(stream: &mut UnixStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}
