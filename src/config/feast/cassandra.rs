//! `online_store` of type `cassandra` or `scylladb`.

use std::path::{Path, PathBuf};

use super::{online_store::StoreContext, section::Section};
use crate::{
    config::{
        file::CassandraTlsSection,
        tree::{Node, Value},
        units::Auto,
    },
    store::{CassandraLogin, CassandraSettings, Consistency, Secret, StoreSettings},
    tls::{ClientIdentity, TlsSettings},
};

const CASSANDRA_OPTIONS: &[&str] = &[
    "type",
    "hosts",
    "secure_bundle_path",
    "port",
    "keyspace",
    "username",
    "password",
    "protocol_version",
    "request_timeout",
    "datacenters",
    "routing",
    "load_balancing",
    "read_concurrency",
    "write_concurrency",
];

const SCYLLA_OPTIONS: &[&str] = &[
    "type",
    "hosts",
    "port",
    "keyspace",
    "username",
    "password",
    "local_dc",
    "request_timeout",
    "read_concurrency",
    "write_concurrency",
    "vector_similarity_function",
];

/// Both are token-aware here: Feast's plain policy takes the same rows on a longer way.
const POLICIES: &[&str] = &["DCAwareRoundRobinPolicy", "TokenAwarePolicy(DCAwareRoundRobinPolicy)"];

/// Which of Feast's two stores it is, whose tables are the same.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Cassandra,
    Scylla,
}

/// Where Feast would connect.
struct Cluster {
    hosts: Vec<String>,
    local_datacenter: Option<String>,
}

pub(super) fn read(
    mut section: Section<'_>,
    context: &StoreContext<'_>,
    kind: Kind,
) -> Option<StoreSettings> {
    section.known_options(match kind {
        Kind::Cassandra => CASSANDRA_OPTIONS,
        Kind::Scylla => SCYLLA_OPTIONS,
    });
    unused(&mut section);
    let own = &context.store.cassandra;
    let (cluster, port, keyspace, login, tls) = (
        cluster(&mut section, kind),
        port(&mut section),
        section.text("keyspace"),
        login(&mut section),
        tls(&own.tls, &context.surroundings.working_directory),
    );
    let (cluster, login) = (cluster?, login?);
    keyspaces_of_aws(&mut section, &cluster, login.is_some(), tls.is_some())?;
    let feasts = match kind {
        Kind::Cassandra => Consistency::LocalOne,
        Kind::Scylla => Consistency::LocalQuorum,
    };
    Some(StoreSettings::Cassandra(CassandraSettings {
        hosts: cluster.hosts,
        port: port?,
        keyspace: keyspace?.unwrap_or("feast_keyspace").to_owned(),
        login,
        consistency: own.consistency.or(feasts),
        local_datacenter: match &own.local_datacenter {
            Auto::Auto => cluster.local_datacenter,
            Auto::Value(name) => Some(name.clone()),
        },
        connections: own.connections,
        max_concurrent_reads: own.max_concurrent_reads,
        tls,
        connect_timeout: context.store.connect_timeout.0,
        max_backoff: context.store.max_backoff.0,
    }))
}

/// What larder has settings of its own for, or no use.
fn unused(section: &mut Section<'_>) {
    let instead = [
        ("request_timeout", "`store.timeout` bounds a read"),
        ("read_concurrency", "`store.cassandra.max_concurrent_reads` bounds reads"),
    ];
    for (name, instead) in instead {
        if section.get(name).is_some() {
            section.warn(name, format!("is not used here: {instead}"));
        }
    }
    if let Some(version) = section.get("protocol_version")
        && version.value != Value::Integer(4)
    {
        section.warn("protocol_version", "is not used here: larder speaks version 4");
    }
}

fn cluster(section: &mut Section<'_>, kind: Kind) -> Option<Cluster> {
    if section.get("secure_bundle_path").is_some() {
        let message =
            "is Astra's, which this larder does not read; serve this store without larder";
        section.error("secure_bundle_path", message);
        return None;
    }
    if kind == Kind::Scylla {
        let local_datacenter = section.text("local_dc")?.map(str::to_owned);
        return Some(Cluster { hosts: hosts(section)?, local_datacenter });
    }
    let balancing = load_balancing(section)?;
    if section.get("datacenters").is_some() {
        return datacenters(section, balancing);
    }
    Some(Cluster { hosts: hosts(section)?, local_datacenter: balancing })
}

fn hosts(section: &mut Section<'_>) -> Option<Vec<String>> {
    let hosts = section.get("hosts").and_then(texts);
    match hosts {
        Some(hosts) if !hosts.is_empty() => check_hosts(section, "hosts", hosts),
        _ => {
            section.expected("hosts", "a list of host names or addresses, as in `[cassandra.svc]`")
        }
    }
}

fn check_hosts(section: &mut Section<'_>, key: &str, hosts: Vec<String>) -> Option<Vec<String>> {
    let address = |host: &String| host.parse::<std::net::IpAddr>().is_ok();
    match hosts.iter().find(|host| host.is_empty() || (host.contains(':') && !address(host))) {
        None => Some(hosts),
        Some(host) => {
            section.error(key, format!("`{host}` is no host name; a port belongs into `port`"));
            None
        }
    }
}

