//! What requests and answers say beside Feast's messages: HTTP headers and gRPC metadata alike.
//!
//! | in a request | |
//! |---|---|
//! | `larder-max-age-ms` | nothing older is served without asking the store; 0 asks for every row |
//! | `larder-allow-stale` | `false`: no row past its TTL |
//! | `larder-timeout-ms` | how long the caller waits |
//! | `grpc-timeout` | the same, as gRPC has it; the shorter counts |
//!
//! | in an answer | |
//! |---|---|
//! | `larder-age-ms` | for how long the oldest row has been known |
//! | `larder-stale-rows` | how many rows are past their TTL |
//! | `larder-unavailable-views` | the views of which rows are missing, if any |
//! | `larder-stores` | the stores that rows came from |

use std::{fmt::Write, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};

use super::status::Failure;
use crate::proxy::{Ask, Summary};

/// What a request says beside its body.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Wishes {
    /// What it tightens of the cache's policy.
    pub(super) ask: Ask,
    /// How long the caller waits.
    pub(super) timeout: Duration,
}

const MAX_AGE: &str = "larder-max-age-ms";
const ALLOW_STALE: &str = "larder-allow-stale";
const TIMEOUT: &str = "larder-timeout-ms";
const GRPC_TIMEOUT: &str = "grpc-timeout";

const AGE: HeaderName = HeaderName::from_static("larder-age-ms");
const STALE_ROWS: HeaderName = HeaderName::from_static("larder-stale-rows");
const UNAVAILABLE: HeaderName = HeaderName::from_static("larder-unavailable-views");
const STORES: HeaderName = HeaderName::from_static("larder-stores");

/// Whoever waits longer than this waits this long: a clock cannot add every number to now.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

impl Wishes {
    /// Reads them. What is not a value is the caller's mistake, not ignored: who asks for fresh
    /// rows and mistypes would never know.
    pub(super) fn read(headers: &HeaderMap, default_timeout: Duration) -> Result<Self, Failure> {
        let max_age = millis(headers, MAX_AGE)?;
        let allow_stale = one_of(headers, ALLOW_STALE, "true or false", |text| match text {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        })?;
        let own = millis(headers, TIMEOUT)?;
        let grpc = one_of(headers, GRPC_TIMEOUT, "digits and a unit, as in 100m", grpc_timeout)?;
        let timeout = match (own, grpc) {
            (Some(own), Some(grpc)) => own.min(grpc),
            (own, grpc) => own.or(grpc).unwrap_or(default_timeout),
        };
        let ask = Ask { max_age, allow_stale: allow_stale.unwrap_or(true) };
        Ok(Self { ask, timeout: timeout.min(LONGEST) })
    }
}

/// Adds what an answer says about itself.
pub(super) fn put_summary(summary: &Summary, headers: &mut HeaderMap) {
    headers.insert(AGE, summary.age_millis.into());
    headers.insert(STALE_ROWS, summary.stale_rows.into());
    headers.insert(STORES, list(&summary.stores));
    if !summary.unavailable_views.is_empty() {
        headers.insert(UNAVAILABLE, list(&summary.unavailable_views));
    }
}

/// Names with commas between them, percent-encoded where a header could not hold them.
fn list(names: &[Arc<str>]) -> HeaderValue {
    let mut text = String::new();
    for name in names {
        if !text.is_empty() {
            text.push(',');
        }
        for byte in name.bytes() {
            match byte {
                b'!'..=b'~' if !matches!(byte, b',' | b'%') => text.push(byte.into()),
                _ => write!(text, "%{byte:02X}").expect("writing to memory does not fail"),
            }
        }
    }
    HeaderValue::try_from(text).expect("only visible ASCII is left")
}

fn millis(headers: &HeaderMap, name: &'static str) -> Result<Option<Duration>, Failure> {
    one_of(headers, name, "a number of milliseconds", |text| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // All that is beyond 64 bits is as good as for ever.
        digits.then(|| Duration::from_millis(text.parse().unwrap_or(u64::MAX)))
    })
}

/// `grpc-timeout`: up to eight digits, and a unit.
fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

fn one_of<T>(
    headers: &HeaderMap,
    name: &'static str,
    expected: &'static str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, Failure> {
    let Some(value) = headers.get(name) else {
        return Ok(None);
    };
    match value.to_str().ok().and_then(|text| read(text.trim())) {
        Some(read) => Ok(Some(read)),
        None => {
            let value = String::from_utf8_lossy(value.as_bytes()).chars().take(100).collect();
            Err(Failure::Metadata { name, expected, value })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn read(pairs: &[(&'static str, &'static str)]) -> Result<Wishes, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        Wishes::read(&headers, SECOND).map_err(|error| error.to_string())
    }

    #[test]
    fn a_request_that_says_nothing_has_the_defaults() {
        assert_eq!(read(&[]), Ok(Wishes { ask: Ask::default(), timeout: SECOND }));
    }

    #[test]
    fn what_a_request_says_is_read() {
        let wishes = read(&[("larder-max-age-ms", "0"), ("larder-allow-stale", "false")]).unwrap();
        assert_eq!(wishes.ask, Ask { max_age: Some(Duration::ZERO), allow_stale: false });
    }

    #[test]
    fn the_shorter_of_two_timeouts_counts() {
        let timeout = |pairs: &[_]| read(pairs).unwrap().timeout.as_micros();
        assert_eq!(timeout(&[("grpc-timeout", "20m")]), 20_000);
        assert_eq!(timeout(&[("larder-timeout-ms", "10"), ("grpc-timeout", "20m")]), 10_000);
        assert_eq!(timeout(&[("larder-timeout-ms", "10"), ("grpc-timeout", "5u")]), 5);
        assert_eq!(timeout(&[("larder-timeout-ms", "5000")]), 5_000_000);
        let longest = LONGEST.as_micros();
        assert_eq!(timeout(&[("grpc-timeout", "99999999H")]), longest);
        assert_eq!(timeout(&[("larder-timeout-ms", "99999999999999999999999")]), longest);
    }

    #[test]
    fn what_is_mistyped_is_refused_by_name() {
        for (name, value) in [
            ("larder-max-age-ms", "-1"),
            ("larder-max-age-ms", "1s"),
            ("larder-allow-stale", "no"),
            ("larder-timeout-ms", ""),
            ("grpc-timeout", "100"),
            ("grpc-timeout", "m"),
            ("grpc-timeout", "123456789m"),
        ] {
            let message = read(&[(name, value)]).unwrap_err();
            assert!(message.contains(name) && message.contains(value), "{message}");
        }
    }

    #[test]
    fn an_answer_says_what_it_is_made_of() {
        let mut headers = HeaderMap::new();
        let summary = Summary {
            age_millis: 12,
            stale_rows: 3,
            unavailable_views: vec!["a".into(), "b c,d\n".into()],
            stores: vec!["default".into()],
        };
        put_summary(&summary, &mut headers);
        assert_eq!(headers["larder-age-ms"], "12");
        assert_eq!(headers["larder-stale-rows"], "3");
        assert_eq!(headers["larder-unavailable-views"], "a,b%20c%2Cd%0A");
        assert_eq!(headers["larder-stores"], "default");

        let mut headers = HeaderMap::new();
        put_summary(&Summary::default(), &mut headers);
        assert!(!headers.contains_key("larder-unavailable-views"));
        assert!(headers.contains_key("larder-stores"));
    }
}
