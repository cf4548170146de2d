//! How fast instances may be asked for: a token bucket, and a back-off while creation keeps failing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::ids::Mono;

/// Why instances did not come, as far as the scaler cares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What it means for the next try.
    pub kind: FailureKind,
    /// The cloud's words, for people.
    pub message: String,
    /// Try no earlier than this after the failure, where the cloud says so.
    pub retry_after: Option<Duration>,
}

/// What a failure means for the next try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The cloud has no machine of this kind now.
    NoCapacity,
    /// Too many calls.
    Throttled,
    /// Limits, permissions, configuration: an operator has to act.
    NeedsOperator,
    /// The instance came but did not become usable.
    NotReady,
    /// Anything that may pass by itself.
    Transient,
}

/// Tokens are instances; kept in billionths, so that refilling is exact.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    /// Tokens per second; `None` for infinite.
    rate: Option<u64>,
    burst: u64,
    level: u128,
    at: Mono,
}

/// Waits 1, 2, 4 ... 60 s after failures in a row. Failures that arrive while a wait is running are taken as one with the
/// failure that began it: ten instances of one batch that fail together are one failure.
#[derive(Debug, Clone, Default)]
pub(crate) struct Backoff {
    failures: u32,
    until: Option<Mono>,
    last: Option<Failure>,
}

const TOKEN: u128 = 1_000_000_000;
const DEFAULT_RATE: u64 = 100;
const BACKOFF_CAP: Duration = Duration::from_secs(60);

// === impl Failure ===

impl Failure {
    /// A failure without advice when to try again.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

// === impl Bucket ===

impl Bucket {
    pub(crate) fn new(config: &Config, now: Mono) -> Self {
        let (rate, burst) = Self::settings(config);
        Self { rate, burst, level: u128::from(burst) * TOKEN, at: now }
    }

    /// Applies new settings; what was used up stays used up.
    pub(crate) fn configure(&mut self, config: &Config, now: Mono) {
        self.refill(now);
        let (rate, burst) = Self::settings(config);
        let spent = (u128::from(self.burst) * TOKEN).saturating_sub(self.level);
        self.rate = rate;
        self.burst = burst;
        self.level = (u128::from(burst) * TOKEN).saturating_sub(spent);
    }

    /// Takes up to `wanted` tokens.
    pub(crate) fn take(&mut self, wanted: u32, now: Mono) -> u32 {
        if self.rate.is_none() {
            return wanted;
        }
        self.refill(now);
        let granted = u128::from(wanted).min(self.level / TOKEN);
        self.level -= granted * TOKEN;
        u32::try_from(granted).unwrap_or(wanted)
    }

    /// When the next token is there.
    pub(crate) fn next(&self) -> Mono {
        let missing = TOKEN.saturating_sub(self.level);
        let rate = u128::from(self.rate.unwrap_or(u64::MAX)).max(1);
        self.at + Duration::from_nanos(u64::try_from(missing.div_ceil(rate)).unwrap_or(u64::MAX))
    }

    fn refill(&mut self, now: Mono) {
        let gained = now.since(self.at).as_nanos() * u128::from(self.rate.unwrap_or(0));
        self.level = self.level.saturating_add(gained).min(u128::from(self.burst) * TOKEN);
        self.at = self.at.max(now);
    }

    fn settings(config: &Config) -> (Option<u64>, u64) {
        let throttle = config.scale_throttle;
        let rate = match throttle.limit {
            0 => Some(DEFAULT_RATE),
            limit => u64::try_from(limit).ok(),
        };
        let burst = match (throttle.burst, config.max_instances) {
            (0, 0) => rate.unwrap_or(0),
            (0, max) => u64::from(max),
            (burst, _) => u64::from(burst),
        };
        (rate, burst)
    }
}

// === impl Backoff ===

impl Backoff {
    /// Returns false for a failure that is taken as one with an earlier one.
    pub(crate) fn fail(&mut self, failure: Failure, now: Mono) -> bool {
        let advised = failure.retry_after.map(|after| now + after);
        let counted = self.wait(now).is_none();
        if counted {
            self.failures = self.failures.saturating_add(1);
            let delay = Duration::from_secs(1 << (self.failures - 1).min(6)).min(BACKOFF_CAP);
            self.until = Some(now + delay);
        }
        self.until = self.until.max(advised);
        self.last = Some(failure);
        counted
    }

