//! Where a registry's bytes are.
//!
//! A local file for now. Another place is another variant: the compiler asks for the rest.

use std::{
    fmt,
    fs::{File, Metadata},
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::RegistryError;

/// The largest registry that is read, in bytes: 256 MiB. Feast's own stay far below.
pub const MAX_BYTES: u64 = 256 << 20;

/// How often a file is read again that changed meanwhile.
const ATTEMPTS: usize = 3;

/// Where a registry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistrySource {
    /// A file that Feast rewrites in place.
    File(PathBuf),
}

/// What tells one state of a registry from another without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

/// What a source has.
#[derive(Debug)]
pub enum Fetched {
    /// What it had when the marker was taken.
    Unchanged,
    /// Something else, or perhaps the same.
    Bytes {
        /// The registry.
        bytes: Vec<u8>,
        /// Its marker. None where the file is so new that another write need not change it.
        marker: Option<Marker>,
    },
}

impl RegistrySource {
    /// Reads the registry, unless it is still the one with the marker `known`.
    ///
    /// `now_unix`: seconds since the Unix epoch. Blocks a thread of its own, not the caller's.
    ///
    /// # Errors
    ///
    /// If it cannot be read, is too large or is being written. Bytes that come back may still be
    /// cut short, as far as a file tells: to decode them is to know.
    pub async fn fetch(
        &self,
        known: Option<Marker>,
        now_unix: i64,
    ) -> Result<Fetched, RegistryError> {
        let Self::File(path) = self;
        let (path, place) = (path.clone(), self.to_string());
        let fetch = move || fetch_file(&path, &place, known.as_ref(), now_unix);
        tokio::task::spawn_blocking(fetch).await?
    }
}

impl fmt::Display for RegistrySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
        }
    }
}

fn fetch_file(
    path: &Path,
    place: &str,
    known: Option<&Marker>,
    now_unix: i64,
) -> Result<Fetched, RegistryError> {
    let unreadable = |cause| RegistryError::Unreadable { place: place.to_owned(), cause };
    for _ in 0..ATTEMPTS {
        let mut file = File::open(path).map_err(unreadable)?;
        let before = Marker::of(&file.metadata().map_err(unreadable)?);
        if known == Some(&before) {
            return Ok(Fetched::Unchanged);
        }
        let mut bytes = Vec::new();
        (&mut file).take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(RegistryError::TooLarge { place: place.to_owned(), max_bytes: MAX_BYTES });
        }
        let after = Marker::of(&file.metadata().map_err(unreadable)?);
        // Feast truncates, then writes: in between, the file is short.
        if before == after && before.length == bytes.len() as u64 {
            let marker = before.is_settled(now_unix).then_some(before);
            return Ok(Fetched::Bytes { bytes, marker });
        }
    }
    Err(RegistryError::BeingWritten { place: place.to_owned() })
}

impl Marker {
    fn of(metadata: &Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }

    /// Whether another write is sure to change it: file systems stamp times in coarse steps.
    fn is_settled(&self, now_unix: i64) -> bool {
        self.modified.0.saturating_add(2) < now_unix
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    async fn bytes(source: &RegistrySource, known: Option<Marker>, now: i64) -> Option<Vec<u8>> {
        match source.fetch(known, now).await.unwrap() {
            Fetched::Unchanged => None,
            Fetched::Bytes { bytes, .. } => Some(bytes),
        }
    }

    async fn marker(source: &RegistrySource, now: i64) -> Option<Marker> {
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
        let source = RegistrySource::File(path.clone());

        let known = marker(&source, i64::MAX).await;
        assert!(known.is_some());
        assert_eq!(bytes(&source, known.clone(), i64::MAX).await, None);
        fs::write(&path, b"another").unwrap();
        assert_eq!(bytes(&source, known, i64::MAX).await.unwrap(), b"another");
    }

    #[tokio::test]
    async fn a_file_written_this_very_second_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registry.db");
        fs::write(&path, b"one").unwrap();
        let written = fs::metadata(&path).unwrap().mtime();
        assert_eq!(marker(&RegistrySource::File(path), written + 1).await, None);
    }

    #[tokio::test]
    async fn a_file_larger_than_the_bound_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registry.db");
        File::create(&path).unwrap().set_len(MAX_BYTES + 1).unwrap();
        let refused = RegistrySource::File(path).fetch(None, 0).await;
        assert!(matches!(refused, Err(RegistryError::TooLarge { .. })));
    }
}
