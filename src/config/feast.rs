//! Feast's own `feature_store.yaml`: where it is, and what a reader needs of it.
//!
//! The rules are those of Feast's Python SDK (`repo_config.py`, `cli.py`). Keys that do not matter
//! for reading are passed over, as it does.

use std::{fs, path::PathBuf};

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{
    FeastSettings, Sources, Surroundings,
    connection_string::ConnectionString,
    expand::expand,
    file::StoreSection,
    problem::{Origin, Problem, Problems, suggestion},
    tree::{Dialect, Node, Value, parse},
};
use crate::{
    model::KeyEncoding,
    store::{RedisSettings, Secret, SqliteSettings, StoreSettings},
};

/// Larger files are refused unread.
pub(super) const MAX_FILE_BYTES: u64 = 4 << 20;

const SQLITE: &[&str] = &["sqlite", "feast.infra.online_stores.sqlite.SqliteOnlineStore"];
const REDIS: &[&str] = &["redis", "feast.infra.online_stores.redis.RedisOnlineStore"];

const SQLITE_OPTIONS: &[&str] = &[
    "type",
    "path",
    "vector_enabled",
    "similarity",
    "text_search_enabled",
    "enable_openai_compatible_store",
];
const REDIS_OPTIONS: &[&str] = &[
    "type",
    "redis_type",
    "connection_string",
    "sentinel_master",
    "key_ttl_seconds",
    "full_scan_for_deletion",
    "skip_dedup",
    "client",
];

/// Reads the file and says what is wrong with it; `None` if that leaves nothing to serve.
pub(super) fn read(
    sources: &Sources,
    surroundings: &Surroundings,
    store: &StoreSection,
    ignore_auth: bool,
    problems: &mut Problems,
) -> Option<FeastSettings> {
    let repo = match &sources.chdir {
        Some(dir) => surroundings.working_directory.join(dir),
        None => surroundings.working_directory.clone(),
    };
    let (origin, text) = match find(sources, surroundings, &repo) {
        Ok(found) => found,
        Err(problem) => {
            problems.errors.push(problem);
            return None;
        }
    };
    let text = expand(&text, |name| surroundings.environment.get(name).map(String::as_str));
    let root = match parse(&text, &origin, Dialect::Python) {
        Ok(root) => root,
        Err(problem) => {
            problems.errors.push(problem);
            return None;
        }
    };
    let mut reader = Reader { root: &root, origin, repo, store, problems };
    reader.auth(ignore_auth);
    // Each says what is wrong with it before any is missed.
    let (project, registry) = (reader.project(), reader.registry());
    let (store, key_encoding) = (reader.online_store(), reader.key_encoding());
    let (registry_path, versioning) = registry?;
    Some(FeastSettings {
        project: project?.into(),
        registry_path,
        store: store?,
        key_encoding: key_encoding?,
        versioning,
    })
}

