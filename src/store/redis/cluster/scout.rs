//! Finds out who holds which slots of a cluster, by asking its nodes.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use redis::{Pipeline, Value};
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};
use tracing::info;

use super::slots::{Servers, SlotMap};
use crate::store::{
    RedisReadFrom, StoreError,
    redis::{
        RedisAddress, RedisSettings,
        connect::connect,
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
}

/// How many nodes that are connected are asked before the seeds are.
const MAX_ASKED: usize = 3;

impl Topology {
    pub(super) fn masters(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.shards.iter().filter_map(|shard| shard.master.as_ref())
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

    /// What nodes that are connected say; the first whose cluster works.
    async fn ask_known(&self, known: &Topology) -> Option<Told> {
        let mut nodes: Vec<_> = known.masters().filter(|node| node.is_up()).collect();
        fastrand::shuffle(&mut nodes);
        let mut failing = None;
        for node in nodes.into_iter().take(MAX_ASKED) {
            let until = Instant::now() + self.pool.access().connect_timeout;
            match node.send(&questions(), until).await.and_then(|r| told(&r, node.address())) {
                Ok(told) if told.is_ok => return Some(told),
                Ok(told) => failing = Some(told),
                Err(_) => {}
            }
        }
        failing
    }

    /// What a seed says, whose name is resolved anew.
    async fn ask_seeds(&self) -> Result<Told, StoreError> {
        let first = self.next_seed.fetch_add(1, Ordering::Relaxed) % self.seeds.len();
        let (after, before) = (&self.seeds[first..], &self.seeds[..first]);
        let mut failed: Option<StoreError> = None;
        let mut failing = None;
        for seed in after.iter().chain(before) {
            match self.ask_seed(seed).await {
                Ok(told) if told.is_ok => return Ok(told),
                Ok(told) => failing = Some(told),
                // What somebody has to mend says more than what time may.
                Err(error) if failed.as_ref().is_none_or(StoreError::is_outage) => {
                    failed = Some(error);
                }
                Err(_) => {}
            }
        }
        let nobody = || unavailable(Fault::Protocol("no answer of any seed"));
        failing.ok_or_else(|| failed.unwrap_or_else(nobody))
    }

    async fn ask_seed(&self, seed: &RedisAddress) -> Result<Told, StoreError> {
        let access = self.pool.access();
        let (mut connection, mut driver) = connect(seed, access).await?;
        let questions = questions();
        let ask = connection.send_packed_commands(&questions, 0, questions.len());
        let ask = timeout_at(Instant::now() + access.connect_timeout, ask);
        let answer = tokio::select! {
            answer = ask => answer,
            _ = &mut driver => {
                let why = "the server closed it at once";
                return Err(unavailable(Fault::Lost { address: seed.clone(), why }));
            }
        };
        let answer = answer.map_err(|_| super::super::connect::never_answered(seed))?;
        told(&answer.map_err(|source| error::of_connect(seed, source))?, seed)
    }

    fn connect_to(&self, map: SlotMap) -> Result<Topology, StoreError> {
        let too_many = |fault: Fault| StoreError::Refused(Arc::new(fault));
        let wants_replicas = self.read_from == RedisReadFrom::PreferReplica;
        let shard = |servers: &Servers| {
            let master = servers.master.as_ref();
            let master = master.map(|master| self.pool.node(master, Duty::Any)).transpose()?;
            let replicas = servers.replicas.iter().filter(|_| wants_replicas);
            let duty = Duty::Replica { readonly: true };
            let replicas = replicas.map(|replica| self.pool.node(replica, duty));
            Ok(Shard::new(master, replicas.collect::<Result<_, _>>()?))
        };
        let shards = map.shards.iter().map(shard).collect::<Result<Vec<_>, _>>();
        let shards = shards.map_err(too_many)?;
        shards.iter().for_each(Shard::start);
        let used: HashSet<_> = shards
            .iter()
            .flat_map(|shard| shard.master.iter().chain(&shard.replicas))
            .map(Arc::as_ptr)
            .collect();
        self.pool.retain(|node| used.contains(&Arc::as_ptr(node)));
        drop(used);
        Ok(Topology { map, shards })
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
            Some(told) => told,
            None => self.ask_seeds().await?,
        };
        match known {
            // A node that is cut off from the others believes what it knew. Where the cluster does
            // not work, no map is better than the one that there is.
            Some(known) if known.map == told.map || !told.is_ok => Ok(known),
            _ => {
                let topology = self.connect_to(told.map)?;
                info!(shards = topology.shards.len(), "the nodes of a redis cluster are known");
                Ok(Arc::new(topology))
            }
        }
    }
}

fn questions() -> Pipeline {
    let mut questions = Pipeline::with_capacity(2);
    questions.cmd("CLUSTER").arg("SLOTS").cmd("CLUSTER").arg("INFO");
    questions
}

fn told(answers: &[Value], asked: &RedisAddress) -> Result<Told, StoreError> {
    let fault = |fault: Fault| StoreError::Refused(Arc::new(fault));
    let [slots, info, ..] = answers else {
        return Err(fault(Fault::Protocol("fewer replies than commands")));
    };
    if let Value::ServerError(error) = slots {
        return Err(error::of_server(error));
    }
    let map = SlotMap::parse(slots, asked).map_err(fault)?;
    if map.is_empty() {
        // It was forgotten by its cluster, or is not part of one yet.
        let why = "it is a node without slots";
        return Err(unavailable(Fault::Lost { address: asked.clone(), why }));
    }
    // Who may ask for the slots need not be allowed to ask for more.
    let state = text(info).and_then(|info| entry(info, "cluster_state"));
    Ok(Told { map, is_ok: state.is_none_or(|state| state == "ok") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_without_slots_tells_nothing() {
        let asked = RedisAddress { host: "h".into(), port: 1 };
        let answers = [Value::Array(vec![]), Value::BulkString("cluster_state:fail\r\n".into())];
        assert!(told(&answers, &asked).is_err_and(|error| error.is_outage()));
        assert!(told(&answers[..1], &asked).is_err());
    }
}
