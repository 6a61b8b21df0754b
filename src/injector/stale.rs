//! What a second pass meets and does not touch, because it may be the author's own: it is said where
//! it differs from what the settings ask for.

use serde_json::{Map, Value};

use super::{
    names,
    patch::Tree,
    pod::{self, Pod},
    quantity::Quantity,
    settings::{Key, Settings},
};

const KEPT: &str = "it differs from what the settings ask for, and is kept, as it may be the \
                    pod's own; take it out to have it made anew";

/// Annotations that differ.
pub(super) fn annotations(pod: &Pod<'_>, wanted: &Settings) -> Vec<String> {
    let Some(ports) = wanted.get(Key::StorePorts) else { return Vec::new() };
    let differs = |name: &&str| pod.annotation(name).is_some_and(|there| there != Ok(ports));
    names::MESH_PORT_ANNOTATIONS
        .into_iter()
        .filter(differs)
        .map(|name| format!("annotation {name}: {KEPT}"))
        .collect()
}

/// Volumes that differ.
pub(super) fn volumes(pod: &Pod<'_>, volumes: &[(&'static str, Tree)]) -> Vec<String> {
    let differs = |(name, volume): &&(&'static str, Tree)| {
        // Its size is ours, or larger on purpose.
        if *name == names::RUN_VOLUME {
            return false;
        }
        let there = pod.volumes.iter().flatten().find(|there| pod::name(there) == *name);
        there.is_some_and(|there| !covers(there, volume))
    };
    volumes.iter().filter(differs).map(|(name, _)| format!("volume {name}: {KEPT}")).collect()
}

/// Whether a mapping has all that larder writes. An API server adds defaults to it, and writes
/// amounts in its own way.
fn covers(there: &Map<String, Value>, ours: &Tree) -> bool {
    let Tree::Map(entries) = ours else { return false };
    entries.iter().all(|(key, ours)| match (there.get(key), ours) {
        (Some(Value::Object(there)), Tree::Map(_)) => covers(there, ours),
        (Some(Value::String(there)), Tree::Text(ours)) if key == "sizeLimit" => {
            there == ours || Quantity::parse(there) == Quantity::parse(ours)
        }
        (Some(there), ours) => *there == ours.to_json(),
        (None, _) => false,
    })
}