/// The text of the file: that of `-f`, of the environment, or the repo's.
fn find(
    sources: &Sources,
    surroundings: &Surroundings,
    repo: &std::path::Path,
) -> Result<(Origin, String), Problem> {
    let environment = |name: &str| surroundings.environment.get(name).filter(|it| !it.is_empty());
    if let Some(file) = &sources.feature_store_yaml {
        return read_file(file, surroundings);
    }
    const BASE64: &str = "FEATURE_STORE_YAML_BASE64";
    if let Some(encoded) = environment(BASE64).filter(|_| sources.chdir.is_none()) {
        let origin = Origin::Environment(BASE64.into());
        let text = BASE64_STANDARD.decode(encoded.trim()).ok();
        return match text.and_then(|bytes| String::from_utf8(bytes).ok()) {
            Some(text) => Ok((origin, text)),
            None => Err(Problem {
                origin,
                key: String::new(),
                message: "is not the base64 of a UTF-8 text".to_owned(),
            }),
        };
    }
    match environment("FEAST_FS_YAML_FILE_PATH").filter(|_| sources.chdir.is_none()) {
        Some(file) => read_file(&PathBuf::from(file), surroundings),
        None => read_file(&repo.join("feature_store.yaml"), surroundings),
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
    store: &'a StoreSection,
    problems: &'a mut Problems,
}

impl Reader<'_> {
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

    /// The file of the registry, and whether it keeps versions apart.
    fn registry(&mut self) -> Option<(PathBuf, bool)> {
        let Some(node) = self.root.get("registry") else {
            return self.missing("registry", "the registry's path, as in `registry: registry.db`");
        };
        let (path, versioning) = match &node.value {
            Value::Text(_) => (node, Some(false)),
            Value::Map(_) => {
                self.registry_type(node);
                let versioning = self.flag(node, "registry", VERSIONING);
                let Some(path) = node.get("path") else {
                    return self.missing("registry.path", "the registry's path");
                };
                (path, versioning)
            }
            _ => return self.expected(node, "registry", "a path, or a mapping with a `path`"),
        };
        let Value::Text(text) = &path.value else {
            return self.expected(path, "registry.path", "a path");
        };
        if let Some((scheme, _)) = text.split_once("://") {
            let message = format!(
                "is at `{scheme}://`; this larder reads registries from files only: give it a \
                 path, such as a volume to which the registry is copied"
            );
            self.problems.error(&path.origin, "registry.path", message);
            return None;
        }
        Some((self.repo.join(text), versioning?))
    }

    fn registry_type(&mut self, node: &Node) {
        for (key, fine) in [("registry_type", "file"), ("registry_store_type", "FileRegistryStore")]
        {
            let Some(node) = node.get(key) else { continue };
            match &node.value {
                Value::Null => {}
                Value::Text(text) if text == fine => {}
                other => {
                    let message = format!(
                        "is {}; this larder reads registries from files only, `{fine}`",
                        other.describe()
                    );
                    self.problems.error(&node.origin, &format!("registry.{key}"), message);
                }
            }
        }
    }

    fn online_store(&mut self) -> Option<StoreSettings> {
        let Some(node) = self.root.get("online_store") else {
            return Some(self.sqlite(None));
        };
        let (kind, origin, options) = match &node.value {
            Value::Text(kind) => (kind.as_str(), &node.origin, None),
            Value::Map(_) => match node.get("type") {
                None => ("sqlite", &node.origin, Some(node)),
                Some(Node { value: Value::Text(kind), origin }) => {
                    (kind.as_str(), origin, Some(node))
                }
                Some(other) => return self.expected(other, "online_store.type", "a store's name"),
            },
            Value::Null => {
                let message = "is empty: this feature store has nothing to be served from";
                self.problems.error(&node.origin, "online_store", message);
                return None;
            }
            _ => return self.expected(node, "online_store", "a mapping with a `type`"),
        };
        if SQLITE.contains(&kind) {
            self.known_options(options, SQLITE_OPTIONS);
            Some(self.sqlite(options))
        } else if REDIS.contains(&kind) {
            self.known_options(options, REDIS_OPTIONS);
            self.redis(options)
        } else {
            let message = format!("is `{kind}`; this larder reads sqlite and redis");
            self.problems.error(origin, "online_store.type", message);
            None
        }
    }

    /// Feast refuses options that it does not know, and so does larder.
    fn known_options(&mut self, options: Option<&Node>, known: &[&str]) {
        let Some(Node { value: Value::Map(entries), .. }) = options else { return };
        for entry in entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
            let message = format!("no such option{}", suggestion(&entry.key, known));
            self.problems.error(&entry.origin, &format!("online_store.{}", entry.key), message);
        }
    }

    fn sqlite(&mut self, options: Option<&Node>) -> StoreSettings {
        let path = match options.and_then(|options| options.get("path")) {
            None => "data/online.db",
            Some(Node { value: Value::Text(path), .. }) => path,
            Some(other) => {
                let _: Option<()> = self.expected(other, "online_store.path", "a path");
                ""
            }
        };
        StoreSettings::Sqlite(SqliteSettings {
            path: self.repo.join(path),
            connections: self.store.sqlite.connections,
        })
    }

    fn redis(&mut self, options: Option<&Node>) -> Option<StoreSettings> {
        let option = |key: &str| options.and_then(|options| options.get(key));
        if let Some(node) = option("redis_type") {
            match &node.value {
                Value::Text(text) if text == "redis" => {}
                other => {
                    let message = format!(
                        "is {}; this larder reads single servers, `redis`",
                        other.describe()
                    );
                    self.problems.error(&node.origin, "online_store.redis_type", message);
                    return None;
                }
            }
        }
        const KEY: &str = "online_store.connection_string";
        let (text, origin) = match option("connection_string") {
            None => ("localhost:6379", self.origin.clone()),
            Some(Node { value: Value::Text(text), origin }) => (text.as_str(), origin.clone()),
            Some(other) => {
                // It may hold a password: say what kind of thing it is, not what.
                let message = format!("is {}; expected text", other.value.kind());
                self.problems.error(&other.origin, KEY, message);
                return None;
            }
        };
        self.redis_server(&ConnectionString::parse(text), &origin, KEY)
    }

    fn redis_server(
        &mut self,
        connection: &ConnectionString,
        origin: &Origin,
        key: &str,
    ) -> Option<StoreSettings> {
        let first = connection.nodes.first();
        let server = first.and_then(|(host, port)| Some((host, port.as_ref()?.parse().ok()?)));
        let Some((host, port)) = server.filter(|(host, _)| !host.is_empty()) else {
            let message = "expected `host:port` first, as in `redis.default:6379,db=1`";
            self.problems.error(origin, key, message);
            return None;
        };
        if connection.nodes.len() > 1 {
            let message =
                format!("of several servers the first is read, {host}:{port}, as Feast does");
            self.problems.warn(origin, key, message);
        }
        let mut settings = RedisSettings {
            host: host.clone(),
            port,
            db: 0,
            username: None,
            password: None,
            connect_timeout: self.store.connect_timeout.0,
            max_backoff: self.store.max_backoff.0,
        };
        for (name, value) in &connection.options {
            if let Err(message) = set_option(&mut settings, name, value) {
                self.problems.error(origin, key, message);
            } else if !KNOWN_OPTIONS.contains(&name.as_str()) {
                let message = format!("the option `{name}` is redis-py's, and not used here");
                self.problems.warn(origin, key, message);
            }
        }
        Some(StoreSettings::Redis(settings))
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

    fn flag(&mut self, node: &Node, section: &str, key: &str) -> Option<bool> {
        match node.get(key) {
            None => Some(false),
            Some(Node { value: Value::Bool(flag), .. }) => Some(*flag),
            Some(other) => self.expected(other, &format!("{section}.{key}"), "true or false"),
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

const VERSIONING: &str = "enable_online_feature_view_versioning";

/// Options of the connection string that are honoured, or that change nothing.
const KNOWN_OPTIONS: &[&str] =
    &["db", "username", "password", "ssl", "socket_timeout", "socket_connect_timeout"];

fn set_option(
    settings: &mut RedisSettings,
    name: &str,
    value: &serde_json::Value,
) -> Result<(), String> {
    match name {
        "db" => match value.as_i64().filter(|db| *db >= 0) {
            Some(db) => settings.db = db,
            None => return Err("`db` is no number".to_owned()),
        },
        "username" => settings.username = text_of(value),
        "password" => settings.password = text_of(value).map(Secret),
        "ssl" if value != false => {
            return Err("`ssl` is on; this larder does not speak TLS to Redis".to_owned());
        }
        "socket_connect_timeout" => {
            if let Some(seconds) =
                value.as_f64().filter(|seconds| (0.001..3600.0).contains(seconds))
            {
                settings.connect_timeout = std::time::Duration::from_secs_f64(seconds);
            }
        }
        _ => {}
    }
    Ok(())
}

/// Text as it was, numbers as their digits; `null` is none.
fn text_of(value: &serde_json::Value) -> Option<String> {
    match value {
        serde_json::Value::Null => None,
        serde_json::Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}
