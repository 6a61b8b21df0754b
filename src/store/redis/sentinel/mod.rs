//! A master that sentinels watch over: who it is, they say, and it has to agree.

mod replies;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use redis::{Pipeline, Value};
use tokio::{sync::Notify, time::Instant};
use tracing::info;

use super::{
    RedisAddress, RedisReadFrom, RedisSentinels, RedisSettings, StoreError,
    connect::{ask_once, never_answered},
    error::{self, Fault, unavailable},
    follow::{Follower, Scout},
    node::{Node, Pool},
    role::Duty,
    shard::Shard,
};

/// The servers that sentinels name.
pub(super) struct Watched {
    follower: Follower<SentinelScout>,
}

/// A master and its replicas, with connections to them.
pub(super) struct Topology {
    found: Found,
    pub(super) shard: Shard,
}

/// Asks sentinels, one after the other.
struct SentinelScout {
    settings: RedisSentinels,
    next: AtomicUsize,
    pool: Pool,
    read_from: RedisReadFrom,
}

/// What a sentinel says.
#[derive(Clone, PartialEq, Eq)]
struct Found {
    master: RedisAddress,
    epoch: u64,
    replicas: Vec<RedisAddress>,
}

impl Watched {
    pub(super) fn new(settings: &RedisSettings, sentinels: &RedisSentinels) -> Self {
        let alarm = Arc::new(Notify::new());
        let scout = SentinelScout {
            settings: sentinels.clone(),
            next: AtomicUsize::new(fastrand::usize(..sentinels.sentinels.len().max(1))),
            pool: Pool::new(settings, alarm.clone()),
            read_from: settings.read_from,
        };
        Self { follower: Follower::new(scout, alarm, settings.max_backoff) }
    }

    /// The master and its replicas, as was found last; the first time is waited for.
    pub(super) async fn topology(&self, until: Instant) -> Result<Arc<Topology>, StoreError> {
        let never = || never_answered(&self.follower.scout().settings.sentinels[0]);
        self.follower.topology(until).await.unwrap_or_else(|| Err(never()))
    }

    /// Asks the master for a sign of life.
    pub(super) async fn probe(&self, until: Instant) -> Result<(), StoreError> {
        self.follower.alarm();
        self.topology(until).await?.master().probe(until).await
    }
}

impl Topology {
    fn master(&self) -> &Node {
        self.shard.master.as_ref().expect("sentinels name a master, or nothing is known")
    }
}

impl SentinelScout {
    async fn ask(&self, sentinel: &RedisAddress) -> Result<Found, StoreError> {
        let RedisSentinels { access, master: name, .. } = &self.settings;
        let mut questions = Pipeline::with_capacity(2);
        questions.cmd("SENTINEL").arg("MASTER").arg(name);
        questions.cmd("SENTINEL").arg("REPLICAS").arg(name);
        let answers = ask_once(sentinel, access, &questions).await?;
        self.found(&answers, sentinel)
    }

    fn found(&self, answers: &[Value], asked: &RedisAddress) -> Result<Found, StoreError> {
        let refused = |fault: Fault| StoreError::Refused(Arc::new(fault));
        let [master, replicas, ..] = answers else {
            return Err(refused(Fault::Protocol("fewer replies than commands")));
        };
        if let Value::ServerError(error) = master {
            if error.details().is_some_and(|details| details.contains("No such master")) {
                let (address, master) = (asked.clone(), self.settings.master.clone());
                return Err(refused(Fault::NoSuchMaster { address, master }));
            }
            return Err(error::of_server(error));
        }
        let mut master = replies::master(master, asked).map_err(refused)?;
        if master.other_sentinels < self.settings.min_other_sentinels {
            let why = "sees fewer others than `min_other_sentinels`";
            return Err(unavailable(Fault::Sentinel { address: asked.clone(), why }));
        }
        if let Some(host) = &self.settings.force_host {
            master.address.host.clone_from(host);
        }
        let replicas = match self.read_from {
            RedisReadFrom::Master => Vec::new(),
            // Who may ask for the master need not be allowed to ask for more.
            RedisReadFrom::PreferReplica => replies::replicas(replicas, asked).unwrap_or_default(),
        };
        Ok(Found { master: master.address, epoch: master.epoch, replicas })
    }

