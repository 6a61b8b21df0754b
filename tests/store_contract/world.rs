//! A store and the database behind it, which a test can write to and take away.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use larder::{
    model::{EntityKey, FeatureView, MaybeRow},
    store::{OnlineStore, ReadOptions, StoreError, ViewKeys},
};

use crate::golden::view;

/// What is written of one row: features and their stored bytes.
pub(crate) type Cells<'a> = &'a [(&'a str, &'a [u8])];

/// A store and its database. Methods that write block for a moment.
pub(crate) trait World {
    fn store(&self) -> &dyn OnlineStore;
    /// Writes a row as Feast does.
    fn put(&mut self, view: &FeatureView, key: &EntityKey, cells: Cells<'_>, seconds: i64);
    /// Takes the database away.
    fn stop(&mut self);
    /// Brings it back, with its rows.
    fn start(&mut self);
}

pub(crate) const ONE: &[u8] = b"\x20\x01";
pub(crate) const TWO: &[u8] = b"\x20\x02";

/// A view `name` of features `a` and `b`.
pub(crate) fn ab(name: &str) -> FeatureView {
    view("p", name, None, ["a", "b"])
}

pub(crate) fn key(name: impl AsRef<[u8]>) -> EntityKey {
    EntityKey(name.as_ref().into())
}

/// An int64 value.
pub(crate) fn number(number: u8) -> Vec<u8> {
    assert!(number < 0x80);
    vec![0x20, number]
}

/// Options of a read that has all the time it needs.
pub(crate) fn patient() -> ReadOptions {
    within(Duration::from_secs(20))
}

pub(crate) fn within(time: Duration) -> ReadOptions {
    ReadOptions { give_up_at: tokio::time::Instant::now() + time }
}

/// Reads keys of one view.
pub(crate) async fn read(
    store: &dyn OnlineStore,
    view: &FeatureView,
    keys: &[EntityKey],
    options: ReadOptions,
) -> Vec<Result<MaybeRow, StoreError>> {
    let mut rows = store.read(&[ViewKeys { view, keys }], options).await;
    assert_eq!(rows.len(), 1);
    rows.remove(0)
}

/// Waits until `condition` holds.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < Duration::from_secs(30), "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until the store answers a probe.
pub(crate) async fn until_it_answers(store: &dyn OnlineStore) {
    until("the store answers", || async { store.probe().await.is_ok() }).await;
}
