//! A store in memory, for tests and examples: it can be told to fail, to be slow, to hang.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::{sync::watch, time::sleep};

use super::{OnlineStore, ReadOptions, Rows, StoreError, ViewKeys};
use crate::model::{EntityKey, FeatureRow, FeatureView, MaybeRow, RowKey};

/// Rows, and how the store is to behave. All methods may be called while reads are under way.
#[derive(Debug)]
pub struct MemoryStore {
    state: Mutex<State>,
    hanging: watch::Sender<bool>,
    reads: AtomicU64,
    keys_read: AtomicU64,
    probes: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    rows: HashMap<RowKey, Result<FeatureRow, StoreError>>,
    failing: Option<StoreError>,
    latency: Duration,
}

impl MemoryStore {
    /// An empty store that answers at once.
    pub fn new() -> Self {
        Self {
            state: Mutex::default(),
            hanging: watch::Sender::new(false),
            reads: AtomicU64::new(0),
            keys_read: AtomicU64::new(0),
            probes: AtomicU64::new(0),
        }
    }

    /// Sets a row.
    pub fn put(&self, view: &FeatureView, entity: EntityKey, row: FeatureRow) {
        self.state.lock().rows.insert(RowKey { view: view.id, entity }, Ok(row));
    }

    /// Removes a row, or a key's error.
    pub fn remove(&self, view: &FeatureView, entity: EntityKey) {
        self.state.lock().rows.remove(&RowKey { view: view.id, entity });
    }

    /// Fails this key, and no other, until a row is put in its place.
    pub fn fail_key(&self, view: &FeatureView, entity: EntityKey, error: StoreError) {
        self.state.lock().rows.insert(RowKey { view: view.id, entity }, Err(error));
    }

    /// Fails all reads and probes, or none.
    pub fn set_failing(&self, error: impl Into<Option<StoreError>>) {
        self.state.lock().failing = error.into();
    }

    /// How long reads and probes take from now on, by tokio's clock. What `failing` and the rows
    /// are when that has passed is what they answer.
    pub fn set_latency(&self, latency: Duration) {
        self.state.lock().latency = latency;
    }

    /// Whether reads and probes get no answer until this is `false` again, whatever their deadline.
    pub fn set_hanging(&self, hanging: bool) {
        self.hanging.send_replace(hanging);
    }

    /// How many reads began.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// How many rows those asked for: each key once for each of its views.
    pub fn keys_read(&self) -> u64 {
        self.keys_read.load(Ordering::Relaxed)
    }

    /// How many probes began.
    pub fn probes(&self) -> u64 {
        self.probes.load(Ordering::Relaxed)
    }

    async fn wait(&self) {
        let latency = self.state.lock().latency;
        if !latency.is_zero() {
            sleep(latency).await;
        }
        let mut hanging = self.hanging.subscribe();
        hanging.wait_for(|hanging| !hanging).await.expect("the sender lives as long as self");
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl OnlineStore for MemoryStore {
    async fn read(&self, reads: &[ViewKeys<'_>], _: ReadOptions) -> Rows {
        let keys: usize = reads.iter().map(|read| read.keys.len()).sum();
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.keys_read.fetch_add(keys as u64, Ordering::Relaxed);
        self.wait().await;

        let state = self.state.lock();
        let view_rows = |read: &ViewKeys<'_>| {
            let row = |key: &EntityKey| state.row(read.view, key);
            read.keys.iter().map(row).collect()
        };
        reads.iter().map(view_rows).collect()
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.probes.fetch_add(1, Ordering::Relaxed);
        self.wait().await;
        self.state.lock().failing.clone().map_or(Ok(()), Err)
    }
}

impl State {
    fn row(&self, view: &FeatureView, key: &EntityKey) -> Result<MaybeRow, StoreError> {
        if let Some(error) = &self.failing {
            return Err(error.clone());
        }
        self.rows.get(&RowKey { view: view.id, entity: key.clone() }).cloned().transpose()
    }
}
