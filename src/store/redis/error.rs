//! What goes wrong with Redis, and who can mend it: time, or an operator.

use std::sync::Arc;

use redis::{ErrorKind, RedisError, ServerError, ServerErrorKind};

use super::StoreError;

/// A failure, with what the client library says of it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// An attempt to connect failed.
    #[error("redis at `{address}` cannot be connected to")]
    Connect {
        address: String,
        #[source]
        source: RedisError,
    },
    /// An attempt to connect took too long.
    #[error("redis at `{address}` did not accept a connection in time")]
    ConnectTimeout { address: String },
    /// A connection broke off, or was given up.
    #[error("the connection to redis at `{address}` was lost: {why}")]
    Lost { address: String, why: &'static str },
    /// A command failed on its way.
    #[error("redis did not answer")]
    Command(#[source] RedisError),
    /// The server answered with an error.
    #[error("redis answered: {0}")]
    Answered(String),
    /// The server answered with what the protocol does not allow for.
    #[error("redis sent {0}")]
    Protocol(&'static str),
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
    let fault = Arc::new(Fault::Answered(error.to_string()));
    if is_passing(error) { StoreError::Unavailable(fault) } else { StoreError::Refused(fault) }
}

/// Sorts a failed attempt to connect.
pub(super) fn of_connect(address: String, source: RedisError) -> StoreError {
    let refused = match source.kind() {
        ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig => true,
        // SELECT, the only other command that a login has, names a database that is not there.
        ErrorKind::Server(_) | ErrorKind::Extension => true,
        _ => false,
    };
    let fault = Arc::new(Fault::Connect { address, source });
    if refused { StoreError::Refused(fault) } else { StoreError::Unavailable(fault) }
}

/// Whether a server that answers like this will answer otherwise before long.
fn is_passing(error: &ServerError) -> bool {
    match error.kind() {
        Some(
            ServerErrorKind::BusyLoading
            | ServerErrorKind::MasterDown
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::TryAgain,
        ) => true,
        Some(ServerErrorKind::ResponseError) => {
            error.details().is_some_and(|details| details.contains("max number of clients"))
        }
        // A script that runs and runs; a write that memory does not allow.
        _ => matches!(error.code(), "BUSY" | "OOM"),
    }
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
