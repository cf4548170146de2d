//! Why the plan is what it is.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::ids::InstanceId;
use crate::instance::{Origin, PhaseName, Reason};
use crate::math::{Inputs, Wanted};

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

/// One reason for what a plan holds or does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "why")]
pub enum Why {
    /// No listing of the group has been seen, so nothing is decided.
    NoListing,
    /// The manager stops: no instances are made.
    ShuttingDown,
    /// Instances are asked for.
    Launching {
        /// How many.
        count: u32,
        /// What for.
        because: Demand,
    },
    /// More is wanted than the ceiling allows.
    AtMaxInstances {
        /// The ceiling.
        max: u32,
        /// Instances that would be wanted without it.
        wanted: u32,
    },
    /// More is wanted than the group can give, which is less than it was made for.
    Lacking {
        /// How many it can give.
        max: u32,
        /// Instances that would be wanted without that.
        wanted: u32,
        /// What it lacks, in its own words.
        lack: String,
    },
    /// Instances are asked for more slowly than wanted (`scale_throttle`).
    ThrottledUntil {
        /// When the next one may be asked for.
        until: DateTime<Utc>,
        /// How many wait.
        waiting: u32,
    },
    /// Instances keep failing to come or to get ready; the next try waits.
    BackoffUntil {
        /// When.
        until: DateTime<Utc>,
        /// Failures in a row.
        failures: u32,
        /// The last one.
        last: String,
    },
    /// Instances failed so often in a row that none is asked for (circuit breaker).
    CircuitOpen {
        /// When one is tried.
        until: DateTime<Utc>,
        /// Failures in a row.
        failures: u32,
        /// The last one.
        last: String,
    },
    /// After many failures one instance is tried; more are asked for once one has become ready.
    Probing {
        /// Failures in a row.
        failures: u32,
        /// The last one.
        last: String,
    },
    /// Somebody else keeps removing instances of the group.
    RemovedByOthers {
        /// How many within the last quarter of an hour.
        count: u32,
        /// The last of them.
        instance: InstanceId,
    },
    /// Instances are made and removed without running jobs.
    Churn {
        /// How many within the last quarter of an hour.
        instances: u32,
        /// Jobs that got a slot in that time.
        jobs: u32,
    },
    /// Jobs wait for instances that are on their way.
    WaitingForInstances {
        /// How many instances.
        count: u32,
    },
    /// More slots are in use than the known instances have; nothing is concluded until the counts agree.
    GuardExceeded {
        /// Slots running a job.
        acquired: u32,
        /// Slots that take none.
        unavailable: u32,
        /// Slots of all known instances.
        places: u64,
    },
    /// Instances are deleted.
    Removing {
        /// How many.
        count: u32,
        /// The first of them.
        instance: InstanceId,
        /// Why that one.
        reason: Reason,
    },
    /// The cloud did not accept deletions; they are asked for again.
    DeletionFailing {
        /// The last failure.
        last: String,
    },
    /// Idle instances stay.
    KeptIdle {
        /// How many.
        count: u32,
        /// The one that is idle longest.
        instance: InstanceId,
        /// Why they stay.
        because: Keep,
    },
    /// Idle instances could go but have not been idle long enough.
    TooYoungToRemove {
        /// The one that is idle longest.
        instance: InstanceId,
        /// When it may go.
        until: DateTime<Utc>,
    },
    /// Another manager has the group, which is left alone.
    HeldElsewhere {
        /// Who, for people.
        holder: String,
        /// Until when, unless it is renewed.
        until: Option<DateTime<Utc>>,
    },
    /// No policy matches; the defaults apply.
    NoPolicyMatches,
    /// There is what is wanted.
    NothingToDo,
}

/// What instances are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Demand {
    /// Jobs wait for a slot.
    PendingJobs,
    /// Idle capacity is below what the policy wants.
    IdleCapacity,
    /// Both.
    PendingJobsAndIdleCapacity,
}

/// Why an idle instance stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// It is wanted as idle capacity, or for waiting jobs.
    Wanted,
    /// A job was asked for on the strength of its slot moments ago.
    Reserved,
    /// The manager stops and leaves its instances.
    ShuttingDown,
}

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

// === impl Why ===

impl Why {
    /// The names of all reasons, for metrics and documents.
    pub const NAMES: [&str; 20] = [
        "no_listing",
        "shutting_down",
        "launching",
        "at_max_instances",
        "throttled",
        "backoff",
        "waiting_for_instances",
        "guard_exceeded",
        "removing",
        "deletion_failing",
        "kept_idle",
        "too_young_to_remove",
        "no_policy_matches",
        "nothing_to_do",
        "circuit_open",
        "probing",
        "removed_by_others",
        "churn",
        "held_elsewhere",
        "lacking",
    ];

