//! What to do, and what happened to claims.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::doom::Doom;
use crate::ids::{ClaimKey, InstanceId, Slot};
use crate::instance::{Origin, Reason};

/// What to do. It leaves no choice: instances are named.
///
/// Each item is handed out once and counts as under way until its answer is given to the core
/// ([`increased`](crate::Core::increased), [`decreased`](crate::Core::decreased), [`readied`](crate::Core::readied),
/// [`health`](crate::Core::health)), also when the answer is that nothing could be done.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Plan {
    /// Instances to ask the group for.
    pub launch: u32,
    /// Instances to delete, in one call.
    pub delete: Vec<Deletion>,
    /// Running instances to make ready for jobs, and why each exists.
    pub ready_up: Vec<(InstanceId, Origin)>,
    /// Instances whose health check is due.
    pub check: Vec<InstanceId>,
    /// When to decide again if nothing happens before, on the clock of [`Now::mono`](crate::Now).
    pub wake_at: Option<Duration>,
    /// The group is about to change: list it at the short interval.
    pub expecting: bool,
}

/// One instance to delete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Deletion {
    /// Which.
    pub id: InstanceId,
    /// Why.
    pub reason: Reason,
}

/// What the owner of a claim must hear.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    /// A waiting claim got its slot.
    Granted {
        /// The claim.
        key: ClaimKey,
        /// Its slot.
        slot: Slot,
    },
    /// Something else was announced about the end of a claim's instance. The claim keeps its slot.
    Doomed {
        /// The claim.
        key: ClaimKey,
        /// All that counts now; `None` if it was called off.
        doom: Option<Doom>,
    },
    /// The instance of a claim is gone. The claim no longer exists; releasing it is a no-op.
    Lost {
        /// The claim.
        key: ClaimKey,
        /// The slot that it had.
        slot: Slot,
        /// Why.
        cause: LostCause,
    },
}

/// Why the instance of a running job went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum LostCause {
    /// It vanished, or its deletion was begun by somebody else.
    #[error("instance unexpectedly removed")]
    UnexpectedlyRemoved,
    /// The provider had announced that it would take it.
    #[error("instance taken away: {why}")]
    Doomed {
        /// The provider's words.
        why: String,
    },
    /// The scaler deleted it.
    #[error("instance deleted: {reason}")]
    Deleted {
        /// Why.
        reason: Reason,
    },
    /// The provider gave up on it.
    #[error("instance timed out")]
    TimedOut,
    /// It went while it was failing its checks.
    #[error("instance unhealthy: {why}")]
    Unhealthy {
        /// The last complaint.
        why: String,
    },
}

/// A milestone in the life of an instance, for logs and metrics. Nothing depends on it being read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "notice")]
pub enum Notice {
    /// First seen in a listing.
    Appeared {
        /// Which.
        id: InstanceId,
        /// Why it is known.
        origin: Origin,
        /// Time since it was asked for, if it was.
        after: Option<Duration>,
    },
    /// First seen running.
    Running {
        /// Which.
        id: InstanceId,
        /// Time since it was first seen.
        after: Duration,
    },
    /// Takes jobs from now on.
    Ready {
        /// Which.
        id: InstanceId,
        /// Time since it was first seen.
        after: Duration,
    },
    /// Marked for removal.
    Marked {
        /// Which.
        id: InstanceId,
        /// Why.
        reason: Reason,
    },
    /// The cloud has announced its end, or another end than before.
    Announced {
        /// Which.
        id: InstanceId,
        /// What was announced.
        doom: Doom,
    },
    /// Went without being asked to.
    UnexpectedlyRemoved {
        /// Which.
        id: InstanceId,
        /// Jobs ever started on it.
        used: u32,
        /// Slots and claims that it took along.
        slots: Vec<(u32, ClaimKey)>,
    },
    /// Deleted, as wanted.
    Deleted {
        /// Which.
        id: InstanceId,
        /// Time since the deletion was accepted.
        after: Duration,
        /// Time since it was first seen.
        life: Duration,
    },
    /// Instances that were asked for did not appear in time.
    RequestsLost {
        /// How many.
        count: u32,
    },
    /// Instances keep failing: none is asked for until the moment given, then one at a time until one becomes ready. Said
    /// once, until [`CircuitClosed`](Self::CircuitClosed).
    CircuitOpened {
        /// When the first probe may be made.
        until: DateTime<Utc>,
        /// Failures in a row.
        failures: u32,
        /// The last one.
        last: String,
    },
    /// An instance became ready after [`CircuitOpened`](Self::CircuitOpened): instances are asked for as usual.
    CircuitClosed,
    /// Another policy applies.
    PolicySwitched {
        /// Its position in the list; `None` if none matches and the defaults apply.
        policy: Option<usize>,
        /// Until when, as far as it is known.
        until: Option<DateTime<Utc>>,
    },
}
