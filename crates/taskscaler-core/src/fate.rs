//! What will become of each instance.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::ids::InstanceId;
use crate::instance::{Origin, PhaseName, Reason};
use crate::why::Keep;

/// One instance, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InstanceLine {
    /// Which.
    pub id: InstanceId,
    /// Its state.
    pub phase: PhaseName,
    /// Why it is known.
    pub origin: Origin,
    /// Slots running a job.
    pub slots_used: u32,
    /// Its slots.
    pub capacity: u32,
    /// Jobs ever started on it.
    pub use_count: u32,
    /// First seen.
    pub created: DateTime<Utc>,
    /// Since when it is idle, if it is.
    pub idle_since: Option<DateTime<Utc>>,
    /// What will become of it.
    pub fate: Fate,
}

/// Why an instance stays or goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "fate")]
pub enum Fate {
    /// Not seen since the restart.
    AwaitingListing,
    /// The cloud is making it; given up at this time.
    Creating {
        /// When it is given up.
        until: DateTime<Utc>,
    },
    /// It is being made ready.
    ReadyingUp,
    /// It runs jobs.
    Busy,
    /// It ran all the jobs that it may; it goes when the running ones end.
    LastJobs,
    /// It is idle and stays.
    Kept {
        /// Why.
        because: Keep,
    },
    /// It is idle and goes at this time unless it is wanted until then.
    RemovableAt {
        /// When.
        at: DateTime<Utc>,
    },
    /// It failed a check or a job, and takes none until it proves healthy.
    Suspect {
        /// The complaint.
        why: String,
    },
    /// It goes when its last job ends.
    Draining {
        /// Why it goes.
        reason: Reason,
    },
    /// It is being deleted.
    Deleting {
        /// Why it goes.
        reason: Reason,
    },
}

// === impl InstanceLine ===

impl fmt::Display for InstanceLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, phase, origin, slots_used, capacity, use_count, fate, .. } = self;
        write!(f, "{id} {phase} ({origin}) {slots_used}/{capacity} used {use_count}: {fate}")
    }
}

// === impl Fate ===

impl Fate {
    /// When it changes by itself, where that is known.
    #[must_use]
    pub fn until(&self) -> Option<DateTime<Utc>> {
        match self {
            Self::Creating { until: at } | Self::RemovableAt { at } => Some(*at),
            Self::AwaitingListing
            | Self::ReadyingUp
            | Self::Busy
            | Self::LastJobs
            | Self::Kept { .. }
            | Self::Suspect { .. }
            | Self::Draining { .. }
            | Self::Deleting { .. } => None,
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AwaitingListing => f.write_str("not seen since the restart"),
            Self::Creating { until } => write!(f, "given up at {until} unless it runs"),
            Self::ReadyingUp => f.write_str("being made ready"),
            Self::Busy => f.write_str("runs jobs"),
            Self::LastJobs => f.write_str("goes when its last job ends: instance reached max use count"),
            Self::Kept { because } => write!(f, "stays: {because}"),
            Self::RemovableAt { at } => write!(f, "goes at {at} unless wanted"),
            Self::Suspect { why } => write!(f, "takes no job until it proves healthy: {why}"),
            Self::Draining { reason } => write!(f, "goes when its last job ends: {reason}"),
            Self::Deleting { reason } => write!(f, "being deleted: {reason}"),
        }
    }
}
