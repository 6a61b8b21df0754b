//! One server, on a few connections; and all servers that are in use.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use redis::{Pipeline, Value};
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use super::{
    RedisAccess, RedisAddress, RedisSettings, StoreError,
    error::Fault,
    link::{Endpoint, Link, Live},
    role::Duty,
    shard::Shard,
};
use crate::store::state::State;

/// A server. Connects in the background from its first use on.
pub(super) struct Node {
    address: RedisAddress,
    links: Box<[Link]>,
    next: AtomicUsize,
}

impl Node {
    pub(super) fn new(endpoint: &Endpoint, connections: usize) -> Self {
        Self {
            address: endpoint.address.clone(),
            links: (0..connections.max(1)).map(|_| Link::new(endpoint.clone())).collect(),
            next: AtomicUsize::new(0),
        }
    }

    pub(super) fn address(&self) -> &RedisAddress {
        &self.address
    }

    /// Sends the commands and waits for all replies, errors among them.
    pub(super) async fn send(
        &self,
        pipeline: &Pipeline,
        until: Instant,
    ) -> Result<Vec<Value>, StoreError> {
        self.connection(until).await?.send(pipeline, until).await
    }

    /// A connection that works, as far as is known; the first one is waited for until `until`.
    async fn connection(&self, until: Instant) -> Result<Live, StoreError> {
        let mut links = self.in_turn().peekable();
        let first = *links.peek().expect("a node has a link");
        let mut failed = None;
        for link in links {
            match link.state() {
                State::Up(live) => return Ok(live),
                State::Starting => {}
                State::Down(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) => Err(error),
            None => match timeout_at(until, first.settled()).await {
                Ok(settled) => settled,
                Err(_) => Err(first.never_connected()),
            },
        }
    }

    /// All links, each time from another one on.
    fn in_turn(&self) -> impl Iterator<Item = &Link> {
        let first = self.next.fetch_add(1, Ordering::Relaxed) % self.links.len();
        let (before, after) = self.links.split_at(first);
        after.iter().chain(before)
    }

    /// Whether there is a connection. Begins to connect if there never was.
    pub(super) fn is_up(&self) -> bool {
        self.links.iter().any(|link| matches!(link.state(), State::Up(_)))
    }

    /// Begins to connect, unless it has.
    pub(super) fn start(&self) {
        self.links.iter().for_each(Link::start);
    }

    /// Asks for a sign of life, after another attempt to connect if there is no connection.
    pub(super) async fn probe(&self, until: Instant) -> Result<(), StoreError> {
        // One that is dead and not known to be must not fail all probes.
        let up = self.in_turn().find_map(|link| match link.state() {
            State::Up(live) => Some(live),
            _ => None,
        });
        let live = match up {
            Some(live) => live,
            None => self.reconnect(until).await?,
        };
        live.ping(until).await
    }

    /// Asks again for connections that are down, and waits for the outcome of one.
    async fn reconnect(&self, until: Instant) -> Result<Live, StoreError> {
        self.links.iter().for_each(Link::hurry);
        match timeout_at(until, self.links[0].outcome()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.links[0].never_connected()),
        }
    }
}

/// The servers in use, each once for each of its duties.
pub(super) struct Pool {
    access: Arc<RedisAccess>,
    connections: usize,
    max_backoff: Duration,
    alarm: Arc<Notify>,
    nodes: Mutex<HashMap<(RedisAddress, Duty), Arc<Node>>>,
}

/// More servers than the largest cluster has that its makers speak of.
pub(super) const MAX_SERVERS: usize = 1024;
/// Those of a cluster and of the one that takes its place, and a few that redirections name.
const MAX_NODES: usize = 2 * MAX_SERVERS + 64;

impl Pool {
    /// A pool without servers. `alarm` is told when one of them is lost.
    pub(super) fn new(settings: &RedisSettings, alarm: Arc<Notify>) -> Self {
        Self {
            access: Arc::new(settings.access.clone()),
            connections: settings.connections,
            max_backoff: settings.max_backoff,
            alarm,
            nodes: Mutex::default(),
        }
    }

    pub(super) fn access(&self) -> &RedisAccess {
        &self.access
    }

    /// The server at this address, which may be new.
    pub(super) fn node(&self, address: &RedisAddress, duty: Duty) -> Result<Arc<Node>, Fault> {
        let mut nodes = self.nodes.lock();
        let key = (address.clone(), duty);
        if let Some(node) = nodes.get(&key) {
            return Ok(node.clone());
        }
        if nodes.len() >= MAX_NODES {
            return Err(Fault::TooManyNodes(MAX_NODES));
        }
        let endpoint = Endpoint {
            address: address.clone(),
            access: self.access.clone(),
            duty,
            max_backoff: self.max_backoff,
            alarm: Some(self.alarm.clone()),
        };
        let node = Arc::new(Node::new(&endpoint, self.connections));
        nodes.insert(key, node.clone());
        Ok(node)
    }

    /// Lets go of servers that are not of these shards; reads under way may finish.
    pub(super) fn retain_only<'a>(&self, shards: impl IntoIterator<Item = &'a Shard>) {
        let nodes = shards.into_iter().flat_map(|shard| shard.master.iter().chain(&shard.replicas));
        let used: HashSet<_> = nodes.map(Arc::as_ptr).collect();
        self.nodes.lock().retain(|_, node| used.contains(&Arc::as_ptr(node)));
    }
}
