//! The sections of stores.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de::IgnoredAny};

use super::CassandraSection;
use crate::{
    config::units::DurationText,
    resilience::{BreakerPolicy, Limits},
};

/// How the online store of feature_store.yaml is used.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreSection {
    /// How long one read may take. It goes on without its callers until then.
    pub timeout: DurationText,
    /// Reads under way at once.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_in_flight: usize,
    /// Reads that wait for a place; more are refused.
    #[schemars(range(max = 1_000_000))]
    pub max_queue: usize,
    /// How long one attempt to connect may take.
    pub connect_timeout: DurationText,
    /// The longest pause between attempts to connect.
    pub max_backoff: DurationText,
    /// When larder stops asking a store that fails, and how it looks for its return.
    pub breaker: BreakerSection,
    /// What is of Redis alone.
    pub redis: RedisSection,
    /// What is of SQLite alone.
    pub sqlite: SqliteSection,
    /// What is of Cassandra and ScyllaDB alone.
    pub cassandra: CassandraSection,
}

/// A store beside the online store of feature_store.yaml.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct OtherStoreSection {
    /// Where it is: written as `online_store` is in feature_store.yaml, variables included.
    pub online_store: WrittenForFeast,
    /// How it is used. What is left out is at its default, not as in the section `store`.
    pub store: StoreSection,
}

/// Which stores are asked for rows. The store of feature_store.yaml is called `default`.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RoutingSection {
    /// The stores, in their order: the next is asked for the rows that the one before failed to give.
    pub stores: Vec<String>,
    /// Whether the next is asked, too, for rows that a store does not have.
    pub next_on_absence: bool,
    /// Other lists for single feature views, by their names.
    pub views: BTreeMap<String, Vec<String>>,
}

/// A section in Feast's form, which is read by Feast's rules.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct WrittenForFeast;

impl<'de> Deserialize<'de> for WrittenForFeast {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|IgnoredAny| Self)
    }
}

impl JsonSchema for WrittenForFeast {
    fn schema_name() -> Cow<'static, str> {
        "WrittenForFeast".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["object", "string"] })
    }
}

/// When larder stops asking a store that fails, and how it looks for its return.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerSection {
    /// Failures in a row that stop it.
    pub consecutive_failures: u32,
    /// The share of failures that stops it, among at least `min_calls`.
    #[schemars(range(max = 1))]
    pub failure_share: f64,
    /// Calls within a `window` from which the share counts.
    pub min_calls: u32,
    /// How long calls are counted.
    pub window: DurationText,
    /// The pause between probes while the store is not asked; varied by 20 %.
    pub probe_interval: DurationText,
}

/// What is of Redis alone.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisSection {
    /// Connections to each server that is read.
    #[schemars(range(min = 1, max = 64))]
    pub connections: usize,
    /// Which servers of a cluster, or of those that sentinels watch over, are read.
    pub read_from: RedisReads,
}

/// Which Redis servers are read.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RedisReads {
    /// Masters.
    Master,
    /// Replicas that are in step with their master, or else the master.
    PreferReplica,
}

/// What is of SQLite alone.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SqliteSection {
    /// Connections, each of which reads on a thread of its own.
    #[schemars(range(min = 1, max = 1024))]
    pub connections: usize,
}

impl Default for StoreSection {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            timeout: DurationText(limits.timeout),
            max_in_flight: limits.max_in_flight,
            max_queue: limits.max_queue,
            connect_timeout: DurationText(Duration::from_millis(500)),
            max_backoff: DurationText(Duration::from_millis(500)),
            breaker: BreakerSection::default(),
            redis: RedisSection::default(),
            sqlite: SqliteSection::default(),
            cassandra: CassandraSection::default(),
        }
    }
}

impl Default for RoutingSection {
    fn default() -> Self {
        let stores = vec!["default".to_owned()];
        Self { stores, next_on_absence: false, views: BTreeMap::new() }
    }
}

impl Default for BreakerSection {
    fn default() -> Self {
        let breaker = BreakerPolicy::default();
        Self {
            consecutive_failures: breaker.consecutive_failures,
            failure_share: breaker.failure_share,
            min_calls: breaker.min_calls,
            window: DurationText(breaker.window),
            probe_interval: DurationText(breaker.probe_interval),
        }
    }
}

impl Default for RedisSection {
    fn default() -> Self {
        Self { connections: 2, read_from: RedisReads::Master }
    }
}

impl Default for SqliteSection {
    fn default() -> Self {
        Self { connections: 4 }
    }
}
