//! The retry layer under every call, without its clock: which answers are repeated and how long to wait.

use std::time::Duration;

use chrono::{DateTime, Utc};
use http::{HeaderMap, StatusCode};

/// How often and how fast a call is repeated. The default is GitLab Runner's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in total, the first one included; 0 means 1.
    pub attempts: u32,
    /// The least back-off.
    pub min_backoff: Duration,
    /// The most back-off. Waits that the server asks for are not bounded by it.
    pub max_backoff: Duration,
    /// Wait before the second try of an artifact upload; doubles with each further try.
    pub min_upload_wait: Duration,
    /// The longest wait between tries of an artifact upload.
    pub max_upload_wait: Duration,
}

/// The attempts of one call.
#[derive(Debug)]
pub(crate) struct Attempts<'p> {
    policy: &'p RetryPolicy,
    made: u32,
    saw_retriable: bool,
}

/// What to do after an answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The answer stands.
    Take,
    /// Wait, then send the same again.
    Wait(Duration),
}

// === impl RetryPolicy ===

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 5,
            min_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(60),
            min_upload_wait: Duration::from_secs(1),
            max_upload_wait: Duration::from_secs(5),
        }
    }
}

impl RetryPolicy {
    pub(crate) fn start(&self) -> Attempts<'_> {
        Attempts { policy: self, made: 0, saw_retriable: false }
    }

    /// Doubles from the minimum with each attempt, and lies anywhere between the minimum and that; `jitter` is in 0..1.
    fn backoff(&self, after_attempt: u32, jitter: f64) -> Duration {
        let factor = 2_u32.saturating_pow(after_attempt.saturating_sub(1));
        let top = self.min_backoff.saturating_mul(factor).min(self.max_backoff);
        let spread = top.saturating_sub(self.min_backoff);
        self.min_backoff.min(self.max_backoff) + spread.mul_f64(jitter.clamp(0.0, 1.0))
    }
}

// === impl Attempts ===

impl Attempts<'_> {
    /// Decides after an answer. `now` is wall-clock time, to compare with dates that the server sends.
    pub(crate) fn answered(
        &mut self,
        status: StatusCode,
        headers: &HeaderMap,
        now: DateTime<Utc>,
        jitter: f64,
    ) -> Next {
        self.made += 1;
        if !is_retriable(status) {
            return Next::Take;
        }
        self.saw_retriable = true;
        if self.made >= self.policy.attempts {
            return Next::Take;
        }
        Next::Wait(asked_wait(headers, now).unwrap_or_else(|| self.policy.backoff(self.made, jitter)))
    }

    /// Counts an attempt that got no answer; those are never repeated here.
    pub(crate) fn unanswered(&mut self) {
        self.made += 1;
    }

    pub(crate) fn made(&self) -> u32 {
        self.made
    }

    pub(crate) fn saw_retriable(&self) -> bool {
        self.saw_retriable
    }
}

/// 408, 429, 500, 502, 503, 504 and everything from 512 (GitLab Runner's list).
pub(crate) fn is_retriable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502..=504 | 512..)
}

/// The wait that the server asks for: `RateLimit-ResetTime` if it is in the future, else `Retry-After` in whole seconds.
fn asked_wait(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
    let reset = text("ratelimit-resettime")
        .and_then(|date| DateTime::parse_from_rfc2822(date.trim()).ok())
        .and_then(|date| (date.with_timezone(&Utc) - now).to_std().ok())
        .filter(|wait| !wait.is_zero());
    reset.or_else(|| {
        let seconds: u64 = text("retry-after")?.trim().parse().ok()?;
        (seconds > 0).then(|| Duration::from_secs(seconds))
    })
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    const NOW: &str = "2026-01-02T03:04:05Z";

    fn after(
        attempts: &mut Attempts<'_>,
        status: u16,
        headers: &[(&'static str, &str)],
        jitter: f64,
    ) -> Next {
        let headers = headers.iter().map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap())).collect();
        attempts.answered(StatusCode::from_u16(status).unwrap(), &headers, NOW.parse().unwrap(), jitter)
    }

    fn first_wait(headers: &[(&'static str, &str)]) -> Next {
        after(&mut RetryPolicy::default().start(), 429, headers, 0.0)
    }

    #[test]
    fn the_retried_statuses_are_those_of_the_reference() {
        let retried: Vec<u16> =
            (100..=999).filter(|code| is_retriable(StatusCode::from_u16(*code).unwrap())).collect();
        assert_eq!(retried[..6], [408, 429, 500, 502, 503, 504]);
        assert_eq!(retried[6..], (512..=999).collect::<Vec<u16>>());
    }

    #[test]
    fn the_fifth_answer_stands() {
        let policy = RetryPolicy::default();
        let mut attempts = policy.start();
        for _ in 0..4 {
            assert!(matches!(after(&mut attempts, 503, &[], 0.5), Next::Wait(_)));
        }
        assert_eq!(after(&mut attempts, 503, &[], 0.5), Next::Take);
        assert_eq!((attempts.made(), attempts.saw_retriable()), (5, true));
    }

    #[test]
    fn a_retried_success_still_says_that_it_was_retried() {
        let policy = RetryPolicy::default();
        let mut attempts = policy.start();
        after(&mut attempts, 502, &[], 0.0);
        assert_eq!(after(&mut attempts, 204, &[], 0.0), Next::Take);
        assert_eq!((attempts.made(), attempts.saw_retriable()), (2, true));
    }

    #[test]
    fn backoff_doubles_within_its_bounds() {
        let policy = RetryPolicy::default();
        let ms = |attempt, jitter| policy.backoff(attempt, jitter).as_millis();
        assert_eq!([ms(1, 1.0), ms(2, 1.0), ms(3, 1.0), ms(4, 1.0)], [100, 200, 400, 800]);
        assert_eq!([ms(2, 0.0), ms(4, 0.0), ms(4, 0.5)], [100, 100, 450]);
        assert_eq!(ms(40, 1.0), 60_000);
    }

    #[test_case(&[("retry-after", "7")], 7_000; "seconds")]
    #[test_case(&[("retry-after", "7"), ("ratelimit-resettime", "Fri, 02 Jan 2026 03:04:35 GMT")], 30_000; "reset time wins")]
    #[test_case(&[("retry-after", "7"), ("ratelimit-resettime", "Fri, 02 Jan 2026 03:04:05 GMT")], 7_000; "reset time is past")]
    #[test_case(&[("retry-after", "7"), ("ratelimit-resettime", "soon")], 7_000; "reset time is unreadable")]
    #[test_case(&[("retry-after", "0")], 100; "zero is no wish")]
    #[test_case(&[("retry-after", "Fri, 02 Jan 2026 03:04:35 GMT")], 100; "the date form is not understood")]
    #[test_case(&[("retry-after", "86400")], 86_400_000; "no cap for what the server asks")]
    fn the_server_may_ask_for_a_wait(headers: &[(&'static str, &str)], wanted_ms: u64) {
        assert_eq!(first_wait(headers), Next::Wait(Duration::from_millis(wanted_ms)));
    }
}
