//! `larder.yaml`, key by key. Nothing else of larder knows its shape.
//!
//! Defaults that belong to a part are taken from it; the others are said here, once. The doc
//! comments are what editors show: they go into the JSON schema.

mod cassandra;
mod store;

use std::{collections::BTreeMap, num::NonZeroUsize, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{
    cassandra::{CassandraSection, CassandraTlsSection, CertificateCheck, ConsistencyLevel},
    store::{
        BreakerSection, OtherStoreSection, RedisReads, RedisSection, RoutingSection, SqliteSection,
        StoreSection, WrittenForFeast,
    },
};
use super::units::{
    Address, AddressOrOff, Addresses, Auto, ByteSize, DurationText, FileMode, LogFilter, PathOrOff,
};
use crate::{net::ListenAddress, proxy, registry};

/// The configuration of larder.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "larder.yaml")]
pub struct File {
    /// Where gRPC and HTTP are served, both at each address: one, or a list.
    pub listen: Addresses,
    /// Permissions of the sockets that `unix:` addresses make. Whoever may write may connect.
    pub unix_socket_mode: FileMode,
    /// Where health, metrics and the state of larder are served.
    pub admin: AddressOrOff,
    /// Rows in memory.
    pub cache: CacheSection,
    /// How rows age, and what stands in for those that cannot be had.
    pub freshness: FreshnessSection,
    /// How the online store of feature_store.yaml is used.
    pub store: StoreSection,
    /// Stores beside it, by name: each holds the same project, as Feast wrote it.
    pub stores: BTreeMap<String, OtherStoreSection>,
    /// Which stores are asked for rows.
    pub routing: RoutingSection,
    /// How the feature registry is followed.
    pub registry: RegistrySection,
    /// Bounds of requests.
    pub requests: RequestsSection,
    /// In what larder follows which of Feast's servers.
    pub compat: CompatSection,
    /// How larder starts.
    pub startup: StartupSection,
    /// How larder stops.
    pub shutdown: ShutdownSection,
    /// What is written to standard error.
    pub log: LogSection,
    /// The process.
    pub runtime: RuntimeSection,
    /// What of feature_store.yaml is passed over.
    pub feast: FeastSection,
}

/// Rows in memory.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct CacheSection {
    /// The bound on all rows together. `auto`: 256MiB, or half of the container's memory limit
    /// (`LARDER_MEMORY`, else the cgroup's) if that is less.
    pub max_bytes: Auto<ByteSize>,
}

/// How rows age, and what stands in for those that cannot be had.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct FreshnessSection {
    /// How long a row is served without asking the store; up to 10 % less, by its key.
    pub ttl: DurationText,
    /// The share of its `ttl` past which a row that is read again is refreshed behind. 1: never.
    #[schemars(range(max = 1))]
    pub refresh_ahead: f64,
    /// How long past its `ttl` a row is served at once, and refreshed behind.
    pub stale_while_revalidate: DurationText,
    /// With a stale row at hand, how long a request waits for the store before it is served that.
    pub stale_after: DurationText,
    /// How long past its `ttl` a row may stand in for a store that fails or is slow.
    pub max_stale: DurationText,
    /// How long it is believed that the store has no such row.
    pub negative_ttl: DurationText,
    /// How long past its `negative_ttl` an absence may stand in for a store that fails.
    pub negative_max_stale: DurationText,
    /// What becomes of a request for rows that neither store nor cache can give.
    pub on_unavailable: OnUnavailable,
    /// What is different for single feature views, by their names.
    pub views: BTreeMap<String, ViewFreshness>,
}

/// What is different for one feature view; what is left out is as for all others.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ViewFreshness {
    /// See `freshness.ttl`.
    pub ttl: Option<DurationText>,
    /// See `freshness.refresh_ahead`.
    #[schemars(range(max = 1))]
    pub refresh_ahead: Option<f64>,
    /// See `freshness.stale_while_revalidate`.
    pub stale_while_revalidate: Option<DurationText>,
    /// See `freshness.stale_after`.
    pub stale_after: Option<DurationText>,
    /// See `freshness.max_stale`.
    pub max_stale: Option<DurationText>,
    /// See `freshness.negative_ttl`.
    pub negative_ttl: Option<DurationText>,
    /// See `freshness.negative_max_stale`.
    pub negative_max_stale: Option<DurationText>,
    /// See `freshness.on_unavailable`.
    pub on_unavailable: Option<OnUnavailable>,
}

/// What becomes of a request for rows that neither store nor cache can give.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnUnavailable {
    /// Such a row is null with status INVALID; the request fails only if a view has no other.
    Partial,
    /// Such a row is null with status INVALID; the request never fails for it.
    Null,
    /// Such a row fails the request.
    Error,
}

/// How the feature registry is followed.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistrySection {
    /// How often it is read again. Feast's `cache_ttl_seconds` does not count.
    pub refresh_interval: DurationText,
    /// How long one attempt to read it may take.
    pub timeout: DurationText,
    /// A file in which the last good registry is kept, for a start while its place is down; or
    /// `off`.
    pub disk_copy: PathOrOff,
    /// A file with the bearer token that a remote registry wants, read each time; or `off`. The
    /// variable LARDER_REGISTRY_TOKEN may hold the token itself.
    pub token_file: PathOrOff,
}

