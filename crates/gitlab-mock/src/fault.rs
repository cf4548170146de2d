//! Faults on demand: what a proxy, a restart or a bad network does to a call.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::endpoint::Endpoint;
use crate::sync::lock;

/// A fault that befalls calls until it is used up, its time is over, or it is removed.
///
/// ```
/// use drover_gitlab_mock::{Endpoint, Fault};
/// use std::time::Duration;
///
/// let busy = Fault::status(429).retry_after(Duration::from_secs(2)).on([Endpoint::RequestJob]).times(3);
/// let gone = Fault::lose_answer().on([Endpoint::UpdateJob]).times(1);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What happens.
    pub action: FaultAction,
    /// The calls that it befalls; empty means every call but the mock's own.
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
    /// Only calls about this job.
    #[serde(default)]
    pub job: Option<u64>,
    /// So many matching calls are left alone first.
    #[serde(default)]
    pub skip: u64,
    /// So many calls are hit; `None` means all.
    #[serde(default)]
    pub times: Option<u64>,
    /// The fault ends after this many seconds; `None` means that it lasts.
    #[serde(default)]
    pub lasting_seconds: Option<f64>,
}

/// What a fault does to a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FaultAction {
    /// The call is not processed; the answer is this status with an empty or plain body, as a proxy gives it.
    Status {
        /// Status code.
        code: u16,
        /// `Retry-After`, whole seconds.
        #[serde(default)]
        retry_after: Option<u64>,
        /// `RateLimit-ResetTime`: so many seconds from the moment of the answer.
        #[serde(default)]
        rate_limit_reset: Option<u64>,
    },
    /// The call waits so many seconds before it is processed.
    Delay {
        /// Seconds.
        seconds: f64,
    },
    /// The call is processed at once and answered so many seconds later.
    SlowAnswer {
        /// Seconds.
        seconds: f64,
    },
    /// The connection is reset before the call is processed.
    Reset,
    /// The call is processed, takes effect, and the connection is closed without an answer.
    LoseAnswer,
}

/// Names an active fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FaultId(pub u64);

/// An active fault and what it has done.
#[derive(Debug, Clone, Serialize)]
pub struct FaultReport {
    /// Its name.
    pub id: FaultId,
    /// The fault as it was asked for.
    pub fault: Fault,
    /// How many calls it has hit.
    pub hits: u64,
    /// Whether it can still hit one.
    pub active: bool,
}

/// All faults, in the order in which they were asked for.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    armed: AtomicUsize,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    next: u64,
    list: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    id: FaultId,
    fault: Fault,
    until: Option<Instant>,
    seen: u64,
    hits: u64,
    removed: bool,
}

// === impl Fault ===

impl Fault {
    /// A fault on every call until it is removed.
    #[must_use]
    pub fn new(action: FaultAction) -> Self {
        Self { action, endpoints: Vec::new(), job: None, skip: 0, times: None, lasting_seconds: None }
    }

    /// Answers with a status, without processing the call.
    #[must_use]
    pub fn status(code: u16) -> Self {
        Self::new(FaultAction::Status { code, retry_after: None, rate_limit_reset: None })
    }

    /// Resets the connection without processing the call.
    #[must_use]
    pub fn reset() -> Self {
        Self::new(FaultAction::Reset)
    }

    /// Processes the call and never answers.
    #[must_use]
    pub fn lose_answer() -> Self {
        Self::new(FaultAction::LoseAnswer)
    }

    /// Waits before the call is processed.
    #[must_use]
    pub fn delay(wait: Duration) -> Self {
        Self::new(FaultAction::Delay { seconds: wait.as_secs_f64() })
    }

    /// Processes the call and answers late.
    #[must_use]
    pub fn slow_answer(wait: Duration) -> Self {
        Self::new(FaultAction::SlowAnswer { seconds: wait.as_secs_f64() })
    }

