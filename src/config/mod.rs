//! The files, the environment and the flags.
//!
//! [`Config::load`] reads them all, and says everything that is wrong with them at once.
//! `feature_store.yaml` is Feast's own file; `larder.yaml` ([`mod@file`]) is larder's, and optional.

mod connection_string;
mod expand;
mod feast;
pub mod file;
mod files;
mod load;
mod problem;
mod stores;
mod surroundings;
mod tree;
mod typed;
mod units;

use std::{path::PathBuf, sync::Arc, time::Duration};

use tracing_subscriber::filter::Targets;

pub use self::{
    file::LogFormat,
    problem::{ConfigErrors, Origin, Problem},
    surroundings::Surroundings,
    units::{AddressOrOff, LogFilter},
};
use crate::{
    api::ApiSettings,
    model::KeyEncoding,
    net::ListenAddress,
    proxy::{FreshnessTable, RequestLimits, RouteTable},
    registry::{FetchLimits, RegistrySettings, RoutingTag},
    resilience::Limits,
    store::StoreSettings,
};

/// Where to look for what.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The feature repo: `-c`.
    pub chdir: Option<PathBuf>,
    /// `feature_store.yaml` itself: `-f`. Relative paths in it still begin in the repo.
    pub feature_store_yaml: Option<PathBuf>,
    /// `larder.yaml`: `--config`. Without it, the one in the repo is read, if there is one.
    pub config: Option<PathBuf>,
    /// Flags that stand for keys of `larder.yaml`.
    pub flags: Vec<Flag>,
}

/// A flag that stands for a key of `larder.yaml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// As it was typed: `--listen`.
    pub name: String,
    /// The key: `listen`.
    pub key: String,
    /// The value, as YAML; of a flag that was repeated, a list.
    pub value: String,
}

/// All settings, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// What the process needs.
    pub process: ProcessSettings,
    /// What Feast's file says.
    pub feast: FeastSettings,
    /// The bound on all cached rows.
    pub cache_max_bytes: u64,
    /// How rows age.
    pub freshness: FreshnessTable,
    /// The stores, those of Feast's file first. The place of each is its id.
    pub stores: Vec<StoreConfig>,
    /// Which of them are asked for which view.
    pub routes: RouteTable,
    /// How large a request may be.
    pub requests: RequestLimits,
    /// The APIs' manners.
    pub api: ApiSettings,
    /// How often the registry is read again.
    pub registry_refresh_interval: Duration,
    /// What one attempt to read the registry may take.
    pub registry_limits: FetchLimits,
    /// Where the last good registry is kept for the next start.
    pub registry_disk_copy: Option<PathBuf>,
    /// What is doubtful, to be said at start.
    pub warnings: Vec<Problem>,
}

/// What the process needs, whatever else is wrong: of settings that are, the defaults.
#[derive(Clone, Debug)]
pub struct ProcessSettings {
    /// Where gRPC and HTTP are served.
    pub listen: Vec<ListenAddress>,
    /// Permissions of Unix sockets.
    pub unix_socket_mode: u32,
    /// Where health and metrics are served.
    pub admin: Option<ListenAddress>,
    /// How long the start may take at most before it counts as done.
    pub startup_max_wait: Duration,
    /// How long requests under way may take once larder is told to stop.
    pub shutdown_grace: Duration,
    /// What is logged.
    pub log_filter: Targets,
    /// How.
    pub log_format: LogFormat,
    /// Threads that serve requests.
    pub worker_threads: usize,
}

/// What of `feature_store.yaml` a reader needs.
#[derive(Clone, Debug)]
pub struct FeastSettings {
    /// The project that is served.
    pub project: Arc<str>,
    /// Where the registry is.
    pub registry: RegistrySettings,
    /// How entity keys are serialized.
    pub key_encoding: KeyEncoding,
    /// `enable_online_feature_view_versioning`.
    pub versioning: bool,
    /// What says in which of several online stores a view lies: Feast's `hybrid`.
    pub routing_tag: Option<RoutingTag>,
}

/// A store.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// What answers, metrics and logs call it.
    pub name: Arc<str>,
    /// How it is reached.
    pub settings: StoreSettings,
    /// How much of its trouble is taken.
    pub limits: Limits,
}

/// The JSON schema of `larder.yaml`, for editors.
pub fn json_schema() -> String {
    let schema = schemars::schema_for!(file::File);
    let mut text = serde_json::to_string_pretty(&schema).expect("a schema is JSON");
    text.push('\n');
    text
}
