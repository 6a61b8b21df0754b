//! The stores: Feast's own, those beside it, and which of them hold which view.

use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};

use super::{
    StoreConfig, Surroundings,
    expand::expand,
    feast::{FeastStores, StoreContext, read_store},
    file::{File, StoreSection},
    load::{Checks, MAX_AT_ONCE},
    problem::suggestion,
    tree::{Node, Value},
};
use crate::{
    model::StoreId,
    proxy::{RouteStep, RouteTable},
    resilience::{BreakerPolicy, Limits},
};

/// What routes call the store that `feature_store.yaml` names for a view.
const FEASTS: &str = "default";

/// To each server; a cluster has many.
const MAX_SERVER_CONNECTIONS: usize = 64;

/// Each has a thread.
const MAX_SQLITE_CONNECTIONS: usize = 1024;

/// Partitions: to each node, a connection of Cassandra takes 32,768 at once.
const MAX_CONCURRENT_READS: usize = 100_000;

/// Calls are counted for as long.
const MAX_BREAKER_WINDOW: Duration = Duration::from_secs(3600);

/// What the types cannot say of a store's section, which is at `key`.
pub(super) fn check(checks: &mut Checks<'_>, key: &str, store: &StoreSection) {
    for (name, holds) in [
        ("timeout", !store.timeout.0.is_zero()),
        ("connect_timeout", !store.connect_timeout.0.is_zero()),
        ("max_backoff", !store.max_backoff.0.is_zero()),
        ("max_in_flight", store.max_in_flight > 0),
        ("sqlite.connections", store.sqlite.connections > 0),
        ("redis.connections", store.redis.connections > 0),
        ("cassandra.connections", store.cassandra.connections > 0),
        ("cassandra.max_concurrent_reads", store.cassandra.max_concurrent_reads > 0),
        ("breaker.consecutive_failures", store.breaker.consecutive_failures > 0),
        ("breaker.min_calls", store.breaker.min_calls > 0),
        ("breaker.window", !store.breaker.window.0.is_zero()),
    ] {
        checks.positive(&format!("{key}.{name}"), holds);
    }
    let reads = store.cassandra.max_concurrent_reads;
    for (name, number, most) in [
        ("max_in_flight", store.max_in_flight, MAX_AT_ONCE),
        ("max_queue", store.max_queue, MAX_AT_ONCE),
        ("sqlite.connections", store.sqlite.connections, MAX_SQLITE_CONNECTIONS),
        ("redis.connections", store.redis.connections, MAX_SERVER_CONNECTIONS),
        ("cassandra.connections", store.cassandra.connections, MAX_SERVER_CONNECTIONS),
        ("cassandra.max_concurrent_reads", reads, MAX_CONCURRENT_READS),
    ] {
        checks.at_most(&format!("{key}.{name}"), number, most);
    }
    if store.breaker.window.0 > MAX_BREAKER_WINDOW {
        checks.error(&format!("{key}.breaker.window"), "must be 1h at most");
    }
    let tls = &store.cassandra.tls;
    if tls.certificate.is_empty() != tls.key.is_empty() {
        let message = "expected both `certificate` and `key`, or neither";
        checks.error(&format!("{key}.cassandra.tls"), message);
    }
    checks.not_below(&format!("{key}.breaker.probe_interval"), store.breaker.probe_interval.0);
    checks.share(&format!("{key}.breaker.failure_share"), store.breaker.failure_share);
}

/// The stores beside Feast's, by name. `repo` is where relative paths begin.
pub(super) fn read_others(
    checks: &mut Checks<'_>,
    file: &File,
    repo: &Path,
    surroundings: &Surroundings,
) -> Vec<StoreConfig> {
    let mut others = Vec::new();
    for (name, section) in &file.stores {
        let key = format!("stores.{name}");
        check(checks, &format!("{key}.store"), &section.store);
        let mut node = checks.said.get("stores").and_then(|stores| stores.get(name)).cloned();
        let Some(node) = node.as_mut().and_then(|node| node.get_mut("online_store")) else {
            checks.error(&key, "lacks `online_store`, as in feature_store.yaml");
            continue;
        };
        expand_texts(node, surroundings);
        let context = StoreContext { repo, surroundings, store: &section.store };
        let key = format!("{key}.online_store");
        if let Some(settings) = read_store(node, &key, &context, checks.problems) {
            let name = name.as_str().into();
            others.push(StoreConfig { name, settings, limits: limits(&section.store) });
        }
    }
    others
}

