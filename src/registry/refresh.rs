//! The task that keeps the registry current: fetch, decode, publish.
//!
//! ```text
//!  start                fails         works                      interval, jittered
//!  |- fetch - 1 s - 2 s - 4 s - ... - fetch ------------------------ fetch ---- ...
//! ```
//!
//! The only writer of [`RegistryHandle`]. What cannot be read or decoded leaves the snapshot in
//! force, and is logged when it begins and when it ends. Where the first read fails, a copy on disk
//! stands in until one succeeds.

use std::{error::Error, iter, path::PathBuf, sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    DecodeOptions, Fetched, Marker, Registry, RegistryError, RegistryHandle, RegistrySource,
    RegistryStatus, StatusHandle, copy::DiskCopy, decode,
};

/// The warnings about single objects that are logged of one registry; the status counts all.
const MAX_LOGGED_WARNINGS: usize = 20;

/// When the registry is asked for.
#[derive(Clone, Copy, Debug)]
pub struct RefreshSettings {
    /// The pause after a success, varied by 10 %, and the longest pause after a failure.
    pub interval: Duration,
    /// The pause after the first failure in a row; it doubles with each, and is varied.
    pub first_retry: Duration,
    /// The wall clock: seconds since the Unix epoch.
    pub now_unix: fn() -> i64,
}

/// Loads the registry, and loads it again whenever it has changed.
#[derive(Debug)]
pub struct Refresher {
    source: RegistrySource,
    options: DecodeOptions,
    settings: RefreshSettings,
    handle: Arc<RegistryHandle>,
    status: StatusHandle,
    marker: Option<Marker>,
    /// Of the bytes in force, for sources whose markers do not tell.
    digest: Option<u64>,
    copy: Option<DiskCopy>,
}

/// Loads the registry once, without a word in the log.
///
/// # Errors
///
/// If it cannot be read or decoded.
pub async fn load_once(
    source: &mut RegistrySource,
    options: &DecodeOptions,
) -> Result<Registry, RegistryError> {
    match source.fetch(None, 0).await? {
        Fetched::Bytes { bytes, .. } => Ok(decode_apart(bytes, options.clone()).await?.0),
        Fetched::Unchanged => unreachable!("nothing is known yet"),
    }
}

impl Refresher {
    /// Publishes to `handle`, of which it is the only writer.
    pub fn new(
        source: RegistrySource,
        options: DecodeOptions,
        settings: RefreshSettings,
        handle: Arc<RegistryHandle>,
    ) -> Self {
        let status = StatusHandle::default();
        let (marker, digest, copy) = (None, None, None);
        Self { source, options, settings, handle, status, marker, digest, copy }
    }

    /// Keeps the last good registry in a file, and begins with it if the source cannot be read.
    #[must_use]
    pub fn with_disk_copy(mut self, path: PathBuf) -> Self {
        let project = Arc::clone(&self.options.project);
        self.copy = Some(DiskCopy::new(path, project, self.source.to_string()));
        self
    }

    /// What is known of the registry, from now on.
    pub fn status(&self) -> StatusHandle {
        self.status.clone()
    }

