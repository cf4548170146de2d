//! Names and moments that every other part speaks in.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// The provider's name for one instance, unique within its group for all time.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InstanceId(Arc<str>);

/// The name of one claim on a slot, chosen by the owner of the job and never used twice at the same time.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClaimKey(Arc<str>);

/// A place for one job: slot `index` (from 0) of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Slot {
    /// The instance.
    pub instance: InstanceId,
    /// Which of its places, `0 .. capacity_per_instance`.
    pub index: u32,
}

/// The present, as the caller's clocks tell it. The core never reads a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Time since an arbitrary start that stays the same for the life of one [`Core`](crate::Core). It never goes back.
    pub mono: Duration,
    /// Wall-clock time. It decides which policy applies and stamps what is persisted; it may jump.
    pub wall: DateTime<Utc>,
}

/// A moment on the monotonic clock. Signed, because what is restored may have begun before the clock's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mono(i64);

// === impl InstanceId ===

impl InstanceId {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T: Into<Arc<str>>> From<T> for InstanceId {
    fn from(id: T) -> Self {
        Self(id.into())
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl ClaimKey ===

impl ClaimKey {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T: Into<Arc<str>>> From<T> for ClaimKey {
    fn from(key: T) -> Self {
        Self(key.into())
    }
}

impl fmt::Display for ClaimKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ClaimKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Slot ===

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.instance, self.index)
    }
}

// === impl Now ===

impl Now {
    pub(crate) fn tick(self) -> Mono {
        Mono::from(self.mono)
    }

    /// The wall-clock time at which the monotonic clock will show `at`, in whole seconds so that small drift between
    /// the clocks does not make equal reports differ.
    pub(crate) fn wall_at(self, at: Mono) -> DateTime<Utc> {
        let exact = self.wall + chrono::TimeDelta::nanoseconds(at.0.saturating_sub(self.tick().0));
        let seconds = exact.timestamp() + i64::from(exact.timestamp_subsec_nanos() >= 500_000_000);
        DateTime::from_timestamp(seconds, 0).unwrap_or(exact)
    }
}

// === impl Mono ===

impl Mono {
    /// Before every other moment.
    pub(crate) const MIN: Self = Self(i64::MIN);

    /// How long ago `earlier` was; zero if it was not.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    pub(crate) fn before(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(by)))
    }

    pub(crate) fn to_duration(self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0).unwrap_or(0))
    }
}

impl From<Duration> for Mono {
    fn from(since_start: Duration) -> Self {
        Self(nanos(since_start))
    }
}

impl std::ops::Add<Duration> for Mono {
    type Output = Self;

    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(nanos(by)))
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}