/// All stores, those of Feast first, and who is asked for which view.
pub(super) fn combine(
    checks: &mut Checks<'_>,
    file: &File,
    versioning: bool,
    feasts: FeastStores,
    others: Vec<StoreConfig>,
) -> (Vec<StoreConfig>, RouteTable) {
    let is_hybrid = feasts.routing_tag.is_some();
    let of_feast = |(name, settings)| StoreConfig { name, settings, limits: limits(&file.store) };
    let mut stores: Vec<StoreConfig> = feasts.stores.into_iter().map(of_feast).collect();
    let feasts = stores.len();
    for other in others {
        let is_taken = |store: &StoreConfig| store.name == other.name;
        if *other.name == *FEASTS || stores[..feasts].iter().any(is_taken) {
            let message = "is what a store of feature_store.yaml is called; take another name";
            checks.error(&format!("stores.{}", other.name), message);
        }
        let keeps_versions = other.settings.keeps_versions();
        if versioning && keeps_versions != stores[0].settings.keeps_versions() {
            let message = "keeps versions of a view otherwise than the store of \
                           feature_store.yaml, and registry.enable_online_feature_view_versioning \
                           is on: its rows would be those of other versions";
            checks.error(&format!("stores.{}", other.name), message);
        }
        stores.push(other);
    }
    if stores.len() > usize::from(u8::MAX) {
        checks.error("stores", "are more than 255, with those of feature_store.yaml");
        stores.truncate(usize::from(u8::MAX));
    }
    let tagged = |(place, store): (u8, &StoreConfig)| (Arc::clone(&store.name), StoreId(place));
    let tagged = (0..).zip(&stores[..feasts]).map(tagged).filter(|_| is_hybrid).collect();
    let mut routes = Routes { checks, stores: &stores, used: vec![false; stores.len()] };
    routes.used[..feasts].fill(true);
    let table = RouteTable {
        default: routes.read("routing.stores", &file.routing.stores, file),
        views: file
            .routing
            .views
            .iter()
            .map(|(view, names)| {
                (view.clone(), routes.read(&format!("routing.views.{view}"), names, file))
            })
            .collect::<HashMap<_, _>>(),
        tagged,
        next_on_absence: file.routing.next_on_absence,
    };
    for (place, used) in routes.used.iter().enumerate() {
        if !used {
            let key = format!("stores.{}", stores[place].name);
            checks.warn(&key, "is not used: no list of `routing` names it");
        }
    }
    (stores, table)
}

/// What a store's section says about its trouble.
fn limits(store: &StoreSection) -> Limits {
    Limits {
        timeout: store.timeout.0,
        max_in_flight: store.max_in_flight,
        max_queue: store.max_queue,
        breaker: BreakerPolicy {
            consecutive_failures: store.breaker.consecutive_failures,
            failure_share: store.breaker.failure_share,
            min_calls: store.breaker.min_calls,
            window: store.breaker.window.0,
            probe_interval: store.breaker.probe_interval.0,
        },
    }
}

/// Puts variables into a store's texts, as they are put into all of `feature_store.yaml`.
fn expand_texts(node: &mut Node, surroundings: &Surroundings) {
    match &mut node.value {
        Value::Text(text) => {
            *text = expand(text, |name| surroundings.environment.get(name).map(String::as_str));
        }
        Value::List(nodes) => nodes.iter_mut().for_each(|node| expand_texts(node, surroundings)),
        Value::Map(entries) => {
            entries.iter_mut().for_each(|entry| expand_texts(&mut entry.node, surroundings));
        }
        Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) => {}
    }
}

struct Routes<'a, 'b> {
    checks: &'a mut Checks<'b>,
    stores: &'a [StoreConfig],
    used: Vec<bool>,
}

impl Routes<'_, '_> {
    /// A list of stores' names.
    fn read(&mut self, key: &str, names: &[String], file: &File) -> Vec<RouteStep> {
        if names.is_empty() {
            self.checks.error(key, "is empty; expected names of stores");
        }
        let mut steps = Vec::with_capacity(names.len());
        let mut wait = std::time::Duration::ZERO;
        for name in names {
            let place = self.stores.iter().position(|store| *store.name == **name);
            let step = match place {
                _ if name == FEASTS => RouteStep::Feast,
                Some(place) => RouteStep::Store(StoreId(u8::try_from(place).unwrap_or(u8::MAX))),
                None => {
                    let others = self.stores.iter().map(|store| &*store.name);
                    let mut known: Vec<&str> = others.chain([FEASTS]).collect();
                    known.sort_unstable();
                    known.dedup();
                    let message = format!("has no store `{name}`{}", suggestion(name, &known));
                    self.checks.error(key, message);
                    continue;
                }
            };
            if let Some(place) = place {
                self.used[place] = true;
            }
            if steps.contains(&step) {
                self.checks.error(key, format!("names `{name}` twice"));
            }
            wait += self.stores[place.unwrap_or(0)].limits.timeout;
            steps.push(step);
        }
        let patience = file.requests.default_timeout.0;
        if steps.len() > 1 && wait > patience {
            self.checks.warn(
                key,
                format!(
                    "may take {} ms one after the other, which is longer than \
                     requests.default_timeout, {} ms: the last may be asked in vain",
                    wait.as_millis(),
                    patience.as_millis()
                ),
            );
        }
        steps
    }
}
