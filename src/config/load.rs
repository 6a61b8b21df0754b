//! `larder.yaml` under the environment under the flags, checked and converted.

use std::{collections::HashMap, path::PathBuf, time::Duration};

use super::{
    Config, ConfigErrors, ProcessSettings, Sources, Surroundings, feast,
    feast::read_file,
    file::{self, File, FreshnessSection, OnUnavailable, StatusCompat},
    files::{Stamp, larder_yaml, settled},
    problem::{Origin, Problems},
    stores,
    tree::{Dialect, Node, Value, parse},
    typed,
    units::{AddressOrOff, Auto, PathOrOff},
};
use crate::{
    api::{ApiSettings, TtlOnReadByApi},
    net::ListenAddress,
    proxy::{self, Freshness, FreshnessTable, RequestLimits},
    registry::{FetchLimits, RegistrySettings},
};

/// The default bound of the cache, where the container's limit allows.
const DEFAULT_CACHE_BYTES: u64 = 256 << 20;

/// The shortest pause between two questions in the background.
const MIN_PAUSE: Duration = Duration::from_millis(10);

/// Less holds no useful number of rows.
const MIN_CACHE_BYTES: u64 = 1 << 20;

/// Requests or reads at once: far more than a process can have.
pub(super) const MAX_AT_ONCE: usize = 1_000_000;

/// A body is held in memory as a whole.
const MAX_BODY_BYTES: u64 = 1 << 30;

const MAX_ROWS: usize = 1_000_000;
const MAX_FEATURES: usize = 100_000;

/// All are started with the process, which ends if the system refuses one.
const MAX_WORKER_THREADS: usize = 1024;

impl Config {
    /// Reads everything, and says all that is wrong with it at once.
    pub fn load(sources: &Sources, surroundings: &Surroundings) -> Result<Self, ConfigErrors> {
        Self::read(sources, surroundings).1
    }

    /// The same, with what the process needs even where something is wrong.
    pub fn read(
        sources: &Sources,
        surroundings: &Surroundings,
    ) -> (ProcessSettings, Result<Self, ConfigErrors>) {
        let stamp = || Stamp::take(sources, surroundings);
        settled(stamp, || Self::read_once(sources, surroundings))
    }

    fn read_once(
        sources: &Sources,
        surroundings: &Surroundings,
    ) -> (ProcessSettings, Result<Self, ConfigErrors>) {
        let mut problems = Problems::default();
        let mut tree = layers(sources, surroundings, &mut problems);
        let said = tree.clone();
        let file: File = typed::read(&mut tree, &mut problems);
        check(&file, &said, &mut problems);
        let told = Told::read(surroundings, &mut problems);
        let process = process_settings(&file, surroundings, told);
        let ignore_auth = file.feast.ignore_auth;
        let (store, registry) = (&file.store, &file.registry);
        let feast = feast::read(sources, surroundings, store, registry, ignore_auth, &mut problems);
        let mut checks = Checks { said: &said, problems: &mut problems };
        let repo = feast::repo(sources, surroundings);
        let others = stores::read_others(&mut checks, &file, &repo, surroundings);
        let feast = feast.map(|(settings, stores)| {
            let stores = stores::combine(&mut checks, &file, settings.versioning, stores, others);
            let is_remote = matches!(settings.registry, RegistrySettings::Remote(_));
            if file.registry.token_file != PathOrOff::Off && !is_remote {
                let message = "is not used: the registry is not Feast's registry server";
                checks.warn("registry.token_file", message);
            }
            (settings, stores)
        });
        let config = match feast {
            Some((feast, stores)) if problems.errors.is_empty() => {
                let process = process.clone();
                Ok(convert(&file, process, feast, stores, surroundings, told, problems))
            }
            _ => Err(ConfigErrors(problems.errors)),
        };
        (process, config)
    }
}

