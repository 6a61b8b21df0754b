//! `online_store`: which store, and its options. Each kind of store has a file of its own.

use std::path::Path;

use super::{FeastStores, cassandra, dynamodb, hybrid, redis, section::Section, sqlite};
use crate::{
    config::{
        Surroundings,
        file::StoreSection,
        problem::{Origin, Problems},
        tree::{Node, Value},
    },
    store::StoreSettings,
};

const SQLITE: &[&str] = &["sqlite", "feast.infra.online_stores.sqlite.SqliteOnlineStore"];
const HYBRID: &[&str] = &[
    "hybrid",
    "feast.infra.online_stores.hybrid_online_store.hybrid_online_store.HybridOnlineStore",
];
const REDIS: &[&str] = &["redis", "feast.infra.online_stores.redis.RedisOnlineStore"];
const DYNAMODB: &[&str] = &["dynamodb", "feast.infra.online_stores.dynamodb.DynamoDBOnlineStore"];

const CASSANDRA: &[&str] = &[
    "cassandra",
    "feast.infra.online_stores.cassandra_online_store.cassandra_online_store.CassandraOnlineStore",
    "feast.infra.online_stores.contrib.cassandra_online_store.cassandra_online_store.\
     CassandraOnlineStore",
];
const SCYLLA: &[&str] =
    &["scylladb", "feast.infra.online_stores.scylladb_online_store.scylladb.ScyllaDBOnlineStore"];

/// What every kind of store is read with, besides its options.
pub(in crate::config) struct StoreContext<'a> {
    /// Where relative paths begin.
    pub(in crate::config) repo: &'a Path,
    /// Where relative paths of larder.yaml begin, and the environment.
    pub(in crate::config) surroundings: &'a Surroundings,
    /// larder's own settings of this store.
    pub(in crate::config) store: &'a StoreSection,
}

/// Reads Feast's `online_store`: one store, or several of them.
pub(super) fn read(
    root: &Node,
    origin: &Origin,
    context: &StoreContext<'_>,
    problems: &mut Problems,
) -> Option<FeastStores> {
    const KEY: &str = "online_store";
    let Some(node) = root.get(KEY) else {
        let section = section(None, KEY, origin, problems);
        return of_kind("sqlite", (origin, KEY), section, context).map(FeastStores::one);
    };
    let (kind, place, options) = kind_of(node, KEY, problems)?;
    let section = section(options, KEY, origin, problems);
    if HYBRID.contains(&kind) {
        return hybrid::read(section, context);
    }
    of_kind(kind, (place, "online_store.type"), section, context).map(FeastStores::one)
}

/// Reads a section in the form of Feast's `online_store`, which is at `key`.
pub(in crate::config) fn read_store(
    node: &Node,
    key: &str,
    context: &StoreContext<'_>,
    problems: &mut Problems,
) -> Option<StoreSettings> {
    let (kind, place, options) = kind_of(node, key, problems)?;
    let section = section(options, key, &node.origin, problems);
    of_kind(kind, (place, &format!("{key}.type")), section, context)
}

/// Reads the options of a store of this kind, which is said at a place, under a key.
pub(super) fn of_kind(
    kind: &str,
    (place, type_key): (&Origin, &str),
    section: Section<'_>,
    context: &StoreContext<'_>,
) -> Option<StoreSettings> {
    let Section { node, key, origin, problems } = section;
    let section = Section { node, key, origin, problems: &mut *problems };
    let settings = if SQLITE.contains(&kind) {
        sqlite::read(section, context)
    } else if REDIS.contains(&kind) {
        redis::read(section, context)
    } else if CASSANDRA.contains(&kind) {
        cassandra::read(section, context, cassandra::Kind::Cassandra)
    } else if SCYLLA.contains(&kind) {
        cassandra::read(section, context, cassandra::Kind::Scylla)
    } else if DYNAMODB.contains(&kind) {
        dynamodb::read(section, context)
    } else {
        let message = format!(
            "is `{kind}`; this larder reads sqlite, redis, cassandra, scylladb and dynamodb"
        );
        problems.error(place, type_key, message);
        return None;
    }?;
    if let Err(left_out) = settings.check_built_in() {
        problems.error(place, type_key, left_out.to_string());
        return None;
    }
    Some(settings)
}

/// The kind of store that a section is about, where that is said, and its options.
fn kind_of<'a>(
    node: &'a Node,
    key: &str,
    problems: &mut Problems,
) -> Option<(&'a str, &'a Origin, Option<&'a Node>)> {
    let message = match &node.value {
        Value::Text(kind) => return Some((kind, &node.origin, None)),
        Value::Map(_) => match node.get("type") {
            None => return Some(("sqlite", &node.origin, Some(node))),
            Some(Node { value: Value::Text(kind), origin }) => {
                return Some((kind, origin, Some(node)));
            }
            Some(other) => {
                let message = format!("is {}; expected a store's name", other.value.describe());
                problems.error(&other.origin, &format!("{key}.type"), message);
                return None;
            }
        },
        Value::Null => "is empty: this feature store has nothing to be served from".to_owned(),
        other => format!("is {}; expected a mapping with a `type`", other.describe()),
    };
    problems.error(&node.origin, key, message);
    None
}

fn section<'a>(
    node: Option<&'a Node>,
    key: &str,
    origin: &Origin,
    problems: &'a mut Problems,
) -> Section<'a> {
    Section { node, key: key.to_owned(), origin: origin.clone(), problems }
}
