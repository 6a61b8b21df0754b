//! SQLite, on real files.

use std::{fs, path::Path, time::Duration};

use larder::{
    model::{EntityKey, FeatureView},
    store::{OnlineStore, SqliteSettings, StoreError, ViewKeys, sqlite::SqliteStore},
};
use rusqlite::{Connection, params};
use tokio::task::JoinSet;

use crate::{
    contract_tests,
    golden::{self, expected_rows, expected_views, values, view},
    world::{Cells, ONE, TWO, World, ab, key, patient, read, until_it_answers, within},
};

contract_tests!(SqliteWorld::new());

struct SqliteWorld {
    directory: tempfile::TempDir,
    store: SqliteStore,
}

impl SqliteWorld {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = open(&directory.path().join("online.db"), 2);
        Self { directory, store }
    }

    fn database(&self) -> Connection {
        Connection::open(self.directory.path().join("online.db")).unwrap()
    }
}

fn open(path: &Path, connections: usize) -> SqliteStore {
    SqliteStore::new(&SqliteSettings { path: path.into(), connections })
}

impl World for SqliteWorld {
    fn store(&self) -> &dyn OnlineStore {
        &self.store
    }

    fn put(&mut self, view: &FeatureView, key: &EntityKey, cells: Cells<'_>, seconds: i64) {
        put(&self.database(), view, key, cells, seconds);
    }

    fn stop(&mut self) {
        let directory = self.directory.path();
        fs::rename(directory.join("online.db"), directory.join("away.db")).unwrap();
    }

    fn start(&mut self) {
        let directory = self.directory.path();
        fs::rename(directory.join("away.db"), directory.join("online.db")).unwrap();
    }
}

/// Writes a row into a table as Feast makes it.
fn put(database: &Connection, view: &FeatureView, key: &EntityKey, cells: Cells<'_>, seconds: i64) {
    let table = format!("\"{}_{}\"", view.project, view.name);
    let columns = "entity_key BLOB, feature_name TEXT, value BLOB, value_text TEXT, \
                   vector_value BLOB, event_ts timestamp, created_ts timestamp, \
                   PRIMARY KEY(entity_key, feature_name)";
    database.execute(&format!("CREATE TABLE IF NOT EXISTS {table} ({columns})"), []).unwrap();
    let insert = format!(
        "INSERT OR REPLACE INTO {table} (entity_key, feature_name, value, event_ts) \
         VALUES (?, ?, ?, ?)"
    );
    for (feature, value) in cells {
        database.execute(&insert, params![&key.0[..], feature, value, seconds]).unwrap();
    }
}

#[tokio::test]
async fn every_row_that_feast_wrote_is_read() {
    let store = open(&golden::path("feast/sqlite.db"), 2);
    let views = expected_views();
    let mut found = 0;
    for row in expected_rows() {
        let view = &views[&row.view];
        let rows = read(&store, view, &[key("gone"), row.key.clone()], patient()).await;
        assert!(matches!(rows[0], Ok(None)), "{rows:?}");
        let read = rows[1].as_ref().unwrap().as_ref().unwrap();
        assert_eq!(values(view, read), row.values, "{} {:?}", row.view, row.key);
        assert_eq!(read.event_timestamp().seconds, row.seconds);
        found += 1;
    }
    assert_eq!(found, 17);
    let empty = view("golden", "driver_labels", None, ["label"]);
    let rows = read(&store, &empty, &[expected_rows()[3].key.clone()], patient()).await;
    assert!(matches!(rows[0], Ok(None)), "{rows:?}");
}

#[tokio::test]
async fn a_missing_table_fails_its_view_only() {
    let mut world = SqliteWorld::new();
    let keys = [key("1")];
    let (there, gone) = (ab("there"), ab("gone"));
    world.put(&there, &keys[0], &[("a", ONE)], 1);
    let reads = [&gone, &there].map(|view| ViewKeys { view, keys: &keys });
    let rows = world.store.read(&reads, patient()).await;
    let Err(StoreError::Refused(why)) = &rows[0][0] else { panic!("{rows:?}") };
    let why = why.source().unwrap().to_string();
    assert!(why.contains("no such table: p_gone"), "{why}");
    assert!(matches!(rows[1][0], Ok(Some(_))), "{rows:?}");
}

