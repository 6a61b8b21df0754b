//! What every store promises.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::{Duration, Instant},
};

use larder::{
    model::{Cell, FeatureRow, MaybeRow},
    store::{StoreError, ViewKeys},
};

use crate::{
    golden::values,
    world::{ONE, TWO, World, ab, key, number, patient, read, until_it_answers},
};

/// What fails at once fails in this time, on a busy machine, too.
const AT_ONCE: Duration = Duration::from_secs(3);

pub(crate) async fn rows_come_in_the_order_of_views_and_keys(world: &mut impl World) {
    let (left, right) = (ab("left"), ab("right"));
    let keys = ["3", "1", "2", "gone"].map(key);
    for (entity, value) in keys.iter().zip(1..4) {
        world.put(&left, entity, &[("a", &number(value)), ("b", ONE)], 10 + i64::from(value));
        world.put(&right, entity, &[("b", &number(10 + value))], 20);
    }
    let backwards: Vec<_> = keys.iter().rev().cloned().collect();
    let reads =
        [ViewKeys { view: &right, keys: &backwards }, ViewKeys { view: &left, keys: &keys[..2] }];
    let rows = world.store().read(&reads, patient()).await;

    let of = |row: &Result<MaybeRow, StoreError>, feature: usize| {
        row.as_ref().unwrap().as_ref().map(|row| match row.cell(feature) {
            Cell::Value(value) => value.to_vec(),
            other => panic!("{other:?} is no value"),
        })
    };
    let right: Vec<_> = rows[0].iter().map(|row| of(row, 1)).collect();
    assert_eq!(right, [None, Some(number(13)), Some(number(12)), Some(number(11))]);
    let left: Vec<_> = rows[1].iter().map(|row| of(row, 0)).collect();
    assert_eq!(left, [Some(number(1)), Some(number(2))]);
    let time = |row: &Result<Option<FeatureRow>, _>| {
        row.as_ref().unwrap().as_ref().unwrap().event_timestamp().seconds
    };
    assert_eq!((time(&rows[0][1]), time(&rows[1][0]), time(&rows[1][1])), (20, 11, 12));
}

pub(crate) async fn nulls_and_absences_are_told_apart(world: &mut impl World) {
    let view = ab("view");
    world.put(&view, &key("null"), &[("a", b""), ("b", ONE)], 0);
    world.put(&view, &key("absent"), &[("b", ONE)], 5);
    let rows = read(world.store(), &view, &["null", "absent", "gone"].map(key), patient()).await;
    let rows: Vec<_> = rows.into_iter().map(Result::unwrap).collect();
    assert_eq!(rows[0].as_ref().unwrap().cell(0), Cell::Null);
    assert_eq!(rows[1].as_ref().unwrap().cell(0), Cell::Absent);
    assert_eq!(rows[1].as_ref().unwrap().cell(1), Cell::Value(ONE));
    assert_eq!(rows[2], None);
}

pub(crate) async fn a_corrupt_value_fails_its_row_only(world: &mut impl World) {
    let (left, right) = (ab("left"), ab("right"));
    let keys = ["1", "2"].map(key);
    world.put(&left, &keys[0], &[("a", b"\x20"), ("b", ONE)], 1);
    world.put(&left, &keys[1], &[("a", ONE)], 1);
    world.put(&right, &keys[0], &[("a", TWO)], 1);
    let reads = [&left, &right].map(|view| ViewKeys { view, keys: &keys });
    let rows = world.store().read(&reads, patient()).await;
    assert!(matches!(rows[0][0], Err(StoreError::Corrupt(_))), "{rows:?}");
    assert!(matches!(rows[0][1], Ok(Some(_))), "{rows:?}");
    assert!(matches!(rows[1][0], Ok(Some(_))), "{rows:?}");
    assert!(matches!(rows[1][1], Ok(None) | Err(StoreError::Refused(_))), "{rows:?}");
}

pub(crate) async fn a_read_of_nothing_has_no_rows(world: &mut impl World) {
    let view = ab("view");
    world.put(&view, &key("1"), &[("a", ONE)], 1);
    assert!(world.store().read(&[], patient()).await.is_empty());
    assert!(read(world.store(), &view, &[], patient()).await.is_empty());
}

pub(crate) async fn many_reads_at_once_get_their_own_rows(world: &mut impl World) {
    let view = ab("view");
    for entity in 0..100 {
        world.put(&view, &key([entity]), &[("a", &number(entity))], 1);
    }
    let store = world.store();
    let read = |entity: u8| {
        let view = &view;
        async move {
            let rows = read(store, view, &[key([entity]), key("gone")], patient()).await;
            let row = rows[0].as_ref().unwrap().as_ref().unwrap();
            assert_eq!(values(view, row)["a"], number(entity));
            assert!(rows[1].as_ref().unwrap().is_none());
        }
    };
    let mut reads: Vec<_> = (0..100).map(|entity| Box::pin(read(entity))).collect();
    poll_fn(|context| {
        reads.retain_mut(|read| read.as_mut().poll(context).is_pending());
        if reads.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

pub(crate) async fn dropped_reads_harm_no_other(world: &mut impl World) {
    let view = ab("view");
    let keys = ["1", "2"].map(key);
    world.put(&view, &keys[0], &[("a", ONE)], 1);
    world.put(&view, &keys[1], &[("a", TWO)], 1);
    until_it_answers(world.store()).await;
    for _ in 0..50 {
        let mut dropped = pin!(read(world.store(), &view, &keys[..1], patient()));
        poll_fn(|context| {
            let _ = dropped.as_mut().poll(context);
            Poll::Ready(())
        })
        .await;
    }
    let rows = read(world.store(), &view, &keys[1..], patient()).await;
    let row = rows[0].as_ref().unwrap().as_ref().unwrap();
    assert_eq!(values(&view, row)["a"], TWO);
}

pub(crate) async fn a_store_that_goes_down_fails_at_once_and_recovers(world: &mut impl World) {
    let view = ab("view");
    let keys = [key("1")];
    world.put(&view, &keys[0], &[("a", ONE)], 1);
    let rows = read(world.store(), &view, &keys, patient()).await;
    assert!(matches!(rows[0], Ok(Some(_))), "{rows:?}");

    world.stop();
    for _ in 0..3 {
        let started = Instant::now();
        let rows = read(world.store(), &view, &keys, patient()).await;
        // A store of several nodes may not have noticed yet that the others are gone, too.
        let unavailable = |error: &StoreError| {
            matches!(error, StoreError::Unavailable(_) | StoreError::NodeUnavailable(_))
        };
        assert!(rows[0].as_ref().is_err_and(unavailable), "{rows:?}");
        assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
    }
    let probe = world.store().probe().await;
    assert!(matches!(probe, Err(StoreError::Unavailable(_))), "{probe:?}");

    world.start();
    until_it_answers(world.store()).await;
    let rows = read(world.store(), &view, &keys, patient()).await;
    assert!(matches!(rows[0], Ok(Some(_))), "{rows:?}");
}

pub(crate) async fn a_store_that_is_down_at_first_is_found_later(world: &mut impl World) {
    let view = ab("view");
    let keys = [key("1")];
    world.put(&view, &keys[0], &[("a", ONE)], 1);
    world.stop();
    let started = Instant::now();
    let rows = read(world.store(), &view, &keys, patient()).await;
    assert!(matches!(rows[0], Err(StoreError::Unavailable(_))), "{rows:?}");
    assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
    world.start();
    until_it_answers(world.store()).await;
    let rows = read(world.store(), &view, &keys, patient()).await;
    assert!(matches!(rows[0], Ok(Some(_))), "{rows:?}");
}
