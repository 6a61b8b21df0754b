//! `online_store` of type `redis`, with Feast's connection strings.

use serde_json::Value;

use super::{
    online_store::StoreContext,
    redis_options::{Options, Remarks, seconds, text_of},
    section::Section,
};
use crate::{
    config::{connection_string::ConnectionString, file::RedisReads, tree},
    store::{
        RedisAddress, RedisReadFrom, RedisSentinels, RedisSettings, RedisTopology, StoreSettings,
    },
};

const OPTIONS: &[&str] = &[
    "type",
    "redis_type",
    "connection_string",
    "sentinel_master",
    "key_ttl_seconds",
    "full_scan_for_deletion",
    "skip_dedup",
    "client",
];

const CONNECTION_STRING: &str = "connection_string";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Single,
    Cluster,
    Sentinel,
}

pub(super) fn read(mut section: Section<'_>, context: &StoreContext<'_>) -> Option<StoreSettings> {
    section.known_options(OPTIONS);
    let kinds = [
        ("redis", Kind::Single),
        ("redis_cluster", Kind::Cluster),
        ("redis_sentinel", Kind::Sentinel),
    ];
    let kind = one_of(&mut section, "redis_type", kinds);
    let is_glide = one_of(&mut section, "client", [("redis", false), ("glide", true)]);
    let master = section.text("sentinel_master")?.unwrap_or("mymaster").to_owned();
    let text = section.text(CONNECTION_STRING)?.unwrap_or("localhost:6379");
    let (kind, is_glide) = (kind?, is_glide?);
    if is_glide && kind == Kind::Sentinel {
        let message = "is `glide`, which Feast refuses with redis_type redis_sentinel; larder reads \
                       through a client of its own";
        section.warn("client", message);
    }
    let connection = ConnectionString::parse(text);
    let mut remarks = Remarks::default();
    let settings = settings(kind, master, &connection, context, &mut remarks);
    let read_from = settings.as_ref().map(|settings| settings.read_from);
    if kind == Kind::Single && read_from == Some(RedisReadFrom::PreferReplica) {
        let message = "names a single server, so that store.redis.read_from changes nothing";
        section.warn("redis_type", message);
    }
    remarks.warnings.into_iter().for_each(|text| section.warn(CONNECTION_STRING, text));
    let failed = !remarks.errors.is_empty();
    remarks.errors.into_iter().for_each(|text| section.error(CONNECTION_STRING, text));
    settings.filter(|_| !failed).map(StoreSettings::Redis)
}

/// The value of an option that is one of a few words, the first of which is the default.
fn one_of<T: Copy, const N: usize>(
    section: &mut Section<'_>,
    name: &str,
    words: [(&str, T); N],
) -> Option<T> {
    let Some(node) = section.get(name) else { return Some(words[0].1) };
    let found = match &node.value {
        tree::Value::Text(text) => words.iter().find(|(word, _)| word == text),
        _ => None,
    };
    let expected = || words.map(|(word, _)| format!("`{word}`")).join(" or ");
    found.map(|(_, value)| *value).or_else(|| section.expected(name, &expected()))
}

fn settings(
    kind: Kind,
    master: String,
    connection: &ConnectionString,
    context: &StoreContext<'_>,
    remarks: &mut Remarks,
) -> Option<RedisSettings> {
    let default_timeout = context.store.connect_timeout.0;
    let options = Options { repo: context.repo, connect_timeout: default_timeout };
    // Of an option that is repeated, Python takes the last.
    let last = |name: &str| {
        connection.options.iter().rev().find(|(n, _)| n == name).map(|(_, value)| value)
    };
    let of_sentinels = ["sentinel_kwargs", "min_other_sentinels", "force_master_ip"];
    let of_servers = connection.options.iter().map(|(name, value)| (name.as_str(), value));
    let of_servers = of_servers
        .filter(|(name, _)| kind != Kind::Sentinel || !of_sentinels.contains(name))
        .collect::<Vec<_>>();
    if kind == Kind::Cluster && last("db").is_some() {
        remarks.error("`db` cannot be chosen in a cluster, which has one only; leave it out");
    }
    let access = options.access(&of_servers, remarks)?;
    let topology = match kind {
        Kind::Single => RedisTopology::Single(first_node(connection, remarks)?),
        Kind::Cluster => RedisTopology::Cluster(all_nodes(connection, remarks)?),
        Kind::Sentinel => {
            let sentinels = all_nodes(connection, remarks)?;
            RedisTopology::Sentinel(RedisSentinels {
                sentinels,
                access: match last("sentinel_kwargs") {
                    Some(Value::Object(members)) => {
                        let members: Vec<_> =
                            members.iter().map(|(name, value)| (name.as_str(), value)).collect();
                        options.access(&members, remarks)?
                    }
                    None | Some(Value::Null) => {
                        let mut access = options.access(&[], remarks)?;
                        if let Some(Ok(timeout)) = last("socket_connect_timeout").map(seconds) {
                            access.connect_timeout = timeout.unwrap_or(default_timeout);
                        }
                        access
                    }
                    Some(_) => {
                        remarks.error("`sentinel_kwargs` is no JSON object of options");
                        return None;
                    }
                },
                master,
                force_host: last("force_master_ip").and_then(text_of),
                min_other_sentinels: match last("min_other_sentinels") {
                    None | Some(Value::Null) => 0,
                    Some(value) => value.as_u64().or_else(|| {
                        remarks.error("`min_other_sentinels` is no number of sentinels");
                        None
                    })?,
                },
            })
        }
    };
    Some(RedisSettings {
        topology,
        access,
        read_from: match context.store.redis.read_from {
            RedisReads::Master => RedisReadFrom::Master,
            RedisReads::PreferReplica => RedisReadFrom::PreferReplica,
        },
        connections: context.store.redis.connections,
        max_backoff: context.store.max_backoff.0,
    })
}

fn first_node(connection: &ConnectionString, remarks: &mut Remarks) -> Option<RedisAddress> {
    let Some(address) = connection.nodes.first().and_then(address) else {
        remarks.error("expected `host:port` first, as in `redis.default:6379,db=1`");
        return None;
    };
    if connection.nodes.len() > 1 {
        remarks.warn(format!("of several servers the first is read, {address}, as Feast does"));
    }
    Some(address)
}

fn all_nodes(connection: &ConnectionString, remarks: &mut Remarks) -> Option<Vec<RedisAddress>> {
    let nodes: Option<Vec<_>> = connection.nodes.iter().map(address).collect();
    let nodes = nodes.filter(|nodes| !nodes.is_empty());
    if nodes.is_none() {
        remarks.error("expected `host:port` for each server, as in `a:6379,b:6379,ssl=true`");
    }
    nodes
}

fn address((host, port): &(String, Option<String>)) -> Option<RedisAddress> {
    let port = port.as_ref()?.parse().ok().filter(|port| *port != 0)?;
    (!host.is_empty()).then(|| RedisAddress { host: host.clone(), port })
}
