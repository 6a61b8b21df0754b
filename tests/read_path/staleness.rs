//! What is served as rows age and stores fail.

use std::time::Duration;

use larder::{
    cache::policy::Policy,
    model::FieldStatus,
    proxy::{Ask, ProxyError},
    resilience::Limits,
};
use tokio::time::{Instant, advance, sleep};

use crate::fixture::{
    DEADLINE, Fixture, POLICY, STALE_AFTER, Wish, down, freshness, without_breaker,
};

#[tokio::test(start_paused = true)]
async fn a_row_is_read_once_per_ttl() {
    let fixture = Fixture::new(1);
    for (wait, keys_read) in [(0, 1), (53, 1), (7, 2)] {
        advance(Duration::from_secs(wait)).await;
        assert_eq!(fixture.one(0).await.unwrap(), (0, false));
        assert_eq!(fixture.store.keys_read(), keys_read);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_store_is_hidden_until_rows_are_too_old() {
    let fixture = Fixture::with(1, freshness(POLICY), without_breaker());
    fixture.one(0).await.unwrap();
    fixture.store.set_failing(down());

    advance(Duration::from_secs(600)).await;
    assert_eq!(fixture.one(0).await.unwrap(), (0, true));
    assert!(fixture.counts("larder_stale_rows_total{reason=\"unavailable\"} 1"));

    advance(Duration::from_secs(60)).await;
    assert!(matches!(fixture.one(0).await, Err(ProxyError::Unavailable { .. })));
}

#[tokio::test(start_paused = true)]
async fn an_absence_is_believed_for_a_while_and_never_stands_in() {
    let fixture = Fixture::with(0, freshness(POLICY), without_breaker());
    let absent = [Err(FieldStatus::NotFound)];
    assert_eq!(fixture.trips(&[0], Wish::default()).await.unwrap(), absent);
    fixture.store.set_failing(down());

    advance(Duration::from_secs(4)).await;
    assert_eq!(fixture.trips(&[0], Wish::default()).await.unwrap(), absent);

    advance(Duration::from_secs(1)).await;
    assert!(fixture.trips(&[0], Wish::default()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_is_waited_for_only_so_long_and_still_fills_the_cache() {
    let fixture = Fixture::new(1);
    fixture.one(0).await.unwrap();
    fixture.put(0, 7);
    advance(POLICY.ttl).await;
    fixture.store.set_latency(STALE_AFTER * 3);

    let asked_at = Instant::now();
    assert_eq!(fixture.one(0).await.unwrap(), (0, true));
    assert_eq!(asked_at.elapsed(), STALE_AFTER);

    sleep(STALE_AFTER * 3).await;
    let asked_at = Instant::now();
    assert_eq!(fixture.one(0).await.unwrap(), (7, false));
    assert_eq!(asked_at.elapsed(), Duration::ZERO);
    assert_eq!(fixture.store.keys_read(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_its_deadline_and_the_load_goes_on_behind_it() {
    let limits = Limits { timeout: DEADLINE * 3, ..Limits::default() };
    let fixture = Fixture::with(1, freshness(POLICY), limits);
    fixture.store.set_latency(DEADLINE * 2);
    let asked_at = Instant::now();
    assert!(matches!(fixture.one(0).await, Err(ProxyError::DeadlineExceeded { .. })));
    assert_eq!(asked_at.elapsed(), DEADLINE);
    sleep(DEADLINE * 2).await;
    assert_eq!(fixture.one(0).await.unwrap(), (0, false));
    assert_eq!(fixture.store.keys_read(), 1);
}

#[tokio::test(start_paused = true)]
async fn while_revalidating_a_row_past_its_ttl_is_served_at_once() {
    let policy = Policy { stale_while_revalidate: Duration::from_secs(30), ..POLICY };
    let fixture = Fixture::with(1, freshness(policy), Limits::default());
    fixture.one(0).await.unwrap();
    fixture.put(0, 7);
    advance(POLICY.ttl).await;
    fixture.store.set_latency(Duration::from_millis(10));

    let asked_at = Instant::now();
    assert_eq!(fixture.one(0).await.unwrap(), (0, true));
    assert_eq!(asked_at.elapsed(), Duration::ZERO);
    sleep(Duration::from_millis(20)).await;
    assert_eq!(fixture.one(0).await.unwrap(), (7, false));
}

#[tokio::test(start_paused = true)]
async fn a_request_may_refuse_what_is_stale_and_what_is_older_than_it_says() {
    let fixture = Fixture::with(1, freshness(POLICY), without_breaker());
    fixture.one(0).await.unwrap();
    fixture.put(0, 7);
    advance(Duration::from_secs(10)).await;
    let ask = |max_age, allow_stale| Wish { ask: Ask { max_age, allow_stale }, ..Wish::default() };
    let at_most = |seconds| ask(Some(Duration::from_secs(seconds)), true);
    assert_eq!(fixture.trips(&[0], at_most(10)).await.unwrap(), [Ok(0)]);
    assert_eq!(fixture.trips(&[0], at_most(9)).await.unwrap(), [Ok(7)]);

    fixture.store.set_failing(down());
    advance(POLICY.ttl).await;
    assert_eq!(fixture.trips(&[0], Wish::default()).await.unwrap(), [Ok(7)]);
    assert!(fixture.trips(&[0], ask(None, false)).await.is_err());
}
