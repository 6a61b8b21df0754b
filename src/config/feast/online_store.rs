//! `online_store`: which store, and its options. Each kind of store has a file of its own.

use std::path::Path;

use super::{redis, section::Section, sqlite};
use crate::{
    config::{
        file::StoreSection,
        problem::{Origin, Problems},
        tree::{Node, Value},
    },
    store::StoreSettings,
};

const SQLITE: &[&str] = &["sqlite", "feast.infra.online_stores.sqlite.SqliteOnlineStore"];
const REDIS: &[&str] = &["redis", "feast.infra.online_stores.redis.RedisOnlineStore"];

/// What every kind of store is read with, besides its options.
pub(super) struct Context<'a> {
    /// Where relative paths begin.
    pub(super) repo: &'a Path,
    /// larder's own settings of this store.
    pub(super) store: &'a StoreSection,
}

/// Reads a section in the form of Feast's `online_store`, which is at `key`.
///
/// `origin` is where the section is missed: Feast's default is SQLite.
pub(super) fn read(
    node: Option<&Node>,
    key: &str,
    origin: &Origin,
    context: &Context<'_>,
    problems: &mut Problems,
) -> Option<StoreSettings> {
    let type_key = format!("{key}.type");
    let (kind, place, options) = match node.map(|node| (&node.value, node)) {
        None => ("sqlite", origin, None),
        Some((Value::Text(kind), node)) => (kind.as_str(), &node.origin, None),
        Some((Value::Map(_), node)) => match node.get("type") {
            None => ("sqlite", &node.origin, Some(node)),
            Some(Node { value: Value::Text(kind), origin }) => (kind.as_str(), origin, Some(node)),
            Some(other) => {
                let message = format!("is {}; expected a store's name", other.value.describe());
                problems.error(&other.origin, &type_key, message);
                return None;
            }
        },
        Some((Value::Null, node)) => {
            let message = "is empty: this feature store has nothing to be served from";
            problems.error(&node.origin, key, message);
            return None;
        }
        Some((other, node)) => {
            let message = format!("is {}; expected a mapping with a `type`", other.describe());
            problems.error(&node.origin, key, message);
            return None;
        }
    };
    let section = Section { node: options, key: key.to_owned(), origin: origin.clone(), problems };
    if SQLITE.contains(&kind) {
        sqlite::read(section, context)
    } else if REDIS.contains(&kind) {
        redis::read(section, context)
    } else {
        let message = format!("is `{kind}`; this larder reads sqlite and redis");
        problems.error(place, &type_key, message);
        None
    }
}
