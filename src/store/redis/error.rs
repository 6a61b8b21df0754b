//! What goes wrong with Redis, and who can mend it: time, or an operator.

use std::{error::Error, io, sync::Arc};

use redis::{RedisError, ServerError, ServerErrorKind};

use super::{RedisAddress, StoreError};

/// A failure, with what the client library says of it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// An attempt to connect failed.
    #[error("redis at `{address}` cannot be connected to")]
    Connect {
        address: RedisAddress,
        #[source]
        source: RedisError,
    },
    /// An attempt to connect took too long.
    #[error("redis at `{address}` did not accept a connection in time")]
    ConnectTimeout { address: RedisAddress },
    /// TLS could not be agreed on.
    #[error("TLS with redis at `{address}` failed")]
    Tls {
        address: RedisAddress,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The server is of a version that larder does not know.
    #[error("redis at `{address}` is of version {version}; larder reads 6.0 and newer")]
    TooOld { address: RedisAddress, version: String },
    /// The server is not what it was taken for.
    #[error("redis at `{address}` is {is}, not {wanted}")]
    Role { address: RedisAddress, is: &'static str, wanted: &'static str },
    /// A connection broke off, or was given up.
    #[error("the connection to redis at `{address}` was lost: {why}")]
    Lost { address: RedisAddress, why: &'static str },
    /// One server of several stayed without an answer.
    #[error("redis at `{address}` did not answer in time")]
    Silent { address: RedisAddress },
    /// A command failed on its way.
    #[error("redis did not answer")]
    Command(#[source] RedisError),
    /// The server answered with an error.
    #[error("redis answered: {0}")]
    Answered(String),
    /// The server answered with what the protocol does not allow for.
    #[error("redis sent {0}")]
    Protocol(&'static str),
    /// The server is part of a cluster, and was not taken for one.
    #[error("redis answered {answer}: it is a cluster; set `redis_type: redis_cluster`")]
    IsCluster { answer: &'static str },
    /// No server of a cluster is known to hold these keys.
    #[error("no node of the redis cluster is known to hold slot {slot}")]
    NoOwner { slot: u16 },
    /// A cluster sent a read from one node to another, and on.
    #[error("redis at `{address}` was said to hold slot {slot}, and does not")]
    Astray { address: RedisAddress, slot: u16 },
    /// More servers are named than any cluster has.
    #[error("the redis cluster names more than {0} nodes")]
    TooManyNodes(usize),
    /// Sentinels do not know the master.
    #[error("the sentinel at `{address}` knows no master `{master}`")]
    NoSuchMaster { address: RedisAddress, master: String },
    /// A sentinel is not believed.
    #[error("the sentinel at `{address}` {why}")]
    Sentinel { address: RedisAddress, why: &'static str },
}

impl Fault {
    pub(super) fn corrupt(self) -> StoreError {
        StoreError::Corrupt(Arc::new(self))
    }
}

/// The error for what may mend itself.
pub(super) fn unavailable(fault: Fault) -> StoreError {
    StoreError::Unavailable(Arc::new(fault))
}

/// Sorts an answer of the server.
pub(super) fn of_server(error: &ServerError) -> StoreError {
    sorted(error, Fault::Answered(error.to_string()))
}

fn sorted(error: &ServerError, fault: Fault) -> StoreError {
    if is_passing(error) { unavailable(fault) } else { StoreError::Refused(Arc::new(fault)) }
}

/// Sorts a failed attempt to connect.
pub(super) fn of_connect(address: &RedisAddress, source: RedisError) -> StoreError {
    let address = address.clone();
    if is_tls(&source) {
        return StoreError::Refused(Arc::new(Fault::Tls { address, source: Box::new(source) }));
    }
    unavailable(Fault::Connect { address, source })
}

/// Sorts an answer to a login.
pub(super) fn of_login(address: &RedisAddress, error: &ServerError) -> StoreError {
    let fault = Fault::Connect { address: address.clone(), source: error.clone().into() };
    sorted(error, fault)
}

/// The error of a server that is part of a cluster, and was not taken for one.
pub(super) fn a_cluster(answer: ServerErrorKind) -> StoreError {
    let answer = match answer {
        ServerErrorKind::Ask => "ASK",
        _ => "MOVED",
    };
    StoreError::Refused(Arc::new(Fault::IsCluster { answer }))
}

/// The error of one server of several.
pub(super) fn of_node(error: StoreError, address: &RedisAddress) -> StoreError {
    match error {
        StoreError::Unavailable(why) => StoreError::NodeUnavailable(why),
        StoreError::TimedOut => {
            StoreError::NodeUnavailable(Arc::new(Fault::Silent { address: address.clone() }))
        }
        other => other,
    }
}

/// Whether TLS is what an error is about: a certificate that is not trusted, or not shown.
fn is_tls(error: &(dyn Error + 'static)) -> bool {
    // What an error wraps is not its source, but that one's source is.
    let shared = error.downcast_ref::<Arc<dyn Error + Send + Sync>>();
    let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    shared.is_some_and(|shared| is_tls(&**shared))
        || wrapped.is_some_and(|wrapped| is_tls(wrapped))
        || is_rustls(error)
        || error.source().is_some_and(is_tls)
}

#[cfg(feature = "tls")]
fn is_rustls(error: &(dyn Error + 'static)) -> bool {
    error.is::<rustls::Error>()
}

#[cfg(not(feature = "tls"))]
fn is_rustls(_: &(dyn Error + 'static)) -> bool {
    false
}

/// Whether a server that answers like this will answer otherwise before long.
pub(super) fn is_passing(error: &ServerError) -> bool {
    match error.kind() {
        Some(kind) if is_passing_kind(kind) => true,
        Some(ServerErrorKind::ResponseError) => {
            error.details().is_some_and(|details| details.contains("max number of clients"))
        }
        // A script that runs and runs; a write that memory does not allow.
        _ => matches!(error.code(), "BUSY" | "OOM"),
    }
}

fn is_passing_kind(kind: ServerErrorKind) -> bool {
    use ServerErrorKind::{BusyLoading, ClusterDown, MasterDown, TryAgain};
    matches!(kind, BusyLoading | MasterDown | ClusterDown | TryAgain)
}

#[cfg(test)]
mod tests {
    use redis::{Value, parse_redis_value};

    use super::*;

    #[test]
    fn what_time_mends_is_an_outage_and_the_rest_is_refused() {
        let check = |answer: &str, outage: bool| {
            let answer = parse_redis_value(format!("-{answer}\r\n").as_bytes()).unwrap();
            let Value::ServerError(error) = answer else { panic!("{answer:?}") };
            let error = of_server(&error);
            assert_eq!(error.is_outage(), outage, "{error:?}");
            assert_eq!(matches!(error, StoreError::Refused(_)), !outage, "{error:?}");
        };
        check("LOADING Redis is loading the dataset in memory", true);
        check("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is 'no'", true);
        check("CLUSTERDOWN The cluster is down", true);
        check("TRYAGAIN Multiple keys request during rehashing of slot", true);
        check("BUSY Redis is busy running a script", true);
        check("ERR max number of clients reached", true);
        check("WRONGTYPE Operation against a key holding the wrong kind of value", false);
        check("NOAUTH Authentication required.", false);
        check("NOPERM User reader has no permissions to run the 'hmget' command", false);
        check("MOVED 3999 127.0.0.1:6381", false);
        check("ERR unknown command 'HMGET'", false);
    }
}
