//! Finds out who holds which slots of a cluster, by asking its nodes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use redis::{Pipeline, Value};
use tokio::{sync::Notify, time::Instant};
use tracing::info;

use super::slots::{Servers, SlotMap};
use crate::store::{
    RedisReadFrom, StoreError,
    redis::{
        RedisAddress, RedisSettings,
        connect::ask_once,
        error::{self, Fault, unavailable},
        follow::Scout,
        node::{Node, Pool},
        role::{Duty, entry, text},
        shard::Shard,
    },
};

/// Who holds which slots, with connections to them.
pub(super) struct Topology {
    pub(super) map: SlotMap,
    /// The last failover that is known of.
    epoch: AtomicU64,
    /// In the order of the map's.
    pub(super) shards: Vec<Shard>,
}

/// Asks nodes that are connected, or else the seeds.
pub(super) struct ClusterScout {
    seeds: Vec<RedisAddress>,
    next_seed: AtomicUsize,
    pool: Pool,
    read_from: RedisReadFrom,
}

/// What a node says.
struct Told {
    map: SlotMap,
    /// Whether the node believes that the cluster works.
    is_ok: bool,
    /// Counts failovers, and what else changes who holds slots.
    epoch: u64,
}

/// How many nodes that are connected are asked before the seeds are.
const MAX_ASKED: usize = 3;

impl Topology {
    pub(super) fn masters(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.shards.iter().filter_map(|shard| shard.master.as_ref())
    }

    /// Whether a map is another one, and to be believed more. A node whose cluster does not work
    /// is, if it knows of more failovers: one that is cut off from the others believes what it
    /// knew.
    fn is_outdone_by(&self, told: &Told) -> bool {
        self.map != told.map && (told.is_ok || told.epoch > self.epoch.load(Ordering::Relaxed))
    }
}

impl ClusterScout {
    /// `alarm` is told when a node is lost.
    pub(super) fn new(
        settings: &RedisSettings,
        seeds: Vec<RedisAddress>,
        alarm: Arc<Notify>,
    ) -> Self {
        Self {
            next_seed: AtomicUsize::new(fastrand::usize(..seeds.len().max(1))),
            seeds,
            pool: Pool::new(settings, alarm),
            read_from: settings.read_from,
        }
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// What nodes that are connected say.
    async fn ask_known(&self, known: &Topology) -> Option<Told> {
        let mut nodes: Vec<_> = known.masters().filter(|node| node.is_up()).collect();
        fastrand::shuffle(&mut nodes);
        let mut best = None;
        for node in nodes.into_iter().take(MAX_ASKED) {
            let until = Instant::now() + self.pool.access().connect_timeout;
            let replies = node.send(&questions(), until).await;
            if let Ok(told) = replies.and_then(|replies| self.told(&replies, node.address())) {
                best = better(best, told);
                if best.as_ref().is_some_and(|told| told.is_ok) {
                    break;
                }
            }
        }
        best
    }

    /// What seeds say, whose names are resolved anew, if it is better than what is `told`.
    async fn ask_seeds(&self, told: Option<Told>) -> Result<Told, StoreError> {
        let first = self.next_seed.fetch_add(1, Ordering::Relaxed) % self.seeds.len();
        let (before, after) = self.seeds.split_at(first);
        let mut failed: Option<StoreError> = None;
        let mut best = told;
        for seed in after.iter().chain(before) {
            let replies = ask_once(seed, self.pool.access(), &questions()).await;
            match replies.and_then(|replies| self.told(&replies, seed)) {
                Ok(told) if told.is_ok => return Ok(told),
                Ok(told) => best = better(best, told),
                // What somebody has to mend says more than what time may.
                Err(error) if failed.as_ref().is_none_or(StoreError::is_outage) => {
                    failed = Some(error);
                }
                Err(_) => {}
            }
        }
        let nobody = || unavailable(Fault::Protocol("no answer of any seed"));
        best.ok_or_else(|| failed.unwrap_or_else(nobody))
    }

    fn told(&self, answers: &[Value], asked: &RedisAddress) -> Result<Told, StoreError> {
        Told::of(answers, asked, self.read_from == RedisReadFrom::PreferReplica)
    }

    fn connect_to(&self, told: Told) -> Result<Topology, StoreError> {
        let Told { map, epoch, .. } = told;
        let shard = |servers: &Servers| {
            let master = servers.master.as_ref();
            let master = master.map(|master| self.pool.node(master, Duty::Any)).transpose()?;
            let duty = Duty::Replica { readonly: true };
            let replicas = servers.replicas.iter().map(|replica| self.pool.node(replica, duty));
            Ok(Shard::new(master, replicas.collect::<Result<_, _>>()?))
        };
        let shards = map.shards.iter().map(shard).collect::<Result<Vec<_>, _>>();
        let shards = shards.map_err(|fault: Fault| StoreError::Refused(Arc::new(fault)))?;
        shards.iter().for_each(Shard::start);
        Ok(Topology { map, epoch: epoch.into(), shards })
    }

    /// What is to be known, of what was and what a node says.
    fn settle(
        &self,
        known: Option<Arc<Topology>>,
        told: Told,
    ) -> Result<Arc<Topology>, StoreError> {
        let (topology, outcome) = match known {
            Some(known) if !known.is_outdone_by(&told) => {
                known.epoch.fetch_max(told.epoch, Ordering::Relaxed);
                (Some(known.clone()), Ok(known))
            }
            known => match self.connect_to(told) {
                Ok(new) => {
                    info!(shards = new.shards.len(), "the nodes of a redis cluster are known");
                    let new = Arc::new(new);
                    (Some(new.clone()), Ok(new))
                }
                Err(error) => (known, Err(error)),
            },
        };
        // Among others, those that only redirections named.
        self.pool.retain_only(topology.iter().flat_map(|topology| &topology.shards));
        outcome
    }
}

impl Scout for ClusterScout {
    type Topology = Topology;

