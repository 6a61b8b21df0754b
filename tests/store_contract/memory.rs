//! The store in memory keeps the contract, too, and does what tests tell it to.

use std::{sync::Arc, time::Duration};

use larder::{
    layout::check_value,
    model::{Cell, EntityKey, EventTimestamp, FeatureRow, FeatureView},
    store::{OnlineStore, StoreError, memory::MemoryStore},
};
use tokio::time::{Instant, timeout};

use crate::{
    contract_tests,
    world::{Cells, ONE, World, ab, key, patient, read},
};

contract_tests!(MemoryWorld::default());

#[derive(Default)]
struct MemoryWorld(MemoryStore);

impl World for MemoryWorld {
    fn store(&self) -> &dyn OnlineStore {
        &self.0
    }

    fn put(&mut self, view: &FeatureView, key: &EntityKey, cells: Cells<'_>, seconds: i64) {
        let mut row = Vec::with_capacity(2);
        for feature in &view.features {
            let cell = cells.iter().find(|(name, _)| *name == &*feature.name);
            if let Some(Err(error)) = cell.map(|(_, value)| check_value(value)) {
                let error = StoreError::Corrupt(Arc::new(error));
                return self.0.fail_key(view, key.clone(), error);
            }
            row.push(cell.map_or(Cell::Absent, |(_, value)| Cell::Value(value)));
        }
        let row = FeatureRow::new(row.into_iter(), EventTimestamp { seconds, nanos: 0 });
        self.0.put(view, key.clone(), row);
    }

    fn stop(&mut self) {
        self.0.set_failing(down());
    }

    fn start(&mut self) {
        self.0.set_failing(None);
    }
}

fn down() -> StoreError {
    StoreError::Unavailable(Arc::new(std::io::Error::other("down")))
}

#[tokio::test(start_paused = true)]
async fn it_takes_the_time_it_is_told_to() {
    let store = MemoryStore::new();
    store.set_latency(Duration::from_millis(70));
    let started = Instant::now();
    read(&store, &ab("view"), &["1", "2"].map(key), patient()).await;
    assert_eq!(started.elapsed(), Duration::from_millis(70));
    assert_eq!((store.reads(), store.keys_read(), store.probes()), (1, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn it_hangs_until_it_is_told_not_to() {
    let store = MemoryStore::new();
    store.set_hanging(true);
    assert!(timeout(Duration::from_secs(3600), store.probe()).await.is_err());
    let (view, keys) = (ab("view"), [key("1")]);
    let reading = read(&store, &view, &keys, patient());
    let release = async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        store.set_hanging(false);
    };
    let (rows, ()) = tokio::join!(reading, release);
    assert!(matches!(rows[0], Ok(None)));
    assert_eq!((store.reads(), store.probes()), (1, 1));
}

#[tokio::test]
async fn a_failing_key_fails_alone() {
    let mut world = MemoryWorld::default();
    let (view, keys) = (ab("view"), ["1", "2"].map(key));
    world.put(&view, &keys[0], &[("a", ONE)], 1);
    world.put(&view, &keys[1], &[("a", ONE)], 1);
    world.0.fail_key(&view, keys[0].clone(), StoreError::TimedOut);
    let rows = read(&world.0, &view, &keys, patient()).await;
    assert!(matches!(rows[..], [Err(StoreError::TimedOut), Ok(Some(_))]), "{rows:?}");
    world.0.remove(&view, keys[0].clone());
    let rows = read(&world.0, &view, &keys, patient()).await;
    assert!(matches!(rows[..], [Ok(None), Ok(Some(_))]), "{rows:?}");
}
