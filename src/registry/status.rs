//! How the registry in force is doing: what readiness, metrics and the admin pages show.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::Registry;

/// What is known of the registry. Times are seconds since the Unix epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryStatus {
    /// Which snapshot is in force; 0 while there is none.
    pub generation: u64,
    /// When it was put in force.
    pub loaded_at_unix: Option<i64>,
    /// When the source last had it, or was last found unchanged.
    pub confirmed_at_unix: Option<i64>,
    /// Feast's id of it.
    pub version_id: Option<Arc<str>>,
    /// When Feast changed it last.
    pub last_updated_unix: Option<i64>,
    /// Objects in it that are left out or not served.
    pub warnings: usize,
    /// When the source was last asked.
    pub attempted_at_unix: Option<i64>,
    /// Why that failed, with its causes; none where it did not.
    pub last_error: Option<Arc<str>>,
    /// What callers are told where no registry is looked for: why, in a few words. `last_error` has
    /// all of them.
    pub told: Option<Arc<str>>,
    /// Failures since the last success.
    pub consecutive_failures: u32,
    /// Failures since the start.
    pub failures: u64,
    /// Whether a copy on disk stands in for the source, which was not read yet.
    pub from_disk_copy: bool,
}

/// The status as it is now. Reads never wait; clones show the same.
#[derive(Clone, Debug, Default)]
pub struct StatusHandle(Arc<ArcSwap<RegistryStatus>>);

impl RegistryStatus {
    /// Whether there is a registry to serve from.
    pub fn is_loaded(&self) -> bool {
        self.generation > 0
    }

    /// What is in force from `now_unix` on.
    pub(super) fn show(&mut self, registry: &Registry, now_unix: i64) {
        self.generation = registry.generation;
        self.loaded_at_unix = Some(now_unix);
        self.version_id = Some(Arc::clone(&registry.version_id));
        self.last_updated_unix = registry.last_updated_unix;
        self.warnings = registry.warnings.len();
    }

    /// For how many seconds the snapshot in force has not been found current.
    pub fn age_seconds(&self, now_unix: i64) -> Option<u64> {
        let age = now_unix.saturating_sub(self.confirmed_at_unix?);
        Some(u64::try_from(age).unwrap_or(0))
    }
}

impl StatusHandle {
    /// That of a registry that is not looked for, why, and what callers are told of that.
    pub fn without(why: &str, told: &str) -> Self {
        let (last_error, told) = (Some(why.into()), Some(told.into()));
        let status = RegistryStatus { last_error, told, ..Default::default() };
        Self(Arc::new(ArcSwap::from_pointee(status)))
    }

    /// The status now.
    pub fn load(&self) -> Arc<RegistryStatus> {
        self.0.load_full()
    }

    /// For the one task that refreshes.
    pub(super) fn store(&self, status: RegistryStatus) {
        self.0.store(Arc::new(status));
    }
}
