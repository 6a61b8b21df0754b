//! Redis servers that belong together: a cluster, and a master that sentinels watch over.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use larder::{
    layout::redis::{feature_field, hash_key},
    model::{EntityKey, FeatureView},
    store::{RedisAccess, RedisSentinels, RedisSettings, RedisTopology},
};
use redis::{Commands, RedisResult, cmd};

use crate::{
    redis_server::{RedisServer, at, settings},
    world::Cells,
};

/// A hash as Feast writes it: its key, and its fields.
pub(crate) type Hash = (Vec<u8>, Vec<(Vec<u8>, Vec<u8>)>);

/// The hash of one row.
pub(crate) fn hash(view: &FeatureView, key: &EntityKey, cells: Cells<'_>, seconds: i64) -> Hash {
    assert!((0..128).contains(&seconds));
    let timestamp = if seconds == 0 { vec![] } else { vec![8, seconds as u8] };
    let mut fields = vec![(format!("_ts:{}", view.name).into_bytes(), timestamp)];
    fields.extend(cells.iter().map(|(feature, value)| {
        (feature_field(&format!("{}:{feature}", view.name)).to_vec(), value.to_vec())
    }));
    (hash_key(key, &view.project), fields)
}

/// What all servers are started with, so that a replica is in step soon.
const REPLICATION: [&str; 4] = ["--repl-diskless-sync-delay", "0", "--repl-timeout", "10"];

/// Three masters, each with a replica.
pub(crate) struct ClusterServers {
    pub(crate) nodes: Vec<RedisServer>,
}

impl ClusterServers {
    pub(crate) fn start() -> Self {
        let more = ["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"];
        let arguments: Vec<_> =
            REPLICATION.into_iter().chain(more).chain(["--cluster-node-timeout", "2000"]).collect();
        let nodes: Vec<_> = (0..6).map(|_| RedisServer::with(&arguments)).collect();
        let addresses = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port));
        let output = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(addresses)
            .args(["--cluster-replicas", "1", "--cluster-yes"])
            .output()
            .expect("these tests need `redis-cli` on the PATH: `apt-get install redis-tools`");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        let servers = Self { nodes };
        servers.wait_until_in_step();
        servers
    }

    /// Waits until all that run agree, and each of three masters has its replica in step.
    pub(crate) fn wait_until_in_step(&self) {
        wait("all nodes of the cluster are in step", || {
            self.running().all(|node| {
                let mut admin = node.admin();
                let info: String = cmd("CLUSTER").arg("INFO").query(&mut admin).unwrap();
                let nodes: String = cmd("CLUSTER").arg("NODES").query(&mut admin).unwrap();
                let replication = node.info("replication");
                info.contains("cluster_state:ok")
                    && nodes.matches("slave").count() == 3
                    && !nodes.contains("fail")
                    && (replication.contains("master_link_status:up")
                        || replication.contains("connected_slaves:1"))
            })
        });
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = &RedisServer> {
        self.nodes.iter().filter(|node| node.is_running())
    }

    pub(crate) fn masters(&self) -> Vec<usize> {
        let is_master = |node: &RedisServer| {
            node.is_running() && node.info("replication").contains("role:master")
        };
        (0..self.nodes.len()).filter(|node| is_master(&self.nodes[*node])).collect()
    }

    /// The node that holds a key, as the nodes say.
    pub(crate) fn owner(&self, key: &[u8]) -> usize {
        let owns = |node: &usize| {
            let exists: RedisResult<bool> = self.nodes[*node].admin().exists(key);
            exists.is_ok()
        };
        self.masters().into_iter().find(owns).expect("some node holds it")
    }

    /// Writes a hash, and waits until a replica has it.
    pub(crate) fn put(&self, (key, fields): &Hash) {
        let mut admin = self.nodes[self.owner(key)].admin();
        let _: () = admin.hset_multiple(key, fields).unwrap();
        let copies: u64 = cmd("WAIT").arg(1).arg(10_000).query(&mut admin).unwrap();
        assert_eq!(copies, 1, "no replica took the write over");
    }

    pub(crate) fn stop(&mut self) {
        self.nodes.iter_mut().for_each(RedisServer::kill);
    }

    pub(crate) fn start_again(&mut self) {
        self.nodes.iter_mut().for_each(RedisServer::restart);
        self.wait_until_in_step();
    }

    /// Settings that name two of the nodes.
    pub(crate) fn settings(&self) -> RedisSettings {
        let seeds = self.nodes[..2].iter().map(|node| at(node.port)).collect();
        settings(RedisTopology::Cluster(seeds))
    }
}

