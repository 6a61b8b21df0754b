//! What goes wrong with Cassandra, and who can mend it: time, or an operator.

use std::sync::Arc;

use scylla::errors::{
    ConnectionError, ConnectionPoolError, ConnectionSetupRequestErrorKind, DbError, ExecutionError,
    MetadataError, NewSessionError, PrepareError, RequestAttemptError,
};

use super::StoreError;
use crate::tls::TlsError;

/// A failure, with what the driver says of it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// An attempt to connect failed.
    #[error("cassandra cannot be connected to: {0}")]
    Connect(String),
    /// An attempt to connect took too long.
    #[error("cassandra at {hosts} did not accept a connection in time")]
    ConnectTimeout { hosts: String },
    /// TLS cannot be spoken.
    #[error("TLS towards cassandra")]
    Tls(#[source] TlsError),
    /// There is no such datacenter.
    #[error("no node of cassandra is in datacenter `{wanted}`; there is {known}")]
    UnknownDatacenter { wanted: String, known: String },
    /// No node of the datacenter that is read can be connected to.
    #[error("no node of cassandra's {datacenter} can be connected to")]
    NoNode { datacenter: String },
    /// All connections broke off.
    #[error("all connections to cassandra were lost")]
    Lost,
    /// A table cannot be read: it is not there, or not to be read by this role.
    #[error("cassandra does not read table {table}: {why}")]
    Table { table: String, why: String },
    /// A request failed.
    #[error("cassandra: {0}")]
    Request(String),
    /// A request stayed without an answer.
    #[error("cassandra did not answer in time for this row")]
    Late,
    /// What was read is not of the types of Feast's tables.
    #[error("table {table} is not as Feast makes it: {why}")]
    Types { table: String, why: String },
}

/// What became of a request that has no rows to show.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// The connection broke off, or the node that was asked finds too few that have the partition,
    /// or has too much to do: other nodes, and other partitions, may do better.
    Part(Arc<Fault>),
    /// No node can be asked.
    Cluster(Arc<Fault>),
    /// Somebody has to act.
    Refused(Arc<Fault>),
    /// What was read cannot be decoded.
    Corrupt(Arc<Fault>),
    /// No answer came while it was waited for.
    Late,
}

impl Failure {
    /// Whether somebody answered: a cluster that does is none that is gone.
    pub(super) fn is_answer(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Corrupt(_))
    }

    /// The error of one row, when other rows of the same read were answered or not, and when there
    /// are other nodes that can be asked or not.
    pub(super) fn into_error(self, others_answered: bool, other_nodes: bool) -> StoreError {
        match self {
            Self::Part(why) if others_answered || other_nodes => StoreError::NodeUnavailable(why),
            Self::Late if others_answered => StoreError::NodeUnavailable(Arc::new(Fault::Late)),
            Self::Part(why) | Self::Cluster(why) => StoreError::Unavailable(why),
            Self::Late => StoreError::TimedOut,
            Self::Refused(why) => StoreError::Refused(why),
            Self::Corrupt(why) => StoreError::Corrupt(why),
        }
    }
}

/// Sorts a failed read of `table`.
pub(super) fn of_execution(table: &str, error: &ExecutionError) -> Failure {
    match error {
        ExecutionError::LastAttemptError(error) => of_attempt(table, error),
        ExecutionError::PrepareError(error) => of_prepare(table, error),
        ExecutionError::EmptyPlan | ExecutionError::ConnectionPoolError(_) => {
            Failure::Cluster(request(error))
        }
        ExecutionError::BadQuery(_) => refused(table, error),
        _ => Failure::Part(request(error)),
    }
}

/// Whether a node gave a prepared statement another id than it has here, which the driver does not
/// take over: it has to be prepared anew.
pub(super) fn is_of_other_id(error: &ExecutionError) -> bool {
    let ExecutionError::LastAttemptError(error) = error else { return false };
    matches!(error, RequestAttemptError::RepreparedIdChanged { .. })
}

/// Sorts a failure to prepare a read of `table`.
pub(super) fn of_prepare(table: &str, error: &PrepareError) -> Failure {
    match error {
        PrepareError::AllAttemptsFailed { first_attempt } => of_attempt(table, first_attempt),
        PrepareError::ConnectionPoolError(_) => Failure::Cluster(request(error)),
        _ => refused(table, error),
    }
}

fn of_attempt(table: &str, error: &RequestAttemptError) -> Failure {
    match error {
        RequestAttemptError::DbError(kind, message) if !is_passing(kind) => {
            let (table, why) = (table.to_owned(), message.clone());
            Failure::Refused(Arc::new(Fault::Table { table, why }))
        }
        RequestAttemptError::BodyExtensionsParseError(_)
        | RequestAttemptError::CqlResultParseError(_)
        | RequestAttemptError::CqlErrorParseError(_)
        | RequestAttemptError::UnexpectedResponse(_)
        | RequestAttemptError::NonfinishedPagingState => Failure::Corrupt(request(error)),
        RequestAttemptError::SerializationError(_)
        | RequestAttemptError::CqlRequestSerialization(_) => refused(table, error),
        _ => Failure::Part(request(error)),
    }
}