/// The file, the environment over it, and the flags over both.
fn layers(sources: &Sources, surroundings: &Surroundings, problems: &mut Problems) -> Node {
    let mut tree = Node::empty();
    if let Some(path) = larder_yaml(sources, surroundings) {
        let parsed = read_file(&path, surroundings)
            .and_then(|(origin, text)| parse(&text, &origin, Dialect::Larder));
        match parsed {
            // A file of nothing but comments is no mapping, and as good as an empty one.
            Ok(node) if node.value == Value::Null => {}
            Ok(node) => tree = node,
            Err(problem) => problems.errors.push(problem),
        }
    }
    for (name, value) in &surroundings.environment {
        if let Some(path) = setting_of(name) {
            let origin = Origin::Environment(name.as_str().into());
            tree.overlay(layer(&path, value, &origin));
        }
    }
    for flag in &sources.flags {
        let origin = Origin::Flag(flag.name.as_str().into());
        tree.overlay(layer(&flag.key, &flag.value, &origin));
    }
    tree
}

fn layer(path: &str, text: &str, origin: &Origin) -> Node {
    let value = match parse(text, origin, Dialect::Larder) {
        Ok(node) => node.value,
        // What is no YAML is taken as the text it is.
        Err(_) => Value::Text(text.to_owned()),
    };
    let path: Vec<_> = path.split('.').collect();
    Node::at_path(&path, value, origin)
}

/// `cache.max_bytes` for `LARDER_CACHE__MAX_BYTES`.
///
/// Other variables begin with `LARDER_`, too: what Kubernetes sets for a Service of that name, and
/// what tells a model where larder is. Only those with a `__`, or named like a whole key, count.
fn setting_of(name: &str) -> Option<String> {
    let key = name.strip_prefix("LARDER_")?;
    let whole = ["LISTEN", "ADMIN", "UNIX_SOCKET_MODE"].contains(&key);
    (whole || key.contains("__")).then(|| key.to_ascii_lowercase().replace("__", "."))
}

/// What the types cannot say.
fn check(file: &File, said: &Node, problems: &mut Problems) {
    let mut checks = Checks { said, problems };
    checks.freshness(&file.freshness);
    let File { store, requests, registry, .. } = file;
    stores::check(&mut checks, "store", store);
    checks.not_below("registry.refresh_interval", registry.refresh_interval.0);
    checks.positive("registry.timeout", !registry.timeout.0.is_zero());
    checks.positive("requests.default_timeout", !requests.default_timeout.0.is_zero());
    checks.positive("requests.max_body_bytes", requests.max_body_bytes.0 > 0);
    checks.positive("requests.max_rows", requests.max_rows > 0);
    checks.positive("requests.max_features", requests.max_features > 0);
    checks.positive("requests.max_in_flight", requests.max_in_flight > 0);
    checks.at_most("requests.max_rows", requests.max_rows, MAX_ROWS);
    checks.at_most("requests.max_features", requests.max_features, MAX_FEATURES);
    checks.at_most("requests.max_in_flight", requests.max_in_flight, MAX_AT_ONCE);
    if requests.max_body_bytes.0 > MAX_BODY_BYTES {
        checks.error("requests.max_body_bytes", "must be 1GiB at most");
    }
    if let Auto::Value(threads) = file.runtime.worker_threads {
        checks.at_most("runtime.worker_threads", threads.get(), MAX_WORKER_THREADS);
    }
    if let Auto::Value(size) = file.cache.max_bytes
        && size.0 < MIN_CACHE_BYTES
    {
        checks.error("cache.max_bytes", "must be at least 1MiB");
    }
    checks.addresses(file);
}

/// The settings as they were said, and what is wrong with them.
pub(super) struct Checks<'a> {
    pub(super) said: &'a Node,
    pub(super) problems: &'a mut Problems,
}

