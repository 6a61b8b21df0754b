//! What operators may set of the read path.

use std::{collections::HashMap, time::Duration};

use crate::cache::policy::Policy;

/// How a view's rows age, and what stands in for those that cannot be had.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Freshness {
    /// What a cached row is good for.
    pub policy: Policy,
    /// With a stale row at hand, how long a request waits for the store before it serves that.
    pub stale_after: Duration,
    /// What becomes of a request for rows that cannot be had.
    pub on_unavailable: OnUnavailable,
}

/// How the rows of each view age.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FreshnessTable {
    /// Of views that are not in [`views`](Self::views).
    pub default: Freshness,
    /// By the view's name in the registry.
    pub views: HashMap<String, Freshness>,
}

/// How large a request may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Rows: entities of a request, repeated ones counted each time.
    pub max_rows: usize,
    /// Features of a request.
    pub max_features: usize,
}

/// What becomes of a request for rows that neither a store nor the cache can give.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnUnavailable {
    /// Such a row is null with status INVALID; the request fails only if a view has no other.
    #[default]
    Partial,
    /// Such a row is null with status INVALID; the request never fails for it.
    Null,
    /// Such a row fails the request.
    Error,
}

/// What becomes of a value that is older than its view's `ttl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TtlOnRead {
    /// It is served as any other, as Feast's Python server does.
    Off,
    /// It is served with status OUTSIDE_MAX_AGE, as Feast's Go and Java servers do.
    Flag,
    /// It is withheld: null with status OUTSIDE_MAX_AGE.
    Null,
}

/// How nulls and absences are reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StatusCompat {
    /// A stored null is PRESENT, an absent row or feature NOT_FOUND, whatever the store.
    #[default]
    Larder,
    /// As Feast's Python server: with Redis, what is absent is PRESENT.
    Python,
    /// As the protobuf comments say: a stored null is NULL_VALUE.
    Proto,
}

impl FreshnessTable {
    /// That of the view with this name.
    pub fn of(&self, view: &str) -> Freshness {
        self.views.get(view).copied().unwrap_or(self.default)
    }
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self { max_rows: 10_000, max_features: 5_000 }
    }
}

impl Default for Freshness {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            stale_after: Duration::from_millis(20),
            on_unavailable: OnUnavailable::default(),
        }
    }
}
