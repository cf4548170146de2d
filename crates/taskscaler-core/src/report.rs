//! Everything that a decision looked at and concluded.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::math::{Inputs, Wanted};
use crate::why::Why;

/// Everything that a decision looked at and concluded. Equal reports mean that nothing changed: it holds no present time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// What the formula looked at.
    pub inputs: Inputs,
    /// What it yielded.
    pub wanted: Wanted,
    /// The policy that applies.
    pub policy: ActivePolicy,
    /// Instances by state.
    pub counts: Counts,
    /// Free slots of ready instances.
    pub idle: u32,
    /// Free slots of suspect instances (part of the unavailable capacity).
    pub unhealthy: u32,
    /// Free slots that nobody has claimed yet; below 0 if more was claimed than is free.
    pub available: i64,
    /// Slots that could still be claimed if the group grew to its ceiling; `None` without one.
    pub potential: Option<i64>,
    /// The reasons, most important first; never empty.
    pub why: Vec<Why>,
}

/// The policy that applies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ActivePolicy {
    /// Its position in the list; `None` if none matches and the defaults apply.
    pub index: Option<usize>,
    /// When another one takes over; `None` if that is not within a week.
    pub until: Option<DateTime<Utc>>,
    /// How long an instance stays idle before it may go.
    pub idle_time: Duration,
    /// Jobs are taken only when a ready slot exists.
    pub preemptive: bool,
}

/// Instances by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    /// Asked for, not yet seen.
    pub requested: u32,
    /// Known from the ledger, not yet seen.
    pub restoring: u32,
    /// Not running yet.
    pub creating: u32,
    /// Running, not yet made ready.
    pub booting: u32,
    /// Taking jobs.
    pub ready: u32,
    /// Failing checks.
    pub suspect: u32,
    /// Marked for removal.
    pub draining: u32,
    /// Being deleted.
    pub deleting: u32,
}

// === impl Report ===

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, why) in self.why.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            why.fmt(f)?;
        }
        Ok(())
    }
}