impl Checks<'_> {
    pub(super) fn error(&mut self, key: &str, message: impl Into<String>) {
        let origin = self.said.origin_of(key);
        self.problems.error(&origin, key, message);
    }

    pub(super) fn warn(&mut self, key: &str, message: impl Into<String>) {
        let origin = self.said.origin_of(key);
        self.problems.warn(&origin, key, message);
    }

    pub(super) fn positive(&mut self, key: &str, holds: bool) {
        if !holds {
            self.error(key, "must be greater than 0");
        }
    }

    pub(super) fn at_most(&mut self, key: &str, number: usize, most: usize) {
        if number > most {
            self.error(key, format!("must be {most} at most"));
        }
    }

    /// Of a pause between questions: without one, whoever is asked is hammered.
    pub(super) fn not_below(&mut self, key: &str, pause: Duration) {
        if pause < MIN_PAUSE {
            self.error(key, "must be 10ms at least");
        }
    }

    pub(super) fn share(&mut self, key: &str, share: f64) {
        if !(share > 0.0 && share <= 1.0) {
            self.error(key, format!("is {share}; must be greater than 0, and 1 at most"));
        }
    }

    fn freshness(&mut self, freshness: &FreshnessSection) {
        self.positive("freshness.ttl", !freshness.ttl.0.is_zero());
        self.share("freshness.refresh_ahead", freshness.refresh_ahead);
        for (name, view) in &freshness.views {
            let ttl = view.ttl.is_none_or(|ttl| !ttl.0.is_zero());
            self.positive(&format!("freshness.views.{name}.ttl"), ttl);
            if let Some(share) = view.refresh_ahead {
                self.share(&format!("freshness.views.{name}.refresh_ahead"), share);
            }
        }
    }

    fn addresses(&mut self, file: &File) {
        let listen: Vec<_> = file.listen.0.iter().map(|address| &address.0).collect();
        let said = self.said.get("listen").map(|node| &node.value);
        // What is empty only since its addresses were wrong was reported.
        if said == Some(&Value::List(Vec::new())) {
            self.error("listen", "is empty; expected an address to serve at");
        }
        for (place, address) in listen.iter().enumerate() {
            if listen[..place].iter().any(|earlier| earlier.clashes_with(address)) {
                self.error("listen", format!("`{address}` clashes with an earlier address"));
            }
        }
        if let AddressOrOff::At(admin) = &file.admin
            && let Some(other) = listen.iter().find(|address| address.clashes_with(admin))
        {
            self.error("admin", format!("`{admin}` clashes with `{other}` of `listen`"));
        }
    }
}

/// What the container's limits are, as the pod's author passed them on.
#[derive(Clone, Copy, Debug)]
struct Told {
    memory: Option<u64>,
    cpu: Option<usize>,
}

impl Told {
    /// 0 is what Kubernetes writes for a request that there is not.
    fn read(surroundings: &Surroundings, problems: &mut Problems) -> Self {
        let mut number = |name: &str, what: &str| {
            let text = surroundings.environment.get(name).map(|text| text.trim())?;
            let number = text.parse::<u64>();
            if number.is_err() && !text.is_empty() {
                let origin = Origin::Environment(name.into());
                problems.error(&origin, "", format!("is `{text}`; expected {what}"));
            }
            number.ok().filter(|number| *number > 0)
        };
        let memory = number("LARDER_MEMORY", "a number of bytes, as `limits.memory` is passed on");
        let cpu = number("LARDER_CPU", "a number of cores, as `requests.cpu` is passed on");
        Self { memory, cpu: cpu.map(|cpu| usize::try_from(cpu).unwrap_or(usize::MAX)) }
    }
}

fn process_settings(file: &File, surroundings: &Surroundings, told: Told) -> ProcessSettings {
    // Of addresses that are all wrong none is left.
    let defaults = File::default();
    let listen = if file.listen.0.is_empty() { &defaults.listen } else { &file.listen };
    ProcessSettings {
        listen: listen.0.iter().map(|at| resolve(&at.0, surroundings)).collect(),
        unix_socket_mode: file.unix_socket_mode.0,
        admin: match &file.admin {
            AddressOrOff::Off => None,
            AddressOrOff::At(address) => Some(resolve(address, surroundings)),
        },
        startup_max_wait: file.startup.max_wait.0,
        shutdown_grace: file.shutdown.grace.0,
        log_filter: file.log.level.targets(),
        log_format: file.log.format,
        worker_threads: worker_threads(file, told.cpu.unwrap_or(surroundings.cores)),
    }
}

