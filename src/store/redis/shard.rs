//! A master and its replicas: who of them is asked, and what the answers say.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use redis::{Pipeline, ServerErrorKind, Value};
use tokio::time::Instant;

use super::{
    RedisAddress, StoreError,
    error::{self, Fault},
    node::Node,
    plan::Plan,
};

/// Servers that hold the same rows.
pub(super) struct Shard {
    /// None if nobody knows where it is.
    pub(super) master: Option<Arc<Node>>,
    /// Those that may be read.
    pub(super) replicas: Vec<Arc<Node>>,
    next: AtomicUsize,
}

/// What one server says of one hash.
#[derive(Debug)]
pub(super) enum Outcome {
    /// A reply, be it an error, that is final.
    Answer(Value),
    /// Another node has it.
    Moved(RedisAddress),
    /// Another node has it, if it is asked to look where it does not own the slot yet.
    Ask(RedisAddress),
    /// No reply, or one that may soon be different.
    Failed(StoreError),
}

impl Shard {
    pub(super) fn new(master: Option<Arc<Node>>, replicas: Vec<Arc<Node>>) -> Self {
        // Not all larders begin with the same replica.
        let next = AtomicUsize::new(fastrand::usize(..1 << 16));
        Self { master, replicas, next }
    }

    /// Reads hashes: of a replica that is connected and in step, if there is any, and of the
    /// master what that could not answer.
    pub(super) async fn ask(
        &self,
        plan: &Plan<'_>,
        hashes: Vec<usize>,
        until: Instant,
    ) -> Vec<(usize, Outcome)> {
        let Some(replica) = self.replica() else {
            return self.ask_master(plan, hashes, until).await;
        };
        // The other half is the master's.
        let now = Instant::now();
        let half = now + until.saturating_duration_since(now) / 2;
        let mut outcomes = ask(replica, plan, hashes, half).await;
        let left = outcomes.extract_if(.., |(_, outcome)| matches!(outcome, Outcome::Failed(_)));
        let left: Vec<_> = left.map(|(hash, _)| hash).collect();
        if !left.is_empty() {
            outcomes.extend(self.ask_master(plan, left, until).await);
        }
        outcomes
    }

    async fn ask_master(
        &self,
        plan: &Plan<'_>,
        hashes: Vec<usize>,
        until: Instant,
    ) -> Vec<(usize, Outcome)> {
        match &self.master {
            Some(master) => ask(master, plan, hashes, until).await,
            None => {
                let fault = Fault::Protocol("no address of a master that it has");
                let error = StoreError::NodeUnavailable(Arc::new(fault));
                fail(&hashes, &error)
            }
        }
    }

    /// The next replica in turn that there is a connection to.
    fn replica(&self) -> Option<&Node> {
        if self.replicas.is_empty() {
            return None;
        }
        let first = self.next.fetch_add(1, Ordering::Relaxed) % self.replicas.len();
        let (after, before) = (&self.replicas[first..], &self.replicas[..first]);
        after.iter().chain(before).map(|node| &**node).find(|node| node.is_up())
    }

    /// Begins to connect.
    pub(super) fn start(&self) {
        self.master.iter().chain(&self.replicas).for_each(|node| node.start());
    }
}

/// Reads hashes of one server, in one pipeline.
async fn ask(
    node: &Node,
    plan: &Plan<'_>,
    hashes: Vec<usize>,
    until: Instant,
) -> Vec<(usize, Outcome)> {
    let pipeline = plan.pipeline(hashes.iter().copied());
    match node.send(&pipeline, until).await {
        Ok(replies) => outcomes(hashes, replies, node.address()),
        Err(error) => fail(&hashes, &error),
    }
}

/// Reads hashes of a server that does not own their slots yet, in one pipeline.
pub(super) async fn ask_importing(
    node: &Node,
    plan: &Plan<'_>,
    hashes: Vec<usize>,
    until: Instant,
) -> Vec<(usize, Outcome)> {
    let mut pipeline = Pipeline::with_capacity(2 * hashes.len());
    for hash in &hashes {
        pipeline.cmd("ASKING").add_command(plan.hmget(*hash));
    }
    match node.send(&pipeline, until).await {
        Ok(replies) => {
            let replies = replies.into_iter().skip(1).step_by(2).collect();
            outcomes(hashes, replies, node.address())
        }
        Err(error) => fail(&hashes, &error),
    }
}

/// Reads hashes of a server that another one named.
pub(super) async fn ask_owner(
    node: &Node,
    plan: &Plan<'_>,
    hashes: Vec<usize>,
    until: Instant,
) -> Vec<(usize, Outcome)> {
    ask(node, plan, hashes, until).await
}

