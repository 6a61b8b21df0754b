//! A Redis cluster, on real servers.

use std::time::{Duration, Instant};

use larder::{
    layout::redis::hash_key,
    model::{EntityKey, FeatureView},
    store::{OnlineStore, RedisReadFrom, StoreError, ViewKeys, redis::RedisStore},
};
use redis::{Connection, cmd};

use crate::{
    contract_tests,
    redis_nodes::{ClusterServers, Hash, hash, wait},
    redis_server::RedisServer,
    world::{Cells, ONE, TWO, World, ab, key, patient, read, until, until_it_answers},
};

mod masters {
    use super::*;
    contract_tests!(ClusterWorld::new(RedisReadFrom::Master));
}

mod replicas {
    use super::*;
    contract_tests! {
        ClusterWorld::new(RedisReadFrom::PreferReplica),
        rows_come_in_the_order_of_views_and_keys
        nulls_and_absences_are_told_apart
        a_corrupt_value_fails_its_row_only
        a_store_that_goes_down_fails_at_once_and_recovers
    }
}

struct ClusterWorld {
    servers: ClusterServers,
    store: RedisStore,
    written: Vec<Hash>,
}

impl ClusterWorld {
    fn new(read_from: RedisReadFrom) -> Self {
        let servers = ClusterServers::start();
        let mut settings = servers.settings();
        settings.read_from = read_from;
        Self { servers, store: RedisStore::new(settings), written: Vec::new() }
    }
}

impl World for ClusterWorld {
    fn store(&self) -> &dyn OnlineStore {
        &self.store
    }

    fn put(&mut self, view: &FeatureView, key: &EntityKey, cells: Cells<'_>, seconds: i64) {
        let hash = hash(view, key, cells, seconds);
        self.servers.put(&hash);
        self.written.push(hash);
    }

    fn stop(&mut self) {
        self.servers.stop();
    }

    fn start(&mut self) {
        self.servers.start_again();
        self.written.iter().for_each(|hash| self.servers.put(hash));
    }
}

/// Keys of one entity on each of the masters, which are those at the same place.
fn one_key_each(servers: &ClusterServers, view: &FeatureView) -> (Vec<usize>, Vec<EntityKey>) {
    let masters = servers.masters();
    assert_eq!(masters.len(), 3);
    let of = |master: &usize| {
        let owned = |key: &EntityKey| servers.owner(&hash_key(key, &view.project)) == *master;
        (0..200).map(|number| key([number])).find(owned).expect("a key of each master")
    };
    let keys = masters.iter().map(of).collect();
    (masters, keys)
}

