//! Waits until nobody asks larder any more: for the `preStop` hook of a container that is told to
//! stop together with those that it serves.

use std::{io, time::Duration};

use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{self, Instant},
};

use super::connect;
use crate::net::ListenAddress;

/// How often larder is asked.
const INTERVAL: Duration = Duration::from_millis(200);

/// How long it may take to answer.
const TIMEOUT: Duration = Duration::from_secs(1);

const MAX_STATUS_BYTES: u64 = 1 << 20;

/// How the wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Nobody asked for as long as was to be waited for.
    Quiet,
    /// There were requests to the end.
    Busy,
    /// Nobody is there who could be asked whether there are requests.
    NoAnswer,
}

/// Asks the admin endpoints at `admin` until no request was served for `quiet`, for `max_wait` at
/// most.
pub async fn drain(admin: &ListenAddress, quiet: Duration, max_wait: Duration) -> Drained {
    let began = Instant::now();
    let mut silence = Silence::since(began);
    loop {
        let traffic = time::timeout(TIMEOUT, look(admin)).await;
        let traffic = traffic.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let now = Instant::now();
        silence.note(now, traffic.ok());
        if silence.length(now) >= quiet {
            return if silence.last.is_some() { Drained::Quiet } else { Drained::NoAnswer };
        }
        let left = max_wait.saturating_sub(now - began);
        if left.is_zero() {
            return Drained::Busy;
        }
        time::sleep(INTERVAL.min(left)).await;
    }
}

/// The requests of the serving addresses, as `/status` tells of them.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
struct Traffic {
    under_way: usize,
    total: u64,
}

#[derive(Deserialize)]
struct Status {
    requests: Traffic,
}

async fn look(admin: &ListenAddress) -> io::Result<Traffic> {
    let mut stream = connect(admin).await?;
    stream.write_all(b"GET /status HTTP/1.0\r\nhost: localhost\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.take(MAX_STATUS_BYTES).read_to_end(&mut answer).await?;
    traffic(&answer).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn traffic(answer: &[u8]) -> Option<Traffic> {
    const HEAD_ENDS: &[u8] = b"\r\n\r\n";
    let head = answer.windows(HEAD_ENDS.len()).position(|window| window == HEAD_ENDS)?;
    let status = serde_json::from_slice::<Status>(&answer[head + HEAD_ENDS.len()..]).ok()?;
    Some(status.requests)
}

/// For how long there was no request.
struct Silence {
    since: Instant,
    last: Option<Traffic>,
}

impl Silence {
    /// None is known of before `now`.
    fn since(now: Instant) -> Self {
        Self { since: now, last: None }
    }

    /// Takes a look into account; one that failed shows no request.
    fn note(&mut self, now: Instant, traffic: Option<Traffic>) {
        let Some(traffic) = traffic else { return };
        let new = self.last.is_some_and(|last| last.total != traffic.total);
        if new || traffic.under_way > 0 {
            self.since = now;
        }
        self.last = Some(traffic);
    }

    fn length(&self, now: Instant) -> Duration {
        now - self.since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_breaks_the_silence_and_so_does_one_under_way() {
        let second = Duration::from_secs(1);
        let began = Instant::now();
        let at = |seconds: u32| began + second * seconds;
        let mut silence = Silence::since(began);
        silence.note(at(1), Some(Traffic { under_way: 0, total: 7 }));
        assert_eq!(silence.length(at(1)), second, "what was before does not count");
        silence.note(at(2), Some(Traffic { under_way: 0, total: 8 }));
        assert_eq!(silence.length(at(3)), second);
        silence.note(at(4), Some(Traffic { under_way: 1, total: 9 }));
        silence.note(at(5), Some(Traffic { under_way: 1, total: 9 }));
        silence.note(at(6), Some(Traffic { under_way: 0, total: 9 }));
        assert_eq!(silence.length(at(6)), second);
        silence.note(at(7), None);
        assert_eq!(silence.length(at(7)), 2 * second);
    }

    #[test]
    fn traffic_is_what_the_status_says() {
        let answer = b"HTTP/1.0 200 OK\r\na: b\r\n\r\n{\"requests\": {\"under_way\": 2, \
                       \"total\": 30}, \"version\": \"1\"}";
        assert_eq!(traffic(answer), Some(Traffic { under_way: 2, total: 30 }));
        for other in [&b""[..], b"\r\n\r\n", b"HTTP/1.0 404 Not Found\r\n\r\n{}"] {
            assert_eq!(traffic(other), None);
        }
    }
}
