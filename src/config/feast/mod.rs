//! Feast's own `feature_store.yaml`: where it is, and what a reader needs of it.
//!
//! The rules are those of Feast's Python SDK (`repo_config.py`, `cli.py`). Keys that do not matter
//! for reading are passed over, as it does.

mod cassandra;
mod dynamodb;
mod hybrid;
mod online_store;
mod redis;
mod redis_options;
mod registry;
mod section;
mod sqlite;

use std::{fs, path::PathBuf, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};

pub(super) use self::online_store::{StoreContext, read_store};
use self::section::Section;
use super::{
    FeastSettings, Sources, Surroundings,
    expand::expand,
    file::{RegistrySection, StoreSection},
    problem::{Origin, Problem, Problems},
    tree::{Dialect, Node, Value, parse},
};
use crate::{
    model::KeyEncoding,
    registry::{RegistrySettings, RoutingTag},
    store::StoreSettings,
};

/// Larger files are refused unread.
pub(super) const MAX_FILE_BYTES: u64 = 4 << 20;

/// The stores of Feast's `online_store`.
#[derive(Debug)]
pub(super) struct FeastStores {
    /// By name; there is at least one.
    pub(super) stores: Vec<(Arc<str>, StoreSettings)>,
    /// What says in which of several stores a view lies; its values are their names.
    pub(super) routing_tag: Option<RoutingTag>,
}

impl FeastStores {
    fn keep_versions_alike(&self) -> bool {
        let mut stores = self.stores.iter().map(|(_, store)| store.keeps_versions());
        let first = stores.next();
        stores.all(|store| Some(store) == first)
    }

    fn one(settings: StoreSettings) -> Self {
        Self { stores: vec![("default".into(), settings)], routing_tag: None }
    }
}

/// Where relative paths of `feature_store.yaml` begin.
pub(super) fn repo(sources: &Sources, surroundings: &Surroundings) -> PathBuf {
    match &sources.chdir {
        Some(dir) => surroundings.working_directory.join(dir),
        None => surroundings.working_directory.clone(),
    }
}

/// Reads the file and says what is wrong with it; `None` if that leaves nothing to serve.
pub(super) fn read(
    sources: &Sources,
    surroundings: &Surroundings,
    store: &StoreSection,
    registry: &RegistrySection,
    ignore_auth: bool,
    problems: &mut Problems,
) -> Option<(FeastSettings, FeastStores)> {
    let (origin, text) = match find(sources, surroundings) {
        Ok(found) => found,
        Err(problem) => {
            problems.errors.push(problem);
            return None;
        }
    };
    let text = expand(&text, |name| surroundings.environment.get(name).map(String::as_str));
    let before = problems.errors.len();
    let root = parse(&text, &origin, Dialect::Python);
    let root = root.map_err(|problem| problems.errors.push(problem)).ok();
    let settings = root.and_then(|root| {
        let repo = repo(sources, surroundings);
        let reader = Reader { root: &root, origin, repo, problems };
        reader.settings(surroundings, store, registry, ignore_auth)
    });
    hint_at_variables(&text, &mut problems.errors[before..]);
    settings
}

/// Says it where a variable in the line that is wrong was not set; not which, since what looks like
/// one may be a part of a secret.
fn hint_at_variables(text: &str, problems: &mut [Problem]) {
    for problem in problems {
        let Origin::File { line, .. } = problem.origin else { continue };
        let before = usize::try_from(line).ok().and_then(|line| line.checked_sub(1));
        if before.and_then(|before| text.lines().nth(before)).is_some_and(|it| it.contains("${")) {
            problem.message.push_str(
                "; a variable in this line is not set, and larder reads them once, as it starts",
            );
        }
    }
}

/// Where the text is.
enum Place<'a> {
    File(PathBuf),
    Base64(&'a str),
}

const BASE64: &str = "FEATURE_STORE_YAML_BASE64";

/// Where the text is: in the file of `-f`, in the environment, or in the repo.
fn place<'a>(sources: &Sources, surroundings: &'a Surroundings) -> Place<'a> {
    let environment = |name: &str| {
        let value = surroundings.environment.get(name).filter(|it| !it.is_empty());
        value.filter(|_| sources.chdir.is_none())
    };
    if let Some(file) = &sources.feature_store_yaml {
        Place::File(file.clone())
    } else if let Some(encoded) = environment(BASE64) {
        Place::Base64(encoded)
    } else if let Some(file) = environment("FEAST_FS_YAML_FILE_PATH") {
        Place::File(file.into())
    } else {
        Place::File(repo(sources, surroundings).join("feature_store.yaml"))
    }
}

/// The file that is read; none if a variable holds its text.
pub(super) fn file(sources: &Sources, surroundings: &Surroundings) -> Option<PathBuf> {
    match place(sources, surroundings) {
        Place::File(file) => Some(file),
        Place::Base64(_) => None,
    }
}

fn find(sources: &Sources, surroundings: &Surroundings) -> Result<(Origin, String), Problem> {
    let encoded = match place(sources, surroundings) {
        Place::File(file) => return read_file(&file, surroundings),
        Place::Base64(encoded) => encoded,
    };
    let origin = Origin::Environment(BASE64.into());
    let text = BASE64_STANDARD.decode(encoded.trim()).ok();
    match text.and_then(|bytes| String::from_utf8(bytes).ok()) {
        Some(text) => Ok((origin, text)),
        None => Err(Problem {
            origin,
            key: String::new(),
            message: "is not the base64 of a UTF-8 text".to_owned(),
        }),
    }
}

