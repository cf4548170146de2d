//! How long to wait: pure.

use std::time::Duration;

/// Most time between patches, whatever the server asks for (GitLab Runner's cap).
const MOST_INTERVAL: Duration = Duration::from_secs(15 * 60);
/// Silence that a keep-alive breaks.
const FORCE_INTERVAL: Duration = Duration::from_secs(30);
/// The same while somebody watches the job's page, which GitLab tells by asking for a short interval: they may cancel it, and
/// a silent job hears of that by its keep-alive only.
const WATCHED_FORCE_INTERVAL: Duration = Duration::from_secs(10);
/// The longest interval that GitLab asks for when a page is open.
const WATCHED_INTERVAL: Duration = Duration::from_secs(3);
const MOST_FORCE_INTERVAL: Duration = Duration::from_secs(30 * 60);
/// Most time between attempts at a GitLab that does not answer: so soon is its return noticed.
const MOST_BACKOFF: Duration = Duration::from_secs(60);

/// Time between patches, and after how much silence a keep-alive goes out.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    first: Duration,
    interval: Duration,
    dynamic: bool,
    watched: bool,
}

// === impl Pace ===

impl Pace {
    pub(super) fn new(interval: Duration, dynamic: bool) -> Self {
        Self { first: interval, interval, dynamic, watched: false }
    }

    pub(super) fn interval(&self) -> Duration {
        self.interval
    }

    /// What the server wants; zero is no wish.
    pub(super) fn heed(&mut self, wish: Option<Duration>) {
        if let Some(wish) = wish.filter(|wish| !wish.is_zero()) {
            self.interval = wish.min(MOST_INTERVAL);
            self.watched = wish <= WATCHED_INTERVAL;
        }
    }

    /// At the end of a job the server has to ask for slowness again.
    pub(super) fn reset(&mut self) {
        self.interval = self.first;
    }

    pub(super) fn force_interval(&self) -> Duration {
        if self.watched {
            WATCHED_FORCE_INTERVAL
        } else if self.dynamic {
            (self.interval * 4).clamp(FORCE_INTERVAL, MOST_FORCE_INTERVAL)
        } else {
            FORCE_INTERVAL
        }
    }
}

/// The wait after the n-th failure in a row (from 1): 1 s, 2 s, 4 s ... up to a minute, less up to a quarter that depends
/// on `seed`, so that the jobs of one manager do not return to GitLab all at once.
pub(super) fn backoff(failures: u32, seed: u64) -> Duration {
    let doubled = Duration::from_secs(1_u64.checked_shl(failures.saturating_sub(1)).unwrap_or(u64::MAX));
    let full = doubled.min(MOST_BACKOFF);
    let mixed = (seed ^ u64::from(failures)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54;
    full - full.mul_f64(0.25 * f64::from(u32::try_from(mixed).unwrap_or(0)) / 1024.0)
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case(None, 3; "no wish")]
    #[test_case(Some(0), 3; "zero is no wish")]
    #[test_case(Some(60), 60; "slower")]
    #[test_case(Some(1), 1; "faster")]
    #[test_case(Some(4000), 900; "not beyond fifteen minutes")]
    fn the_interval_follows_the_server(wish: Option<u64>, seconds: u64) {
        let mut pace = Pace::new(Duration::from_secs(3), false);
        pace.heed(wish.map(Duration::from_secs));
        assert_eq!(pace.interval(), Duration::from_secs(seconds));
        pace.reset();
        assert_eq!(pace.interval(), Duration::from_secs(3));
    }

    #[test_case(3, false, 30; "fixed")]
    #[test_case(60, false, 30; "fixed, slow server")]
    #[test_case(3, true, 30; "dynamic, at least half a minute")]
    #[test_case(60, true, 240; "dynamic, four intervals")]
    #[test_case(900, true, 1800; "dynamic, at most half an hour")]
    fn the_force_interval(interval: u64, dynamic: bool, seconds: u64) {
        assert_eq!(
            Pace::new(Duration::from_secs(interval), dynamic).force_interval(),
            Duration::from_secs(seconds)
        );
    }

    #[test]
    fn silence_is_shorter_while_somebody_watches() {
        let mut pace = Pace::new(Duration::from_secs(3), true);
        assert_eq!(pace.force_interval(), Duration::from_secs(30), "nobody has said so");
        pace.heed(Some(Duration::from_secs(3)));
        assert_eq!(pace.force_interval(), Duration::from_secs(10));
        pace.heed(None);
        assert_eq!(pace.force_interval(), Duration::from_secs(10), "no wish changes nothing");
        pace.heed(Some(Duration::from_secs(60)));
        assert_eq!(pace.force_interval(), Duration::from_secs(240), "the page was closed");
    }

    #[test]
    fn backoff_doubles_to_a_minute_and_is_spread() {
        for (failures, full) in [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (100, 60)] {
            for seed in 0..100 {
                let wait = backoff(failures, seed);
                assert!(wait <= Duration::from_secs(full) && wait >= Duration::from_secs(full).mul_f64(0.75));
            }
        }
        assert_ne!(backoff(7, 1), backoff(7, 2));
    }
}
