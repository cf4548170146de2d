//! The life of one instance: closed states, and one total table of what a listing does to each of them.

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::doom::{Doom, Dooms};
use crate::ids::{ClaimKey, InstanceId, Mono};
use crate::math::Places;

/// One line of a listing of the group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Which instance.
    pub id: InstanceId,
    /// What the provider says about it.
    pub state: SeenState,
    /// What the provider says was announced about its end. No new job goes there.
    pub doomed: Option<Doom>,
}

/// What a provider says about an instance. Being absent from the listing means the same as [`SeenState::Deleted`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeenState {
    /// Exists, not usable yet.
    Creating,
    /// Booted according to the cloud.
    Running,
    /// Deletion under way.
    Deleting,
    /// Gone.
    Deleted,
    /// Did not become running in time, or failed to.
    Timeout,
}

/// Why the scaler knows an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The scaler asked for it.
    Requested,
    /// It was there at the start without a record, or appeared unasked.
    Preexisted,
    /// It was there at the start, and the ledger had its record.
    Restored {
        /// Jobs were running on it when the last manager stopped. They are over for the scaler; what they left behind
        /// must be cleaned before other jobs run there.
        had_claims: bool,
    },
}

/// Why an instance goes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Reason {
    /// Idle for longer than `idle_time` and not wanted as idle capacity.
    Idle,
    /// It ran `max_use_count` jobs.
    UsedUp,
    /// It could not be made ready.
    ReadyUpFailed {
        /// What went wrong.
        why: String,
    },
    /// It was there before, and nothing is known about what ran on it.
    NoRecord,
    /// It was running a job when the last manager stopped.
    RestoredWithAcquisitions,
    /// It failed its health checks, or jobs could not use it.
    Unhealthy {
        /// The last complaint.
        why: String,
    },
    /// It did not become running in time.
    CreationTimeout,
    /// The provider will take it away.
    Doomed {
        /// The provider's words.
        why: String,
    },
    /// The provider took it away by itself.
    TakenAway,
    /// It was gone and is listed again.
    Reappeared,
    /// The manager stops and deletes its instances.
    Shutdown,
}

/// The states of an instance, for people and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PhaseName {
    /// Known from the ledger, not yet seen in a listing.
    Restoring,
    /// Exists in the cloud, not running yet.
    Creating,
    /// Running, not yet made ready.
    Booting,
    /// Takes jobs.
    Ready,
    /// Failed a check or a job; takes no job until it proves healthy.
    Suspect,
    /// Marked for removal; goes when its last job ends.
    Draining,
    /// Deletion accepted by the cloud, or begun by it.
    Deleting,
}

/// When something is to be asked of the outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Not before this moment.
    At(Mono),
    /// It was handed out with a plan; the answer is awaited.
    InFlight,
    /// Not at all.
    Never,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    Restoring,
    Creating { until: Mono },
    Booting { ready_up: Ask },
    Ready { check: Ask },
    Suspect { why: String, check: Ask },
    Draining { reason: Reason, delete: Ask },
    Deleting { reason: Reason, since: Mono, delete: Ask },
}

/// What a listing does to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing changes.
    Stay,
    /// It exists and is not running: wait for it.
    Create,
    /// It runs: make it ready.
    Boot,
    /// It is not listed although it was: believe it the second time.
    Doubt,
    /// Gone as it should be, or without anybody's loss.
    Forget,
    /// Gone unasked.
    Vanish,
    /// Being deleted unasked.
    TakenAway,
    /// The provider gave up on it: remove it.
    TimeOut,
    /// Still there although it should be going.
    Linger,
}

#[derive(Debug, Clone)]
pub(crate) struct Instance {
    pub(crate) id: InstanceId,
    pub(crate) origin: Origin,
    pub(crate) phase: Phase,
    pub(crate) slots: BTreeMap<u32, ClaimKey>,
    /// Claims of a manager that is gone, kept on record until the instance is ready again.
    pub(crate) ghosts: Vec<ClaimKey>,
    /// Jobs ever started here.
    pub(crate) used: u32,
    pub(crate) created: DateTime<Utc>,
    pub(crate) created_mono: Mono,
    pub(crate) idle_since: Mono,
    pub(crate) idle_since_wall: DateTime<Utc>,
    /// Health checks failed in a row.
    pub(crate) failures: u32,
    /// Jobs that could not use it.
    pub(crate) complaints: u32,
    /// Missing from the last listing.
    pub(crate) doubted: bool,
    /// The listing that named it last.
    pub(crate) listing: u64,
    /// What was announced about its end.
    pub(crate) dooms: Dooms,
}

// === impl Seen ===

impl Seen {
    /// A line without a foreboding.
    pub fn new(id: impl Into<InstanceId>, state: SeenState) -> Self {
        Self { id: id.into(), state, doomed: None }
    }
}

// === impl Reason ===

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idle => f.write_str("instance exceeded max idle time"),
            Self::UsedUp => f.write_str("instance reached max use count"),
            Self::ReadyUpFailed { why } => write!(f, "instance could not be made ready: {why}"),
            Self::NoRecord => f.write_str("no data on pre-existing instance so removing for safety"),
            Self::RestoredWithAcquisitions => {
                f.write_str("pre-existing instance has acquisition so removing for safety")
            }
            Self::Unhealthy { why } => write!(f, "instance is unhealthy: {why}"),
            Self::CreationTimeout => f.write_str("instance did not become running in time"),
            Self::Doomed { why } => write!(f, "instance will be taken away: {why}"),
            Self::TakenAway => f.write_str("instance was taken away by the provider"),
            Self::Reappeared => f.write_str("instance was gone and is listed again"),
            Self::Shutdown => f.write_str("instances are deleted at shutdown"),
        }
    }
}

