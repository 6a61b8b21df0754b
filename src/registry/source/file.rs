//! A registry in a local file.

use std::{
    fs::{File, Metadata},
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::Mutex;

use super::{Fetched, Fetching, Marker, RegistryError};

/// How often a file is read again that changed meanwhile.
const ATTEMPTS: usize = 3;

/// A file, and whether it is being read.
#[derive(Debug)]
pub(super) struct FileSource {
    path: PathBuf,
    reading: Arc<Mutex<()>>,
}

impl FileSource {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, reading: Arc::default() }
    }

    /// Reads it, on a thread of its own: one at most, even where a file system hangs.
    ///
    /// Bytes that come back may still be cut short, as far as a file tells: to decode them is to
    /// know.
    pub(super) async fn fetch(&self, fetching: Fetching<'_>) -> Result<Fetched, RegistryError> {
        let reading = Arc::clone(&self.reading).lock_owned().await;
        let (path, known) = (self.path.clone(), fetching.known.cloned());
        let (place, now_unix) = (fetching.place.to_owned(), fetching.now_unix);
        let max_bytes = fetching.limits.max_bytes;
        let read = move || {
            let _reading = reading;
            read(&path, &place, known.as_ref(), now_unix, max_bytes)
        };
        tokio::task::spawn_blocking(read).await?
    }
}

fn read(
    path: &Path,
    place: &str,
    known: Option<&Marker>,
    now_unix: i64,
    max_bytes: u64,
) -> Result<Fetched, RegistryError> {
    let unreadable = |cause| RegistryError::unreadable(place, cause);
    for _ in 0..ATTEMPTS {
        let mut file = File::open(path).map_err(unreadable)?;
        let before = file.metadata().map_err(unreadable)?;
        if known == Some(&marker_of(&before)) {
            return Ok(Fetched::Unchanged);
        }
        let mut bytes = Vec::new();
        (&mut file).take(max_bytes + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > max_bytes {
            return Err(RegistryError::TooLarge { place: place.to_owned(), max_bytes });
        }
        let after = file.metadata().map_err(unreadable)?;
        // Feast truncates, then writes: in between, the file is short.
        if marker_of(&before) == marker_of(&after) && before.len() == bytes.len() as u64 {
            let marker = is_settled(&before, now_unix).then(|| marker_of(&before));
            return Ok(Fetched::Bytes { bytes, marker });
        }
    }
    Err(RegistryError::BeingWritten { place: place.to_owned() })
}

fn marker_of(file: &Metadata) -> Marker {
    let (seconds, nanos) = (file.mtime(), file.mtime_nsec());
    Marker::new(format!("{} {} {seconds}.{nanos}", file.ino(), file.len()))
}

/// Whether another write is sure to change the marker: file systems stamp times in coarse steps.
fn is_settled(file: &Metadata, now_unix: i64) -> bool {
    file.mtime().saturating_add(2) < now_unix
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::registry::{FetchLimits, RegistrySettings, RegistrySource, settings::MAX_BYTES};

    fn source(path: &Path) -> RegistrySource {
        let settings = RegistrySettings::File(path.to_owned());
        RegistrySource::new(settings, "p".into(), FetchLimits::default()).unwrap()
    }

    async fn bytes(
        source: &mut RegistrySource,
        known: Option<Marker>,
        now: i64,
    ) -> Option<Vec<u8>> {
        match source.fetch(known.as_ref(), now).await.unwrap() {
            Fetched::Unchanged => None,
            Fetched::Bytes { bytes, .. } => Some(bytes),
        }
    }

    async fn marker(source: &mut RegistrySource, now: i64) -> Option<Marker> {
        match source.fetch(None, now).await.unwrap() {
            Fetched::Unchanged => None,
            Fetched::Bytes { marker, .. } => marker,
        }
    }

    #[tokio::test]
    async fn an_unchanged_file_is_not_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registry.db");
        fs::write(&path, b"one").unwrap();
        let mut source = source(&path);

        let known = marker(&mut source, i64::MAX).await;
        assert!(known.is_some());
        assert_eq!(bytes(&mut source, known.clone(), i64::MAX).await, None);
        fs::write(&path, b"another").unwrap();
        assert_eq!(bytes(&mut source, known, i64::MAX).await.unwrap(), b"another");
    }

    #[tokio::test]
    async fn a_file_written_this_very_second_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registry.db");
        fs::write(&path, b"one").unwrap();
        let written = fs::metadata(&path).unwrap().mtime();
        assert_eq!(marker(&mut source(&path), written + 1).await, None);
    }

    #[tokio::test]
    async fn a_file_larger_than_the_bound_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registry.db");
        File::create(&path).unwrap().set_len(MAX_BYTES + 1).unwrap();
        let refused = source(&path).fetch(None, 0).await;
        assert!(matches!(refused, Err(RegistryError::TooLarge { .. })));
    }
}
