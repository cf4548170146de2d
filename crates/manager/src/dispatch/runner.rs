//! One runner's turns.

use std::time::Duration;

use super::adaptive::Adaptive;
use super::health::Health;
use crate::watch::Requests;

/// What bounds the requests and jobs of one runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunnerLimits {
    /// Most jobs at once; 0 is no limit.
    pub(crate) limit: usize,
    /// Most requests under way.
    pub(crate) request_concurrency: usize,
    /// Let the number of requests follow GitLab's answers.
    pub(crate) adaptive: bool,
    /// Wait for the interval even after a job.
    pub(crate) strict_check_interval: bool,
    /// Refusals in a row that make the runner unhealthy.
    pub(crate) unhealthy_requests_limit: u32,
    /// How long an unhealthy runner is left alone.
    pub(crate) unhealthy_interval: Duration,
}

/// What GitLab said to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A job; `retried` if the HTTP layer needed more than one try.
    Job { retried: bool },
    /// No job, or a failure that says nothing of the runner; `again` if another request is worth making at once.
    Nothing { retried: bool, again: bool },
    /// The runner is not welcome.
    Refused,
}

/// Requests without a job that may follow each other before an interval is waited for: one that learns the queue cursor, one
/// that is held until the queue changes, one that fetches what changed it.
const EARLY_REPEATS: u32 = 3;

#[derive(Debug)]
pub(crate) struct RunnerState {
    limits: RunnerLimits,
    adaptive: Adaptive,
    pub(crate) health: Health,
    pub(crate) jobs: usize,
    asking: usize,
    /// No request before this time.
    not_before: Duration,
    /// When the newest request began.
    asked_at: Duration,
    /// Requests in a row that were repeated before their interval was over.
    early: u32,
    /// The executor had no room. It says when it has; this is when to ask it anyway.
    no_room: Option<Duration>,
    /// The last answer was a job, so there are probably more.
    hot: bool,
    pub(crate) last_turn: u64,
    pub(crate) removed: bool,
}

// === impl Answer ===

impl Answer {
    pub(crate) fn is_job(self) -> bool {
        match self {
            Self::Job { .. } => true,
            Self::Nothing { .. } | Self::Refused => false,
        }
    }
}

// === impl RunnerState ===

impl RunnerState {
    pub(crate) fn new(limits: RunnerLimits) -> Self {
        Self {
            adaptive: Adaptive::new(limits.request_concurrency, limits.adaptive),
            limits,
            health: Health::default(),
            jobs: 0,
            asking: 0,
            not_before: Duration::ZERO,
            asked_at: Duration::ZERO,
            early: 0,
            no_room: None,
            hot: false,
            last_turn: 0,
            removed: false,
        }
    }

    pub(crate) fn configure(&mut self, limits: RunnerLimits) {
        self.limits = limits;
        self.adaptive.configure(limits.request_concurrency, limits.adaptive);
        self.health.clear();
        self.removed = false;
    }

    /// A request may be made now, as far as this runner is concerned.
    pub(crate) fn may_ask(&self, now: Duration) -> bool {
        let executor = self.no_room.is_none_or(|again| again <= now);
        self.has_room() && executor && self.not_before <= now && self.health.until(now).is_none()
    }

    /// Would ask now or at its next interval, and has no request under way that holds a place for it.
    pub(crate) fn wants_a_place(&self) -> bool {
        self.has_room() && self.asking == 0 && self.no_room.is_none()
    }

    pub(crate) fn wakes_at(&self, now: Duration) -> Option<Duration> {
        if !self.has_room() {
            return None;
        }
        let healthy = self.health.until(now).unwrap_or_default();
        Some(self.not_before.max(healthy).max(self.no_room.unwrap_or_default()))
    }

    pub(crate) fn ask(&mut self, turn: u64, now: Duration) {
        self.asking += 1;
        self.last_turn = turn;
        self.asked_at = now;
    }

    pub(crate) fn refused(&mut self, now: Duration, interval: Duration) {
        self.asking -= 1;
        self.no_room = Some(now + interval);
    }

    /// The request that found no room is due still.
    pub(crate) fn room(&mut self) {
        self.no_room = None;
    }

    pub(crate) fn answered(&mut self, answer: Answer, now: Duration, interval: Duration) {
        self.asking -= 1;
        let next_interval = (self.asked_at + interval).max(now);
        match answer {
            Answer::Job { retried } => {
                self.jobs += 1;
                self.early = 0;
                self.hot = !self.limits.strict_check_interval;
                self.not_before = if self.hot { now } else { next_interval };
                self.adaptive.learn(true, retried);
                self.healthy(true, now);
            }
            Answer::Nothing { retried, again } => {
                self.hot = false;
                if now >= self.asked_at + interval {
                    self.early = 0;
                }
                if self.asking >= self.request_limit() {
                    // One of several that were made while there were jobs. None follows it, so those under way decide.
                } else if again && self.early < EARLY_REPEATS && !self.limits.strict_check_interval {
                    // A server that says "again" without ever holding a request must not be asked in a loop.
                    self.early += 1;
                    self.not_before = now;
                } else {
                    self.early = 0;
                    self.not_before = next_interval;
                }
                self.adaptive.learn(false, retried);
                self.healthy(true, now);
            }
            Answer::Refused => {
                self.hot = false;
                self.not_before = next_interval;
                self.adaptive.learn(false, false);
                self.healthy(false, now);
            }
        }
    }

    pub(crate) fn idle(&self) -> bool {
        self.jobs == 0 && self.asking == 0
    }

    fn healthy(&mut self, healthy: bool, now: Duration) {
        self.health.learn(healthy, now, self.limits.unhealthy_requests_limit, self.limits.unhealthy_interval);
    }

    pub(crate) fn requests(&self, now: Duration) -> Requests {
        Requests {
            in_flight: self.asking,
            hard_limit: self.limits.request_concurrency.max(1),
            adaptive_limit: self.adaptive.value(),
            used_limit: self.request_limit(),
            healthy: self.health.until(now).is_none(),
        }
    }

    /// GitLab gives jobs, the runner may have more, and as many requests as there may ever be are under way.
    pub(crate) fn requests_exhausted(&self) -> bool {
        self.hot && self.under_limit() && self.asking >= self.limits.request_concurrency.max(1)
    }

    fn has_room(&self) -> bool {
        !self.removed && self.under_limit() && self.asking < self.request_limit()
    }

    fn under_limit(&self) -> bool {
        self.limits.limit == 0 || self.jobs + self.asking < self.limits.limit
    }

    /// While GitLab has nothing to give, one request that waits there is as good as many.
    fn request_limit(&self) -> usize {
        if self.limits.adaptive && !self.hot { 1 } else { self.adaptive.limit() }
    }
}