fn fail(hashes: &[usize], error: &StoreError) -> Vec<(usize, Outcome)> {
    hashes.iter().map(|hash| (*hash, Outcome::Failed(error.clone()))).collect()
}

fn outcomes(
    hashes: Vec<usize>,
    replies: Vec<Value>,
    asked: &RedisAddress,
) -> Vec<(usize, Outcome)> {
    let mut replies = replies.into_iter();
    let outcome = |hash| match replies.next() {
        Some(reply) => (hash, Outcome::of(reply, asked)),
        None => {
            let error = Fault::Protocol("fewer replies than commands").corrupt();
            (hash, Outcome::Failed(error))
        }
    };
    hashes.into_iter().map(outcome).collect()
}

impl Outcome {
    fn of(reply: Value, asked: &RedisAddress) -> Self {
        let Value::ServerError(error) = &reply else { return Self::Answer(reply) };
        let kind = error.kind();
        let target = || error.details().and_then(|details| redirect(details, asked));
        match (kind, target()) {
            (Some(ServerErrorKind::Moved), Some(target)) => Self::Moved(target),
            (Some(ServerErrorKind::Ask), Some(target)) => Self::Ask(target),
            _ if error::is_passing(error) => Self::Failed(error::of_server(error)),
            _ => Self::Answer(reply),
        }
    }
}

/// The node of `3999 10.0.0.1:6381`. Without a host it is that of the node that was asked.
fn redirect(details: &str, asked: &RedisAddress) -> Option<RedisAddress> {
    let (slot, target) = details.trim().split_once(' ')?;
    slot.parse::<u16>().ok()?;
    let (host, port) = target.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    address(host, port, asked)
}

/// A node's address as the node `asked` tells it: an empty host is its own, and `?` is one that it
/// does not know. Nothing that cannot be a host.
pub(super) fn address(host: &str, port: u16, asked: &RedisAddress) -> Option<RedisAddress> {
    match host {
        "?" => None,
        "" => Some(RedisAddress { host: asked.host.clone(), port }),
        host if is_host(host) => Some(RedisAddress { host: host.to_owned(), port }),
        _ => None,
    }
}

fn is_host(host: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:%".contains(&byte);
    host.len() <= 253 && host.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use redis::parse_redis_value;

    use super::*;

    fn asked() -> RedisAddress {
        RedisAddress { host: "asked".into(), port: 1 }
    }

    fn outcome(error: &str) -> Outcome {
        let reply = parse_redis_value(format!("-{error}\r\n").as_bytes()).unwrap();
        Outcome::of(reply, &asked())
    }

    #[test]
    fn a_redirection_names_its_node() {
        for (error, expected) in [
            ("MOVED 3999 10.0.0.1:6381", "10.0.0.1:6381"),
            ("MOVED 3999 fe80::1:6381", "fe80::1:6381"),
            ("MOVED 3999 node-1.example:6381", "node-1.example:6381"),
            ("MOVED 3999 :6381", "asked:6381"),
        ] {
            match outcome(error) {
                Outcome::Moved(target) => assert_eq!(target.to_string(), expected),
                other => panic!("{error}: {other:?}"),
            }
        }
        assert!(matches!(outcome("ASK 1 h:2"), Outcome::Ask(_)));
    }

    #[test]
    fn a_redirection_to_nowhere_is_an_answer_that_is_refused() {
        for error in [
            "MOVED",
            "MOVED 1",
            "MOVED 1 h",
            "MOVED 1 h:0",
            "MOVED 1 ?:6379",
            "MOVED x h:1",
            "ASK 1 a b:1",
        ] {
            assert!(matches!(outcome(error), Outcome::Answer(_)), "{error}");
        }
    }

    #[test]
    fn what_passes_is_a_failure_and_the_rest_an_answer() {
        for error in ["LOADING x", "CLUSTERDOWN x", "TRYAGAIN x", "MASTERDOWN x", "BUSY x"] {
            assert!(matches!(outcome(error), Outcome::Failed(_)), "{error}");
        }
        for error in ["WRONGTYPE x", "NOPERM x", "ERR x"] {
            assert!(matches!(outcome(error), Outcome::Answer(_)), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_redirection_is_taken_or_left(details in "\\PC{0,80}") {
            if let Some(target) = redirect(&details, &asked()) {
                prop_assert!(target.port > 0 && !target.host.is_empty() && target.host.len() <= 253);
            }
        }
    }
}