/// Whether a node that answers like this will answer otherwise before long.
fn is_passing(kind: &DbError) -> bool {
    !matches!(
        kind,
        DbError::SyntaxError
            | DbError::Invalid
            | DbError::AlreadyExists { .. }
            | DbError::FunctionFailure { .. }
            | DbError::AuthenticationError
            | DbError::Unauthorized
            | DbError::ConfigError
            | DbError::ProtocolError
    )
}

/// Sorts a failed attempt to connect to the cluster.
pub(super) fn of_connect(error: &NewSessionError) -> StoreError {
    let refused = match error {
        NewSessionError::MetadataError(MetadataError::ConnectionPoolError(
            ConnectionPoolError::Broken { last_connection_error },
        )) => is_refusal(last_connection_error),
        NewSessionError::EmptyKnownNodesList | NewSessionError::IllegalConfig(_) => true,
        _ => false,
    };
    let fault = Arc::new(Fault::Connect(error.to_string()));
    if refused { StoreError::Refused(fault) } else { StoreError::Unavailable(fault) }
}

fn is_refusal(error: &ConnectionError) -> bool {
    use ConnectionSetupRequestErrorKind as Setup;
    match error {
        ConnectionError::ConnectionSetupRequestError(error) => match error.get_error() {
            // What a node says while too few of its fellows know the roles.
            Setup::DbError(DbError::AuthenticationError, message) => {
                !message.contains("Unable to perform authentication")
            }
            Setup::DbError(kind, _) => !is_passing(kind),
            Setup::MissingAuthentication
            | Setup::StartAuthSessionError(_)
            | Setup::AuthChallengeEvaluationError(_)
            | Setup::AuthFinishError(_) => true,
            _ => false,
        },
        // What rustls makes of a certificate that it does not trust.
        ConnectionError::IoError(error) => {
            let source = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
            matches!(source, Some(rustls::Error::InvalidCertificate(_)))
        }
        _ => false,
    }
}

fn request(error: &impl ToString) -> Arc<Fault> {
    Arc::new(Fault::Request(error.to_string()))
}

fn refused(table: &str, error: &impl ToString) -> Failure {
    let (table, why) = (table.to_owned(), error.to_string());
    Failure::Refused(Arc::new(Fault::Table { table, why }))
}

#[cfg(test)]
mod tests {
    use scylla::statement::Consistency;

    use super::*;

    fn of(kind: DbError) -> Failure {
        let error = RequestAttemptError::DbError(kind, "why".to_owned());
        of_execution("t", &ExecutionError::LastAttemptError(error))
    }

    #[test]
    fn what_time_mends_is_a_part_and_the_rest_is_refused() {
        let (consistency, required) = (Consistency::LocalOne, 1);
        for passing in [
            DbError::Unavailable { consistency, required, alive: 0 },
            DbError::ReadTimeout { consistency, required, received: 0, data_present: false },
            DbError::Overloaded,
            DbError::IsBootstrapping,
            DbError::ServerError,
        ] {
            assert!(matches!(of(passing), Failure::Part(_)));
        }
        for lasting in [
            DbError::Invalid,
            DbError::SyntaxError,
            DbError::Unauthorized,
            DbError::AuthenticationError,
        ] {
            assert!(matches!(of(lasting), Failure::Refused(_)));
        }
    }

    #[test]
    fn a_statement_of_another_id_is_told_from_what_time_mends() {
        let error = ExecutionError::LastAttemptError(RequestAttemptError::RepreparedIdChanged {
            statement: "SELECT".to_owned(),
            expected_id: vec![1],
            reprepared_id: vec![2],
        });
        assert!(is_of_other_id(&error));
        assert!(matches!(of_execution("t", &error), Failure::Part(_)));
        let passing = RequestAttemptError::DbError(DbError::Overloaded, "why".to_owned());
        assert!(!is_of_other_id(&ExecutionError::LastAttemptError(passing)));
    }

    #[test]
    fn a_part_is_an_outage_only_where_it_is_the_whole() {
        let fault = || Arc::new(Fault::Lost);
        let kind = |failure: Failure, answered, connected| {
            let error = failure.into_error(answered, connected);
            (error.kind(), error.is_outage())
        };
        let part = ("node_unavailable", false);
        assert_eq!(kind(Failure::Part(fault()), true, false), part);
        assert_eq!(kind(Failure::Part(fault()), false, true), part);
        assert_eq!(kind(Failure::Part(fault()), false, false), ("unavailable", true));
        assert_eq!(kind(Failure::Late, true, true), part);
        assert_eq!(kind(Failure::Late, false, true), ("timeout", true));
        assert_eq!(kind(Failure::Cluster(fault()), true, false), ("unavailable", true));
        assert_eq!(kind(Failure::Refused(fault()), false, false), ("refused", false));
    }
}
