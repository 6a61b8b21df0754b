//! How many times the store is asked when many want the same rows.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use larder::{proxy::Ask, resilience::Limits};
use tokio::time::{advance, sleep};

use crate::fixture::{Fixture, POLICY, Wish, freshness};

/// Runs `count` requests for driver 0 at once, and checks what all get.
async fn ask_together(fixture: &Arc<Fixture>, count: usize) {
    let requests = (0..count).map(|_| {
        let fixture = Arc::clone(fixture);
        tokio::spawn(async move { fixture.trips(&[0], Wish::default()).await })
    });
    for answer in join_all(requests).await {
        assert_eq!(answer.unwrap().unwrap(), [Ok(0)]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_requests_for_one_cold_row_are_one_read() {
    let fixture = Arc::new(Fixture::new(1));
    fixture.store.set_latency(Duration::from_millis(10));
    ask_together(&fixture, 1000).await;
    assert_eq!((fixture.store.reads(), fixture.store.keys_read()), (1, 1));
    assert!(fixture.counts("larder_rows_total{outcome=\"miss\"} 1"));
    assert!(fixture.counts("larder_rows_total{outcome=\"coalesced\"} 999"));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_requests_for_one_stale_row_are_one_read() {
    let fixture = Arc::new(Fixture::new(1));
    fixture.one(0).await.unwrap();
    advance(POLICY.ttl).await;
    fixture.store.set_latency(Duration::from_millis(10));
    ask_together(&fixture, 1000).await;
    assert_eq!(fixture.store.keys_read(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_first_caller_that_gives_up_fails_nobody_and_costs_no_second_read() {
    let fixture = Arc::new(Fixture::new(1));
    fixture.store.set_latency(Duration::from_millis(100));
    let first = {
        let fixture = Arc::clone(&fixture);
        tokio::spawn(async move { fixture.one(0).await })
    };
    sleep(Duration::from_millis(1)).await;
    let rest = {
        let fixture = Arc::clone(&fixture);
        tokio::spawn(async move { ask_together(&fixture, 999).await })
    };
    sleep(Duration::from_millis(1)).await;

    first.abort();

    rest.await.unwrap();
    assert_eq!(fixture.store.keys_read(), 1);
}

#[tokio::test(start_paused = true)]
async fn overlapping_requests_read_each_row_once() {
    let fixture = Arc::new(Fixture::new(30));
    fixture.store.set_latency(Duration::from_millis(10));
    let requests = (0..20).map(|first| {
        let fixture = Arc::clone(&fixture);
        tokio::spawn(async move {
            let drivers = [first, first + 1, first + 2];
            (fixture.trips(&drivers, Wish::default()).await, drivers)
        })
    });
    for request in join_all(requests).await {
        let (trips, drivers) = request.unwrap();
        assert_eq!(trips.unwrap(), drivers.map(Ok));
    }
    assert_eq!(fixture.store.keys_read(), 22);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rows_are_read_once_under_parallel_load() {
    for _ in 0..200 {
        let fixture = Arc::new(Fixture::new(8));
        let requests = (0..32).map(|_| {
            let fixture = Arc::clone(&fixture);
            tokio::spawn(
                async move { fixture.trips(&[0, 1, 2, 3, 4, 5, 6, 7], Wish::default()).await },
            )
        });
        for request in join_all(requests).await {
            assert_eq!(request.unwrap().unwrap(), [0, 1, 2, 3, 4, 5, 6, 7].map(Ok));
        }
        assert_eq!(fixture.store.keys_read(), 8);
    }
}

#[tokio::test(start_paused = true)]
async fn the_missing_rows_of_a_request_are_one_read_of_all_views() {
    let fixture = Fixture::new(3);
    let features = ["stats:trips", "rates:rating"];
    fixture.answers(&features, &[0, 1, 2, 1], Wish::default()).await.unwrap();
    assert_eq!((fixture.store.reads(), fixture.store.keys_read()), (1, 6));
}

#[tokio::test(start_paused = true)]
async fn who_wants_the_store_asked_now_takes_no_part_in_an_earlier_read() {
    let fixture = Arc::new(Fixture::new(1));
    fixture.store.set_latency(Duration::from_millis(10));
    let early = {
        let fixture = Arc::clone(&fixture);
        tokio::spawn(async move { fixture.one(0).await })
    };
    sleep(Duration::from_millis(5)).await;
    let ask = Ask { max_age: Some(Duration::ZERO), allow_stale: true };
    let now = fixture.trips(&[0], Wish { ask, ..Wish::default() }).await.unwrap();
    assert_eq!(now, [Ok(0)]);
    assert_eq!(early.await.unwrap().unwrap(), (0, false));
    assert_eq!(fixture.store.keys_read(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_hot_row_is_refreshed_ahead_of_its_end_once() {
    let policy = larder::cache::policy::Policy { refresh_ahead: 0.5, ..POLICY };
    let fixture = Fixture::with(1, freshness(policy), Limits::default());
    fixture.one(0).await.unwrap();
    advance(Duration::from_secs(40)).await;
    fixture.one(0).await.unwrap();
    assert_eq!(fixture.store.keys_read(), 1, "read once only, it is not hot");

    fixture.store.set_latency(Duration::from_millis(10));
    for _ in 0..5 {
        assert_eq!(fixture.one(0).await.unwrap(), (0, false));
    }
    sleep(Duration::from_millis(20)).await;
    assert_eq!(fixture.store.keys_read(), 2);
    fixture.put(0, 7);
    advance(Duration::from_secs(45)).await;
    assert_eq!(fixture.one(0).await.unwrap(), (0, false), "what was refreshed is fresh");
}