    const QUIET: Duration = Duration::from_secs(15);

    async fn look(&self, known: Option<Arc<Topology>>) -> Result<Arc<Topology>, StoreError> {
        let told = match &known {
            Some(known) => self.ask_known(known).await,
            None => None,
        };
        let told = match told {
            Some(told) if told.is_ok => told,
            // Whoever is connected may be cut off from the others.
            told => self.ask_seeds(told).await?,
        };
        self.settle(known, told)
    }
}

fn questions() -> Pipeline {
    let mut questions = Pipeline::with_capacity(2);
    questions.cmd("CLUSTER").arg("SLOTS").cmd("CLUSTER").arg("INFO");
    questions
}

/// Whichever comes from a node that works, or else knows of more failovers.
fn better(one: Option<Told>, other: Told) -> Option<Told> {
    one.into_iter().chain([other]).max_by_key(|told| (told.is_ok, told.epoch))
}

impl Told {
    fn of(
        answers: &[Value],
        asked: &RedisAddress,
        wants_replicas: bool,
    ) -> Result<Self, StoreError> {
        let fault = |fault: Fault| StoreError::Refused(Arc::new(fault));
        let [slots, info, ..] = answers else {
            return Err(fault(Fault::Protocol("fewer replies than commands")));
        };
        if let Value::ServerError(error) = slots {
            return Err(error::of_server(error));
        }
        let map = SlotMap::parse(slots, asked, wants_replicas).map_err(fault)?;
        if map.is_empty() {
            // It was forgotten by its cluster, or is not part of one yet.
            let why = "it is a node without slots";
            return Err(unavailable(Fault::Lost { address: asked.clone(), why }));
        }
        // Who may ask for the slots need not be allowed to ask for more.
        let info = text(info).unwrap_or_default();
        let is_ok = entry(info, "cluster_state").is_none_or(|state| state == "ok");
        let epoch = entry(info, "cluster_current_epoch").and_then(|epoch| epoch.parse().ok());
        Ok(Self { map, is_ok, epoch: epoch.unwrap_or(0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{RedisAccess, RedisTopology};

    #[test]
    fn a_node_without_slots_tells_nothing() {
        let asked = RedisAddress { host: "h".into(), port: 1 };
        let answers = [Value::Array(vec![]), Value::BulkString("cluster_state:fail\r\n".into())];
        assert!(Told::of(&answers, &asked, true).is_err_and(|error| error.is_outage()));
        assert!(Told::of(&answers[..1], &asked, true).is_err());
    }

    /// Nobody listens at these ports.
    fn map(host: u8, servers: u16) -> Told {
        let range = |slot: u16| {
            let host = Value::BulkString(format!("127.1.0.{host}").into_bytes());
            let server = Value::Array(vec![host, Value::Int(i64::from(slot) + 1)]);
            Value::Array(vec![Value::Int(slot.into()), Value::Int(slot.into()), server])
        };
        let asked = RedisAddress { host: "h".into(), port: 1 };
        let answers = [Value::Array((0..servers).map(range).collect()), Value::Nil];
        Told::of(&answers, &asked, true).unwrap_or_else(|error| panic!("{}", error.chain()))
    }

    #[tokio::test]
    async fn the_largest_cluster_may_be_replaced_by_another_again_and_again() {
        let settings = RedisSettings {
            topology: RedisTopology::Cluster(Vec::new()),
            access: RedisAccess {
                db: 0,
                username: None,
                password: None,
                tls: None,
                connect_timeout: Duration::from_millis(1),
            },
            read_from: RedisReadFrom::Master,
            connections: 1,
            max_backoff: Duration::from_secs(1),
        };
        let scout = ClusterScout::new(&settings, Vec::new(), Arc::default());
        let mut known = None;
        for host in 1..5 {
            let settled = scout.settle(known.clone(), map(host, 1024));
            known = Some(settled.unwrap_or_else(|error| panic!("{}", error.chain())));
            // What redirections name lasts until the next look.
            let beside = RedisAddress { host: "127.2.0.1".into(), port: host.into() };
            assert!(scout.pool.node(&beside, Duty::Any).is_ok());
        }
        let redirected = |port| RedisAddress { host: "127.3.0.1".into(), port };
        let fills =
            (1..=u16::MAX).any(|port| scout.pool.node(&redirected(port), Duty::Any).is_err());
        assert!(fills, "there is a bound");
        assert!(scout.settle(known.clone(), map(9, 1024)).is_err(), "it is full");
        assert!(scout.settle(known, map(9, 1024)).is_ok(), "which passes");
    }
}