    /// The last failure of the row.
    pub(crate) fn last(&self) -> Option<&Failure> {
        self.last.as_ref()
    }

    pub(crate) fn succeed(&mut self) {
        *self = Self::default();
    }

    /// Until when nothing should be tried, and after what.
    pub(crate) fn wait(&self, now: Mono) -> Option<(Mono, &Failure)> {
        let until = self.until.filter(|until| *until > now)?;
        Some((until, self.last.as_ref()?))
    }

    /// Failures in a row.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;
    use crate::config::ScaleThrottle;

    #[test]
    fn a_burst_then_one_per_second_then_a_burst_again() {
        let mut bucket = bucket(1, 60, 0);
        let granted = [(0, 60), (1, 5), (2, 5), (62, 60)].map(|(t, asked)| bucket.take(asked, at(t)));
        assert_eq!(granted, [60, 1, 1, 60]);
        assert_eq!(bucket.take(1, at(62)), 0);
        assert_eq!(bucket.next(), at(63));
    }

    #[test_case(-1, 5, 0 => 1_000; "infinite ignores the burst")]
    #[test_case(0, 0, 0 => 100; "limit and burst default to 100 without a ceiling")]
    #[test_case(0, 0, 10 => 10; "burst defaults to max instances")]
    #[test_case(7, 0, 0 => 7; "burst defaults to the limit without a ceiling")]
    #[test_case(7, 20, 10 => 20; "burst as given")]
    fn first_grant_of_a_thousand(limit: i64, burst: u32, max_instances: u32) -> u32 {
        bucket(limit, burst, max_instances).take(1_000, at(0))
    }

    #[test]
    fn other_settings_do_not_refill_the_bucket() {
        let mut bucket = bucket(1, 10, 0);
        assert_eq!(bucket.take(8, at(0)), 8);
        let throttle = ScaleThrottle { limit: 1, burst: 12 };
        bucket.configure(&Config { scale_throttle: throttle, ..Config::default() }, at(0));
        assert_eq!(bucket.take(12, at(0)), 4);
    }

    #[test]
    fn back_off_doubles_up_to_a_minute_and_a_success_ends_it() {
        let mut backoff = Backoff::default();
        let mut now = at(0);
        let waits: Vec<u64> = (0..8)
            .map(|_| {
                backoff.fail(Failure::new(FailureKind::Transient, "no"), now);
                let (until, _) = backoff.wait(now).unwrap();
                let wait = until.since(now).as_secs();
                now = until;
                wait
            })
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        backoff.succeed();
        assert_eq!(backoff.wait(now), None);
        backoff.fail(Failure::new(FailureKind::Transient, "no"), now);
        assert_eq!(backoff.wait(now).unwrap().0, now + Duration::from_secs(1));
    }

    #[test]
    fn failures_of_one_batch_count_once() {
        let mut backoff = Backoff::default();
        for _ in 0..10 {
            backoff.fail(Failure::new(FailureKind::NotReady, "no"), at(0));
        }
        assert_eq!(backoff.failures(), 1);
        assert_eq!(backoff.wait(at(0)).unwrap().0, at(1));
    }

    #[test]
    fn the_advice_of_the_cloud_is_heeded() {
        let mut backoff = Backoff::default();
        let retry_after = Some(Duration::from_secs(300));
        backoff.fail(Failure { retry_after, ..Failure::new(FailureKind::Throttled, "slow down") }, at(0));
        assert_eq!(backoff.wait(at(10)).unwrap().0, at(300));
    }

    fn bucket(limit: i64, burst: u32, max_instances: u32) -> Bucket {
        let scale_throttle = ScaleThrottle { limit, burst };
        Bucket::new(&Config { scale_throttle, max_instances, ..Config::default() }, at(0))
    }

    fn at(seconds: u64) -> Mono {
        Mono::from(Duration::from_secs(seconds))
    }
}
