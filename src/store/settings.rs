//! What each store needs to know to connect. Plain data, there whatever is built in.

use std::{fmt, path::PathBuf, time::Duration};

pub use crate::model::Secret;
use crate::tls::TlsSettings;

/// A kind of store, or TLS, that was left out when this larder was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this larder was built without `{kind}`; build it with `--features {kind}`")]
pub struct NotBuiltIn {
    /// The kind of store, or `tls`; also the name of its Cargo feature.
    pub kind: &'static str,
}

pub use crate::layout::dynamodb::{BadTemplate, TableNameTemplate};

/// One configured store.
#[allow(clippy::large_enum_variant, reason = "there is one for each store")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreSettings {
    /// Redis, and what speaks it.
    Redis(RedisSettings),
    /// A SQLite file.
    Sqlite(SqliteSettings),
    /// Cassandra, and ScyllaDB.
    Cassandra(CassandraSettings),
    /// Amazon DynamoDB, and what speaks it.
    DynamoDb(DynamoDbSettings),
}

/// One or more Redis servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisSettings {
    /// Where the servers are, and how they belong together.
    pub topology: RedisTopology,
    /// How those that hold rows are logged in to.
    pub access: RedisAccess,
    /// Which servers are read.
    pub read_from: RedisReadFrom,
    /// Connections to each server. One socket is one queue: with two, a large reply does not delay
    /// all others.
    pub connections: usize,
    /// The longest pause between attempts to connect.
    pub max_backoff: Duration,
}

/// Where Redis servers are, and how they belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisTopology {
    /// One server, whatever its role.
    Single(RedisAddress),
    /// A cluster, of which these nodes tell the others.
    Cluster(Vec<RedisAddress>),
    /// A master that sentinels watch over.
    Sentinel(RedisSentinels),
}

/// Sentinels, and whom they are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisSentinels {
    /// The sentinels.
    pub sentinels: Vec<RedisAddress>,
    /// How they are logged in to, which is not how their master is.
    pub access: RedisAccess,
    /// Their name for the master.
    pub master: String,
    /// The master's host, whatever they say.
    pub force_host: Option<String>,
    /// A sentinel that sees fewer others is not believed.
    pub min_other_sentinels: u64,
}

/// A server's host name or IP address, and its TCP port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RedisAddress {
    /// The host.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// How a Redis server is logged in to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisAccess {
    /// The database number.
    pub db: i64,
    /// The ACL user; the default user if there is none.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// TLS, where it is spoken.
    pub tls: Option<TlsSettings>,
    /// How long one attempt to connect may take.
    pub connect_timeout: Duration,
}

/// Which of the servers that hold a row are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RedisReadFrom {
    /// Masters, which have what was written last.
    #[default]
    Master,
    /// Replicas that are in step with their master, or else the master.
    PreferReplica,
}

/// A SQLite file that Feast wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqliteSettings {
    /// The file, as an absolute path or relative to the working directory.
    pub path: PathBuf,
    /// Connections, each of which reads on a thread of its own.
    pub connections: usize,
}

/// A cluster of Cassandra or ScyllaDB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CassandraSettings {
    /// Names or addresses of some of its nodes; the others are found.
    pub hosts: Vec<String>,
    /// The TCP port of CQL.
    pub port: u16,
    /// The keyspace of Feast's tables.
    pub keyspace: String,
    /// Who reads; nobody in particular if the cluster does not ask.
    pub login: Option<CassandraLogin>,
    /// How many replicas have to agree on a row.
    pub consistency: Consistency,
    /// The datacenter whose nodes are read, and no others; that of the first host if there is none.
    pub local_datacenter: Option<String>,
    /// Connections to each node of Cassandra, or to each shard of a node of ScyllaDB.
    pub connections: usize,
    /// Partitions that are read at once.
    pub max_concurrent_reads: usize,
    /// TLS, if the nodes speak it.
    pub tls: Option<TlsSettings>,
    /// How long one attempt to connect to a node may take.
    pub connect_timeout: Duration,
    /// The longest pause between attempts to connect to the cluster.
    pub max_backoff: Duration,
}

/// A role of Cassandra and its password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CassandraLogin {
    /// The role.
    pub username: String,
    /// Its password.
    pub password: Secret,
}

/// How many replicas have to agree on a row that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// One of the local datacenter.
    LocalOne,
    /// One.
    One,
    /// Two.
    Two,
    /// Three.
    Three,
    /// Most of the local datacenter.
    LocalQuorum,
    /// Most.
    Quorum,
    /// All.
    All,
}
/// DynamoDB in one region. Who larder is to it, AWS's usual places say: no setting does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DynamoDbSettings {
    /// The region, which is part of every signature.
    pub region: String,
    /// Where it is asked, as a URL; the region's public endpoint if there is none.
    pub endpoint_url: Option<String>,
    /// How tables are named.
    pub table_name_template: TableNameTemplate,
    /// Whether reads see all writes before them. They cost twice as much.
    pub consistent_reads: bool,
    /// The keys of one `BatchGetItem`, 1 to 100.
    pub batch_size: usize,
    /// Calls under way at once, each of which has a connection.
    pub max_calls: usize,
    /// How long one attempt to connect may take.
    pub connect_timeout: Duration,
}

impl StoreSettings {
    /// Whether this larder was built with what this store needs.
    pub fn check_built_in(&self) -> Result<(), NotBuiltIn> {
        if let Self::Redis(settings) = self
            && settings.speaks_tls()
            && !cfg!(feature = "tls")
        {
            return Err(NotBuiltIn { kind: "tls" });
        }
        let built_in = match self {
            Self::Redis(_) => cfg!(feature = "redis"),
            Self::Sqlite(_) => cfg!(feature = "sqlite"),
            Self::Cassandra(_) => cfg!(feature = "cassandra"),
            Self::DynamoDb(_) => cfg!(feature = "dynamodb"),
        };
        if built_in { Ok(()) } else { Err(NotBuiltIn { kind: self.kind() }) }
    }

    /// The kind of store, which is also the name of its Cargo feature.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Redis(_) => "redis",
            Self::Sqlite(_) => "sqlite",
            Self::Cassandra(_) => "cassandra",
            Self::DynamoDb(_) => "dynamodb",
        }
    }

    /// Whether Feast gives each version of a view a place of its own.
    pub fn keeps_versions(&self) -> bool {
        match self {
            Self::Redis(_) | Self::Sqlite(_) | Self::DynamoDb(_) => true,
            Self::Cassandra(_) => false,
        }
    }
}

impl RedisSettings {
    /// Whether any of the servers, or sentinels, is spoken to by TLS.
    pub fn speaks_tls(&self) -> bool {
        let of_sentinels = match &self.topology {
            RedisTopology::Sentinel(sentinels) => sentinels.access.tls.is_some(),
            RedisTopology::Single(_) | RedisTopology::Cluster(_) => false,
        };
        self.access.tls.is_some() || of_sentinels
    }
}

impl fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}
