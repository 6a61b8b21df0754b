//! A Redis master that sentinels watch over, on real servers.

use std::time::Duration;

use larder::{
    model::{EntityKey, FeatureView},
    store::{OnlineStore, RedisReadFrom, RedisTopology, StoreError, ViewKeys, redis::RedisStore},
};

use crate::{
    contract_tests,
    redis_nodes::{Hash, SentinelServers, hash, wait},
    world::{Cells, ONE, World, ab, key, patient, read, until, until_it_answers},
};

mod master {
    use super::*;
    contract_tests!(SentinelWorld::new(RedisReadFrom::Master));
}

mod replica {
    use super::*;
    contract_tests! {
        SentinelWorld::new(RedisReadFrom::PreferReplica),
        rows_come_in_the_order_of_views_and_keys
        nulls_and_absences_are_told_apart
        a_corrupt_value_fails_its_row_only
        a_store_that_goes_down_fails_at_once_and_recovers
    }
}

struct SentinelWorld {
    servers: SentinelServers,
    ports: Vec<u16>,
    store: RedisStore,
    written: Vec<Hash>,
}

impl SentinelWorld {
    fn new(read_from: RedisReadFrom) -> Self {
        let servers = SentinelServers::start();
        let mut settings = servers.settings();
        settings.read_from = read_from;
        let ports = servers.sentinels.iter().map(|sentinel| sentinel.port).collect();
        Self { servers, ports, store: RedisStore::new(settings), written: Vec::new() }
    }
}

impl World for SentinelWorld {
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
        self.servers.start_again(&self.ports);
        self.written.iter().for_each(|hash| self.servers.put(hash));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_master_is_read_though_there_is_a_replica_unless_replicas_are_preferred() {
    for read_from in [RedisReadFrom::Master, RedisReadFrom::PreferReplica] {
        let mut world = SentinelWorld::new(read_from);
        let (view, keys) = (ab("view"), ["1", "2"].map(key));
        world.put(&view, &keys[0], &[("a", ONE)], 1);
        let preferred = usize::from(read_from == RedisReadFrom::PreferReplica);
        let servers = &world.servers.servers;
        until("the server that is preferred answers", || async {
            let other = servers[1 - preferred].hmgets();
            let reads = [ViewKeys { view: &view, keys: &keys }];
            let rows = world.store.read(&reads, patient()).await.remove(0);
            assert!(matches!(rows[..], [Ok(Some(_)), Ok(None)]), "{rows:?}");
            servers[1 - preferred].hmgets() == other
        })
        .await;
        assert!(servers[preferred].hmgets() > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_is_followed() {
    let mut world = SentinelWorld::new(RedisReadFrom::Master);
    let (view, keys) = (ab("view"), [key("1")]);
    world.put(&view, &keys[0], &[("a", ONE)], 1);
    until_it_answers(&world.store).await;
    let rows = read(&world.store, &view, &keys, patient()).await;
    assert!(matches!(rows[0], Ok(Some(_))), "{rows:?}");

    world.servers.servers[0].kill();
    // One sentinel is gone as well.
    world.servers.sentinels.remove(0);
    until("reads fail at once", || async {
        let rows = read(&world.store, &view, &keys, patient()).await;
        matches!(rows[0], Err(StoreError::Unavailable(_)))
    })
    .await;
    let replica = &world.servers.servers[1];
    wait("the replica takes over", || replica.info("replication").contains("role:master"));
    until("the row is read again", || async {
        let rows = read(&world.store, &view, &keys, patient()).await;
        assert!(!matches!(rows[0], Ok(None)), "the row is not absent");
        matches!(rows[0], Ok(Some(_)))
    })
    .await;
    // The old master comes back empty, as a replica; nobody reads it for what it lacks.
    let old = &mut world.servers.servers[0];
    old.restart();
    for _ in 0..100 {
        let rows = read(&world.store, &view, &keys, patient()).await;
        assert!(matches!(rows[0], Ok(Some(_))), "{rows:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(world.servers.servers[0].hmgets(), 0);
}

#[tokio::test]
async fn sentinels_that_know_no_such_master_are_named() {
    let servers = SentinelServers::start();
    let mut settings = servers.settings();
    let RedisTopology::Sentinel(sentinels) = &mut settings.topology else { panic!() };
    sentinels.master = "another".into();
    let rows = read(&RedisStore::new(settings), &ab("view"), &[key("1")], patient()).await;
    match &rows[0] {
        Err(error @ StoreError::Refused(_)) => {
            assert!(error.chain().contains("knows no master `another`"), "{}", error.chain());
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_sentinel_that_sees_too_few_others_is_not_believed() {
    let servers = SentinelServers::start();
    let mut settings = servers.settings();
    let RedisTopology::Sentinel(sentinels) = &mut settings.topology else { panic!() };
    sentinels.min_other_sentinels = 3;
    let rows = read(&RedisStore::new(settings), &ab("view"), &[key("1")], patient()).await;
    assert!(rows[0].as_ref().is_err_and(|error| error.chain().contains("min_other_sentinels")));
}