/// Reads a file of the configuration, named as whoever started larder named it.
pub(super) fn read_file(
    file: &std::path::Path,
    surroundings: &Surroundings,
) -> Result<(Origin, String), Problem> {
    let origin = Origin::file(&file.display().to_string());
    let problem = |message: String| Problem { origin: origin.clone(), key: String::new(), message };
    let path = surroundings.working_directory.join(file);
    let size = fs::metadata(&path).map_err(|error| problem(format!("cannot be read: {error}")))?;
    if size.len() > MAX_FILE_BYTES {
        return Err(problem(format!("has {} bytes, more than a configuration has", size.len())));
    }
    match fs::read_to_string(&path) {
        Ok(text) => Ok((origin.clone(), text)),
        Err(error) => Err(problem(format!("cannot be read: {error}"))),
    }
}

struct Reader<'a> {
    root: &'a Node,
    /// The file as a whole.
    origin: Origin,
    repo: PathBuf,
    problems: &'a mut Problems,
}

impl Reader<'_> {
    fn settings(
        mut self,
        surroundings: &Surroundings,
        store: &StoreSection,
        registry: &RegistrySection,
        ignore_auth: bool,
    ) -> Option<(FeastSettings, FeastStores)> {
        self.auth(ignore_auth);
        // Each says what is wrong with it before any is missed.
        let (project, registry) = (self.project(), self.registry(surroundings, registry));
        let context = StoreContext { repo: &self.repo, surroundings, store };
        let stores = online_store::read(self.root, &self.origin, &context, self.problems);
        let key_encoding = self.key_encoding();
        let (registry, versioning) = registry?;
        let stores = stores?;
        if versioning && !stores.keep_versions_alike() {
            let message = "has stores of which some keep the versions of a view apart and others \
                           do not, with registry.enable_online_feature_view_versioning on: larder \
                           would read rows under wrong names";
            self.problems.error(&self.origin, "online_store", message);
            return None;
        }
        let settings = FeastSettings {
            project: project?.into(),
            registry,
            key_encoding: key_encoding?,
            versioning,
            routing_tag: stores.routing_tag.clone(),
        };
        Some((settings, stores))
    }

    fn project(&mut self) -> Option<String> {
        match self.root.get("project") {
            Some(Node { value: Value::Text(project), .. }) if !project.is_empty() => {
                Some(project.clone())
            }
            Some(node) => self.expected(node, "project", "the name of a Feast project"),
            None => {
                self.missing("project", "the name of the Feast project, as in `project: fraud`")
            }
        }
    }

    /// The registry, and whether it keeps versions apart.
    fn registry(
        &mut self,
        surroundings: &Surroundings,
        larder: &RegistrySection,
    ) -> Option<(RegistrySettings, bool)> {
        let Some(node) = self.root.get("registry") else {
            return self.missing("registry", "the registry's path, as in `registry: registry.db`");
        };
        if !matches!(node.value, Value::Text(_) | Value::Map(_)) {
            return self.expected(node, "registry", "a path, or a mapping with a `path`");
        }
        let (key, origin) = ("registry".to_owned(), self.origin.clone());
        let section = Section { node: Some(node), key, origin, problems: self.problems };
        let context = registry::Context { repo: &self.repo, surroundings, larder };
        registry::read(section, context)
    }

    fn key_encoding(&mut self) -> Option<KeyEncoding> {
        const KEY: &str = "entity_key_serialization_version";
        let Some(node) = self.root.get(KEY) else {
            return Some(KeyEncoding::default());
        };
        let Value::Integer(version) = node.value else {
            return self.expected(node, KEY, "1, 2 or 3, without quotes");
        };
        match KeyEncoding::try_from(i64::try_from(version).unwrap_or(i64::MAX)) {
            Ok(encoding) => Some(encoding),
            Err(error) => {
                self.problems.error(&node.origin, KEY, error.to_string());
                None
            }
        }
    }

    /// Whoever set up authorisation does not want a server that has none.
    fn auth(&mut self, ignore: bool) {
        let Some(node) = self.root.get("auth") else { return };
        let kind = node.get("type").unwrap_or(node);
        match &kind.value {
            Value::Null => {}
            Value::Text(text) if text == "no_auth" => {}
            other if ignore => {
                let message =
                    format!("is {} and is ignored: everybody is served", other.describe());
                self.problems.warn(&kind.origin, "auth.type", message);
            }
            other => {
                let message = format!(
                    "is {}, which larder does not enforce; set `no_auth`, or pass \
                     --ignore-feast-auth to serve everybody who reaches its port",
                    other.describe()
                );
                self.problems.error(&kind.origin, "auth.type", message);
            }
        }
    }

    fn expected<T>(&mut self, node: &Node, key: &str, what: &str) -> Option<T> {
        let message = format!("is {}; expected {what}", node.value.describe());
        self.problems.error(&node.origin, key, message);
        None
    }

    fn missing<T>(&mut self, key: &str, what: &str) -> Option<T> {
        self.problems.error(&self.origin, key, format!("is missing; expected {what}"));
        None
    }
}
