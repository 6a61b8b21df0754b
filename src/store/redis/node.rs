//! One server, on a few connections; and all servers that are in use.

use std::{
    collections::HashMap,
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
    link::{Endpoint, Link, Live, State},
    role::Duty,
};

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
        let first = self.next.fetch_add(1, Ordering::Relaxed) % self.links.len();
        let mut failed = None;
        let (after, before) = (&self.links[first..], &self.links[..first]);
        for link in after.iter().chain(before) {
            match link.state() {
                State::Up(live) => return Ok(live),
                State::Starting => {}
                State::Down(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) => Err(error),
            None => match timeout_at(until, self.links[first].settled()).await {
                Ok(settled) => settled,
                Err(_) => Err(self.links[first].never_connected()),
            },
        }
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
        let up = self.links.iter().find_map(|link| match link.state() {
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

/// More servers than the largest cluster that its makers speak of.
const MAX_NODES: usize = 1024;

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

    /// Lets go of servers that are not used any more; reads under way may finish.
    pub(super) fn retain(&self, used: impl Fn(&Arc<Node>) -> bool) {
        self.nodes.lock().retain(|_, node| used(node));
    }
}
