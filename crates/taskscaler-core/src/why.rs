//! Why the plan is what it is.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::ids::InstanceId;
use crate::instance::Reason;

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
