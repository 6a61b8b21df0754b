//! Redis, on a real server.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use larder::{
    layout::redis::{feature_field, hash_key},
    model::{Cell, EntityKey, FeatureRow, FeatureView, KeyEncoding},
    store::{OnlineStore, RedisSettings, StoreError, ViewKeys, redis::RedisStore},
};
use redis::{Commands, Connection, cmd};
use serde_json::{Value, json};

use crate::{
    contract_tests,
    golden::{self, entity_key, expected_rows, expected_views, hex, values, view},
    redis_nodes::{Hash, hash},
    redis_server::RedisServer,
    world::{Cells, ONE, World, ab, key, patient, read, until, until_it_answers, within},
};

contract_tests!(RedisWorld::new());

struct RedisWorld {
    server: RedisServer,
    store: RedisStore,
    /// Hashes, for a server that comes back empty.
    written: Vec<Hash>,
}

impl RedisWorld {
    fn new() -> Self {
        let server = RedisServer::start();
        let store = RedisStore::new(server.settings());
        Self { server, store, written: Vec::new() }
    }
}

impl World for RedisWorld {
    fn store(&self) -> &dyn OnlineStore {
        &self.store
    }

    fn put(&mut self, view: &FeatureView, key: &EntityKey, cells: Cells<'_>, seconds: i64) {
        let (hash, fields) = hash(view, key, cells, seconds);
        let _: () = self.server.admin().hset_multiple(&hash, &fields).unwrap();
        self.written.push((hash, fields));
    }

    fn stop(&mut self) {
        self.server.kill();
    }

    fn start(&mut self) {
        self.server.restart();
        let mut admin = self.server.admin();
        for (hash, fields) in &self.written {
            let _: () = admin.hset_multiple(hash, fields).unwrap();
        }
    }
}

/// Writes a dump's hashes as they were.
fn fill(admin: &mut Connection, hashes: &Value) {
    for hash in hashes.as_array().unwrap() {
        let field = |field: &Value| match field {
            Value::Array(pair) => (hex(&pair[0]), hex(&pair[1])),
            named => (hex(&named["field_hex"]), hex(&named["value_hex"])),
        };
        let fields: Vec<_> = hash["fields"].as_array().unwrap().iter().map(field).collect();
        let _: () = admin.hset_multiple(hex(&hash["key_hex"]), &fields).unwrap();
    }
}

#[tokio::test]
async fn every_row_that_feast_wrote_is_read() {
    let server = RedisServer::start();
    fill(&mut server.admin(), &golden::json("feast/redis.json")["main"]);
    let store = RedisStore::new(server.settings());
    let views = expected_views();
    let rows = expected_rows();
    // All views together, each with all keys of its rows and one that it does not have.
    let keys_of = |name: &String| {
        let rows = rows.iter().filter(|row| row.view == *name);
        rows.map(|row| row.key.clone()).chain([key("gone")]).collect::<Vec<_>>()
    };
    let keys: Vec<_> = views.keys().map(keys_of).collect();
    let reads: Vec<_> =
        views.values().zip(&keys).map(|(view, keys)| ViewKeys { view, keys }).collect();
    let read = store.read(&reads, patient()).await;
    let mut found = 0;
    for ((view, keys), rows_read) in views.values().zip(&keys).zip(read) {
        for (key, row) in keys.iter().zip(rows_read) {
            let expected = rows.iter().find(|row| row.view == *view.name && row.key == *key);
            let row = row.unwrap();
            assert_eq!(
                row.as_ref().map(|row| values(view, row)),
                expected.map(|e| e.values.clone())
            );
            assert_eq!(
                row.map(|row| row.event_timestamp().seconds),
                expected.map(|row| row.seconds)
            );
            found += usize::from(expected.is_some());
        }
    }
    assert_eq!(found, 17);
}

