//! Cassandra, on a real server: plain, and with TLS and a login.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use larder::{
    layout::cassandra::partition_key,
    model::{EntityKey, FeatureView},
    store::{
        CassandraLogin, CassandraSettings, Consistency, OnlineStore, Secret, StoreError, ViewKeys,
        cassandra::CassandraStore,
    },
    tls::{TlsSettings, Verify},
};
use scylla::{
    client::{session::Session, session_builder::SessionBuilder},
    value::CqlTimestamp,
};
use tokio::{runtime::Handle, task::block_in_place};

use crate::{
    cassandra_proxy::Proxy,
    cassandra_server::{self, Cluster, LOGIN, Server},
    contract_tests,
    golden::{expected_rows, expected_views, values},
    world::{Cells, ONE, TWO, World, ab, key, patient, read, until, until_it_answers, within},
};

contract_tests!(CassandraWorld::plain().await);

mod secure {
    use super::*;

    contract_tests!(CassandraWorld::secure().await);
}

/// A keyspace, and a store that reads it on a way that can be cut.
struct CassandraWorld {
    admin: Session,
    keyspace: String,
    tables: BTreeSet<String>,
    proxy: Proxy,
    server: &'static Server,
    store: CassandraStore,
}

impl CassandraWorld {
    async fn plain() -> Self {
        let server = block_in_place(cassandra_server::plain);
        Self::on(server).await
    }

    async fn secure() -> Self {
        let server = block_in_place(cassandra_server::secure);
        Self::on(server).await
    }

    async fn on(server: &'static Server) -> Self {
        static KEYSPACES: AtomicUsize = AtomicUsize::new(0);
        let admin = server.admin().await;
        let keyspace = format!("Feast_{}", KEYSPACES.fetch_add(1, Ordering::Relaxed));
        let create = format!(
            "CREATE KEYSPACE \"{keyspace}\" WITH replication = \
             {{'class': 'SimpleStrategy', 'replication_factor': 1}}"
        );
        admin.query_unpaged(create, ()).await.unwrap();
        let proxy = Proxy::to(server.port);
        let store = CassandraStore::new(settings(server, &proxy, &keyspace));
        Self { admin, keyspace, tables: BTreeSet::new(), proxy, server, store }
    }

    fn settings(&self) -> CassandraSettings {
        settings(self.server, &self.proxy, &self.keyspace)
    }

    fn table(&self, view: &FeatureView) -> String {
        format!("\"{}\".\"{}_{}\"", self.keyspace, view.project, view.name)
    }

    /// Runs a statement as the user that may do everything.
    fn run(&self, statement: String) {
        now(async { self.admin.query_unpaged(statement, ()).await.unwrap() });
    }

    fn create(&mut self, view: &FeatureView) {
        let table = self.table(view);
        if self.tables.insert(table.clone()) {
            self.run(format!(
                "CREATE TABLE IF NOT EXISTS {table} (entity_key TEXT, feature_name TEXT, \
                 value BLOB, event_ts TIMESTAMP, created_ts TIMESTAMP, \
                 PRIMARY KEY ((entity_key), feature_name)) \
                 WITH CLUSTERING ORDER BY (feature_name ASC)"
            ));
        }
    }
}

/// Waits for a future where nothing may be awaited.
fn now<T>(future: impl Future<Output = T>) -> T {
    block_in_place(|| Handle::current().block_on(future))
}

fn settings(server: &Server, proxy: &Proxy, keyspace: &str) -> CassandraSettings {
    let tls = server.ca.clone().map(|ca| TlsSettings { ca: Some(ca), ..TlsSettings::default() });
    CassandraSettings {
        hosts: vec!["127.0.0.1".into()],
        port: proxy.port(),
        keyspace: keyspace.into(),
        login: tls.is_some().then(|| login(LOGIN, LOGIN)),
        consistency: Consistency::LocalOne,
        local_datacenter: None,
        connections: 1,
        max_concurrent_reads: 256,
        tls,
        connect_timeout: Duration::from_secs(2),
        max_backoff: Duration::from_millis(100),
    }
}

fn login(username: &str, password: &str) -> CassandraLogin {
    CassandraLogin { username: username.into(), password: Secret(password.into()) }
}

impl World for CassandraWorld {
    fn store(&self) -> &dyn OnlineStore {
        &self.store
    }

