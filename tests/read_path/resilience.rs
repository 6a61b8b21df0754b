//! How a failing store is asked: within bounds, and not for ever.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use larder::{
    proxy::ProxyError,
    resilience::{BreakerPolicy, Limits},
    store::StoreError,
};
use tokio::time::{Instant, advance, sleep};

use crate::fixture::{Fixture, POLICY, down, freshness};

#[tokio::test(start_paused = true)]
async fn an_open_breaker_answers_at_once_and_a_probe_closes_it() {
    let fixture = Fixture::new(10);
    fixture.one(0).await.unwrap();
    fixture.store.set_failing(down());
    for driver in 1..=5 {
        fixture.one(driver).await.unwrap_err();
    }
    let reads = fixture.store.reads();
    advance(POLICY.ttl).await;

    // Now neither stale nor unknown rows wait, or cost a read.
    fixture.store.set_hanging(true);
    let asked_at = Instant::now();
    assert_eq!(fixture.one(0).await.unwrap(), (0, true));
    let error = fixture.one(6).await.unwrap_err();
    assert!(matches!(error, ProxyError::Unavailable { cause: StoreError::CircuitOpen, .. }));
    assert_eq!((asked_at.elapsed(), fixture.store.reads()), (Duration::ZERO, reads));
    assert!(fixture.counts("larder_breaker_open{store=\"default\"} 1"));

    fixture.store.set_hanging(false);
    fixture.store.set_failing(None);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(fixture.one(6).await.unwrap(), (6, false));
    assert_eq!(fixture.one(0).await.unwrap(), (0, false));
    assert!(fixture.counts("larder_breaker_open{store=\"default\"} 0"));
}

#[tokio::test(start_paused = true)]
async fn probes_go_on_in_the_background_with_pauses() {
    let fixture = Fixture::new(1);
    fixture.store.set_failing(down());
    for _ in 0..5 {
        fixture.one(0).await.unwrap_err();
    }
    sleep(Duration::from_secs(10)).await;
    let probes = fixture.store.probes();
    assert!((30..=52).contains(&probes), "{probes} probes in 10 s, one every 250 ms");
}

#[tokio::test(start_paused = true)]
async fn a_read_is_given_up_after_its_timeout() {
    let fixture = Fixture::new(1);
    fixture.store.set_hanging(true);
    let asked_at = Instant::now();
    let error = fixture.one(0).await.unwrap_err();
    assert!(matches!(error, ProxyError::Unavailable { cause: StoreError::TimedOut, .. }));
    assert_eq!(asked_at.elapsed(), Limits::default().timeout);
}

#[tokio::test(start_paused = true)]
async fn reads_beyond_the_bound_wait_and_beyond_the_queue_are_refused() {
    let breaker = BreakerPolicy { consecutive_failures: u32::MAX, ..BreakerPolicy::default() };
    let limits = Limits { max_in_flight: 2, max_queue: 3, breaker, ..Limits::default() };
    let fixture = Arc::new(Fixture::with(10, freshness(POLICY), limits));
    fixture.store.set_latency(Duration::from_millis(10));
    let requests = (0..10).map(|driver| {
        let fixture = Arc::clone(&fixture);
        tokio::spawn(async move { fixture.one(driver).await })
    });
    let answers = join_all(requests).await;
    let served = answers.iter().filter(|answer| matches!(answer, Ok(Ok(_)))).count();
    let refused = |answer: &&Result<Result<_, ProxyError>, _>| {
        matches!(answer, Ok(Err(ProxyError::Unavailable { cause: StoreError::Overloaded, .. })))
    };
    assert_eq!((served, answers.iter().filter(refused).count()), (5, 5));
}

#[tokio::test(start_paused = true)]
async fn reads_that_wait_for_a_place_are_not_sent_once_the_breaker_is_open() {
    let breaker = BreakerPolicy { consecutive_failures: 1, ..BreakerPolicy::default() };
    let limits = Limits { max_in_flight: 1, breaker, ..Limits::default() };
    let fixture = Fixture::with(3, freshness(POLICY), limits);
    fixture.store.set_failing(down());
    fixture.store.set_latency(Duration::from_millis(50));
    let errors = join_all((0..3).map(|driver| fixture.one(driver))).await;
    assert!(errors.iter().all(Result::is_err), "{errors:?}");
    assert_eq!(fixture.store.reads(), 1);
}
