//! larder into manifests: finds the pod templates in a YAML stream, and changes them in place.

use serde_json::Value;

use super::{
    names,
    patch::{Patch, Path, Step},
    settings::{Settings, shortened},
    sidecar::{Outcome, Reason, Way, asks, inject},
    splice::{has_deep_lists, splice},
    text::{Content, Document, Node, Refusal, read},
};

/// What became of a manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// The text, with larder in it.
    pub text: String,
    /// The objects that were changed.
    pub changed: Vec<Object>,
    /// What is to be said of objects, a sentence each.
    pub warnings: Vec<(Object, String)>,
    /// How many pod templates were to have larder, those that have it among them.
    pub asked: usize,
}

/// An object of Kubernetes in a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// The line where it begins, from 1.
    pub line: usize,
    /// Its kind and name, as `Deployment/ranker`.
    pub name: String,
}

/// Why a manifest is not read or not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ManifestError {
    /// The line, from 1; 0 if it is the whole text.
    pub line: usize,
    /// What is wrong, and what to do.
    pub message: String,
}

/// Lists may hold lists; Kubernetes has no use for more.
const MAX_NESTED_LISTS: usize = 4;

/// A pod, or a pod template, within a document.
struct Template<'a> {
    object: Object,
    /// What has the kind.
    of: &'a Node,
    path: Path,
    node: &'a Node,
}

/// Puts larder into every pod and pod template that asks for it, or into all of them.
///
/// What is not changed stays byte for byte. A byte order mark stays, too.
pub fn inject_manifest(
    text: &str,
    settings: &Settings,
    all: bool,
) -> Result<Manifest, ManifestError> {
    let mark = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    let (mark, text) = text.split_at(mark);
    let hint = |refusal: Refusal| refusal.into_error(text);
    let documents = read(text).map_err(hint)?;
    let mut manifest = Manifest::default();
    let mut patches = Vec::new();
    for document in &documents {
        let mut patch = Patch::default();
        for template in templates(document) {
            manifest.template(document, &template, settings, all, &mut patch).map_err(hint)?;
        }
        if !patch.is_empty() {
            patches.push((document, patch));
        }
    }
    if patches.is_empty() {
        manifest.text = format!("{mark}{text}");
        return Ok(manifest);
    }
    let deep_lists = documents.iter().find_map(|document| has_deep_lists(text, &document.root));
    let borrowed: Vec<_> = patches.iter().map(|(document, patch)| (*document, patch)).collect();
    let new = splice(text, &borrowed, deep_lists.unwrap_or(false)).map_err(hint)?;
    verify(&documents, &patches, &new).map_err(hint)?;
    manifest.text = format!("{mark}{new}");
    Ok(manifest)
}

impl Manifest {
    fn template(
        &mut self,
        document: &Document,
        template: &Template<'_>,
        settings: &Settings,
        all: bool,
        patch: &mut Patch,
    ) -> Result<(), Refusal> {
        let pod = document.json(template.node)?;
        if !(all || asks(&pod)) {
            if let Some(value) = almost_asks(&pod) {
                let text = format!(
                    "the label larder.dev/inject is `{}`, not `enabled`: nothing was injected",
                    shortened(&value),
                );
                self.warnings.push((template.object.clone(), text));
            }
            // The label is there, where nobody looks for it.
            if !template.path.0.is_empty() && asks(&document.json(template.of)?) {
                let text = "the label larder.dev/inject is on the object, not on its pod template \
                            (spec.template.metadata.labels): nothing was injected";
                self.warnings.push((template.object.clone(), text.to_owned()));
            }
            return Ok(());
        }
        self.asked += 1;
        match inject(&pod, settings, Way::Cli) {
            Outcome::Unchanged(Reason::AlreadyThere) => {}
            Outcome::Unchanged(reason) => {
                let text = format!("nothing was injected: {reason}");
                self.warnings.push((template.object.clone(), text));
            }
            Outcome::Injected { patch: mut changes, warnings } => {
                let warnings = warnings.into_iter().map(|text| (template.object.clone(), text));
                self.warnings.extend(warnings);
                if !changes.is_empty() {
                    self.changed.push(template.object.clone());
                }
                for change in &mut changes.0 {
                    let mut steps = template.path.0.clone();
                    steps.append(&mut change.path.0);
                    change.path = Path(steps);
                }
                patch.0.append(&mut changes.0);
            }
        }
        Ok(())
    }
}

/// What a label says that is probably meant to ask.
fn almost_asks(pod: &Value) -> Option<String> {
    let label = pod.get("metadata")?.get("labels")?.get(names::ASK_LABEL)?;
    let value = label.as_str().map_or_else(|| label.to_string(), str::to_owned);
    let declines = ["disabled", "false", "no", "off"].contains(&value.to_lowercase().as_str());
    (!declines).then_some(value)
}

