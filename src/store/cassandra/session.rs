//! From settings to a session of the driver.

use std::{
    net::IpAddr,
    num::NonZeroUsize,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use scylla::{
    client::{
        PoolSize, SelfIdentity,
        execution_profile::{ExecutionProfile, ExecutionProfileHandle},
        session::Session,
        session_builder::SessionBuilder,
    },
    cluster::{Node, metadata::Peer},
    policies::{
        host_filter::HostFilter, load_balancing::DefaultPolicy, retry::FallthroughRetryPolicy,
    },
    statement::{Consistency as Level, Statement},
};
use tokio::net::lookup_host;

use super::{
    CassandraSettings, StoreError,
    error::{self, Fault},
};
use crate::{store::Consistency, tls};

/// A session that was there when it was asked for.
pub(super) struct Live {
    pub(super) session: Session,
    /// Counts the sessions of this process: a later one has a greater number.
    pub(super) number: u64,
    /// The datacenter that is read; none if the nodes name none.
    pub(super) datacenter: Option<String>,
}

/// An idle connection is tried this often, and given up if it stays without an answer for as long:
/// the other side may be gone without a word.
const KEEPALIVE: Duration = Duration::from_millis(1500);
/// Bound on the queries by which the driver learns about the cluster.
const METADATA_TIMEOUT: Duration = Duration::from_secs(5);

static SESSIONS: AtomicU64 = AtomicU64::new(0);

/// Connects. Takes as long as the nodes take: the caller has to bound it.
pub(super) async fn open(settings: &CassandraSettings) -> Result<Live, StoreError> {
    let mut scope = Scope::new(settings);
    let session = builder(settings, &scope)?.build().await;
    let session = session.map_err(|error| error::of_connect(&error))?;
    let known = datacenters(&session);
    let datacenter = match &settings.local_datacenter {
        Some(wanted) if known.is_empty() || known.contains(wanted) => Some(wanted.clone()),
        Some(wanted) => {
            let known = known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            let fault = Fault::UnknownDatacenter { wanted: wanted.clone(), known };
            return Err(StoreError::Refused(Arc::new(fault)));
        }
        None if known.len() > 1 => {
            // Anew, with connections to that one alone.
            let first = first_datacenter(settings, &session).await;
            let local_datacenter = first.or_else(|| known.into_iter().next());
            drop(session);
            let settings = CassandraSettings { local_datacenter, ..settings.clone() };
            return Box::pin(open(&settings)).await;
        }
        None => {
            // A datacenter that is added later need not have the rows yet.
            let only = known.into_iter().next();
            if let Some(name) = &only {
                scope.narrow_to(settings, name);
            }
            only
        }
    };
    let number = SESSIONS.fetch_add(1, Ordering::Relaxed);
    let live = Live { session, number, datacenter };
    if live.connected() == 0 {
        return Err(StoreError::Unavailable(Arc::new(live.no_node())));
    }
    Ok(live)
}

impl Live {
    /// How many nodes of the datacenter there is a connection to.
    pub(super) fn connected(&self) -> usize {
        self.local_nodes(|node| node.is_enabled() && node.is_connected())
    }

    /// Whether some node can be asked when one has just failed, of which that may not be known yet.
    pub(super) fn has_others(&self) -> bool {
        self.connected() > 0 && self.local_nodes(|_| true) > 1
    }

    fn local_nodes(&self, which: impl Fn(&Node) -> bool) -> usize {
        let state = self.session.get_cluster_state();
        let is_local = |node: &Node| match (&self.datacenter, &node.datacenter) {
            (Some(wanted), Some(its)) => wanted == its,
            _ => true,
        };
        state.get_nodes_info().iter().filter(|node| is_local(node) && which(node)).count()
    }

    /// How many nodes the cluster has, in all datacenters.
    pub(super) fn nodes(&self) -> usize {
        self.session.get_cluster_state().get_nodes_info().len()
    }

    /// Asks for a sign of life. Takes as long as a node takes.
    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        let mut statement = Statement::new("SELECT key FROM system.local");
        statement.set_consistency(Level::LocalOne);
        match self.session.query_unpaged(statement, ()).await {
            Ok(_) => Ok(()),
            Err(error) => Err(error::of_execution("system.local", &error).into_error(false, false)),
        }
    }

    fn no_node(&self) -> Fault {
        let datacenter = match &self.datacenter {
            Some(name) => format!("datacenter `{name}`"),
            None => "datacenters".to_owned(),
        };
        Fault::NoNode { datacenter }
    }
}

/// Which nodes a session reads: those of one datacenter, as soon as it is known which.
struct Scope {
    filter: Arc<DatacenterFilter>,
    profile: ExecutionProfileHandle,
}

impl Scope {
    /// Of the datacenter that is set, or as yet of any.
    fn new(settings: &CassandraSettings) -> Self {
        let wanted = settings.local_datacenter.as_ref();
        let filter = DatacenterFilter::default();
        if let Some(name) = wanted {
            filter.narrow_to(name);
        }
        Self { filter: Arc::new(filter), profile: profile(settings, wanted).into_handle() }
    }

