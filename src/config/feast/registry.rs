//! `registry`: where the feature registry is.

use std::path::{Path, PathBuf};

use super::section::Section;
use crate::config::tree::{Node, Value};

const VERSIONING: &str = "enable_online_feature_view_versioning";

/// The file of the registry, and whether it keeps versions apart. The section is a path or a
/// mapping.
pub(super) fn read(mut section: Section<'_>, repo: &Path) -> Option<(PathBuf, bool)> {
    let (text, versioning, key) = match section.node {
        Some(Node { value: Value::Text(path), .. }) => (path.as_str(), Some(false), "registry"),
        _ => {
            registry_type(&mut section);
            let versioning = section.flag(VERSIONING);
            let Some(path) = section.text("path")? else {
                return section.expected("path", "the registry's path");
            };
            (path, versioning, "registry.path")
        }
    };
    if let Some((scheme, _)) = text.split_once("://") {
        let message = format!(
            "is at `{scheme}://`; this larder reads registries from files only: give it a path, \
             such as a volume to which the registry is copied"
        );
        let node = section.get("path").or(section.node);
        let origin = node.map_or(&section.origin, |node| &node.origin);
        section.problems.error(origin, key, message);
        return None;
    }
    Some((repo.join(text), versioning?))
}

fn registry_type(section: &mut Section<'_>) {
    for (key, fine) in [("registry_type", "file"), ("registry_store_type", "FileRegistryStore")] {
        let Some(node) = section.get(key) else { continue };
        if node.value != Value::Text(fine.to_owned()) {
            let found = node.value.describe();
            let message =
                format!("is {found}; this larder reads registries from files only, `{fine}`");
            section.error(key, message);
        }
    }
}