    /// Adds `Retry-After` to a status fault; whole seconds.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        if let FaultAction::Status { retry_after, .. } = &mut self.action {
            *retry_after = Some(wait.as_secs());
        }
        self
    }

    /// Adds `RateLimit-ResetTime` to a status fault: so far in the future, whole seconds.
    #[must_use]
    pub fn rate_limit_reset(mut self, wait: Duration) -> Self {
        if let FaultAction::Status { rate_limit_reset, .. } = &mut self.action {
            *rate_limit_reset = Some(wait.as_secs());
        }
        self
    }

    /// Aims the fault at some calls.
    #[must_use]
    pub fn on(mut self, endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        self.endpoints = endpoints.into_iter().collect();
        self
    }

    /// Aims the fault at the calls about one job.
    #[must_use]
    pub fn for_job(mut self, id: u64) -> Self {
        self.job = Some(id);
        self
    }

    /// Leaves the first `count` matching calls alone.
    #[must_use]
    pub fn after(mut self, count: u64) -> Self {
        self.skip = count;
        self
    }

    /// Ends the fault after so many hits.
    #[must_use]
    pub fn times(mut self, count: u64) -> Self {
        self.times = Some(count);
        self
    }

    /// Ends the fault after some time.
    #[must_use]
    pub fn lasting(mut self, time: Duration) -> Self {
        self.lasting_seconds = Some(time.as_secs_f64());
        self
    }
}

// === impl Faults ===

impl Faults {
    pub(crate) fn add(&self, fault: Fault, now: Instant) -> FaultId {
        let mut entries = lock(&self.entries);
        entries.next += 1;
        let id = FaultId(entries.next);
        let until = fault.lasting_seconds.map(|secs| now + duration(secs));
        entries.list.push(Entry { id, fault, until, seen: 0, hits: 0, removed: false });
        self.armed.fetch_add(1, Ordering::Release);
        id
    }

    pub(crate) fn remove(&self, id: FaultId) -> bool {
        let mut entries = lock(&self.entries);
        let Some(entry) = entries.list.iter_mut().find(|entry| entry.id == id && !entry.removed) else {
            return false;
        };
        entry.removed = true;
        self.armed.fetch_sub(1, Ordering::Release);
        true
    }

    pub(crate) fn clear(&self) {
        for entry in lock(&self.entries).list.iter_mut().filter(|entry| !entry.removed) {
            entry.removed = true;
            self.armed.fetch_sub(1, Ordering::Release);
        }
    }

    pub(crate) fn report(&self, now: Instant) -> Vec<FaultReport> {
        let entries = lock(&self.entries);
        let report = |entry: &Entry| FaultReport {
            id: entry.id,
            fault: entry.fault.clone(),
            hits: entry.hits,
            active: entry.can_hit(now),
        };
        entries.list.iter().map(report).collect()
    }

    /// The fault that befalls this call, counted as a hit.
    pub(crate) fn befall(&self, endpoint: Endpoint, job: Option<u64>, now: Instant) -> Option<FaultAction> {
        if self.armed.load(Ordering::Acquire) == 0 || endpoint == Endpoint::Admin {
            return None;
        }
        let mut entries = lock(&self.entries);
        for entry in &mut entries.list {
            let aimed = entry.fault.endpoints.is_empty() || entry.fault.endpoints.contains(&endpoint);
            let about = entry.fault.job.is_none() || entry.fault.job == job;
            if !aimed || !about || !entry.can_hit(now) {
                continue;
            }
            entry.seen += 1;
            if entry.seen <= entry.fault.skip {
                continue;
            }
            entry.hits += 1;
            return Some(entry.fault.action.clone());
        }
        None
    }
}

// === impl Entry ===

impl Entry {
    fn can_hit(&self, now: Instant) -> bool {
        !self.removed
            && self.until.is_none_or(|until| now < until)
            && self.fault.times.is_none_or(|times| self.hits < times)
    }
}

/// Seconds of a file or an admin call as a duration; nonsense is zero.
pub(crate) fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}
