//! Several stores: who is asked for a row, and whose answer counts.

use std::time::Duration;

use larder::{
    model::{FieldStatus, StoreId},
    proxy::{Ask, ProxyError, RouteStep, RouteTable},
};
use tokio::time::{Instant, advance, sleep};

use crate::fixture::{Fixture, POLICY, Wish, down, freshness, trips_of, without_breaker};

const SPARE: RouteStep = RouteStep::Store(StoreId(1));

/// Drivers `0..5` are in the store `default`; the store `spare` is asked after it.
fn fixture(next_on_absence: bool) -> Fixture {
    let default = vec![RouteStep::Feast, SPARE];
    let routes = RouteTable { default, next_on_absence, ..RouteTable::default() };
    Fixture::routed(5, freshness(POLICY), without_breaker(), routes)
}

/// The trips of a driver, and the stores that the answer names.
async fn trips(fixture: &Fixture, driver: i64) -> (Result<i64, FieldStatus>, Vec<String>) {
    let wish = Wish { deadline: Duration::from_secs(5), ..Wish::default() };
    let answers = fixture.answers(&["stats:trips"], &[driver], wish).await.unwrap();
    let stores = answers.summary().stores.iter().map(ToString::to_string).collect();
    (trips_of(&answers)[0], stores)
}

#[tokio::test(start_paused = true)]
async fn the_next_store_is_asked_for_what_the_first_failed_to_give_and_the_answer_names_it() {
    let fixture = fixture(false);
    fixture.put_spare(1, 100, 1);
    assert_eq!(trips(&fixture, 0).await, (Ok(0), vec!["default".to_owned()]));
    assert_eq!(fixture.spare.reads(), 0, "a store that answers is enough");

    fixture.fail_trips(1, down());
    assert_eq!(trips(&fixture, 1).await, (Ok(100), vec!["spare".to_owned()]));
    assert!(fixture.counts("larder_spare_rows_total{store=\"spare\"} 1"));
    // It is a row like any other: from the cache, and still the spare's.
    assert_eq!(trips(&fixture, 1).await, (Ok(100), vec!["spare".to_owned()]));
    assert_eq!(fixture.spare.reads(), 1);
}

#[tokio::test(start_paused = true)]
async fn of_a_batch_the_next_store_is_asked_for_the_failed_rows_only() {
    let fixture = fixture(false);
    fixture.put_spare(3, 300, 1);
    fixture.fail_trips(3, down());
    let features = ["stats:trips", "rates:rating"];
    let answers = fixture.answers(&features, &[0, 1, 2, 3], Wish::default()).await.unwrap();
    assert_eq!(trips_of(&answers), [Ok(0), Ok(1), Ok(2), Ok(300)]);
    assert_eq!((fixture.store.reads(), fixture.store.keys_read()), (1, 8));
    assert_eq!((fixture.spare.reads(), fixture.spare.keys_read()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_spare_that_lacks_a_row_does_not_turn_a_failure_into_an_absence() {
    let fixture = fixture(false);
    fixture.store.set_failing(down());
    let error = fixture.trips(&[1], Wish::default()).await.unwrap_err();
    assert!(matches!(error, ProxyError::Unavailable { .. }), "{error:?}");
    fixture.store.set_failing(None);
    assert_eq!(trips(&fixture, 1).await.0, Ok(1), "and no absence was kept");
}

#[tokio::test(start_paused = true)]
async fn an_absence_counts_once_all_stores_said_so_where_all_are_to_be_asked() {
    let fixture = fixture(true);
    fixture.put_spare(7, 700, 1);
    assert_eq!(trips(&fixture, 7).await.0, Ok(700));
    assert_eq!(trips(&fixture, 8).await.0, Err(FieldStatus::NotFound));
    assert_eq!(trips(&fixture, 8).await.0, Err(FieldStatus::NotFound));
    assert_eq!(fixture.spare.reads(), 2, "the second answer came from the cache");

    fixture.spare.set_failing(down());
    let error = fixture.trips(&[9], Wish::default()).await.unwrap_err();
    assert!(matches!(error, ProxyError::Unavailable { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn without_that_the_first_stores_absence_is_enough() {
    let fixture = fixture(false);
    fixture.put_spare(7, 700, 1);
    assert_eq!(trips(&fixture, 7).await.0, Err(FieldStatus::NotFound));
    assert_eq!(fixture.spare.reads(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_spare_that_lags_behind_does_not_replace_what_was_read_before() {
    let fixture = fixture(false);
    fixture.put_spare(1, 100, 0);
    assert_eq!(fixture.one(1).await.unwrap(), (1, false));
    advance(POLICY.ttl).await;
    fixture.store.set_failing(down());
    assert_eq!(fixture.one(1).await.unwrap(), (1, true), "the spare's row is of an earlier time");
    fixture.put_spare(1, 100, 2);
    assert_eq!(fixture.one(1).await.unwrap(), (100, false));
}

#[tokio::test(start_paused = true)]
async fn each_store_has_its_own_timeout_and_waits_for_no_other() {
    let fixture = fixture(false);
    fixture.put_spare(1, 100, 1);
    fixture.store.set_hanging(true);
    let asked_at = Instant::now();
    assert_eq!(trips(&fixture, 1).await.0, Ok(100));
    assert_eq!(asked_at.elapsed(), larder::resilience::Limits::default().timeout);
}

#[tokio::test(start_paused = true)]
async fn a_view_has_its_own_stores_and_views_with_the_same_share_a_read() {
    let views = [("rates".to_owned(), vec![SPARE])].into();
    let routes = RouteTable { views, ..RouteTable::default() };
    let fixture = Fixture::routed(5, freshness(POLICY), without_breaker(), routes);
    let features = ["stats:trips", "rates:rating"];
    let answers = fixture.answers(&features, &[1], Wish::default()).await.unwrap();
    assert_eq!(trips_of(&answers), [Ok(1)]);
    assert_eq!((fixture.store.keys_read(), fixture.spare.keys_read()), (1, 1));
    let stores: Vec<_> = answers.summary().stores.iter().map(ToString::to_string).collect();
    assert_eq!(stores, ["default", "spare"]);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_does_not_keep_the_next_store_from_being_asked() {
    let fixture = fixture(false);
    fixture.put_spare(1, 100, 1);
    fixture.store.set_hanging(true);
    let hasty = Wish { deadline: Duration::from_millis(10), ask: Ask::default() };
    fixture.trips(&[1], hasty).await.unwrap_err();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(fixture.spare.reads(), 1);
    assert_eq!(fixture.one(1).await.unwrap(), (100, false));
    assert_eq!(fixture.spare.reads(), 1);
}
