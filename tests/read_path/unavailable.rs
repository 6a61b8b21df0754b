//! What becomes of requests for rows that cannot be had: `on_unavailable`.

use larder::{
    model::FieldStatus,
    proxy::{Freshness, OnUnavailable, ProxyError},
};

use crate::fixture::{Fixture, POLICY, Wish, down, freshness, without_breaker};

fn fixture(on_unavailable: OnUnavailable) -> Fixture {
    let freshness = Freshness { on_unavailable, ..freshness(POLICY) };
    let fixture = Fixture::with(3, freshness, without_breaker());
    fixture.fail_trips(1, down());
    fixture
}

const PARTLY: [Result<i64, FieldStatus>; 3] = [Ok(0), Err(FieldStatus::Invalid), Ok(2)];

#[tokio::test(start_paused = true)]
async fn by_default_a_request_fails_only_if_a_view_has_nothing_to_answer() {
    let fixture = fixture(OnUnavailable::Partial);
    assert_eq!(fixture.trips(&[0, 1, 2], Wish::default()).await.unwrap(), PARTLY);
    let answers = fixture.answers(&["stats:trips"], &[0, 1], Wish::default()).await.unwrap();
    assert_eq!(answers.summary().unavailable_views, [std::sync::Arc::from("stats")]);

    let error = fixture.answers(&["stats:trips", "rates:rating"], &[1, 1], Wish::default()).await;
    assert!(matches!(error, Err(ProxyError::Unavailable { view, .. }) if &*view == "stats"));
}

#[tokio::test(start_paused = true)]
async fn a_view_may_want_nulls_whatever_happens() {
    let fixture = fixture(OnUnavailable::Null);
    let trips = fixture.trips(&[1], Wish::default()).await.unwrap();
    assert_eq!(trips, [Err(FieldStatus::Invalid)]);
}

#[tokio::test(start_paused = true)]
async fn a_view_may_want_all_or_nothing() {
    let fixture = fixture(OnUnavailable::Error);
    assert!(fixture.trips(&[0, 1, 2], Wish::default()).await.is_err());
    assert!(fixture.trips(&[0, 2], Wish::default()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn one_unreadable_row_costs_no_other_its_place_in_the_cache() {
    let fixture = fixture(OnUnavailable::Partial);
    fixture.trips(&[0, 1, 2], Wish::default()).await.unwrap();
    fixture.store.set_failing(down());
    assert_eq!(fixture.trips(&[0, 1, 2], Wish::default()).await.unwrap(), PARTLY);
}