    fn connect_to(&self, found: Found) -> Result<Topology, StoreError> {
        let too_many = |fault| StoreError::Refused(Arc::new(fault));
        let master = self.pool.node(&found.master, Duty::Master).map_err(too_many)?;
        let duty = Duty::Replica { readonly: false };
        let replicas = found.replicas.iter().filter(|replica| **replica != found.master);
        let replicas = replicas.map(|replica| self.pool.node(replica, duty));
        let replicas = replicas.collect::<Result<Vec<_>, _>>().map_err(too_many)?;
        let shard = Shard::new(Some(master), replicas);
        shard.start();
        self.pool.retain_only([&shard]);
        let replicas = shard.replicas.len();
        info!(master = %found.master, replicas, "sentinels name the master");
        Ok(Topology { found, shard })
    }
}

impl Scout for SentinelScout {
    type Topology = Topology;

    /// A master that is cut off from its sentinels, but not from larder, is left after this time.
    const QUIET: Duration = Duration::from_secs(2);

    async fn look(&self, known: Option<Arc<Topology>>) -> Result<Arc<Topology>, StoreError> {
        let sentinels = &self.settings.sentinels;
        let first = self.next.fetch_add(1, Ordering::Relaxed) % sentinels.len();
        let (before, after) = sentinels.split_at(first);
        let mut failed: Option<StoreError> = None;
        let mut behind: Vec<Found> = Vec::new();
        for sentinel in after.iter().chain(before) {
            let found = match self.ask(sentinel).await {
                Ok(found) => found,
                // What somebody has to mend says more than what time may.
                Err(error) => {
                    if failed.as_ref().is_none_or(StoreError::is_outage) {
                        failed = Some(error);
                    }
                    continue;
                }
            };
            match &known {
                Some(known) if known.found == found => return Ok(known.clone()),
                // Without the master that was known, what this sentinel says is better than nothing.
                Some(known) if found.epoch < known.found.epoch && known.master().is_up() => {
                    let why = "has not heard of the last failover";
                    failed = Some(unavailable(Fault::Sentinel { address: sentinel.clone(), why }));
                    behind.push(found);
                }
                _ => return self.connect_to(found).map(Arc::new),
            }
        }
        let nobody = || unavailable(Fault::Protocol("no answer of any sentinel"));
        match started_anew(behind, sentinels.len()) {
            Some(found) => self.connect_to(found).map(Arc::new),
            None => Err(failed.unwrap_or_else(nobody)),
        }
    }
}

/// What sentinels say that have all forgotten how many failovers there were, as they do after a
/// reset: that more than half of them agree. Pure.
fn started_anew(behind: Vec<Found>, sentinels: usize) -> Option<Found> {
    let agree = behind.windows(2).all(|two| two[0].master == two[1].master);
    let are_most = 2 * behind.len() > sentinels;
    behind.into_iter().max_by_key(|found| found.epoch).filter(|_| agree && are_most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentinels_that_have_forgotten_all_are_believed_if_most_agree() {
        let found = |port, epoch| {
            let master = RedisAddress { host: "h".into(), port };
            Found { master, epoch, replicas: Vec::new() }
        };
        let port = |behind: &[Found], sentinels| {
            started_anew(behind.to_vec(), sentinels).map(|found| found.master.port)
        };
        assert_eq!(port(&[found(1, 0), found(1, 2)], 3), Some(1));
        assert_eq!(port(&[found(1, 0)], 1), Some(1));
        assert_eq!(port(&[found(1, 0)], 3), None, "it may be cut off");
        assert_eq!(port(&[found(1, 0)], 2), None);
        assert_eq!(port(&[found(1, 0), found(2, 0), found(1, 0)], 3), None);
        assert_eq!(port(&[], 1), None);
    }
}