// === impl Origin ===

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Requested => "requested",
            Self::Preexisted => "preexisted",
            Self::Restored { .. } => "restored",
        })
    }
}

// === impl PhaseName ===

impl fmt::Display for PhaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Restoring => "restoring",
            Self::Creating => "creating",
            Self::Booting => "booting",
            Self::Ready => "ready",
            Self::Suspect => "suspect",
            Self::Draining => "draining",
            Self::Deleting => "deleting",
        })
    }
}

// === impl Phase ===

impl Phase {
    pub(crate) fn name(&self) -> PhaseName {
        match self {
            Self::Restoring => PhaseName::Restoring,
            Self::Creating { .. } => PhaseName::Creating,
            Self::Booting { .. } => PhaseName::Booting,
            Self::Ready { .. } => PhaseName::Ready,
            Self::Suspect { .. } => PhaseName::Suspect,
            Self::Draining { .. } => PhaseName::Draining,
            Self::Deleting { .. } => PhaseName::Deleting,
        }
    }
}

impl PhaseName {
    /// What a listing does to an instance in this state; `said` is `None` if the listing does not name it.
    ///
    /// Clouds list with delay. An instance that was seen but never ready may therefore be missing from one listing; the
    /// second one counts. A ready instance that is missing is gone: its jobs fail at once instead of hanging.
    pub(crate) fn step(self, said: Option<SeenState>) -> Step {
        use SeenState::{Creating, Deleted, Deleting, Running, Timeout};
        match (self, said) {
            (Self::Restoring, Some(Creating)) => Step::Create,
            (Self::Restoring, Some(Running)) => Step::Boot,
            (Self::Restoring, Some(Deleting)) => Step::TakenAway,
            (Self::Restoring, Some(Deleted) | None) => Step::Forget,
            (Self::Restoring, Some(Timeout)) => Step::TimeOut,

            (Self::Creating, Some(Creating)) => Step::Stay,
            (Self::Creating, Some(Running)) => Step::Boot,
            (Self::Creating, Some(Deleting)) => Step::TakenAway,
            (Self::Creating, Some(Deleted)) => Step::Vanish,
            (Self::Creating, Some(Timeout)) => Step::TimeOut,
            (Self::Creating, None) => Step::Doubt,

            (Self::Booting, Some(Creating | Running)) => Step::Stay,
            (Self::Booting, Some(Deleting)) => Step::TakenAway,
            (Self::Booting, Some(Deleted)) => Step::Vanish,
            (Self::Booting, Some(Timeout)) => Step::TimeOut,
            (Self::Booting, None) => Step::Doubt,

            (Self::Ready | Self::Suspect, Some(Creating | Running)) => Step::Stay,
            (Self::Ready | Self::Suspect, Some(Deleting)) => Step::TakenAway,
            (Self::Ready | Self::Suspect, Some(Deleted) | None) => Step::Vanish,
            (Self::Ready | Self::Suspect, Some(Timeout)) => Step::TimeOut,

            (Self::Draining, Some(Creating | Running | Timeout)) => Step::Stay,
            (Self::Draining, Some(Deleting)) => Step::TakenAway,
            (Self::Draining, Some(Deleted) | None) => Step::Vanish,

            (Self::Deleting, Some(Creating | Running | Timeout)) => Step::Linger,
            (Self::Deleting, Some(Deleting)) => Step::Stay,
            (Self::Deleting, Some(Deleted) | None) => Step::Forget,
        }
    }
}

// === impl Instance ===

impl Instance {
    pub(crate) fn acquired(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn is_busy(&self) -> bool {
        !self.slots.is_empty()
    }

    pub(crate) fn used_up(&self, max_use_count: u32) -> bool {
        max_use_count > 0 && self.used >= max_use_count
    }

    pub(crate) fn places(&self, capacity: u32, max_use_count: u32) -> Places {
        let (open, counted) = match self.phase {
            Phase::Restoring | Phase::Creating { .. } | Phase::Booting { .. } => (false, false),
            Phase::Ready { .. } => (true, true),
            Phase::Suspect { .. } | Phase::Draining { .. } => (false, true),
            Phase::Deleting { .. } => (false, false),
        };
        Places::of(capacity, max_use_count, self.used, self.acquired(), open, counted)
    }

    /// The lowest free slot.
    pub(crate) fn free_index(&self) -> u32 {
        (0..)
            .zip(self.slots.keys())
            .find_map(|(index, taken)| (index != *taken).then_some(index))
            .unwrap_or(self.acquired())
    }

    /// When the core has something to do about it by itself.
    pub(crate) fn due(&self, paused: bool) -> Option<Mono> {
        let ask = match self.phase {
            Phase::Restoring => Ask::Never,
            Phase::Creating { until } => Ask::At(until),
            Phase::Booting { ready_up } if !paused => ready_up,
            Phase::Ready { check } | Phase::Suspect { check, .. } if !paused => check,
            Phase::Booting { .. } | Phase::Ready { .. } | Phase::Suspect { .. } => Ask::Never,
            Phase::Draining { delete, .. } if !self.is_busy() => delete,
            Phase::Draining { .. } => Ask::Never,
            Phase::Deleting { delete, .. } => delete,
        };
        match ask {
            Ask::At(at) => Some(at),
            Ask::InFlight | Ask::Never => None,
        }
    }

    /// Why it goes, if it does.
    pub(crate) fn leaving(&self) -> Option<&Reason> {
        match &self.phase {
            Phase::Draining { reason, .. } | Phase::Deleting { reason, .. } => Some(reason),
            Phase::Restoring
            | Phase::Creating { .. }
            | Phase::Booting { .. }
            | Phase::Ready { .. }
            | Phase::Suspect { .. } => None,
        }
    }
}
