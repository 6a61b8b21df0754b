//! What is of Cassandra and ScyllaDB alone.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{config::units::Auto, store::Consistency, tls::Verify};

/// What is of Cassandra and ScyllaDB alone.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct CassandraSection {
    /// How many replicas have to agree on a row. `auto`: what Feast reads with.
    pub consistency: ConsistencyLevel,
    /// The datacenter whose nodes are read, and no others. `auto`: Feast's `local_dc`, else that of
    /// the first host.
    pub local_datacenter: Auto<String>,
    /// Connections to each node of Cassandra, or to each shard of a node of ScyllaDB.
    #[schemars(range(min = 1, max = 64))]
    pub connections: usize,
    /// Entities that are read at once, each of them once for each of its views.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_concurrent_reads: usize,
    /// TLS, of which Feast's options know nothing.
    pub tls: CassandraTlsSection,
}

/// How many replicas have to agree on a row.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ConsistencyLevel {
    /// As Feast: local_one for Cassandra, local_quorum for ScyllaDB.
    #[default]
    Auto,
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

/// TLS, of which Feast's options know nothing.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct CassandraTlsSection {
    /// Whether the nodes speak TLS.
    pub enabled: bool,
    /// A PEM file of certificate authorities. Empty: those of the system.
    pub ca: String,
    /// A PEM file of the certificate that larder shows. Empty: none.
    pub certificate: String,
    /// A PEM file of its key, not encrypted.
    pub key: String,
    /// What is asked of the nodes' certificates.
    pub verify: CertificateCheck,
}

/// What is asked of a server's certificate.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateCheck {
    /// That a trusted authority issued it, for the address of the node.
    #[default]
    Full,
    /// That a trusted authority issued it, for whatever name.
    Authority,
    /// Nothing: whoever is on the way can read and change what is sent.
    Nothing,
}

impl Default for CassandraSection {
    fn default() -> Self {
        Self {
            consistency: ConsistencyLevel::default(),
            local_datacenter: Auto::default(),
            connections: 1,
            max_concurrent_reads: 256,
            tls: CassandraTlsSection::default(),
        }
    }
}

impl ConsistencyLevel {
    /// The level, or what Feast reads with.
    pub(in crate::config) fn or(self, feast: Consistency) -> Consistency {
        match self {
            Self::Auto => feast,
            Self::LocalOne => Consistency::LocalOne,
            Self::One => Consistency::One,
            Self::Two => Consistency::Two,
            Self::Three => Consistency::Three,
            Self::LocalQuorum => Consistency::LocalQuorum,
            Self::Quorum => Consistency::Quorum,
            Self::All => Consistency::All,
        }
    }
}

impl From<CertificateCheck> for Verify {
    fn from(check: CertificateCheck) -> Self {
        match check {
            CertificateCheck::Full => Self::Full,
            CertificateCheck::Authority => Self::Authority,
            CertificateCheck::Nothing => Self::Nothing,
        }
    }
}