#[tokio::test]
async fn more_keys_than_a_statement_has_are_read() {
    let mut world = SqliteWorld::new();
    let view = ab("view");
    let keys: Vec<_> = (0..1300_u16).map(|entity| key(entity.to_be_bytes())).collect();
    let written: Vec<_> = keys.iter().step_by(100).cloned().collect();
    for key in &written {
        world.put(&view, key, &[("a", &key.0[..])], 1);
    }
    // A key is no value, but tells the rows apart in the errors.
    let rows = read(&world.store, &view, &keys, patient()).await;
    for (at, row) in rows.iter().enumerate() {
        match row {
            Ok(None) => assert_ne!(at % 100, 0),
            _ => assert_eq!(at % 100, 0),
        }
    }
    assert_eq!(rows.len(), keys.len());
}

#[tokio::test]
async fn a_replaced_file_is_read_anew() {
    let mut world = SqliteWorld::new();
    let (view, keys) = (ab("view"), [key("1")]);
    world.put(&view, &keys[0], &[("a", ONE)], 1);
    let value = async |store: &SqliteStore| {
        let rows = read(store, &view, &keys, patient()).await;
        values(&view, rows[0].as_ref().unwrap().as_ref().unwrap())["a"].clone()
    };
    assert_eq!(value(&world.store).await, ONE);
    let other = world.directory.path().join("other.db");
    put(&Connection::open(&other).unwrap(), &view, &keys[0], &[("a", TWO)], 1);
    fs::rename(other, world.directory.path().join("online.db")).unwrap();
    assert_eq!(value(&world.store).await, TWO);
}

#[tokio::test]
async fn rows_that_are_written_meanwhile_are_seen() {
    let mut world = SqliteWorld::new();
    let (view, keys) = (ab("view"), [key("1")]);
    for seconds in 1..20 {
        world.put(&view, &keys[0], &[("a", ONE)], seconds);
        let rows = read(&world.store, &view, &keys, patient()).await;
        let row = rows[0].as_ref().unwrap().as_ref().unwrap();
        assert_eq!(row.event_timestamp().seconds, seconds);
    }
}

#[tokio::test]
async fn a_locked_file_is_an_outage_that_ends() {
    let mut world = SqliteWorld::new();
    let (view, keys) = (ab("view"), [key("1")]);
    world.put(&view, &keys[0], &[("a", ONE)], 1);
    let writer = world.database();
    writer.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let rows = read(&world.store, &view, &keys, within(Duration::from_millis(400))).await;
    assert!(rows[0].as_ref().is_err_and(StoreError::is_outage), "{rows:?}");
    writer.execute_batch("COMMIT").unwrap();
    let rows = read(&world.store, &view, &keys, patient()).await;
    assert!(matches!(rows[0], Ok(Some(_))), "{rows:?}");
}

#[tokio::test]
async fn a_damaged_file_is_refused_until_it_is_mended() {
    let mut world = SqliteWorld::new();
    let (view, keys) = (ab("view"), [key("1")]);
    world.put(&view, &keys[0], &[("a", ONE)], 1);
    let path = world.directory.path().join("online.db");
    let good = fs::read(&path).unwrap();
    fs::write(&path, vec![b'?'; 4096]).unwrap();
    let rows = read(&world.store, &view, &keys, patient()).await;
    assert!(matches!(rows[0], Err(StoreError::Refused(_))), "{rows:?}");
    assert!(matches!(world.store.probe().await, Err(StoreError::Refused(_))));
    fs::write(&path, good).unwrap();
    until_it_answers(&world.store).await;
    let rows = read(&world.store, &view, &keys, patient()).await;
    assert!(matches!(rows[0], Ok(Some(_))), "{rows:?}");
}

/// One thread, held up by a lock: what waits behind it is bounded, and passed over once dropped.
#[tokio::test]
async fn reads_that_nobody_can_take_on_are_refused_and_dropped_ones_passed_over() {
    let mut world = SqliteWorld::new();
    let (view, keys) = (ab("view"), [key("1")]);
    world.put(&view, &keys[0], &[("a", ONE)], 1);
    let store = std::sync::Arc::new(open(&world.directory.path().join("online.db"), 1));
    let writer = world.database();
    writer.execute_batch("BEGIN EXCLUSIVE").unwrap();

    let mut reads = JoinSet::new();
    for _ in 0..1100 {
        let (store, view, keys) = (store.clone(), view.clone(), keys.clone());
        reads.spawn(async move { read(&*store, &view, &keys, patient()).await.remove(0) });
    }
    let first = reads.join_next().await.unwrap().unwrap();
    assert!(matches!(first, Err(StoreError::Overloaded)), "{first:?}");
    reads.shutdown().await;
    writer.execute_batch("COMMIT").unwrap();
    until_it_answers(&*store).await;
    let rows = read(&*store, &view, &keys, patient()).await;
    assert!(matches!(rows[0], Ok(Some(_))), "{rows:?}");
}
