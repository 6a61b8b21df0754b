//! Decides what a cached row is good for. Pure: the time is an argument.
//!
//! ```text
//!  asked_at   refresh_ahead    ttl       + stale_while_revalidate      + max_stale
//!     |-- Fresh --|-- RefreshAhead --|------- Revalidate -------|--- StaleIfError ---|-- Expired
//!       serve       serve; if it is    serve; refresh behind      ask the store; serve  ask the
//!                   hot, refresh                                  this if it fails or   store
//!                   behind                                        is slow
//! ```
//!
//! `max_stale` counts from the end of the TTL (RFC 5861 `stale-if-error`), and so does
//! `stale_while_revalidate`. "The store has no such row" is remembered, too: it is `Negative` for
//! `negative_ttl`. It is served stale only where `negative_max_stale` says so: a failing store must
//! not turn rows into absences.

use std::time::Duration;

use crate::model::{FeatureRow, MaybeRow, StoreId, Tick};

/// The durations that decide. Each feature view has its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// How long a row is served without asking the store; up to 10 % less, by its key.
    pub ttl: Duration,
    /// The share of its TTL past which a row that is read again is refreshed behind; 1 for never.
    pub refresh_ahead: f64,
    /// How long past its TTL a row is served at once, and refreshed behind.
    pub stale_while_revalidate: Duration,
    /// How long past its TTL a row may stand in for a store that fails or is slow.
    pub max_stale: Duration,
    /// How long an absence is served without asking the store.
    pub negative_ttl: Duration,
    /// How long past its TTL an absence may stand in for a store that fails or is slow.
    pub negative_max_stale: Duration,
}

/// What a store answered, when it was asked, and which one it was. Facts: the policy reads them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The row, or that there is none.
    pub row: MaybeRow,
    /// When the read began: the answer is at least as recent as this.
    pub asked_at: Tick,
    /// The store.
    pub source: StoreId,
}

/// What a request tightens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Nothing older is served without asking the store; 0 asks it for every row.
    pub max_age: Option<Duration>,
    /// Whether a row past its TTL may be served at all.
    pub allow_stale: bool,
}

/// What the cache knows of a row at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Serve it.
    Fresh(FeatureRow),
    /// Serve it; if it is read often, let one reader refresh it behind.
    RefreshAhead(FeatureRow),
    /// Serve it, and refresh it behind.
    Revalidate(FeatureRow),
    /// Ask the store; serve this if it fails or is slow.
    StaleIfError(MaybeRow),
    /// Known, recently enough, not to exist: serve that.
    Negative,
    /// In the cache, but too old for anything: ask the store.
    Expired,
    /// Not in the cache: ask the store.
    Absent,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(60),
            refresh_ahead: 0.8,
            stale_while_revalidate: Duration::ZERO,
            max_stale: Duration::from_secs(3600),
            negative_ttl: Duration::from_secs(5),
            negative_max_stale: Duration::ZERO,
        }
    }
}

impl Default for Ask {
    fn default() -> Self {
        Self { max_age: None, allow_stale: true }
    }
}

impl Policy {
    /// Says what `entry` is good for at `now`.
    ///
    /// `key_hash` spreads the TTLs, so that rows loaded together do not expire together.
    pub fn judge(&self, entry: Option<&Entry>, key_hash: u64, ask: Ask, now: Tick) -> Lookup {
        let Some(Entry { row, asked_at, .. }) = entry else {
            return Lookup::Absent;
        };
        let age = now.millis_since(*asked_at);
        let allowed = ask.max_age.map_or(u64::MAX, millis);
        let too_old = age > allowed || allowed == 0;
        match row {
            Some(row) => {
                let ttl = spread(millis(self.ttl), key_hash);
                let past = |share: f64| age as f64 >= ttl as f64 * share;
                if age < ttl && !too_old {
                    let hot = self.refresh_ahead < 1.0 && past(self.refresh_ahead);
                    let serve = if hot { Lookup::RefreshAhead } else { Lookup::Fresh };
                    serve(row.clone())
                } else if !ask.allow_stale {
                    Lookup::Expired
                } else if age < ttl + millis(self.stale_while_revalidate) && !too_old {
                    Lookup::Revalidate(row.clone())
                } else if age
                    < ttl + millis(self.max_stale).max(millis(self.stale_while_revalidate))
                {
                    Lookup::StaleIfError(Some(row.clone()))
                } else {
                    Lookup::Expired
                }
            }
            None => {
                let ttl = millis(self.negative_ttl);
                let max_stale = millis(self.negative_max_stale);
                if age < ttl && !too_old {
                    Lookup::Negative
                } else if ask.allow_stale && max_stale > 0 && age < ttl + max_stale {
                    Lookup::StaleIfError(None)
                } else {
                    Lookup::Expired
                }
            }
        }
    }
}