    /// Loads the registry at once, then again and again until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut retries = self.retries();
        loop {
            let pause = if self.refresh().await {
                retries = self.retries();
                self.settings.interval.mul_f64(0.9 + 0.2 * fastrand::f64())
            } else {
                retries.next().unwrap_or(self.settings.interval).min(self.settings.interval)
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn retries(&self) -> ExponentialBackoff {
        ExponentialBuilder::new()
            .with_min_delay(self.settings.first_retry)
            .with_max_delay(self.settings.interval)
            .with_jitter()
            .without_max_times()
            .build()
    }

    /// Asks the source once. Returns whether the snapshot in force is now what the source has.
    pub async fn refresh(&mut self) -> bool {
        let before = self.status.load();
        let result = self.update().await;
        let now = (self.settings.now_unix)();
        let mut status = RegistryStatus { attempted_at_unix: Some(now), ..(*before).clone() };
        match &result {
            Ok(published) => {
                status.confirmed_at_unix = Some(now);
                status.last_error = None;
                status.consecutive_failures = 0;
                status.from_disk_copy = false;
                if let Some(registry) = published {
                    status.show(registry, now);
                }
                if before.last_error.is_some() {
                    info!(source = %self.source, "registry can be read again");
                }
            }
            Err(error) => {
                let chain = chain(error);
                if before.last_error.is_none() {
                    let in_force = before.is_loaded();
                    warn!(source = %self.source, error = %chain, in_force, "registry read failed");
                }
                status.last_error = Some(chain.into());
                status.consecutive_failures = before.consecutive_failures.saturating_add(1);
                status.failures = before.failures.saturating_add(1);
                let is_first = before.attempted_at_unix.is_none();
                if is_first && let Some((registry, confirmed_at_unix)) = self.restore().await {
                    status.show(&registry, now);
                    status.confirmed_at_unix = Some(confirmed_at_unix);
                    status.from_disk_copy = true;
                }
            }
        }
        self.status.store(status);
        result.is_ok()
    }

    /// Puts in force what the source has. Returns it, if it is new.
    async fn update(&mut self) -> Result<Option<Arc<Registry>>, RegistryError> {
        let now = (self.settings.now_unix)();
        let (bytes, marker) = match self.source.fetch(self.marker.as_ref(), now).await? {
            Fetched::Unchanged => return Ok(None),
            Fetched::Bytes { bytes, marker } => (bytes, marker),
        };
        let digest = Some(xxh3_64(&bytes));
        let (published, bytes) = if self.digest == digest {
            (None, bytes)
        } else {
            let (registry, bytes) = decode_apart(bytes, self.options.clone()).await?;
            (self.publish(registry), bytes)
        };
        // Also a copy that this larder began with: it is confirmed again.
        if let Some(copy) = &self.copy
            && (published.is_some() || self.status.load().from_disk_copy)
        {
            copy.keep(bytes, now);
        }
        // Only now: what could not be decoded is to be tried again, changed or not.
        (self.marker, self.digest) = (marker, digest);
        Ok(published)
    }

    /// Puts the copy on disk in force. Returns it, and when its source had it.
    async fn restore(&mut self) -> Option<(Arc<Registry>, i64)> {
        let path = self.copy.as_ref()?.path().to_owned();
        let restored = self.read_copy().await;
        match restored {
            Ok((registry, digest, confirmed_at_unix)) => {
                self.digest = Some(digest);
                let path = path.display();
                warn!(%path, confirmed_at_unix, "the registry's copy on disk stands in for it");
                Some((self.publish(registry)?, confirmed_at_unix))
            }
            Err(error) => {
                let error = chain(&*error);
                warn!(path = %path.display(), %error, "the registry's copy on disk cannot be used");
                None
            }
        }
    }

    async fn read_copy(&self) -> Result<(Registry, u64, i64), Box<dyn Error + Send + Sync>> {
        let copy = self.copy.as_ref().ok_or("there is none")?;
        let copied = copy.read(self.source.max_bytes()).await?;
        let digest = xxh3_64(&copied.bytes);
        let (registry, _) = decode_apart(copied.bytes, self.options.clone()).await?;
        Ok((registry, digest, copied.confirmed_at_unix))
    }

    fn publish(&self, registry: Registry) -> Option<Arc<Registry>> {
        let previous = self.handle.load();
        let known = previous.as_ref().map_or(&[][..], |previous| &previous.warnings);
        let new = registry.warnings.iter().filter(|warning| !known.contains(warning));
        for warning in new.take(MAX_LOGGED_WARNINGS) {
            warn!(source = %self.source, %warning, "registry has an object that is not served");
        }
        info!(
            source = %self.source,
            project = %registry.project,
            version_id = %registry.version_id,
            views = registry.views.len(),
            services = registry.services.len(),
            "registry loaded"
        );
        self.handle.publish(registry);
        self.handle.load()
    }
}

/// Decodes on a thread of its own: a large registry takes longer than a request may wait.
async fn decode_apart(
    bytes: Vec<u8>,
    options: DecodeOptions,
) -> Result<(Registry, Vec<u8>), RegistryError> {
    tokio::task::spawn_blocking(move || Ok((decode(&bytes, &options)?, bytes))).await?
}

fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = iter::successors(error.source(), |cause| (*cause).source());
    iter::once(error.to_string())
        .chain(causes.map(ToString::to_string))
        .collect::<Vec<_>>()
        .join(": ")
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use prost::Message;
    use tempfile::TempDir;

    use super::*;
    use crate::{
        model::KeyEncoding,
        pb::core,
        registry::{FetchLimits, RegistrySettings},
    };

    const INTERVAL: Duration = Duration::from_secs(60);

    fn bytes(version_id: &str, views: &[&str]) -> Vec<u8> {
        let view = |name: &&str| core::FeatureView {
            spec: Some(core::FeatureViewSpec {
                name: (*name).to_owned(),
                project: "p".to_owned(),
                ..Default::default()
            }),
            meta: None,
        };
        let registry = core::Registry {
            version_id: version_id.to_owned(),
            feature_views: views.iter().map(view).collect(),
            ..Default::default()
        };
        registry.encode_to_vec()
    }

    fn options() -> DecodeOptions {
        DecodeOptions {
            project: "p".into(),
            key_encoding: KeyEncoding::V3,
            versioning: false,
            versioned_store: true,
            routing: None,
        }
    }

    fn refresher_of(path: &Path, handle: &Arc<RegistryHandle>) -> Refresher {
        let settings = RefreshSettings {
            interval: INTERVAL,
            first_retry: Duration::from_secs(1),
            // Files of now are long settled.
            now_unix: || 9_000_000_000,
        };
        let file = RegistrySettings::File(path.to_owned());
        let source = RegistrySource::new(file, "p".into(), FetchLimits::default()).unwrap();
        Refresher::new(source, options(), settings, Arc::clone(handle))
    }

    /// A refresher of `registry.db` in a folder, and what it publishes to.
    struct Fixture {
        folder: TempDir,
        handle: Arc<RegistryHandle>,
        refresher: Refresher,
    }

    impl Fixture {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let handle = Arc::<RegistryHandle>::default();
            let refresher = refresher_of(&folder.path().join("registry.db"), &handle);
            Self { folder, handle, refresher }
        }

        fn write(&self, bytes: &[u8]) {
            fs::write(self.path(), bytes).unwrap();
        }

        fn path(&self) -> std::path::PathBuf {
            self.folder.path().join("registry.db")
        }

        fn version(&self) -> Option<String> {
            self.handle.load().map(|registry| registry.version_id.to_string())
        }
    }

