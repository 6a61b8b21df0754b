//! Online stores: where rows come from.
//!
//! A store sends what a layout says and decodes by it. It does not retry and does not cache:
//! both lie above it, once for all stores.

#[cfg(feature = "cassandra")]
pub mod cassandra;
#[cfg(feature = "dynamodb")]
pub mod dynamodb;
pub mod memory;
#[cfg(feature = "redis")]
pub mod redis;
mod settings;
#[cfg(any(feature = "redis", feature = "dynamodb"))]
mod silence;
#[cfg(feature = "sqlite")]
pub mod sqlite;
#[cfg(any(feature = "redis", feature = "cassandra"))]
mod state;

use std::{error::Error, sync::Arc};

use async_trait::async_trait;
use tokio::time::Instant;

pub use self::settings::{
    BadTemplate, CassandraLogin, CassandraSettings, Consistency, DynamoDbSettings, NotBuiltIn,
    RedisAccess, RedisAddress, RedisReadFrom, RedisSentinels, RedisSettings, RedisTopology, Secret,
    SqliteSettings, StoreSettings, TableNameTemplate,
};
use crate::model::{EntityKey, FeatureView, MaybeRow};

/// What is wanted of one view.
#[derive(Clone, Copy, Debug)]
pub struct ViewKeys<'a> {
    /// The view.
    pub view: &'a FeatureView,
    /// The entities, each once.
    pub keys: &'a [EntityKey],
}

/// What a store is told about a read, besides what to read.
#[derive(Clone, Copy, Debug)]
pub struct ReadOptions {
    /// What has come by this time is answered; the caller drops the read soon after.
    pub give_up_at: Instant,
}

/// The rows of a read: for each view and each of its keys, in their order.
pub type Rows = Vec<Vec<Result<MaybeRow, StoreError>>>;

/// A database that holds feature rows in Feast's layout.
#[async_trait]
pub trait OnlineStore: Send + Sync + 'static {
    /// Reads rows of one or more views, in as few round trips as the store allows.
    ///
    /// One result per view and key, in their order: a corrupt row or a missing table fails its
    /// keys only. Dropping the future abandons the read and harms no other.
    async fn read(&self, reads: &[ViewKeys<'_>], options: ReadOptions) -> Rows;

    /// Asks for a sign of life, in the cheapest way that shows that reads would be answered.
    ///
    /// Called in the background while the store is believed to be down. Ends within a second or
    /// so, and not sooner than a connection that stays silent can be told from a slow one.
    async fn probe(&self) -> Result<(), StoreError>;
}

/// Why a store has no answer. Cheap to clone, as every waiter of a flight gets one.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, or broke off. It may answer later.
    #[error("the online store cannot be reached")]
    Unavailable(#[source] Arc<dyn Error + Send + Sync>),
    /// A part of it, such as one node of a cluster, cannot be reached or did not answer in time.
    /// Its other rows can be read.
    #[error("a part of the online store cannot be reached")]
    NodeUnavailable(#[source] Arc<dyn Error + Send + Sync>),
    /// It did not answer in time.
    #[error("the online store did not answer in time")]
    TimedOut,
    /// Too many reads are under way, and too many wait.
    #[error("too many reads of the online store are under way")]
    Overloaded,
    /// It failed often enough that it is not asked until a probe succeeds.
    #[error("the online store is not asked for now: it kept failing")]
    CircuitOpen,
    /// It answered that it cannot do this: a missing table, a refused login. Someone has to act.
    #[error("the online store refused the read")]
    Refused(#[source] Arc<dyn Error + Send + Sync>),
    /// What was read is not what the layout prescribes. Asking again will not help.
    #[error("the online store holds a row that cannot be decoded")]
    Corrupt(#[source] Arc<dyn Error + Send + Sync>),
}

impl StoreError {
    /// Whether this says that the store as a whole is in trouble: what a circuit breaker counts.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::TimedOut => true,
            Self::NodeUnavailable(_)
            | Self::Overloaded
            | Self::CircuitOpen
            | Self::Refused(_)
            | Self::Corrupt(_) => false,
        }
    }

    /// Of a read whose task ended without a result: it panicked.
    pub fn abandoned() -> Self {
        let error: Box<dyn Error + Send + Sync> = "the read ended without a result".into();
        Self::Unavailable(error.into())
    }

    /// The message with those of all its causes.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut error: &dyn Error = self;
        while let Some(source) = error.source() {
            text.push_str(": ");
            text.push_str(&source.to_string());
            error = source;
        }
        text
    }

    /// A word for metrics and for the reason of a stale answer.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::NodeUnavailable(_) => "node_unavailable",
            Self::TimedOut => "timeout",
            Self::Overloaded => "overloaded",
            Self::CircuitOpen => "circuit_open",
            Self::Refused(_) => "refused",
            Self::Corrupt(_) => "corrupt",
        }
    }
}

/// The store that the settings describe. Neither waits nor connects: reads and probes do.
pub fn connect(settings: &StoreSettings) -> Result<Arc<dyn OnlineStore>, NotBuiltIn> {
    settings.check_built_in()?;
    match settings {
        #[cfg(feature = "redis")]
        StoreSettings::Redis(settings) => Ok(Arc::new(redis::RedisStore::new(settings.clone()))),
        #[cfg(feature = "sqlite")]
        StoreSettings::Sqlite(settings) => Ok(Arc::new(sqlite::SqliteStore::new(settings))),
        #[cfg(feature = "cassandra")]
        StoreSettings::Cassandra(settings) => {
            Ok(Arc::new(cassandra::CassandraStore::new(settings.clone())))
        }
        #[cfg(feature = "dynamodb")]
        StoreSettings::DynamoDb(settings) => {
            Ok(Arc::new(dynamodb::DynamoDbStore::new(settings.clone())))
        }
        #[cfg(not(all(
            feature = "redis",
            feature = "sqlite",
            feature = "cassandra",
            feature = "dynamodb"
        )))]
        left_out => Err(NotBuiltIn { kind: left_out.kind() }),
    }
}

/// The same error for every key of a read.
pub fn fail_all(reads: &[ViewKeys<'_>], error: &StoreError) -> Rows {
    reads.iter().map(|read| read.keys.iter().map(|_| Err(error.clone())).collect()).collect()
}

#[cfg(all(test, feature = "redis", not(feature = "tls")))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::tls::TlsSettings;

    #[test]
    fn tls_that_was_left_out_is_refused_by_name() {
        let settings = StoreSettings::Redis(RedisSettings {
            topology: RedisTopology::Cluster(Vec::new()),
            access: RedisAccess {
                db: 0,
                username: None,
                password: None,
                tls: Some(TlsSettings::default()),
                connect_timeout: Duration::from_secs(1),
            },
            read_from: RedisReadFrom::Master,
            connections: 1,
            max_backoff: Duration::from_secs(1),
        });
        assert_eq!(connect(&settings).err(), Some(NotBuiltIn { kind: "tls" }));
    }
}