/// The datacenter of `load_balancing`, if there is one.
fn load_balancing(section: &mut Section<'_>) -> Option<Option<String>> {
    const KEY: &str = "load_balancing";
    let Some(node) = section.get(KEY) else { return Some(None) };
    match node.get("load_balancing_policy").map(|policy| &policy.value) {
        Some(Value::Text(policy)) if POLICIES.contains(&policy.as_str()) => {}
        _ => {
            let message =
                format!("expected a `load_balancing_policy` of {}", POLICIES.join(" or "));
            section.error(KEY, message);
            return None;
        }
    }
    match node.get("local_dc").map(|dc| &dc.value) {
        None | Some(Value::Null) => Some(Some("datacenter1".to_owned())),
        Some(Value::Text(name)) => Some(Some(name.clone())),
        Some(_) => {
            section.error(KEY, "expected the name of a datacenter as `local_dc`");
            None
        }
    }
}

/// Feast's own way of naming hosts by datacenter: reads go to one of them.
fn datacenters(section: &mut Section<'_>, balancing: Option<String>) -> Option<Cluster> {
    const KEY: &str = "datacenters";
    if section.get("hosts").is_some() {
        section.error(KEY, "cannot stand beside `hosts`");
        return None;
    }
    let datacenter = |node: &Node| match &node.get("name")?.value {
        Value::Text(name) => Some((name.clone(), texts(node.get("hosts")?)?)),
        _ => None,
    };
    let named: Option<Vec<_>> = match section.get(KEY).map(|node| &node.value) {
        Some(Value::List(list)) => list.iter().map(datacenter).collect(),
        _ => None,
    };
    let Some(mut named) = named.filter(|named| !named.is_empty()) else {
        section.error(KEY, "expected a list of mappings with a `name` and `hosts`");
        return None;
    };
    let routed = section.get("routing").and_then(|routing| routing.get("read_dc"));
    let wanted = match routed.map(|node| &node.value) {
        None | Some(Value::Null) => balancing.unwrap_or_else(|| named[0].0.clone()),
        Some(Value::Text(name)) => name.clone(),
        Some(_) => {
            section.error("routing", "expected the name of a datacenter as `read_dc`");
            return None;
        }
    };
    if !named.iter().any(|(name, _)| *name == wanted) {
        let message = format!("has no datacenter `{wanted}`, which reads should go to");
        section.error(KEY, message);
        return None;
    }
    // Those of the others know the cluster, too, should none of its own answer.
    named.sort_by_key(|(name, _)| *name != wanted);
    let hosts = named.into_iter().flat_map(|(_, hosts)| hosts).collect::<Vec<_>>();
    if hosts.is_empty() {
        section.error(KEY, "name no hosts");
        return None;
    }
    Some(Cluster { hosts: check_hosts(section, KEY, hosts)?, local_datacenter: Some(wanted) })
}

fn texts(node: &Node) -> Option<Vec<String>> {
    let Value::List(list) = &node.value else { return None };
    let text = |node: &Node| match &node.value {
        Value::Text(text) => Some(text.clone()),
        _ => None,
    };
    list.iter().map(text).collect()
}

fn port(section: &mut Section<'_>) -> Option<u16> {
    match section.get("port").map(|node| &node.value) {
        // Feast takes 0 for none, too.
        None | Some(Value::Integer(0)) => Some(9042),
        Some(Value::Integer(port)) if (1..=65535).contains(port) => u16::try_from(*port).ok(),
        Some(_) => section.expected("port", "a port, as in `9042`"),
    }
}

/// The outer `None` is an error.
fn login(section: &mut Section<'_>) -> Option<Option<CassandraLogin>> {
    let (username, password) = (section.text("username"), section.text("password"));
    match (username?, password?) {
        (None, None) => Some(None),
        (Some(username), Some(password)) => Some(Some(CassandraLogin {
            username: username.to_owned(),
            password: Secret(password.to_owned()),
        })),
        (Some(_), None) => {
            section.error("username", "has no `password` beside it");
            None
        }
        (None, Some(_)) => {
            section.error("password", "has no `username` beside it");
            None
        }
    }
}

fn tls(own: &CassandraTlsSection, working_directory: &Path) -> Option<TlsSettings> {
    let file = |name: &str| -> Option<PathBuf> {
        (!name.is_empty()).then(|| working_directory.join(name))
    };
    own.enabled.then(|| TlsSettings {
        ca: file(&own.ca),
        identity: file(&own.certificate)
            .zip(file(&own.key))
            .map(|(certificate, key)| ClientIdentity { certificate, key }),
        verify: own.verify.into(),
    })
}

/// Amazon Keyspaces answers to TLS and to passwords only; its other login is none of CQL's.
fn keyspaces_of_aws(
    section: &mut Section<'_>,
    cluster: &Cluster,
    login: bool,
    tls: bool,
) -> Option<()> {
    let of_aws = |host: &String| {
        host.starts_with("cassandra.")
            && (host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn"))
    };
    if !cluster.hosts.iter().any(of_aws) {
        return Some(());
    }
    if login && tls {
        let message = "is Amazon Keyspaces, which larder was never tried against";
        section.warn("hosts", message);
        return Some(());
    }
    let message = "is Amazon Keyspaces, which larder reads with TLS and a service-specific password \
                   only: set `store.cassandra.tls.enabled` in larder.yaml, `username`, `password` \
                   and `port: 9142`";
    section.error("hosts", message);
    None
}
