//! Reads what matters of a pod. Whoever wrote it may have written anything.

use serde_json::{Map, Value};

use super::{names, patch::Path, quantity::Quantity, settings::shortened};

/// A pod, or a pod template, as far as larder looks at it.
pub(super) struct Pod<'a> {
    pub(super) has_metadata: bool,
    pub(super) annotations: Option<&'a Map<String, Value>>,
    pub(super) spec: &'a Map<String, Value>,
    pub(super) containers: Vec<&'a Map<String, Value>>,
    pub(super) init_containers: Option<Vec<&'a Map<String, Value>>>,
    pub(super) volumes: Option<Vec<&'a Map<String, Value>>>,
}

/// What is not as Kubernetes wants it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Nothing is there.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// Something else is there.
    #[error("`{place}` is {found}, not {expected}")]
    Wrong {
        /// Where, as `spec.containers[0].env`.
        place: String,
        /// What should be there.
        expected: &'static str,
        /// What is there.
        found: &'static str,
    },
}

impl<'a> Pod<'a> {
    pub(super) fn read(pod: &'a Value) -> Result<Self, Malformed> {
        let root = Path::default();
        let pod = pod.as_object().ok_or_else(|| malformed("the pod", "a mapping", pod))?;
        let metadata = object(pod, "metadata", &root)?;
        let annotations = match metadata {
            Some(metadata) => object(metadata, "annotations", &root.key("metadata"))?,
            None => None,
        };
        let spec = object(pod, "spec", &root)?.ok_or(Malformed::Missing("spec"))?;
        let at = root.key("spec");
        let containers = objects(spec, "containers", &at)?
            .filter(|containers| !containers.is_empty())
            .ok_or(Malformed::Missing("spec.containers"))?;
        let init_containers = objects(spec, "initContainers", &at)?;
        let volumes = objects(spec, "volumes", &at)?;
        Ok(Self {
            has_metadata: metadata.is_some(),
            annotations,
            spec,
            containers,
            init_containers,
            volumes,
        })
    }

    pub(super) fn init_containers(&self) -> &[&'a Map<String, Value>] {
        self.init_containers.as_deref().unwrap_or_default()
    }

    /// The place of larder among the init containers.
    pub(super) fn larder(&self) -> Option<usize> {
        self.init_containers().iter().position(|container| name(container) == names::CONTAINER)
    }

    /// The text of an annotation; `Err` if it is something else.
    pub(super) fn annotation(&self, name: &str) -> Option<Result<&'a str, &'a Value>> {
        let value = self.annotations?.get(name)?;
        Some(value.as_str().ok_or(value))
    }

    /// The operating system, if it is named.
    pub(super) fn os(&self) -> Option<&'a str> {
        self.spec.get("os")?.get("name")?.as_str()
    }

    /// Whether it has no network of its own.
    pub(super) fn is_on_host_network(&self) -> bool {
        self.spec.get("hostNetwork") == Some(&Value::Bool(true))
    }

    /// Whether it has requests or limits as a whole, apart from those of its containers.
    pub(super) fn has_resources(&self) -> bool {
        let has = |kind: &str| {
            let amounts = self.spec.get("resources").and_then(|resources| resources.get(kind));
            amounts.and_then(Value::as_object).is_some_and(|amounts| !amounts.is_empty())
        };
        has("requests") || has("limits")
    }

    /// Whether each of its containers, larder apart, is given exactly what it may use. The kubelet
    /// gives such pods CPUs of their own, and one container that is not like that ends it.
    pub(super) fn is_guaranteed(&self) -> bool {
        self.containers
            .iter()
            .chain(self.init_containers())
            .filter(|container| name(container) != names::CONTAINER)
            .all(|container| is_guaranteed(container))
    }
}

/// The name of a container, a volume or a variable; empty if it has none.
pub(super) fn name(entry: &Map<String, Value>) -> &str {
    entry.get("name").and_then(Value::as_str).unwrap_or_default()
}

/// A list of mappings. `None` if it is missing or null.
pub(super) fn objects<'a>(
    parent: &'a Map<String, Value>,
    key: &str,
    at: &Path,
) -> Result<Option<Vec<&'a Map<String, Value>>>, Malformed> {
    let list = match parent.get(key) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(list)) => list,
        Some(other) => return Err(malformed(&dotted(&at.key(key)), "a list", other)),
    };
    let entry = |(place, entry): (usize, &'a Value)| {
        let place = || dotted(&at.key(key).index(place));
        entry.as_object().ok_or_else(|| malformed(&place(), "a mapping", entry))
    };
    list.iter().enumerate().map(entry).collect::<Result<_, _>>().map(Some)
}

/// A mapping. `None` if it is missing or null.
fn object<'a>(
    parent: &'a Map<String, Value>,
    key: &str,
    at: &Path,
) -> Result<Option<&'a Map<String, Value>>, Malformed> {
    match parent.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(map)) => Ok(Some(map)),
        Some(other) => Err(malformed(&dotted(&at.key(key)), "a mapping", other)),
    }
}

fn is_guaranteed(container: &Map<String, Value>) -> bool {
    let resources = container.get("resources");
    let amount = |kind: &str, of: &str| match resources.and_then(|r| r.get(kind)?.get(of)) {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(Quantity::parse(text)),
        // A manifest may have numbers, too.
        Some(Value::Number(number)) => Some(Quantity::parse(&number.to_string())),
        Some(_) => Some(None),
    };
    ["cpu", "memory"].iter().all(|of| {
        let Some(Some(limit)) = amount("limits", of) else { return false };
        // The API server sets a request that is missing to the limit.
        let request = amount("requests", of).unwrap_or(Some(limit));
        limit.is_positive() && request == Some(limit)
    })
}

fn malformed(place: &str, expected: &'static str, found: &Value) -> Malformed {
    let found = match found {
        Value::Null => "empty",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    };
    Malformed::Wrong { place: place.to_owned(), expected, found }
}

/// A path as people write it: `spec.containers[0].env`.
fn dotted(path: &Path) -> String {
    use super::patch::Step;
    let mut text = String::new();
    for step in &path.0 {
        match step {
            Step::Key(key) if text.is_empty() => text = shortened(key),
            Step::Key(key) => text += &format!(".{}", shortened(key)),
            Step::Index(index) => text += &format!("[{index}]"),
            Step::End => text += "[-]",
        }
    }
    text
}
