//! Waits until nobody asks larder any more: for the `preStop` hook of a container that is told to
//! stop together with those that it serves.

use std::{io, time::Duration};

use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{self, Instant},
};

use super::{Stream, connect};
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
    /// There was no such pause.
    Busy,
    /// Nobody is there, or nobody who says whether there are requests.
    NoAnswer,
}

/// Asks the admin endpoints at `admin` until no request was served for `quiet`, for `max_wait` at
/// most.
pub async fn drain(admin: &ListenAddress, quiet: Duration, max_wait: Duration) -> Drained {
    let began = Instant::now();
    let mut silence = Silence::since(began);
    loop {
        let patience = TIMEOUT.min(max_wait.saturating_sub(began.elapsed()));
        let seen = time::timeout(patience, look(admin)).await;
        let now = Instant::now();
        silence.note(now, seen.unwrap_or(Seen::NoAnswer));
        let (quiet, left) = (silence.length(now) >= quiet, max_wait.saturating_sub(now - began));
        match silence.last {
            None if quiet || left.is_zero() => return Drained::NoAnswer,
            Some(_) if quiet => return Drained::Quiet,
            Some(_) if left.is_zero() => return Drained::Busy,
            _ => {}
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

/// What a look shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Traffic(Traffic),
    /// Nobody listens.
    Nobody,
    /// Whoever listens says nothing of requests, or not in time; there may be some.
    NoAnswer,
}

async fn look(admin: &ListenAddress) -> Seen {
    match connect(admin).await {
        Ok(stream) => ask(stream).await.map_or(Seen::NoAnswer, Seen::Traffic),
        Err(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Seen::Nobody,
            _ => Seen::NoAnswer,
        },
    }
}

async fn ask(mut stream: Box<dyn Stream>) -> io::Result<Traffic> {
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

    /// Takes a look into account.
    fn note(&mut self, now: Instant, seen: Seen) {
        match seen {
            Seen::Traffic(traffic) => {
                let new = self.last.is_some_and(|last| last.total != traffic.total);
                if new || traffic.under_way > 0 {
                    self.since = now;
                }
                self.last = Some(traffic);
            }
            Seen::Nobody => {}
            Seen::NoAnswer => self.since = now,
        }
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
        let seen = |under_way, total| Seen::Traffic(Traffic { under_way, total });
        let mut silence = Silence::since(began);
        silence.note(at(1), seen(0, 7));
        assert_eq!(silence.length(at(1)), second, "what was before does not count");
        silence.note(at(2), seen(0, 8));
        assert_eq!(silence.length(at(3)), second);
        silence.note(at(4), seen(1, 9));
        silence.note(at(5), seen(1, 9));
        silence.note(at(6), seen(0, 9));
        assert_eq!(silence.length(at(6)), second);
        silence.note(at(7), Seen::Nobody);
        assert_eq!(silence.length(at(7)), 2 * second, "nobody has no requests");
        silence.note(at(8), Seen::NoAnswer);
        assert_eq!(silence.length(at(9)), second, "who does not say so may have some");
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