    #[tokio::test]
    async fn bad_bytes_keep_the_last_good_registry() {
        let mut it = Fixture::new();
        it.write(&bytes("one", &["a"]));
        assert!(it.refresher.refresh().await);

        let good = bytes("two", &["a", "b"]);
        for bad in [&b"\xff\xff"[..], &good[..good.len() - 1], b""] {
            it.write(bad);
            assert!(!it.refresher.refresh().await, "{bad:?}");
            assert_eq!(it.version().as_deref(), Some("one"));
            assert!(it.refresher.status().load().last_error.is_some());
        }
        it.write(&good);
        assert!(it.refresher.refresh().await);
        assert_eq!(it.version().as_deref(), Some("two"));
        let status = it.refresher.status().load();
        assert_eq!((status.generation, &status.last_error), (2, &None));
        assert_eq!(status.version_id.as_deref(), Some("two"));
    }

    #[tokio::test]
    async fn a_file_that_vanishes_leaves_its_registry() {
        let mut it = Fixture::new();
        it.write(&bytes("one", &["a"]));
        assert!(it.refresher.refresh().await);
        fs::remove_file(it.path()).unwrap();
        assert!(!it.refresher.refresh().await);
        assert!(!it.refresher.refresh().await);

        assert_eq!(it.version().as_deref(), Some("one"));
        let status = it.refresher.status().load();
        assert!(status.is_loaded());
        assert_eq!(status.consecutive_failures, 2);
        let error = status.last_error.as_ref().unwrap();
        assert!(error.contains("registry.db` cannot be read: "), "{error}");
    }

