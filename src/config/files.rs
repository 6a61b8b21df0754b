//! Which files a configuration is read from, and that they are read in one state of them all.
//!
//! A kubelet changes the files of a ConfigMap at once, by a link. What was read between two equal
//! stamps belongs together.

use std::{fs, io::ErrorKind, path::PathBuf, time::SystemTime};

use super::{Sources, Surroundings, feast};

/// Files that change each time that they are read are taken as they are.
const MAX_READS: usize = 4;

/// `larder.yaml`: the one that was named, or else the repo's, if there is one.
pub(super) fn larder_yaml(sources: &Sources, surroundings: &Surroundings) -> Option<PathBuf> {
    if let Some(path) = &sources.config {
        return Some(path.clone());
    }
    let path = feast::repo(sources, surroundings).join("larder.yaml");
    // What is there and cannot be read is said, not passed over.
    let missing = matches!(fs::metadata(&path), Err(error) if error.kind() == ErrorKind::NotFound);
    (!missing).then_some(path)
}

/// Which files a configuration is read from, and in what state they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp(Vec<Option<(PathBuf, SystemTime, u64)>>);

impl Stamp {
    /// The stamp now.
    pub(super) fn take(sources: &Sources, surroundings: &Surroundings) -> Self {
        let stamp = |path: PathBuf| {
            let path = fs::canonicalize(surroundings.working_directory.join(path)).ok()?;
            let metadata = fs::metadata(&path).ok()?;
            Some((path, metadata.modified().ok()?, metadata.len()))
        };
        let larder = larder_yaml(sources, surroundings).and_then(stamp);
        Self(vec![larder, feast::file(sources, surroundings).and_then(stamp)])
    }
}

/// Reads until the stamps before and after are the same.
pub(super) fn settled<S: PartialEq, T>(stamp: impl Fn() -> S, read: impl Fn() -> T) -> T {
    let mut before = stamp();
    for _ in 1..MAX_READS {
        let found = read();
        let after = stamp();
        if after == before {
            return found;
        }
        before = after;
    }
    read()
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, io::Write};

    use super::*;

    /// What is read of something that changes while it is read the first few times.
    fn read_of(changes: usize) -> usize {
        let state = Cell::new(0);
        settled(
            || state.get(),
            || {
                let found = state.get();
                state.set((found + 1).min(changes));
                found
            },
        )
    }

    #[test]
    fn files_that_change_while_they_are_read_are_read_again() {
        assert_eq!(read_of(0), 0);
        assert_eq!(read_of(1), 1);
        assert_eq!(read_of(2), 2);
        assert_eq!(read_of(usize::MAX), MAX_READS - 1);
    }

    #[test]
    fn a_link_that_leads_elsewhere_is_another_state() {
        let dir = tempfile::tempdir().unwrap();
        let surroundings =
            Surroundings { working_directory: dir.path().into(), ..Surroundings::default() };
        for version in ["v1", "v2"] {
            fs::create_dir(dir.path().join(version)).unwrap();
            let mut file =
                fs::File::create(dir.path().join(version).join("feature_store.yaml")).unwrap();
            file.write_all(b"a: b").unwrap();
            // Both are as old as each other, as two files of one moment are.
            file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        }
        let link = |version: &str| {
            std::os::unix::fs::symlink(version, dir.path().join("..tmp")).unwrap();
            fs::rename(dir.path().join("..tmp"), dir.path().join("..data")).unwrap();
        };
        let stamp = || Stamp::take(&Sources::default(), &surroundings);
        let missing = stamp();
        link("v1");
        let (from, to) = ("..data/feature_store.yaml", dir.path().join("feature_store.yaml"));
        std::os::unix::fs::symlink(from, to).unwrap();
        let first = stamp();
        assert_eq!(first, stamp());
        link("v2");
        assert_ne!(first, stamp());
        assert_ne!(first, missing);
    }
}