/// Bounds of requests.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RequestsSection {
    /// How long a request without a deadline of its own may take.
    pub default_timeout: DurationText,
    /// The largest request body, of either API.
    pub max_body_bytes: ByteSize,
    /// Rows of a request: its entities, repeated ones counted each time.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_rows: usize,
    /// Features of a request.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_features: usize,
    /// Requests under way at once; more are refused.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_in_flight: usize,
}

/// In what larder follows which of Feast's servers.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct CompatSection {
    /// How nulls and absences are reported.
    pub status: StatusCompat,
    /// What becomes of a value that is older than its view's `ttl` of Feast, for each API.
    pub ttl_on_read: TtlOnReadSection,
}

/// How nulls and absences are reported.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StatusCompat {
    /// A stored null is PRESENT, an absent row or feature NOT_FOUND, whatever the store.
    #[default]
    Larder,
    /// As Feast's Python server: with Redis, what is absent is PRESENT.
    Python,
    /// As the protobuf comments say: a stored null is NULL_VALUE.
    Proto,
}

/// What becomes of a value that is older than its view's `ttl` of Feast, for each API.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TtlOnReadSection {
    /// `feast.serving.ServingService`, the gRPC service of Feast's Go and Java servers.
    pub grpc: TtlOnRead,
    /// `/get-online-features`.
    pub http: TtlOnRead,
    /// `GrpcFeatureServer`, the gRPC service of Feast's Python server.
    pub python_grpc: TtlOnRead,
}

/// What becomes of a value that is older than its view's `ttl` of Feast.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TtlOnRead {
    /// It is served as any other.
    Off,
    /// It is served with status OUTSIDE_MAX_AGE.
    Flag,
    /// It is withheld: null with status OUTSIDE_MAX_AGE.
    Null,
}

/// How larder starts.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct StartupSection {
    /// How long `larder ready` says no at most while there is no feature registry.
    pub max_wait: DurationText,
}

/// How larder stops.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShutdownSection {
    /// How long requests under way may still take once larder is told to stop.
    pub grace: DurationText,
}

/// What is written to standard error.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSection {
    /// A level, or levels by target: `info`, `warn,larder=debug`.
    pub level: LogFilter,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The process.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuntimeSection {
    /// Threads that serve requests. `auto`: `LARDER_CPU`, else the cores this process may use.
    pub worker_threads: Auto<NonZeroUsize>,
}

/// What of feature_store.yaml is passed over.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct FeastSection {
    /// Serve everybody although feature_store.yaml has an `auth` that larder does not enforce.
    pub ignore_auth: bool,
}

impl Default for File {
    fn default() -> Self {
        let local = |port| ListenAddress::Tcp(([127, 0, 0, 1], port).into());
        Self {
            listen: Addresses(vec![Address(local(6566))]),
            unix_socket_mode: FileMode(0o660),
            admin: AddressOrOff::At(local(6567)),
            cache: CacheSection::default(),
            freshness: FreshnessSection::default(),
            store: StoreSection::default(),
            stores: BTreeMap::new(),
            routing: RoutingSection::default(),
            registry: RegistrySection::default(),
            requests: RequestsSection::default(),
            compat: CompatSection::default(),
            startup: StartupSection::default(),
            shutdown: ShutdownSection::default(),
            log: LogSection::default(),
            runtime: RuntimeSection::default(),
            feast: FeastSection::default(),
        }
    }
}

impl Default for FreshnessSection {
    fn default() -> Self {
        let proxy::Freshness { policy, stale_after, on_unavailable } = proxy::Freshness::default();
        Self {
            ttl: DurationText(policy.ttl),
            refresh_ahead: policy.refresh_ahead,
            stale_while_revalidate: DurationText(policy.stale_while_revalidate),
            stale_after: DurationText(stale_after),
            max_stale: DurationText(policy.max_stale),
            negative_ttl: DurationText(policy.negative_ttl),
            negative_max_stale: DurationText(policy.negative_max_stale),
            on_unavailable: match on_unavailable {
                proxy::OnUnavailable::Partial => OnUnavailable::Partial,
                proxy::OnUnavailable::Null => OnUnavailable::Null,
                proxy::OnUnavailable::Error => OnUnavailable::Error,
            },
            views: BTreeMap::new(),
        }
    }
}

impl Default for RegistrySection {
    fn default() -> Self {
        Self {
            refresh_interval: DurationText(Duration::from_secs(60)),
            timeout: DurationText(registry::FetchLimits::default().timeout),
            disk_copy: PathOrOff::Off,
            token_file: PathOrOff::Off,
        }
    }
}

impl Default for RequestsSection {
    fn default() -> Self {
        Self {
            default_timeout: DurationText(Duration::from_secs(1)),
            max_body_bytes: ByteSize(4 << 20),
            max_rows: 10_000,
            max_features: 5_000,
            max_in_flight: 1024,
        }
    }
}

impl Default for TtlOnReadSection {
    fn default() -> Self {
        Self { grpc: TtlOnRead::Flag, http: TtlOnRead::Off, python_grpc: TtlOnRead::Off }
    }
}

impl Default for StartupSection {
    fn default() -> Self {
        Self { max_wait: DurationText(Duration::from_secs(20)) }
    }
}

impl Default for ShutdownSection {
    fn default() -> Self {
        Self { grace: DurationText(Duration::from_secs(25)) }
    }
}

impl Default for LogSection {
    fn default() -> Self {
        Self { level: LogFilter("info".to_owned()), format: LogFormat::default() }
    }
}
