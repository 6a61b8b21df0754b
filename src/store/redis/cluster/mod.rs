//! A cluster: one pipeline for each node of which a read wants something, all at once.
//!
//! `slots` says who holds what. The map is read again when a node says that it is wrong, when a
//! node is lost, and now and then; a read that went to the wrong node follows its directions once.

mod scout;
mod slots;

use std::{collections::HashMap, sync::Arc};

use tokio::{sync::Notify, time::Instant};

use self::{
    scout::{ClusterScout, Topology},
    slots::slot_of,
};
use super::{
    RedisAddress, RedisSettings, StoreError,
    error::{Fault, of_node, unavailable},
    follow::Follower,
    join::{first_ok, join_all},
    plan::{HashReply, Plan},
    role::Duty,
    shard::{Outcome, Shard, ask_importing, ask_owner},
};

/// All nodes of a cluster.
pub(super) struct Cluster {
    follower: Follower<ClusterScout>,
    seeds: Vec<RedisAddress>,
}

/// Hashes that a node was said to have.
#[derive(Default)]
struct Redirected {
    owned: HashMap<RedisAddress, Vec<usize>>,
    importing: HashMap<RedisAddress, Vec<usize>>,
}

type Replies = Vec<(usize, HashReply)>;

impl Cluster {
    pub(super) fn new(settings: &RedisSettings, seeds: &[RedisAddress]) -> Self {
        let alarm = Arc::new(Notify::new());
        let scout = ClusterScout::new(settings, seeds.to_vec(), alarm.clone());
        let follower = Follower::new(scout, alarm, settings.max_backoff);
        Self { follower, seeds: seeds.to_vec() }
    }

    /// Reads all hashes of a plan; what one node cannot answer fails alone.
    pub(super) async fn read(&self, plan: &Plan<'_>, until: Instant) -> Vec<HashReply> {
        let topology = match self.topology(until).await {
            Ok(topology) => topology,
            Err(error) => return vec![Err(error); plan.len()],
        };
        let mut replies: Vec<HashReply> = Vec::with_capacity(plan.len());
        let mut groups: HashMap<usize, Vec<usize>> = HashMap::new();
        for hash in 0..plan.len() {
            let slot = slot_of(plan.key(hash));
            // Until its node says otherwise.
            replies.push(Err(StoreError::NodeUnavailable(Arc::new(Fault::NoOwner { slot }))));
            match topology.map.owner(slot) {
                Some(shard) => groups.entry(shard).or_default().push(hash),
                None => self.follower.alarm(),
            }
        }
        let asked = groups.len();
        let reads = groups
            .into_iter()
            .map(|(shard, hashes)| self.read_shard(plan, &topology.shards[shard], hashes, until));
        for (hash, reply) in join_all(reads).await.into_iter().flatten() {
            replies[hash] = reply;
        }
        self.judge(&topology, asked, &mut replies);
        replies
    }

    /// Asks the nodes that hold rows for a sign of life; one that answers is enough.
    pub(super) async fn probe(&self, until: Instant) -> Result<(), StoreError> {
        self.follower.alarm();
        let topology = self.topology(until).await?;
        let nobody = || unavailable(Fault::Protocol("a map of slots without nodes"));
        let masters = topology.masters().map(|node| node.probe(until));
        first_ok(masters).await.unwrap_or_else(|| Err(nobody()))
    }

    async fn topology(&self, until: Instant) -> Result<Arc<Topology>, StoreError> {
        let never = || super::connect::never_answered(&self.seeds[0]);
        self.follower.topology(until).await.unwrap_or_else(|| Err(never()))
    }

    /// Reads hashes of one shard, and of the nodes that it names instead.
    async fn read_shard(
        &self,
        plan: &Plan<'_>,
        shard: &Shard,
        hashes: Vec<usize>,
        until: Instant,
    ) -> Replies {
        let mut replies = Vec::with_capacity(hashes.len());
        let mut redirected = Redirected::default();
        let mut map_is_wrong = false;
        for (hash, outcome) in shard.ask(plan, hashes, until).await {
            match outcome {
                Outcome::Answer(reply) => replies.push((hash, Ok(reply))),
                Outcome::Failed(error) => {
                    map_is_wrong = true;
                    replies.push((hash, Err(error)));
                }
                Outcome::Moved(target) => {
                    map_is_wrong = true;
                    redirected.owned.entry(target).or_default().push(hash);
                }
                Outcome::Ask(target) => {
                    redirected.importing.entry(target).or_default().push(hash);
                }
            }
        }
        if map_is_wrong {
            self.follower.alarm();
        }
        let Redirected { owned, importing } = redirected;
        let owned = owned.into_iter().map(|(to, hashes)| (to, hashes, false));
        let importing = importing.into_iter().map(|(to, hashes)| (to, hashes, true));
        let reads = owned
            .chain(importing)
            .map(|(to, hashes, importing)| self.read_there(plan, to, hashes, importing, until));
        replies.extend(join_all(reads).await.into_iter().flatten());
        replies
    }

    /// Reads hashes of a node that another one named. It is not followed any farther.
    async fn read_there(
        &self,
        plan: &Plan<'_>,
        to: RedisAddress,
        hashes: Vec<usize>,
        importing: bool,
        until: Instant,
    ) -> Replies {
        let node = match self.follower.scout().pool().node(&to, Duty::Any) {
            Ok(node) => node,
            Err(fault) => {
                let error = StoreError::NodeUnavailable(Arc::new(fault));
                return hashes.into_iter().map(|hash| (hash, Err(error.clone()))).collect();
            }
        };
        let outcomes = if importing {
            ask_importing(&node, plan, hashes, until).await
        } else {
            ask_owner(&node, plan, hashes, until).await
        };
        let reply = |(hash, outcome)| match outcome {
            Outcome::Answer(reply) => (hash, Ok(reply)),
            Outcome::Failed(error) => (hash, Err(of_node(error, &to))),
            Outcome::Moved(_) | Outcome::Ask(_) => {
                let fault = Fault::Astray { address: to.clone(), slot: slot_of(plan.key(hash)) };
                (hash, Err(StoreError::NodeUnavailable(Arc::new(fault))))
            }
        };
        outcomes.into_iter().map(reply).collect()
    }

    /// Tells what one node cannot answer from what the cluster cannot.
    fn judge(&self, topology: &Topology, asked: usize, replies: &mut [HashReply]) {
        if replies.iter().all(Result::is_ok) {
            return;
        }
        // Nodes that are silent may be the only ones that were asked.
        let all_silent = replies.iter().all(|reply| matches!(reply, Err(StoreError::TimedOut)));
        if all_silent && asked == topology.shards.len() {
            return;
        }
        let any_is_up = topology.masters().any(|node| node.is_up());
        let address = topology.masters().next().map_or(&self.seeds[0], |node| node.address());
        for reply in replies.iter_mut() {
            if let Err(error) = reply {
                *error = match of_node(error.clone(), address) {
                    StoreError::NodeUnavailable(why) if !any_is_up => StoreError::Unavailable(why),
                    other => other,
                };
            }
        }
    }
}