    #[tokio::test]
    async fn the_same_bytes_written_again_are_no_new_registry() {
        let mut it = Fixture::new();
        it.write(&bytes("one", &["a"]));
        assert!(it.refresher.refresh().await);
        fs::remove_file(it.path()).unwrap();
        it.write(&bytes("one", &["a"]));
        assert!(it.refresher.refresh().await);
        assert_eq!(it.handle.load().unwrap().generation, 1);
    }

    #[tokio::test]
    async fn a_copy_on_disk_stands_in_until_the_source_is_read() {
        let mut it = Fixture::new();
        let (source, copy) = (it.path(), it.folder.path().join("copy"));
        it.write(&bytes("one", &["a"]));
        let mut first = refresher_of(&source, &it.handle).with_disk_copy(copy.clone());
        assert!(first.refresh().await);
        assert!(!first.status().load().from_disk_copy);
        // A thread of its own writes it.
        let begun = std::time::Instant::now();
        while !copy.exists() {
            assert!(begun.elapsed() < INTERVAL);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }

        fs::rename(&source, source.with_extension("away")).unwrap();
        it.handle = Arc::default();
        it.refresher = refresher_of(&source, &it.handle).with_disk_copy(copy);
        assert!(!it.refresher.refresh().await, "what the source has is not in force");
        assert_eq!(it.version().as_deref(), Some("one"));
        let status = it.refresher.status().load();
        assert!(status.from_disk_copy && status.is_loaded() && status.last_error.is_some());
        assert_eq!(status.confirmed_at_unix, Some(9_000_000_000));

        fs::rename(source.with_extension("away"), &source).unwrap();
        assert!(it.refresher.refresh().await);
        let status = it.refresher.status().load();
        assert_eq!((status.from_disk_copy, status.generation, status.failures), (false, 1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_registry_that_appears_later_is_loaded_soon() {
        let it = Fixture::new();
        let (path, handle) = (it.path(), Arc::clone(&it.handle));
        let status = it.refresher.status();
        let stop = CancellationToken::new();
        let running = tokio::spawn(it.refresher.run(stop.clone()));

        until(|| status.load().consecutive_failures == 3).await;
        assert!(!status.load().is_loaded());
        write(&path, "one").await;
        let wrote = tokio::time::Instant::now();
        until(|| status.load().is_loaded()).await;
        assert!(wrote.elapsed() < INTERVAL / 4);
        assert_eq!(&*handle.load().unwrap().version_id, "one");

        stop.cancel();
        running.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_registry_is_in_force_within_the_interval() {
        let it = Fixture::new();
        it.write(&bytes("one", &["a"]));
        let (path, handle, status) = (it.path(), Arc::clone(&it.handle), it.refresher.status());
        let stop = CancellationToken::new();
        let running = tokio::spawn(it.refresher.run(stop.clone()));

        until(|| status.load().is_loaded()).await;
        let held = handle.load().unwrap();
        write(&path, "two").await;
        let wrote = tokio::time::Instant::now();
        until(|| status.load().generation == 2).await;
        assert!(wrote.elapsed() <= INTERVAL.mul_f64(1.2));
        assert_eq!(&*held.version_id, "one", "a request keeps its snapshot");

        stop.cancel();
        running.await.unwrap();
    }

    async fn write(path: &Path, version_id: &str) {
        tokio::fs::write(path, bytes(version_id, &["a"])).await.unwrap();
    }

    /// Lets the paused clock run until something is so.
    async fn until(mut is_so: impl FnMut() -> bool) {
        for _ in 0..100_000 {
            if is_so() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it did not come to be so");
    }

    #[test]
    fn the_age_counts_from_when_the_registry_was_last_found_current() {
        let status = RegistryStatus { confirmed_at_unix: Some(100), ..RegistryStatus::default() };
        assert_eq!(status.age_seconds(130), Some(30));
        assert_eq!(status.age_seconds(90), Some(0));
        assert_eq!(RegistryStatus::default().age_seconds(130), None);
    }
}