    /// Has the session read this datacenter and no other that comes.
    fn narrow_to(&mut self, settings: &CassandraSettings, name: &String) {
        self.filter.narrow_to(name);
        self.profile.map_to_another_profile(profile(settings, Some(name)));
    }
}

/// Lets a session connect to the nodes of a datacenter; to all while none was named.
#[derive(Default)]
struct DatacenterFilter(OnceLock<String>);

impl DatacenterFilter {
    fn narrow_to(&self, name: &str) {
        self.0.get_or_init(|| name.to_owned());
    }

    fn accepts(&self, datacenter: Option<&str>) -> bool {
        self.0.get().is_none_or(|wanted| datacenter == Some(wanted))
    }
}

impl HostFilter for DatacenterFilter {
    fn accept(&self, peer: &Peer) -> bool {
        self.accepts(peer.datacenter.as_deref())
    }
}

fn builder(settings: &CassandraSettings, scope: &Scope) -> Result<SessionBuilder, StoreError> {
    let connections = NonZeroUsize::new(settings.connections).unwrap_or(NonZeroUsize::MIN);
    let mut builder = SessionBuilder::new()
        .pool_size(PoolSize::PerShard(connections))
        .connection_timeout(settings.connect_timeout)
        .hostname_resolution_timeout(Some(settings.connect_timeout.max(Duration::from_secs(1))))
        .keepalive_interval(KEEPALIVE)
        .keepalive_timeout(KEEPALIVE)
        .metadata_request_clientside_timeout(METADATA_TIMEOUT)
        // How the keyspace is replicated says which nodes have a row.
        .keyspaces_to_fetch([&settings.keyspace])
        .fetch_full_schema_metadata(false)
        .custom_identity(
            SelfIdentity::new()
                .with_application_name("larder")
                .with_application_version(env!("CARGO_PKG_VERSION")),
        )
        .host_filter(scope.filter.clone())
        .default_execution_profile_handle(scope.profile.clone());
    for host in &settings.hosts {
        builder = match host.parse::<IpAddr>() {
            Ok(address) => builder.known_node_addr((address, settings.port).into()),
            // Looked up with each session, and when the nodes that it knows are gone.
            Err(_) => builder.known_node(format!("{host}:{}", settings.port)),
        };
    }
    if let Some(login) = &settings.login {
        builder = builder.user(&login.username, &login.password.0);
    }
    if let Some(settings) = &settings.tls {
        let config = tls::client_config(settings);
        let config = config.map_err(|error| StoreError::Refused(Arc::new(Fault::Tls(error))))?;
        builder = builder.tls_context(Some(Arc::new(config)));
    }
    Ok(builder)
}

/// How requests are made: to a replica of the datacenter, once, for as long as the caller waits.
fn profile(settings: &CassandraSettings, datacenter: Option<&String>) -> ExecutionProfile {
    let policy = DefaultPolicy::builder().token_aware(true).permit_dc_failover(false);
    let policy = match datacenter {
        Some(name) => policy.prefer_datacenter(name.clone()),
        None => policy,
    };
    ExecutionProfile::builder()
        .consistency(level(settings.consistency))
        .load_balancing_policy(policy.build())
        .retry_policy(Arc::new(FallthroughRetryPolicy::new()))
        .speculative_execution_policy(None)
        .request_timeout(None)
        .build()
}

fn level(consistency: Consistency) -> Level {
    match consistency {
        Consistency::LocalOne => Level::LocalOne,
        Consistency::One => Level::One,
        Consistency::Two => Level::Two,
        Consistency::Three => Level::Three,
        Consistency::LocalQuorum => Level::LocalQuorum,
        Consistency::Quorum => Level::Quorum,
        Consistency::All => Level::All,
    }
}

/// The datacenters that the nodes name, in order, each once.
fn datacenters(session: &Session) -> Vec<String> {
    let state = session.get_cluster_state();
    let mut names: Vec<_> =
        state.get_nodes_info().iter().filter_map(|node| node.datacenter.clone()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// That of the first host that is a node, as Feast's driver takes it.
async fn first_datacenter(settings: &CassandraSettings, session: &Session) -> Option<String> {
    let state = session.get_cluster_state();
    for host in &settings.hosts {
        let Ok(addresses) = lookup_host((host.as_str(), settings.port)).await else { continue };
        for address in addresses {
            let mut nodes = state.get_nodes_info().iter();
            let node = nodes.find(|node| node.address.ip() == address.ip());
            if let Some(datacenter) = node.and_then(|node| node.datacenter.clone()) {
                return Some(datacenter);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_a_datacenter_that_is_added_later_are_left_alone() {
        let filter = DatacenterFilter::default();
        assert!(filter.accepts(Some("one")) && filter.accepts(Some("two")) && filter.accepts(None));
        filter.narrow_to("one");
        filter.narrow_to("two");
        assert!(filter.accepts(Some("one")));
        assert!(!filter.accepts(Some("two")) && !filter.accepts(None));
    }
}