    fn put(&mut self, view: &FeatureView, key: &EntityKey, cells: Cells<'_>, seconds: i64) {
        self.create(view);
        let insert = format!(
            "INSERT INTO {} (feature_name, value, entity_key, event_ts) VALUES (?, ?, ?, ?)",
            self.table(view)
        );
        for (feature, value) in cells {
            let row = (feature, value, partition_key(key), CqlTimestamp(seconds * 1000));
            now(async { self.admin.query_unpaged(insert.as_str(), row).await.unwrap() });
        }
    }

    fn stop(&mut self) {
        self.proxy.close();
    }

    fn start(&mut self) {
        self.proxy.open();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_that_feast_wrote_is_read() {
    let mut world = CassandraWorld::plain().await;
    let (views, rows) = (expected_views(), expected_rows());
    for row in &rows {
        let cells: Vec<_> =
            row.values.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        world.put(&views[&row.view], &row.key, &cells, row.seconds);
    }
    let keys_of = |name: &String| {
        let rows = rows.iter().filter(|row| row.view == *name);
        rows.map(|row| row.key.clone()).chain([key("gone")]).collect::<Vec<_>>()
    };
    let keys: Vec<_> = views.keys().map(keys_of).collect();
    let reads: Vec<_> =
        views.values().zip(&keys).map(|(view, keys)| ViewKeys { view, keys }).collect();
    let mut found = 0;
    let all = world.store.read(&reads, patient()).await;
    for ((view, keys), read) in views.values().zip(&keys).zip(all) {
        for (key, row) in keys.iter().zip(read) {
            let expected = rows.iter().find(|row| row.view == *view.name && row.key == *key);
            let row = row.unwrap();
            assert_eq!(
                row.as_ref().map(|row| (values(view, row), row.event_timestamp().seconds)),
                expected.map(|row| (row.values.clone(), row.seconds))
            );
            found += usize::from(expected.is_some());
        }
    }
    assert_eq!(found, 17);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_table_fails_its_view_only_and_is_found_when_it_is_made() {
    let mut world = CassandraWorld::plain().await;
    let keys = [key("1"), key("2")];
    let (there, later) = (ab("there"), ab("later"));
    world.put(&there, &keys[0], &[("a", ONE)], 1);
    let reads = [&later, &there].map(|view| ViewKeys { view, keys: &keys });
    let rows = world.store.read(&reads, patient()).await;
    let Err(error @ StoreError::Refused(_)) = &rows[0][0] else { panic!("{rows:?}") };
    let table = world.table(&later);
    assert!(error.chain().contains(&format!("does not read table {table}")), "{}", error.chain());
    assert!(matches!(rows[1][..], [Ok(Some(_)), Ok(None)]), "{rows:?}");

    world.put(&later, &keys[0], &[("a", ONE)], 1);
    let found = async || {
        let rows = read(&world.store, &later, &keys, patient()).await;
        matches!(rows[..], [Ok(Some(_)), Ok(None)])
    };
    until("the table is found", found).await;
    // Dropped, it is missed; made anew, it is found again.
    world.run(format!("DROP TABLE {table}"));
    until("the table is missed", async || {
        let rows = read(&world.store, &later, &keys, patient()).await;
        matches!(rows[..], [Err(StoreError::Refused(_)), _])
    })
    .await;
    world.tables.clear();
    world.put(&later, &keys[0], &[("a", TWO)], 1);
    until("the new table is found", async || {
        let rows = read(&world.store, &later, &keys, patient()).await;
        matches!(&rows[0], Ok(Some(row)) if values(&later, row)["a"] == TWO)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_of_other_types_is_corrupt() {
    let mut world = CassandraWorld::plain().await;
    let (view, good) = (ab("view"), ab("good"));
    let table = world.table(&view);
    world.run(format!(
        "CREATE TABLE {table} (entity_key TEXT, feature_name TEXT, value TEXT, \
         event_ts TIMESTAMP, PRIMARY KEY ((entity_key), feature_name))"
    ));
    let keys = [key("1")];
    world.run(format!(
        "INSERT INTO {table} (entity_key, feature_name, value) VALUES ('{}', 'a', 'text')",
        partition_key(&keys[0])
    ));
    world.put(&good, &keys[0], &[("a", ONE)], 1);
    let reads = [&view, &good].map(|view| ViewKeys { view, keys: &keys });
    let rows = world.store.read(&reads, patient()).await;
    assert!(matches!(rows[0][0], Err(StoreError::Corrupt(_))), "{rows:?}");
    assert!(matches!(rows[1][0], Ok(Some(_))), "{rows:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_whose_values_have_expired_is_no_row() {
    let mut world = CassandraWorld::plain().await;
    let (view, keys) = (ab("view"), ["1", "2"].map(key));
    world.put(&view, &keys[1], &[("a", ONE)], 1);
    world.run(format!(
        "INSERT INTO {} (entity_key, feature_name, value, event_ts) \
         VALUES ('{}', 'a', 0x2001, 5000) USING TTL 1",
        world.table(&view),
        partition_key(&keys[0])
    ));
    until("the row expires", async || {
        let rows = read(&world.store, &view, &keys, patient()).await;
        matches!(rows[..], [Ok(None), Ok(Some(_))])
    })
    .await;
}

/// Counted on the wire: as many as may be, and no more, are sent before the first is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_are_read_at_once_up_to_the_bound() {
    let mut world = CassandraWorld::plain().await;
    let views = ["one", "two", "three"].map(ab);
    let keys: Vec<_> = (0..500_u16).map(|entity| key(entity.to_be_bytes())).collect();
    for view in &views {
        world.put(view, &keys[7], &[("a", ONE)], 1);
    }
    let bound = 200;
    let settings = CassandraSettings { max_concurrent_reads: bound, ..world.settings() };
    let store = Arc::new(CassandraStore::new(settings));
    for view in &views {
        assert!(read(&*store, view, &keys[..1], patient()).await[0].is_ok());
    }
    let before = world.proxy.executed();
    world.proxy.hold(true);
    // Two readers share the bound.
    let readers: Vec<_> = [0, 1]
        .map(|_| {
            let (store, views, keys) = (store.clone(), views.clone(), keys.clone());
            tokio::spawn(async move {
                let reads = views.each_ref().map(|view| ViewKeys { view, keys: &keys });
                store.read(&reads, patient()).await
            })
        })
        .into();
    let sent = || world.proxy.executed() - before;
    until("the bound is reached", async || sent() >= bound).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(sent(), bound);
    world.proxy.hold(false);
    for reader in readers {
        for rows in reader.await.unwrap() {
            let found: Vec<_> =
                (0..rows.len()).filter(|at| matches!(rows[*at], Ok(Some(_)))).collect();
            assert_eq!(found, [7], "{rows:?}");
            assert!(rows.iter().all(Result::is_ok), "{rows:?}");
        }
    }
    assert_eq!(sent(), 2 * 3 * 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_came_in_time_are_kept() {
    let mut world = CassandraWorld::plain().await;
    let (there, slow) = (ab("there"), ab("slow"));
    let keys = [key("1")];
    world.put(&there, &keys[0], &[("a", ONE)], 1);
    world.put(&slow, &keys[0], &[("a", ONE)], 1);
    // One at a time, and nothing of the second is answered.
    let settings = CassandraSettings { max_concurrent_reads: 1, ..world.settings() };
    let store = CassandraStore::new(settings);
    for view in [&there, &slow] {
        assert!(matches!(read(&store, view, &keys, patient()).await[0], Ok(Some(_))));
    }
    world.proxy.hold_at(world.proxy.executed() + 2);
    let reads = [&there, &slow].map(|view| ViewKeys { view, keys: &keys });
    let started = Instant::now();
    let rows = store.read(&reads, within(Duration::from_millis(500))).await;
    let took = started.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert!(matches!(rows[0][0], Ok(Some(_))), "{rows:?}");
    assert!(matches!(rows[1][0], Err(StoreError::NodeUnavailable(_))), "{rows:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_server_is_given_up_and_found_again() {
    let mut world = CassandraWorld::plain().await;
    let (view, keys) = (ab("view"), [key("1")]);
    world.put(&view, &keys[0], &[("a", ONE)], 1);
    until_it_answers(&world.store).await;
    assert!(matches!(read(&world.store, &view, &keys, patient()).await[0], Ok(Some(_))));
    world.proxy.hold(true);
    let started = Instant::now();
    let rows = read(&world.store, &view, &keys, within(Duration::from_millis(150))).await;
    assert!(matches!(rows[0], Err(StoreError::TimedOut)), "{rows:?}");
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    let probe = world.store.probe().await;
    assert!(probe.is_err_and(|error| error.is_outage()));
    until("reads fail at once", async || {
        let started = Instant::now();
        let rows = read(&world.store, &view, &keys, within(Duration::from_millis(150))).await;
        matches!(rows[0], Err(StoreError::Unavailable(_)))
            && started.elapsed() < Duration::from_millis(75)
    })
    .await;
    world.proxy.hold(false);
    until_it_answers(&world.store).await;
    assert!(matches!(read(&world.store, &view, &keys, patient()).await[0], Ok(Some(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_cut_are_made_again() {
    let mut world = CassandraWorld::plain().await;
    let (view, keys) = (ab("view"), [key("1")]);
    world.put(&view, &keys[0], &[("a", ONE)], 1);
    assert!(matches!(read(&world.store, &view, &keys, patient()).await[0], Ok(Some(_))));
    for _ in 0..3 {
        world.proxy.cut();
        until_it_answers(&world.store).await;
        until("rows are read", async || {
            matches!(read(&world.store, &view, &keys, patient()).await[0], Ok(Some(_)))
        })
        .await;
    }
}

/// The server says that there is another node of it, in a datacenter of its own, which has a part of
/// the rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_datacenter_that_is_added_later_is_not_read() {
    let mut world = CassandraWorld::plain().await;
    let (view, keys) = (ab("view"), (0..40_u8).map(|entity| key([entity])).collect::<Vec<_>>());
    for key in &keys {
        world.put(&view, key, &[("a", ONE)], 1);
    }
    let all_are_read = async || {
        let rows = read(&world.store, &view, &keys, patient()).await;
        rows.iter().all(|row| matches!(row, Ok(Some(_))))
    };
    until("all rows are read", all_are_read).await;
    let address = (Ipv4Addr::LOCALHOST, world.proxy.port()).into();
    let witness = SessionBuilder::new().known_node_addr(address).build().await.unwrap();

    let added = world.proxy.beside(Ipv4Addr::new(127, 0, 0, 9));
    world.run(
        "INSERT INTO system.peers (peer, rpc_address, data_center, rack, host_id, schema_version, \
         release_version, tokens) VALUES ('127.0.0.9', '127.0.0.9', 'added', 'r', uuid(), uuid(), \
         '5.0.0', {'4611686018427387904'})"
            .into(),
    );
    world.proxy.announce();
    until("a session of any datacenter is connected to the new node", async || {
        let state = witness.get_cluster_state();
        state.get_nodes_info().iter().filter(|node| node.is_connected()).count() == 2
    })
    .await;
    for _ in 0..20 {
        assert!(all_are_read().await);
    }
    assert_eq!(added.executed(), 0);
    world.run("DELETE FROM system.peers WHERE peer = '127.0.0.9'".into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_set_up_wrong_is_refused_with_its_cause() {
    let mut world = CassandraWorld::secure().await;
    let (view, keys) = (ab("view"), [key("1")]);
    world.put(&view, &keys[0], &[("a", ONE)], 1);
    let (right, port) = (world.settings(), world.server.port);
    let why = async |settings: CassandraSettings| {
        let store = CassandraStore::new(CassandraSettings { port, ..settings });
        let mut rows = read(&store, &view, &keys, patient()).await;
        match rows.remove(0) {
            Err(error @ StoreError::Refused(_)) => error.chain(),
            other => panic!("{other:?}"),
        }
    };
    let of = |change: fn(&mut CassandraSettings)| {
        let mut settings = right.clone();
        change(&mut settings);
        settings
    };
    let chain = why(of(|it| it.login = Some(login(LOGIN, "Wrong-Word")))).await;
    assert!(chain.contains("password are incorrect") && !chain.contains("Wrong-Word"), "{chain}");
    let chain = why(of(|it| it.login = None)).await;
    assert!(chain.contains("Authentication is required"), "{chain}");
    let chain = why(of(|it| it.keyspace = "nowhere".into())).await;
    assert!(chain.contains("\"nowhere\".\"p_view\""), "{chain}");
    let chain = why(of(|it| it.local_datacenter = Some("far".into()))).await;
    assert!(chain.contains("`far`; there is `datacenter1`"), "{chain}");
    let chain = why(of(|it| it.tls = Some(TlsSettings::default()))).await;
    assert!(chain.contains("certificate"), "{chain}");
    let chain = why(of(|it| it.tls.as_mut().unwrap().ca = Some("/nowhere/ca.pem".into()))).await;
    assert!(chain.contains("/nowhere/ca.pem"), "{chain}");

    // Whose role may log in and nothing else is told which table it cannot read.
    world.run("CREATE ROLE IF NOT EXISTS idle WITH PASSWORD = 'idle' AND LOGIN = true".into());
    let chain = why(of(|it| it.login = Some(login("idle", "idle")))).await;
    assert!(chain.contains("p_view") && chain.contains("permission"), "{chain}");

    let unchecked = of(|it| {
        it.tls = Some(TlsSettings { verify: Verify::Nothing, ..TlsSettings::default() });
        it.local_datacenter = Some("datacenter1".into());
    });
    let store = CassandraStore::new(CassandraSettings { port, ..unchecked });
    let rows = read(&store, &view, &keys, patient()).await;
    assert!(matches!(rows[0], Ok(Some(_))), "{rows:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_cql_to_a_server_of_tls_is_an_outage() {
    let world = CassandraWorld::secure().await;
    let settings = CassandraSettings { tls: None, ..world.settings() };
    let store = CassandraStore::new(settings);
    let rows = read(&store, &ab("view"), &[key("1")], within(Duration::from_secs(12))).await;
    assert!(rows[0].as_ref().is_err_and(StoreError::is_outage), "{rows:?}");
}

/// Each row is on one of two nodes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_gone_fails_its_rows_only() {
    let mut cluster = block_in_place(Cluster::start);
    let address = (Ipv4Addr::LOCALHOST, cluster.port).into();
    let admin = SessionBuilder::new().known_node_addr(address).build().await.unwrap();
    until("both nodes are known", async || {
        admin.refresh_metadata().await.unwrap();
        let state = admin.get_cluster_state();
        state.get_nodes_info().iter().filter(|node| node.is_connected()).count() == 2
    })
    .await;
    let (view, keys) = (ab("view"), (0..40_u8).map(|entity| key([entity])).collect::<Vec<_>>());
    for statement in [
        "CREATE KEYSPACE ks WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}",
        "CREATE TABLE ks.p_view (entity_key TEXT, feature_name TEXT, value BLOB, \
         event_ts TIMESTAMP, PRIMARY KEY ((entity_key), feature_name))",
    ] {
        admin.query_unpaged(statement, ()).await.unwrap();
    }
    let insert = "INSERT INTO ks.p_view (entity_key, feature_name, value) VALUES (?, 'a', 0x2001)";
    for key in &keys {
        until("a row is written", async || {
            admin.query_unpaged(insert, (partition_key(key),)).await.is_ok()
        })
        .await;
    }
    let store = CassandraStore::new(CassandraSettings {
        hosts: vec!["127.0.0.1".into()],
        port: cluster.port,
        keyspace: "ks".into(),
        login: None,
        consistency: Consistency::LocalOne,
        local_datacenter: Some("datacenter1".into()),
        connections: 1,
        max_concurrent_reads: 256,
        tls: None,
        connect_timeout: Duration::from_secs(2),
        max_backoff: Duration::from_millis(100),
    });
    let all_are_read = async || {
        let rows = read(&store, &view, &keys, patient()).await;
        rows.iter().all(|row| matches!(row, Ok(Some(_))))
    };
    until("all rows are read", all_are_read).await;

    block_in_place(|| cluster.kill());
    let mut lost = Vec::new();
    for _ in 0..3 {
        let rows = read(&store, &view, &keys, within(Duration::from_secs(1))).await;
        lost = (0..rows.len()).filter(|at| rows[*at].is_err()).collect();
        assert!(!lost.is_empty() && lost.len() < keys.len(), "{rows:?}");
        for at in &lost {
            assert!(matches!(rows[*at], Err(StoreError::NodeUnavailable(_))), "{:?}", rows[*at]);
        }
    }
    // Alone, too, once the other node knows.
    let one = &keys[lost[0]..=lost[0]];
    until("a lost row is a part of the store", async || {
        let rows = read(&store, &view, one, within(Duration::from_secs(1))).await;
        matches!(rows[0], Err(StoreError::NodeUnavailable(_)))
    })
    .await;
    assert!(store.probe().await.is_ok());

    block_in_place(|| cluster.restart());
    until("all rows are read again", all_are_read).await;
}