#[tokio::test]
async fn all_views_of_an_entity_are_one_command_to_its_node() {
    let mut world = ClusterWorld::new(RedisReadFrom::Master);
    let views = ["one", "two", "three"].map(ab);
    let keys: Vec<_> = (0..50_u8).map(|entity| key([entity])).collect();
    for key in &keys {
        world.put(&views[1], key, &[("a", ONE)], 1);
    }
    let reads = views.each_ref().map(|view| ViewKeys { view, keys: &keys });
    let rows = world.store.read(&reads, patient()).await;
    assert!(rows[1].iter().all(|row| matches!(row, Ok(Some(_)))), "{rows:?}");
    assert!(rows[0].iter().chain(&rows[2]).all(|row| matches!(row, Ok(None))), "{rows:?}");
    let masters = world.servers.masters();
    let hmgets: Vec<_> = world.servers.nodes.iter().map(RedisServer::hmgets).collect();
    assert_eq!(hmgets.iter().sum::<u64>(), 50, "{hmgets:?}");
    assert!(masters.iter().all(|node| hmgets[*node] > 0), "{hmgets:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_are_read_where_they_are_preferred() {
    let mut world = ClusterWorld::new(RedisReadFrom::PreferReplica);
    let view = ab("view");
    let keys: Vec<_> = (0..30_u8).map(|entity| key([entity])).collect();
    for key in &keys {
        world.put(&view, key, &[("a", ONE)], 1);
    }
    let masters = world.servers.masters();
    // Until there are connections to replicas, masters are read.
    until("replicas answer all", || async {
        let of_masters =
            || -> u64 { masters.iter().map(|at| world.servers.nodes[*at].hmgets()).sum() };
        let before = of_masters();
        let rows = read(&world.store, &view, &keys, patient()).await;
        assert!(rows.iter().all(|row| matches!(row, Ok(Some(_)))), "{rows:?}");
        of_masters() == before
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_moves_is_read_all_the_while() {
    let mut world = ClusterWorld::new(RedisReadFrom::Master);
    let view = ab("view");
    let (masters, _) = one_key_each(&world.servers, &view);
    // Two keys of one slot, of which one moves first.
    let keys = ["{tag}1", "{tag}2"].map(key);
    world.put(&view, &keys[0], &[("a", ONE)], 1);
    world.put(&view, &keys[1], &[("a", TWO)], 2);
    let answers = async |world: &ClusterWorld| {
        let rows = read(&world.store, &view, &keys, patient()).await;
        let seconds = rows.iter().map(|row| {
            let row = row.as_ref().unwrap_or_else(|error| panic!("{}", error.chain()));
            row.as_ref().map(|row| row.event_timestamp().seconds)
        });
        assert_eq!(seconds.collect::<Vec<_>>(), [Some(1), Some(2)]);
    };
    answers(&world).await;

    let hash = hash_key(&keys[0], &view.project);
    let from = world.servers.owner(&hash);
    let to = *masters.iter().find(|master| **master != from).unwrap();
    let nodes = &world.servers.nodes;
    let (mut source, mut target) = (nodes[from].admin(), nodes[to].admin());
    let id =
        |admin: &mut Connection| -> String { cmd("CLUSTER").arg("MYID").query(admin).unwrap() };
    let (source_id, target_id) = (id(&mut source), id(&mut target));
    let slot: u16 = cmd("CLUSTER").arg("KEYSLOT").arg(&hash).query(&mut source).unwrap();
    let set = |admin: &mut Connection, state: &str, id: &str| {
        let () = cmd("CLUSTER").arg("SETSLOT").arg(slot).arg(state).arg(id).query(admin).unwrap();
    };
    set(&mut target, "IMPORTING", &source_id);
    set(&mut source, "MIGRATING", &target_id);
    let migrate = |source: &mut Connection, key: &EntityKey| {
        let mut migrate = cmd("MIGRATE");
        migrate.arg("127.0.0.1").arg(nodes[to].port).arg(hash_key(key, &view.project));
        let () = migrate.arg(0).arg(10_000).query(source).unwrap();
    };
    let errors = |node: usize, kind: &str| {
        nodes[node].info("errorstats").matches(&format!("errorstat_{kind}:")).count()
    };
    migrate(&mut source, &keys[0]);
    answers(&world).await;
    assert_eq!(errors(from, "ASK"), 1, "the key that moved was asked for where it is");
    migrate(&mut source, &keys[1]);
    answers(&world).await;

    for node in
        masters.iter().copied().filter(|node| *node != from && *node != to).chain([to, from])
    {
        set(&mut nodes[node].admin(), "NODE", &target_id);
    }
    answers(&world).await;
    assert_eq!(errors(from, "MOVED"), 1, "the old owner named the new one");
    until("the map is right again", || async {
        let before = nodes[from].hmgets();
        answers(&world).await;
        nodes[from].hmgets() == before
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_is_killed_takes_its_own_keys_only_and_its_replica_takes_over() {
    let mut world = ClusterWorld::new(RedisReadFrom::Master);
    let view = ab("view");
    let (masters, keys) = one_key_each(&world.servers, &view);
    for key in &keys {
        world.put(&view, key, &[("a", ONE)], 1);
    }
    until_it_answers(&world.store).await;
    let rows = read(&world.store, &view, &keys, patient()).await;
    assert!(rows.iter().all(|row| matches!(row, Ok(Some(_)))), "{rows:?}");

    world.servers.nodes[masters[0]].kill();
    let started = Instant::now();
    let rows = read(&world.store, &view, &keys, patient()).await;
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert!(matches!(rows[0], Err(StoreError::NodeUnavailable(_))), "{rows:?}");
    assert!(rows[1..].iter().all(|row| matches!(row, Ok(Some(_)))), "{rows:?}");
    assert!(world.store.probe().await.is_ok(), "the others are there");

    let replica_has_taken_over = || world.servers.masters().len() == 3;
    wait("a replica takes over", replica_has_taken_over);
    let taken_over = Instant::now();
    until("all rows are read", || async {
        let rows = read(&world.store, &view, &keys, patient()).await;
        assert!(!rows.iter().any(|row| matches!(row, Ok(None))), "no row is absent: {rows:?}");
        rows.iter().all(|row| matches!(row, Ok(Some(_))))
    })
    .await;
    // The cluster itself may need a while until it agrees.
    assert!(taken_over.elapsed() < Duration::from_secs(5), "{:?}", taken_over.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_frozen_costs_its_own_keys_only() {
    let mut world = ClusterWorld::new(RedisReadFrom::Master);
    let view = ab("view");
    let (masters, keys) = one_key_each(&world.servers, &view);
    for key in &keys {
        world.put(&view, key, &[("a", ONE)], 1);
    }
    until_it_answers(&world.store).await;
    let rows = read(&world.store, &view, &keys, patient()).await;
    assert!(rows.iter().all(|row| matches!(row, Ok(Some(_)))), "{rows:?}");
    world.servers.nodes[masters[1]].freeze();
    let started = Instant::now();
    let soon = crate::world::within(Duration::from_millis(300));
    let rows = read(&world.store, &view, &keys, soon).await;
    assert!(started.elapsed() < Duration::from_millis(1300), "{:?}", started.elapsed());
    assert!(matches!(rows[1], Err(StoreError::NodeUnavailable(_))), "{rows:?}");
    assert!(matches!((&rows[0], &rows[2]), (Ok(Some(_)), Ok(Some(_)))), "{rows:?}");
    // Two of three are not the whole either, though a read asks no other.
    world.servers.nodes[masters[0]].freeze();
    let soon = crate::world::within(Duration::from_millis(300));
    let rows = read(&world.store, &view, &keys[..2], soon).await;
    let of_nodes = |row| matches!(row, &Err(StoreError::NodeUnavailable(_)));
    assert!(rows.iter().all(of_nodes), "{rows:?}");
    assert!(world.store.probe().await.is_ok(), "one is there");
    [masters[0], masters[1]].iter().for_each(|node| world.servers.nodes[*node].thaw());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_no_cluster_and_one_that_was_not_taken_for_one_are_named() {
    let single = RedisServer::start();
    let mut settings = single.settings();
    let seeds = vec![crate::redis_server::at(single.port)];
    settings.topology = larder::store::RedisTopology::Cluster(seeds);
    let rows = read(&RedisStore::new(settings), &ab("view"), &[key("1")], patient()).await;
    assert!(
        rows[0].as_ref().is_err_and(|error| error.chain().contains("cluster support disabled"))
    );

    let servers = ClusterServers::start();
    let settings = servers.nodes[0].settings();
    let keys: Vec<_> = (0..20_u8).map(|entity| key([entity])).collect();
    let rows = read(&RedisStore::new(settings), &ab("view"), &keys, patient()).await;
    let named = |error: &StoreError| error.chain().contains("redis_type: redis_cluster");
    assert!(rows.iter().any(|row| row.as_ref().is_err_and(named)), "{rows:?}");
}