/// A master, a replica, and three sentinels.
pub(crate) struct SentinelServers {
    pub(crate) servers: Vec<RedisServer>,
    pub(crate) sentinels: Vec<RedisServer>,
}

impl SentinelServers {
    pub(crate) fn start() -> Self {
        let master = RedisServer::with(&REPLICATION);
        let port = master.port.to_string();
        let of_master: Vec<_> =
            REPLICATION.into_iter().chain(["--replicaof", "127.0.0.1", &port]).collect();
        let replica = RedisServer::with(&of_master);
        let servers = Self { sentinels: sentinels(master.port), servers: vec![master, replica] };
        servers.wait_until_watched();
        servers
    }

    fn wait_until_watched(&self) {
        wait("the replica is in step, and all sentinels know it", || {
            let watches = |sentinel: &RedisServer| {
                let query = |word: &str| -> RedisResult<redis::Value> {
                    cmd("SENTINEL").arg(word).arg("larder").query(&mut sentinel.admin())
                };
                let quorum = matches!(query("CKQUORUM"), Ok(redis::Value::SimpleString(text)) if text.contains("OK 3 "));
                let replicas = format!("{:?}", query("REPLICAS"));
                quorum && replicas.contains(&self.servers[1].port.to_string())
            };
            self.servers[1].info("replication").contains("master_link_status:up")
                && self.sentinels.iter().all(watches)
        });
    }

    /// Writes a hash to the master, and waits until the replica has it.
    pub(crate) fn put(&self, (key, fields): &Hash) {
        let mut admin = self.servers[0].admin();
        let _: () = admin.hset_multiple(key, fields).unwrap();
        let copies: u64 = cmd("WAIT").arg(1).arg(10_000).query(&mut admin).unwrap();
        assert_eq!(copies, 1, "the replica did not take the write over");
    }

    pub(crate) fn stop(&mut self) {
        self.sentinels.clear();
        self.servers.iter_mut().for_each(RedisServer::kill);
    }

    /// With sentinels that know nothing of what was, at the ports that they had.
    pub(crate) fn start_again(&mut self, ports: &[u16]) {
        self.servers.iter_mut().for_each(RedisServer::restart);
        self.sentinels =
            ports.iter().map(|port| sentinel(self.servers[0].port, Some(*port))).collect();
        self.wait_until_watched();
    }

    pub(crate) fn settings(&self) -> RedisSettings {
        let access = RedisAccess {
            db: 0,
            username: None,
            password: None,
            tls: None,
            connect_timeout: Duration::from_secs(2),
        };
        settings(RedisTopology::Sentinel(RedisSentinels {
            sentinels: self.sentinels.iter().map(|sentinel| at(sentinel.port)).collect(),
            access,
            master: "larder".into(),
            force_host: None,
            min_other_sentinels: 0,
        }))
    }
}

fn sentinels(master: u16) -> Vec<RedisServer> {
    (0..3).map(|_| sentinel(master, None)).collect()
}

fn sentinel(master: u16, port: Option<u16>) -> RedisServer {
    let config = format!(
        "sentinel monitor larder 127.0.0.1 {master} 2\n\
         sentinel down-after-milliseconds larder 1000\n\
         sentinel failover-timeout larder 5000\n"
    );
    RedisServer::sentinel(&config, port)
}

/// Waits until something holds. Blocks.
pub(crate) fn wait(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(60), "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