/// Reads the new text, and compares it with what it is to mean.
fn verify(
    documents: &[Document],
    patches: &[(&Document, Patch)],
    new: &str,
) -> Result<(), Refusal> {
    let strange = |document: &Document| {
        Refusal::new(
            document.root.line,
            "is laid out in a way that cannot be changed in place; write it as `kubectl create \
             --dry-run=client -o yaml` does",
        )
    };
    let Some((first, _)) = patches.first() else { return Ok(()) };
    let again = read(new).map_err(|_| strange(first))?;
    if again.len() != documents.len() {
        return Err(strange(first));
    }
    for (document, patch) in patches {
        let place = documents.iter().position(|known| std::ptr::eq(known, *document));
        let new = &again[place.expect("a patch is for one of the documents")];
        let mut expected = document.json(&document.root)?;
        if patch.apply(&mut expected).is_err() || new.json(&new.root)? != expected {
            return Err(strange(document));
        }
    }
    Ok(())
}

/// The pods and pod templates of a document.
fn templates(document: &Document) -> Vec<Template<'_>> {
    let mut templates = Vec::new();
    collect(&document.root, &Path::default(), 0, &mut templates);
    templates
}

fn collect<'a>(node: &'a Node, at: &Path, depth: usize, out: &mut Vec<Template<'a>>) {
    let text = |key: &str| node.get(key).and_then(Node::text).unwrap_or_default();
    let kind = text("kind");
    let group = text("apiVersion").rsplit_once('/').map_or("", |(group, _)| group);
    let path: &[&str] = match (group, kind) {
        ("", "List") if depth < MAX_NESTED_LISTS => {
            if let Some(Node { content: Content::List { items, .. }, .. }) = node.get("items") {
                for (place, item) in items.iter().enumerate() {
                    collect(item, &at.key("items").index(place), depth + 1, out);
                }
            }
            return;
        }
        ("", "Pod") => &[],
        ("", "ReplicationController") => &["spec", "template"],
        ("apps", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet") | ("batch", "Job") => {
            &["spec", "template"]
        }
        ("batch", "CronJob") => &["spec", "jobTemplate", "spec", "template"],
        _ => return,
    };
    let Some(template) = path.iter().try_fold(node, |node, key| node.get(key)) else { return };
    let name = node
        .get("metadata")
        .and_then(|metadata| metadata.get("name").or_else(|| metadata.get("generateName"))?.text());
    let mut steps = at.clone();
    steps.0.extend(path.iter().map(|key| Step::Key((*key).to_owned())));
    let name = format!("{kind}/{}", shortened(name.unwrap_or("?")));
    let object = Object { line: node.line, name };
    out.push(Template { object, of: node, path: steps, node: template });
}

impl Refusal {
    fn into_error(self, text: &str) -> ManifestError {
        let mut message = self.message;
        let around = text.lines().skip(self.line.saturating_sub(2)).take(2);
        if around.into_iter().any(|line| line.contains("{{")) {
            message += "; it looks like a Helm template: render it first, as in `helm template . \
                        | larder inject -f -`";
        }
        ManifestError { line: self.line, message }
    }
}

/// The settings of a platform: its ConfigMap's manifest, or a mapping of keys to values. Each with
/// its line.
pub fn read_settings(text: &str) -> Result<Vec<(usize, String, String)>, ManifestError> {
    let hint = |refusal: Refusal| refusal.into_error(text);
    let error = |line, message: &str| ManifestError { line, message: message.to_owned() };
    let documents = read(text.trim_start_matches('\u{feff}')).map_err(hint)?;
    let is_map = |node: &Node| node.get("kind").and_then(Node::text) == Some("ConfigMap");
    let root = match &documents[..] {
        [] => return Ok(Vec::new()),
        [one] if one.root.get("kind").is_none() => &one.root,
        several => {
            let mut maps =
                several.iter().map(|document| &document.root).filter(|root| is_map(root));
            match (maps.next(), maps.next()) {
                (Some(map), None) => match map.get("data") {
                    Some(data) => data,
                    None => return Ok(Vec::new()),
                },
                _ => {
                    return Err(error(0, "expected one ConfigMap, or a mapping of keys to values"));
                }
            }
        }
    };
    let Content::Map { entries, .. } = &root.content else {
        let expected = "expected a mapping of keys to values, as in `cpu-request: 100m`";
        return Err(error(root.line, expected));
    };
    let pair = |entry: &super::text::Entry| match &entry.node.content {
        Content::Scalar { value: Value::Null, .. } => {
            Ok((entry.node.line, entry.key.clone(), String::new()))
        }
        Content::Scalar { text, .. } => Ok((entry.node.line, entry.key.clone(), text.clone())),
        _ => Err(error(entry.node.line, "expected text")),
    };
    entries.iter().map(pair).collect()
}
