//! How long nothing was heard of the other side: when to give up connections that seem to stand.

use std::time::Duration;

use tokio::time::Instant;

/// Where so many calls in a row stayed without an answer ...
const MAX_UNANSWERED: u32 = 3;
/// ... for so long, the other side may be gone without a word.
const MAX_SILENCE: Duration = Duration::from_secs(1);

/// Calls that stayed without an answer since the last answer.
#[derive(Debug, Default)]
pub(super) struct Silence {
    unanswered: u32,
    since: Option<Instant>,
}

impl Silence {
    /// There was an answer, be it an error.
    pub(super) fn answered(&mut self) {
        *self = Self::default();
    }

    /// A call that began at `sent` ends without an answer at `now`. Whether that was one too many.
    pub(super) fn unanswered(&mut self, sent: Instant, now: Instant) -> bool {
        self.unanswered = self.unanswered.saturating_add(1);
        let since = *self.since.get_or_insert(sent);
        self.unanswered >= MAX_UNANSWERED && now.saturating_duration_since(since) >= MAX_SILENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_calls_and_some_time_without_an_answer_are_too_many() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut silence = Silence::default();
        assert!(!silence.unanswered(at(0), at(900)));
        assert!(!silence.unanswered(at(0), at(1200)), "two are too few");
        assert!(silence.unanswered(at(0), at(1200)));
        silence.answered();
        assert!(!(0..9).any(|call| silence.unanswered(at(1300), at(1400 + call))), "too short");
        assert!(silence.unanswered(at(1500), at(2300)));
    }
}
