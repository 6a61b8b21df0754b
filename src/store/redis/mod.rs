//! Redis, and what speaks it: all views of an entity in one HMGET, a whole read in one pipeline
//! for each server.
//!
//! ```text
//! plan         which hashes, and rows of their replies
//! shard        a master or one of its replicas is asked
//! cluster      slots to shards, redirections        \
//! sentinel     the master that sentinels name        | follow: looks again after an alarm
//! node, link   servers and their connections, kept up in the background
//! connect      one connection: TCP, TLS, login
//! ```
//!
//! Writes nothing.

mod cluster;
mod connect;
mod error;
mod follow;
mod health;
mod join;
mod link;
mod node;
mod plan;
mod role;
mod sentinel;
mod shard;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use quick_cache::sync::Cache;
use redis::ServerErrorKind;
use tokio::time::Instant;

use self::{
    cluster::Cluster,
    link::Endpoint,
    node::Node,
    plan::{HashReply, Plan},
    role::Duty,
    sentinel::Watched,
    shard::{Outcome, Shard},
};
use super::{
    OnlineStore, ReadOptions, RedisAccess, RedisAddress, RedisReadFrom, RedisSentinels,
    RedisSettings, RedisTopology, Rows, StoreError, ViewKeys,
};
use crate::{
    layout::redis::RedisView,
    model::{FeatureView, ViewId},
};

/// One Redis server, a cluster of them, or a master that sentinels watch over.
///
/// Connects in the background from the first read or probe on, and again whenever a connection
/// breaks. A read without a connection fails at once, except that it waits for the first one.
pub struct RedisStore {
    servers: Servers,
    views: Cache<ViewId, Arc<RedisView>>,
}

enum Servers {
    Single(Shard),
    Cluster(Cluster),
    Sentinel(Watched),
}

/// How many views' fields are kept; those of others are hashed again.
const MAX_VIEWS: usize = 4096;
/// How long a probe waits for a connection and its answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

impl RedisStore {
    /// A store that is not connected yet. Neither waits nor fails.
    pub fn new(settings: RedisSettings) -> Self {
        Self { servers: Servers::new(&settings), views: Cache::new(MAX_VIEWS) }
    }

    fn view(&self, view: &FeatureView) -> Arc<RedisView> {
        let layout = || Ok::<_, std::convert::Infallible>(Arc::new(RedisView::new(view)));
        let Ok(layout) = self.views.get_or_insert_with(&view.id, layout);
        layout
    }
}

impl Servers {
    fn new(settings: &RedisSettings) -> Self {
        match &settings.topology {
            RedisTopology::Single(address) => {
                let endpoint = Endpoint {
                    address: address.clone(),
                    access: Arc::new(settings.access.clone()),
                    duty: Duty::Any,
                    max_backoff: settings.max_backoff,
                    alarm: None,
                };
                let node = Arc::new(Node::new(&endpoint, settings.connections));
                Self::Single(Shard::new(Some(node), Vec::new()))
            }
            RedisTopology::Cluster(seeds) => Self::Cluster(Cluster::new(settings, seeds)),
            RedisTopology::Sentinel(sentinels) => Self::Sentinel(Watched::new(settings, sentinels)),
        }
    }

    /// A reply for each hash of a plan.
    async fn read(&self, plan: &Plan<'_>, give_up_at: Instant) -> Vec<HashReply> {
        match self {
            Self::Single(shard) => read_shard(shard, plan, give_up_at).await,
            Self::Cluster(cluster) => cluster.read(plan, give_up_at).await,
            Self::Sentinel(watched) => match watched.topology(give_up_at).await {
                Ok(topology) => read_shard(&topology.shard, plan, give_up_at).await,
                Err(error) => vec![Err(error); plan.len()],
            },
        }
    }
}

/// Reads all hashes of a plan of one shard, which has them all.
async fn read_shard(shard: &Shard, plan: &Plan<'_>, give_up_at: Instant) -> Vec<HashReply> {
    let mut replies: Vec<HashReply> = vec![Err(StoreError::TimedOut); plan.len()];
    let hashes = (0..plan.len()).collect();
    for (hash, outcome) in shard.ask(plan, hashes, give_up_at).await {
        replies[hash] = match outcome {
            Outcome::Answer(reply) => Ok(reply),
            Outcome::Failed(error) => Err(error),
            Outcome::Moved(_) => Err(error::a_cluster(ServerErrorKind::Moved)),
            Outcome::Ask(_) => Err(error::a_cluster(ServerErrorKind::Ask)),
        };
    }
    replies
}

#[async_trait]
impl OnlineStore for RedisStore {
    async fn read(&self, reads: &[ViewKeys<'_>], options: ReadOptions) -> Rows {
        let views: Vec<_> = reads.iter().map(|read| self.view(read.view)).collect();
        let plan = Plan::new(reads, &views);
        if plan.len() == 0 {
            return reads.iter().map(|_| Vec::new()).collect();
        }
        plan.rows(&self.servers.read(&plan, options.give_up_at).await)
    }

    async fn probe(&self) -> Result<(), StoreError> {
        let until = Instant::now() + PROBE_TIMEOUT;
        match &self.servers {
            Servers::Single(shard) => match &shard.master {
                Some(node) => node.probe(until).await,
                None => Ok(()),
            },
            Servers::Cluster(cluster) => cluster.probe(until).await,
            Servers::Sentinel(watched) => watched.probe(until).await,
        }
    }
}
