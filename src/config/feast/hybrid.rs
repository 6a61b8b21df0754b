//! `online_store` of type `hybrid`: a store for each value of a tag that views have.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    FeastStores,
    online_store::{self, StoreContext},
    section::Section,
};
use crate::{
    config::tree::{Node, Value},
    registry::RoutingTag,
};

const OPTIONS: &[&str] = &["type", "online_stores", "routing_tag"];
const DEFAULT_TAG: &str = "tribe";

/// Reads the list of stores, which are called by their types, as Feast calls them.
pub(super) fn read(mut section: Section<'_>, context: &StoreContext<'_>) -> Option<FeastStores> {
    section.known_options(OPTIONS);
    let tag: Arc<str> = section.text("routing_tag")?.unwrap_or(DEFAULT_TAG).into();
    const EXPECTED: &str = "a list of stores, each with a `type` and a `conf`";
    let Some(Node { value: Value::List(nodes), .. }) = section.get("online_stores") else {
        return section.expected("online_stores", EXPECTED);
    };
    if nodes.is_empty() {
        return section.expected("online_stores", EXPECTED);
    }
    let mut stores: Vec<(Arc<str>, _)> = Vec::new();
    let mut complete = true;
    for (place, node) in nodes.iter().enumerate() {
        let key = format!("{}.online_stores[{place}]", section.key);
        let mut entry = Section {
            node: Some(node),
            key,
            origin: node.origin.clone(),
            problems: section.problems,
        };
        entry.known_options(&["type", "conf"]);
        let Some(kind) = entry.text("type").flatten() else {
            entry.error("type", "is missing; expected a store's name, such as redis");
            complete = false;
            continue;
        };
        let name: Arc<str> = kind.to_lowercase().into();
        let (type_key, key) = (format!("{}.type", entry.key), format!("{}.conf", entry.key));
        let conf = Section {
            node: node.get("conf"),
            key,
            origin: node.origin.clone(),
            problems: entry.problems,
        };
        let place = node.get("type").map_or(&node.origin, |node| &node.origin);
        let Some(settings) = online_store::of_kind(&name, (place, &type_key), conf, context) else {
            complete = false;
            continue;
        };
        match stores.iter_mut().find(|(known, _)| *known == name) {
            None => stores.push((name, settings)),
            Some((_, known)) => {
                section.warn(
                    "online_stores",
                    format!("of several `{name}` the last is read, as Feast does"),
                );
                *known = settings;
            }
        }
    }
    let values: BTreeSet<_> = stores.iter().map(|(name, _)| Arc::clone(name)).collect();
    complete.then_some(FeastStores { stores, routing_tag: Some(RoutingTag { tag, values }) })
}