fn convert(
    file: &File,
    process: ProcessSettings,
    feast: super::FeastSettings,
    (stores, routes): (Vec<super::StoreConfig>, proxy::RouteTable),
    surroundings: &Surroundings,
    told: Told,
    problems: Problems,
) -> Config {
    Config {
        process,
        feast,
        cache_max_bytes: cache_bytes(file, told.memory.or(surroundings.memory_limit)),
        freshness: freshness_table(&file.freshness),
        stores,
        routes,
        requests: RequestLimits {
            max_rows: file.requests.max_rows,
            max_features: file.requests.max_features,
        },
        api: ApiSettings {
            default_timeout: file.requests.default_timeout.0,
            max_body_bytes: usize::try_from(file.requests.max_body_bytes.0).unwrap_or(usize::MAX),
            max_in_flight: file.requests.max_in_flight,
            status: match file.compat.status {
                StatusCompat::Larder => proxy::StatusCompat::Larder,
                StatusCompat::Python => proxy::StatusCompat::Python,
                StatusCompat::Proto => proxy::StatusCompat::Proto,
            },
            ttl_on_read: TtlOnReadByApi {
                http: ttl_on_read(file.compat.ttl_on_read.http),
                grpc: ttl_on_read(file.compat.ttl_on_read.grpc),
                python_grpc: ttl_on_read(file.compat.ttl_on_read.python_grpc),
            },
        },
        registry_refresh_interval: file.registry.refresh_interval.0,
        registry_limits: FetchLimits { timeout: file.registry.timeout.0, ..FetchLimits::default() },
        registry_disk_copy: match &file.registry.disk_copy {
            PathOrOff::Off => None,
            PathOrOff::Path(path) => Some(surroundings.working_directory.join(path)),
        },
        warnings: problems.warnings,
    }
}

/// Relative paths begin where larder was started.
fn resolve(address: &ListenAddress, surroundings: &Surroundings) -> ListenAddress {
    match address {
        ListenAddress::Unix(path) => {
            let path: PathBuf = surroundings.working_directory.join(path);
            ListenAddress::Unix(path)
        }
        other => other.clone(),
    }
}

fn cache_bytes(file: &File, limit: Option<u64>) -> u64 {
    if let Auto::Value(size) = file.cache.max_bytes {
        return size.0;
    }
    let half = limit.map_or(u64::MAX, |limit| limit / 2);
    half.clamp(MIN_CACHE_BYTES, DEFAULT_CACHE_BYTES)
}

fn worker_threads(file: &File, cores: usize) -> usize {
    let threads = match file.runtime.worker_threads {
        Auto::Value(threads) => threads.get(),
        Auto::Auto => cores,
    };
    threads.clamp(1, MAX_WORKER_THREADS)
}

fn freshness_table(section: &FreshnessSection) -> FreshnessTable {
    let mut default = Freshness::default();
    default.policy.ttl = section.ttl.0;
    default.policy.refresh_ahead = section.refresh_ahead;
    default.policy.stale_while_revalidate = section.stale_while_revalidate.0;
    default.policy.max_stale = section.max_stale.0;
    default.policy.negative_ttl = section.negative_ttl.0;
    default.policy.negative_max_stale = section.negative_max_stale.0;
    default.stale_after = section.stale_after.0;
    default.on_unavailable = on_unavailable(section.on_unavailable);
    let views: HashMap<_, _> = section
        .views
        .iter()
        .map(|(name, view)| (name.clone(), view_freshness(default, view)))
        .collect();
    FreshnessTable { default, views }
}

fn view_freshness(mut freshness: Freshness, view: &file::ViewFreshness) -> Freshness {
    let Freshness { policy, stale_after, on_unavailable: unavailable } = &mut freshness;
    for (setting, value) in [
        (&mut policy.ttl, view.ttl),
        (&mut policy.stale_while_revalidate, view.stale_while_revalidate),
        (&mut policy.max_stale, view.max_stale),
        (&mut policy.negative_ttl, view.negative_ttl),
        (&mut policy.negative_max_stale, view.negative_max_stale),
        (stale_after, view.stale_after),
    ] {
        if let Some(value) = value {
            *setting = value.0;
        }
    }
    policy.refresh_ahead = view.refresh_ahead.unwrap_or(policy.refresh_ahead);
    *unavailable = view.on_unavailable.map_or(*unavailable, on_unavailable);
    freshness
}

fn on_unavailable(section: OnUnavailable) -> proxy::OnUnavailable {
    match section {
        OnUnavailable::Partial => proxy::OnUnavailable::Partial,
        OnUnavailable::Null => proxy::OnUnavailable::Null,
        OnUnavailable::Error => proxy::OnUnavailable::Error,
    }
}

fn ttl_on_read(section: file::TtlOnRead) -> proxy::TtlOnRead {
    match section {
        file::TtlOnRead::Off => proxy::TtlOnRead::Off,
        file::TtlOnRead::Flag => proxy::TtlOnRead::Flag,
        file::TtlOnRead::Null => proxy::TtlOnRead::Null,
    }
}