#[tokio::test]
async fn versions_of_a_view_are_read_apart() {
    let server = RedisServer::start();
    let dump = golden::json("feast/redis.json");
    fill(&mut server.admin(), &dump["versioned"]["keys"]);
    let store = RedisStore::new(server.settings());
    let key = entity_key(KeyEncoding::V3, &dump["versioned"]["keys"][0]["entity"]).unwrap();
    let views = [None, Some(1), Some(2)].map(|version| view("golden", "vview", version, ["a"]));
    let keys = [key];
    let reads = views.each_ref().map(|view| ViewKeys { view, keys: &keys });
    let rows = store.read(&reads, patient()).await;
    let value = |rows: &Vec<Result<Option<FeatureRow>, StoreError>>| match &rows[0] {
        Ok(Some(row)) => match row.cell(0) {
            Cell::Value(value) => value.to_vec(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    assert_eq!(rows.iter().map(value).collect::<Vec<_>>(), [[0x20, 100], [0x20, 101], [0x20, 102]]);
}

/// The rows behind answers of Feast's own server on Redis: which are null, and of what time.
#[tokio::test]
async fn rows_are_what_feasts_server_made_of_them() {
    let server = RedisServer::start();
    fill(&mut server.admin(), &golden::json("http/fixture/redis_dump.json"));
    let store = RedisStore::new(server.settings());
    let mut compared = 0;
    let cases =
        ["04_all_types", "05_all_types_null_unset", "07_explicit_null_val", "08_ttl_expired"];
    for case in cases {
        let case = golden::json(&format!("http/redis_{case}.json"));
        let body: Value = serde_json::from_str(case["request"]["body"].as_str().unwrap()).unwrap();
        let features = body["features"].as_array().unwrap().iter();
        let features: Vec<_> =
            features.map(|name| name.as_str().unwrap().split_once(':').unwrap()).collect();
        let names: BTreeSet<_> = features.iter().map(|(_, feature)| *feature).collect();
        let view = view("repo1", features[0].0, None, names);
        let keys: Vec<_> =
            body["entities"]["item_id"].as_array().unwrap().iter().map(item).collect();
        let rows = read(&store, &view, &keys, patient()).await;
        let answer = &case["response_json"];
        let names = answer["metadata"]["feature_names"].as_array().unwrap().iter();
        for (name, column) in names.zip(answer["results"].as_array().unwrap()) {
            // Not the join key, and no scalar map, for which Feast's JSON has only null.
            let name = name.as_str().unwrap();
            let Some(index) = view.feature_index(name).filter(|_| name != "f_smap") else {
                continue;
            };
            for (at, row) in rows.iter().enumerate() {
                let row = row.as_ref().unwrap();
                let cell = row.as_ref().map_or(Cell::Absent, |row| row.cell(index));
                // A null that somebody wrote as a value of its own.
                let null = cell == Cell::Value(b"\x98\x01\x00");
                let found = matches!(cell, Cell::Value(_)) && !null;
                assert_eq!(found, !column["values"][at].is_null(), "{name} {at}");
                let seconds = row.as_ref().map_or(0, |row| row.event_timestamp().seconds);
                let expected: jiff::Timestamp =
                    column["event_timestamps"][at].as_str().unwrap().parse().unwrap();
                assert_eq!(seconds, expected.as_second(), "{name} {at}");
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 35);
}

fn item(id: &Value) -> EntityKey {
    let id = id.as_i64().unwrap().to_string();
    let entity = json!({ "join_keys": ["item_id"], "entity_values": [{ "int64_val": id }] });
    entity_key(KeyEncoding::V3, &entity).unwrap()
}

#[tokio::test]
async fn all_views_of_an_entity_are_one_command() {
    let mut world = RedisWorld::new();
    let views = ["one", "two", "three"].map(ab);
    let keys: Vec<_> = (0..7_u8).map(|entity| key([entity])).collect();
    for key in &keys {
        world.put(&views[1], key, &[("a", ONE)], 1);
    }
    let reads = views.each_ref().map(|view| ViewKeys { view, keys: &keys });
    let rows = world.store.read(&reads, patient()).await;
    assert!(rows[1].iter().all(|row| matches!(row, Ok(Some(_)))), "{rows:?}");
    assert!(rows[0].iter().chain(&rows[2]).all(|row| matches!(row, Ok(None))), "{rows:?}");

    assert_eq!(world.server.hmgets(), 7);
}

#[tokio::test]
async fn a_key_of_another_type_fails_alone() {
    let mut world = RedisWorld::new();
    let (view, keys) = (ab("view"), ["1", "2"].map(key));
    let _: () = world.server.admin().set(hash_key(&keys[0], &view.project), "text").unwrap();
    world.put(&view, &keys[1], &[("a", ONE)], 1);
    let rows = read(&world.store, &view, &keys, patient()).await;
    assert!(matches!(rows[..], [Err(StoreError::Refused(_)), Ok(Some(_))]), "{rows:?}");
}

#[tokio::test]
async fn a_login_that_is_refused_is_no_outage() {
    let users = "--user reader on >secret ~* +hmget --user idle on >secret ~* +ping \
                 --user default off";
    let server = RedisServer::with(&users.split_whitespace().collect::<Vec<_>>());
    let view = ab("view");
    let outcome = async |settings: RedisSettings| {
        let store = RedisStore::new(settings);
        let rows = read(&store, &view, &[key("1")], patient()).await;
        (rows.into_iter().next().unwrap(), store.probe().await)
    };
    let refused = |outcome| match outcome {
        (Err(StoreError::Refused(_)), _) => {}
        other => panic!("{other:?}"),
    };
    refused(outcome(server.settings()).await);
    refused(outcome(server.settings_of("reader", "wrong")).await);
    refused(outcome(server.settings_of("nobody", "secret")).await);
    refused(outcome(server.settings_of("idle", "secret")).await);
    // Who may read, but not ping, can be probed, too.
    let reader = outcome(server.settings_of("reader", "secret")).await;
    assert!(matches!(reader, (Ok(None), Ok(()))), "{reader:?}");
}

#[tokio::test]
async fn the_database_is_the_one_of_the_settings() {
    let server = RedisServer::start();
    let (view, keys) = (ab("view"), [key("1")]);
    let mut admin = server.admin();
    let _: () = cmd("SELECT").arg(3).query(&mut admin).unwrap();
    let field = feature_field("view:a");
    let _: () = admin.hset(hash_key(&keys[0], "p"), &field[..], ONE).unwrap();
    for (db, found) in [(0, false), (3, true)] {
        let mut settings = server.settings();
        settings.access.db = db;
        let store = RedisStore::new(settings);
        let rows = read(&store, &view, &keys, patient()).await;
        assert_eq!(rows[0].as_ref().unwrap().is_some(), found, "{db}");
    }
    let mut settings = server.settings();
    settings.access.db = 99;
    let store = RedisStore::new(settings);
    let rows = read(&store, &view, &keys, patient()).await;
    assert!(matches!(rows[0], Err(StoreError::Refused(_))), "{rows:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_of_a_frozen_server_obeys_its_deadline() {
    let mut world = RedisWorld::new();
    let (view, keys) = (ab("view"), [key("1")]);
    world.put(&view, &keys[0], &[("a", ONE)], 1);
    until_it_answers(&world.store).await;
    world.server.freeze();
    let started = Instant::now();
    let rows = read(&world.store, &view, &keys, within(Duration::from_millis(150))).await;
    let took = started.elapsed();
    assert!(matches!(rows[0], Err(StoreError::TimedOut)), "{rows:?}");
    assert!(took >= Duration::from_millis(150) && took < Duration::from_secs(2), "{took:?}");
    world.server.thaw();
    let rows = read(&world.store, &view, &keys, patient()).await;
    assert!(matches!(rows[0], Ok(Some(_))), "{rows:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_stays_silent_is_replaced() {
    let mut world = RedisWorld::new();
    let mut settings = world.server.settings();
    settings.access.connect_timeout = Duration::from_millis(300);
    world.store = RedisStore::new(settings);
    let (view, keys) = (ab("view"), [key("1")]);
    world.put(&view, &keys[0], &[("a", ONE)], 1);
    until_it_answers(&world.store).await;
    world.server.freeze();
    until("reads fail at once", || async {
        let started = Instant::now();
        let rows = read(&world.store, &view, &keys, within(Duration::from_millis(150))).await;
        matches!(rows[0], Err(StoreError::Unavailable(_)))
            && started.elapsed() < Duration::from_millis(75)
    })
    .await;
    let probe = world.store.probe().await;
    assert!(matches!(probe, Err(StoreError::Unavailable(_))), "{probe:?}");
    world.server.thaw();
    until_it_answers(&world.store).await;
    let rows = read(&world.store, &view, &keys, patient()).await;
    assert!(matches!(rows[0], Ok(Some(_))), "{rows:?}");
}

/// A probe alone finds out, too: a breaker that is open sends nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_see_a_frozen_server_and_its_return() {
    let world = RedisWorld::new();
    until_it_answers(&world.store).await;
    world.server.freeze();
    let started = Instant::now();
    let probe = world.store.probe().await;
    assert!(probe.is_err_and(|error| error.is_outage()));
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    world.server.thaw();
    until_it_answers(&world.store).await;
}
