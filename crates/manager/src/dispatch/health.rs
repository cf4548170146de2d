//! A runner that GitLab refuses again and again is left alone for a while.

use std::time::Duration;

/// Counts refusals of one runner.
#[derive(Debug, Clone, Default)]
pub(crate) struct Health {
    refusals: u32,
    until: Option<Duration>,
}

impl Health {
    /// One answer came in. True if the runner has just become unhealthy.
    pub(crate) fn learn(&mut self, healthy: bool, now: Duration, limit: u32, interval: Duration) -> bool {
        if healthy {
            self.clear();
            return false;
        }
        self.refusals += 1;
        if self.refusals < limit.max(1) {
            return false;
        }
        // After the pause one request is made, and the count starts anew.
        self.refusals = 0;
        self.until = Some(now + interval);
        true
    }

    /// When the runner may be asked for again; none means now.
    pub(crate) fn until(&self, now: Duration) -> Option<Duration> {
        self.until.filter(|until| *until > now)
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}
