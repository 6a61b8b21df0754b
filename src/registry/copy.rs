//! The last good registry on disk, for a start while its place is down.
//!
//! ```text
//!  {"larder_registry_copy":1,"project":"fraud","source":"s3://b/r.db","confirmed_at":1790000000,
//!   "length":4711,"digest":"9c0d..."}\n  and the bytes of the registry
//! ```
//!
//! Written beside its place and renamed into it, so that it is whole or not there. That is done by
//! a thread that nobody waits for: a disk that hangs harms neither a refresh nor the end of the
//! process.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};
use xxhash_rust::xxh3::xxh3_64;

/// The form of the file; another one is not read.
const VERSION: u32 = 1;

/// More than a header ever has.
const MAX_HEADER_BYTES: u64 = 16 << 10;

/// A file that keeps the last good registry of one project and source.
#[derive(Debug)]
pub(super) struct DiskCopy {
    path: Arc<Path>,
    project: Arc<str>,
    source: String,
    slot: Arc<Slot>,
}

/// What was read back.
pub(super) struct Copied {
    pub(super) bytes: Vec<u8>,
    /// When its source had it, in seconds since the Unix epoch.
    pub(super) confirmed_at_unix: i64,
}

#[derive(Deserialize, Serialize)]
struct Header {
    larder_registry_copy: u32,
    project: String,
    source: String,
    confirmed_at: i64,
    length: u64,
    digest: String,
}

/// What is to be written next. A newer registry takes the place of one that was not begun.
#[derive(Debug, Default)]
struct Slot {
    next: Mutex<Next>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct Next {
    contents: Option<(Vec<u8>, Vec<u8>)>,
    closed: bool,
}

impl DiskCopy {
    /// Neither reads nor writes yet.
    pub(super) fn new(path: PathBuf, project: Arc<str>, source: String) -> Self {
        let (path, slot) = (Arc::<Path>::from(path), Arc::<Slot>::default());
        let writer = (Arc::clone(&path), Arc::clone(&slot));
        let spawned = thread::Builder::new()
            .name("registry-copy".to_owned())
            .spawn(move || write_what_comes(&writer.0, &writer.1));
        if let Err(error) = spawned {
            warn!(%error, "no thread writes the registry's copy");
        }
        Self { path, project, source, slot }
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps these bytes from now on. Returns at once; what fails is logged.
    pub(super) fn keep(&self, bytes: Vec<u8>, confirmed_at_unix: i64) {
        let header = Header {
            larder_registry_copy: VERSION,
            project: self.project.to_string(),
            source: self.source.clone(),
            confirmed_at: confirmed_at_unix,
            length: bytes.len() as u64,
            digest: format!("{:016x}", xxh3_64(&bytes)),
        };
        let mut head = serde_json::to_vec(&header).expect("a header is JSON");
        head.push(b'\n');
        self.slot.next.lock().contents = Some((head, bytes));
        self.slot.filled.notify_one();
    }

    /// Reads it back, on a thread of its own.
    ///
    /// # Errors
    ///
    /// If there is none, or none that is whole and of this project and source.
    pub(super) async fn read(&self, max_bytes: u64) -> io::Result<Copied> {
        let (path, project, source) =
            (Arc::clone(&self.path), Arc::clone(&self.project), self.source.clone());
        tokio::task::spawn_blocking(move || read(&path, &project, &source, max_bytes)).await?
    }
}

impl Drop for DiskCopy {
    fn drop(&mut self) {
        self.slot.next.lock().closed = true;
        self.slot.filled.notify_one();
    }
}

fn read(path: &Path, project: &str, source: &str, max_bytes: u64) -> io::Result<Copied> {
    let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut file = BufReader::new(File::open(path)?);
    let mut head = Vec::new();
    (&mut file).take(MAX_HEADER_BYTES).read_until(b'\n', &mut head)?;
    let header: Header = serde_json::from_slice(&head)
        .map_err(|_| wrong("it is no copy that this larder made".to_owned()))?;
    if header.larder_registry_copy != VERSION {
        return Err(wrong(format!("it has the form {}", header.larder_registry_copy)));
    }
    if header.project != project || header.source != source {
        let (project, source) = (header.project, header.source);
        return Err(wrong(format!("it is of project `{project}` of {source}")));
    }
    let mut bytes = Vec::new();
    file.take(max_bytes + 1).read_to_end(&mut bytes)?;
    let whole = bytes.len() as u64 == header.length && bytes.len() as u64 <= max_bytes;
    if !whole || header.digest != format!("{:016x}", xxh3_64(&bytes)) {
        return Err(wrong("it is damaged".to_owned()));
    }
    Ok(Copied { bytes, confirmed_at_unix: header.confirmed_at })
}

fn write_what_comes(path: &Path, slot: &Slot) {
    let mut failed = false;
    loop {
        let (head, bytes) = {
            let mut next = slot.next.lock();
            loop {
                match next.contents.take() {
                    Some(contents) => break contents,
                    None if next.closed => return,
                    None => slot.filled.wait(&mut next),
                }
            }
        };
        match write(path, &head, &bytes) {
            Ok(()) if failed => {
                info!(path = %path.display(), "the registry's copy can be written again");
                failed = false;
            }
            Ok(()) => {}
            Err(error) => {
                if !failed {
                    warn!(path = %path.display(), %error, "the registry's copy cannot be written");
                }
                failed = true;
            }
        }
    }
}

/// Beside its place first, and there only once it is on the disk. Readable by larder alone.
fn write(path: &Path, head: &[u8], bytes: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(beside);
    let written = (|| {
        let mut options = File::options();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(head)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        // The rename is on the disk once its folder is.
        match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    })();
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn copy(path: &Path, project: &str, source: &str) -> DiskCopy {
        DiskCopy::new(path.to_owned(), project.into(), source.to_owned())
    }

    /// Waits for the thread that writes.
    async fn read_until(copy: &DiskCopy, bytes: &[u8]) -> Copied {
        let begun = Instant::now();
        loop {
            match copy.read(1000).await {
                Ok(copied) if copied.bytes == bytes => return copied,
                other => assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", other.err()),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn the_last_that_was_kept_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("copy");
        let it = copy(&path, "p", "s3://b/k");
        assert!(it.read(1000).await.is_err());
        it.keep(b"one".to_vec(), 7);
        it.keep(b"two\nlines".to_vec(), 8);
        assert_eq!(read_until(&it, b"two\nlines").await.confirmed_at_unix, 8);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn what_is_damaged_or_of_another_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("copy");
        let it = copy(&path, "p", "s3://b/k");
        it.keep(b"bytes".to_vec(), 7);
        read_until(&it, b"bytes").await;
        let why = async |copy: DiskCopy| copy.read(1000).await.err().unwrap().to_string();
        assert_eq!(why(copy(&path, "q", "s3://b/k")).await, "it is of project `p` of s3://b/k");
        assert_eq!(why(copy(&path, "p", "s3://b/l")).await, "it is of project `p` of s3://b/k");
        assert_eq!(it.read(4).await.err().unwrap().to_string(), "it is damaged");

        let good = fs::read(&path).unwrap();
        for (bad, expected) in [
            (&good[..good.len() - 1], "it is damaged"),
            (&[&good[..], b"x"].concat(), "it is damaged"),
            (&good[1..], "it is no copy that this larder made"),
            (b"", "it is no copy that this larder made"),
        ] {
            fs::write(&path, bad).unwrap();
            assert_eq!(it.read(1000).await.err().unwrap().to_string(), expected);
        }
    }
}