/// Shortens `ttl` by up to 10 %, always by the same for the same key.
fn spread(ttl: u64, key_hash: u64) -> u64 {
    ttl - ((u128::from(ttl / 10) * u128::from(key_hash >> 32)) >> 32) as u64
}

fn millis(duration: Duration) -> u64 {
    // A year of milliseconds fits; the sums above do not overflow.
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::EventTimestamp;

    const POLICY: Policy = Policy {
        ttl: Duration::from_secs(60),
        refresh_ahead: 0.8,
        stale_while_revalidate: Duration::from_secs(10),
        max_stale: Duration::from_secs(600),
        negative_ttl: Duration::from_secs(5),
        negative_max_stale: Duration::ZERO,
    };

    fn row() -> FeatureRow {
        FeatureRow::new(std::iter::empty(), EventTimestamp::default())
    }

    #[track_caller]
    fn check(policy: Policy, row: MaybeRow, ask: Ask, age_millis: i64, expected: Lookup) {
        let entry = Entry { row, asked_at: Tick(-5), source: StoreId(0) };
        let lookup = policy.judge(Some(&entry), 0, ask, Tick(age_millis - 5));
        assert_eq!(lookup, expected, "at {age_millis} ms");
    }

    #[test]
    fn a_row_ages_through_all_its_uses() {
        let stages = [
            (0, Lookup::Fresh(row())),
            (47_999, Lookup::Fresh(row())),
            (48_000, Lookup::RefreshAhead(row())),
            (59_999, Lookup::RefreshAhead(row())),
            (60_000, Lookup::Revalidate(row())),
            (69_999, Lookup::Revalidate(row())),
            (70_000, Lookup::StaleIfError(Some(row()))),
            (659_999, Lookup::StaleIfError(Some(row()))),
            (660_000, Lookup::Expired),
        ];
        for (age, expected) in stages {
            check(POLICY, Some(row()), Ask::default(), age, expected);
        }
        assert_eq!(POLICY.judge(None, 0, Ask::default(), Tick(0)), Lookup::Absent);
    }

    #[test]
    fn an_absence_is_never_stale_unless_the_view_opts_in() {
        check(POLICY, None, Ask::default(), 4_999, Lookup::Negative);
        check(POLICY, None, Ask::default(), 5_000, Lookup::Expired);
        let opted_in = Policy { negative_max_stale: Duration::from_secs(60), ..POLICY };
        check(opted_in, None, Ask::default(), 5_000, Lookup::StaleIfError(None));
        check(opted_in, None, Ask::default(), 65_000, Lookup::Expired);
    }

    #[test]
    fn a_request_may_tighten_and_never_loosens() {
        let at_most =
            |seconds| Ask { max_age: Some(Duration::from_secs(seconds)), allow_stale: true };
        check(POLICY, Some(row()), at_most(10), 10_000, Lookup::Fresh(row()));
        check(POLICY, Some(row()), at_most(10), 10_001, Lookup::StaleIfError(Some(row())));
        check(POLICY, Some(row()), at_most(0), 0, Lookup::StaleIfError(Some(row())));
        check(POLICY, None, at_most(0), 0, Lookup::Expired);
        check(POLICY, Some(row()), at_most(3600), 660_000, Lookup::Expired);
        let no_stale = Ask { max_age: None, allow_stale: false };
        check(POLICY, Some(row()), no_stale, 59_999, Lookup::RefreshAhead(row()));
        check(POLICY, Some(row()), no_stale, 60_000, Lookup::Expired);
    }

    #[test]
    fn keys_spread_the_ttl_downwards_by_a_tenth_at_most() {
        assert_eq!(spread(60_000, 0), 60_000);
        assert_eq!(spread(60_000, u64::MAX), 54_001);
        assert_eq!(spread(0, u64::MAX), 0);
    }

    #[test]
    fn refresh_ahead_of_one_is_off() {
        let off = Policy { refresh_ahead: 1.0, ..POLICY };
        check(off, Some(row()), Ask::default(), 59_999, Lookup::Fresh(row()));
    }
}