    /// Its name, one of [`NAMES`](Self::NAMES).
    #[must_use]
    pub fn name(&self) -> &'static str {
        Self::NAMES[self.position()]
    }

    /// Its position in [`NAMES`](Self::NAMES).
    #[must_use]
    pub fn position(&self) -> usize {
        match self {
            Self::NoListing => 0,
            Self::ShuttingDown => 1,
            Self::Launching { .. } => 2,
            Self::AtMaxInstances { .. } => 3,
            Self::ThrottledUntil { .. } => 4,
            Self::BackoffUntil { .. } => 5,
            Self::WaitingForInstances { .. } => 6,
            Self::GuardExceeded { .. } => 7,
            Self::Removing { .. } => 8,
            Self::DeletionFailing { .. } => 9,
            Self::KeptIdle { .. } => 10,
            Self::TooYoungToRemove { .. } => 11,
            Self::NoPolicyMatches => 12,
            Self::NothingToDo => 13,
            Self::CircuitOpen { .. } => 14,
            Self::Probing { .. } => 15,
            Self::RemovedByOthers { .. } => 16,
            Self::Churn { .. } => 17,
            Self::HeldElsewhere { .. } => 18,
            Self::Lacking { .. } => 19,
        }
    }

    /// When it changes by itself, where that is known.
    #[must_use]
    pub fn until(&self) -> Option<DateTime<Utc>> {
        match self {
            Self::ThrottledUntil { until, .. }
            | Self::BackoffUntil { until, .. }
            | Self::CircuitOpen { until, .. }
            | Self::TooYoungToRemove { until, .. } => Some(*until),
            Self::HeldElsewhere { until, .. } => *until,
            Self::NoListing
            | Self::Probing { .. }
            | Self::RemovedByOthers { .. }
            | Self::Churn { .. }
            | Self::ShuttingDown
            | Self::Launching { .. }
            | Self::AtMaxInstances { .. }
            | Self::Lacking { .. }
            | Self::WaitingForInstances { .. }
            | Self::GuardExceeded { .. }
            | Self::Removing { .. }
            | Self::DeletionFailing { .. }
            | Self::KeptIdle { .. }
            | Self::NoPolicyMatches
            | Self::NothingToDo => None,
        }
    }

    /// It keeps jobs from getting more instances.
    #[must_use]
    pub fn holds_back(&self) -> bool {
        match self {
            Self::NoListing
            | Self::ShuttingDown
            | Self::HeldElsewhere { .. }
            | Self::AtMaxInstances { .. }
            | Self::Lacking { .. }
            | Self::ThrottledUntil { .. }
            | Self::BackoffUntil { .. }
            | Self::GuardExceeded { .. }
            | Self::CircuitOpen { .. }
            | Self::Probing { .. }
            | Self::DeletionFailing { .. } => true,
            Self::Launching { .. }
            | Self::RemovedByOthers { .. }
            | Self::Churn { .. }
            | Self::WaitingForInstances { .. }
            | Self::Removing { .. }
            | Self::KeptIdle { .. }
            | Self::TooYoungToRemove { .. }
            | Self::NoPolicyMatches
            | Self::NothingToDo => false,
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoListing => f.write_str("waiting for the first listing of the group"),
            Self::ShuttingDown => f.write_str("shutting down: no instances are made"),
            Self::Launching { count, because } => write!(f, "launching {count} for {because}"),
            Self::AtMaxInstances { max, wanted } => write!(f, "at the maximum of {max}, would want {wanted}"),
            Self::Lacking { max, wanted, lack } => {
                write!(f, "the group can give {max}, would want {wanted}: {lack}")
            }
            Self::ThrottledUntil { until, waiting } => {
                write!(f, "scale throttle: {waiting} more to launch, next at {until}")
            }
            Self::BackoffUntil { until, failures, last } => {
                write!(f, "backing off until {until} after {failures} failures, last: {last}")
            }
            Self::CircuitOpen { until, failures, last } => {
                write!(
                    f,
                    "no instances are asked for until {until} after {failures} failures in a row, last: {last}"
                )
            }
            Self::Probing { failures, last } => {
                write!(f, "trying one instance after {failures} failures in a row, last: {last}")
            }
            Self::RemovedByOthers { count, instance } => write!(
                f,
                "{count} instances were removed by somebody else in the last 15m, last {instance}: look for what else \
                 manages the group (zone rebalancing, instance refresh, spot reclaims, another runner)"
            ),
            Self::Churn { instances, jobs } => write!(
                f,
                "{instances} instances were made and went without a job in the last 15m, while {jobs} jobs got one"
            ),
            Self::WaitingForInstances { count } => write!(f, "waiting for {count} instances on their way"),
            Self::GuardExceeded { acquired, unavailable, places } => write!(
                f,
                "not scaling: {acquired} acquired and {unavailable} unavailable exceed {places} known slots"
            ),
            Self::Removing { count: 1, instance, reason } => write!(f, "removing {instance}: {reason}"),
            Self::Removing { count, instance, reason } => {
                write!(f, "removing {count}, first {instance}: {reason}")
            }
            Self::DeletionFailing { last } => write!(f, "deletions fail and are retried, last: {last}"),
            Self::KeptIdle { count, instance, because } => {
                write!(f, "keeping {count} idle, longest {instance}: {because}")
            }
            Self::TooYoungToRemove { instance, until } => {
                write!(f, "not removing before {until}: {instance} has not been idle long enough")
            }
            Self::HeldElsewhere { holder, until } => {
                write!(f, "standing by: the instance group is held by {holder}")?;
                until.map_or(Ok(()), |until| write!(f, ", until {until} unless renewed"))
            }
            Self::NoPolicyMatches => f.write_str("no policy matches: no idle capacity is kept"),
            Self::NothingToDo => f.write_str("nothing to do"),
        }
    }
}

impl fmt::Display for Demand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PendingJobs => "waiting jobs",
            Self::IdleCapacity => "idle capacity",
            Self::PendingJobsAndIdleCapacity => "waiting jobs and idle capacity",
        })
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wanted => "wanted as idle capacity",
            Self::Reserved => "a job was just asked for",
            Self::ShuttingDown => "instances are left at shutdown",
        })
    }
}

// === impl InstanceLine ===

impl fmt::Display for InstanceLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, phase, origin, slots_used, capacity, use_count, fate, .. } = self;
        write!(f, "{id} {phase} ({origin}) {slots_used}/{capacity} used {use_count}: {fate}")
    }
}

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
