//! Claims on slots, from a job's point of view.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use connect_info::ConnectInfo;
use fleeting::GroupError;
use taskscaler_core::{ClaimKey, Doom, InstanceId, Slot};
use tokio::sync::watch;

use crate::shared::{Ears, Shared};

/// One slot somewhere, not yet bound to an instance. Dropping it gives the slot back.
#[must_use = "a reservation that is dropped is given back"]
pub struct Reservation {
    pub(crate) claim: Claim,
}

/// One slot of one instance, for the life of a job. Dropping it releases the slot.
#[must_use = "an acquisition that is dropped is released"]
pub struct Acquisition {
    pub(crate) claim: Claim,
    pub(crate) slot: Slot,
    pub(crate) ears: Ears,
}

/// Why an instance was lost under a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostCause {
    /// The instance.
    pub instance: InstanceId,
    /// Why, for people: the core's cause and, where the provider knows it, the instance's fate.
    pub why: String,
}

/// Why a job got no slot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AcquireError {
    /// No slot came free in time.
    #[error("unable to acquire instance within the configured timeout of {}: {why}", go_duration::format(*timeout))]
    TimedOut {
        /// How long was waited.
        timeout: Duration,
        /// What was being waited for.
        why: String,
    },
    /// Another manager has the group: no instance comes until it lets go, and the job is better off elsewhere.
    #[error("unable to acquire instance: the instance group `{group}` is held by {holder}")]
    HeldElsewhere {
        /// The group.
        group: String,
        /// Who has it, for people.
        holder: String,
    },
    /// The scaler is shutting down.
    #[error("unable to acquire instance: the runner is shutting down")]
    ShuttingDown,
}

/// Owns one key of the core; gives it back on drop.
pub(crate) struct Claim {
    pub(crate) key: ClaimKey,
    pub(crate) shared: Arc<Shared>,
}

// === impl Reservation ===

impl Reservation {
    /// The claim's name, as in logs.
    #[must_use]
    pub fn key(&self) -> &str {
        self.claim.key.as_str()
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reservation").field(&self.claim.key).finish()
    }
}

// === impl Acquisition ===

impl Acquisition {
    /// The claim's name, as in logs.
    #[must_use]
    pub fn key(&self) -> &str {
        self.claim.key.as_str()
    }

    /// The instance.
    #[must_use]
    pub fn instance(&self) -> &InstanceId {
        &self.slot.instance
    }

    /// Which of the instance's slots, from 0.
    #[must_use]
    pub fn slot(&self) -> u32 {
        self.slot.index
    }

    /// How to reach the instance; fetched from the provider unless a fresh answer is known.
    ///
    /// # Errors
    /// The provider's.
    pub async fn connect_info(&self) -> Result<ConnectInfo, GroupError> {
        self.claim.shared.connect_info(self.instance()).await
    }

    /// Completes when the instance is lost.
    pub async fn lost(&self) -> LostCause {
        let mut lost = self.ears.lost.clone();
        match lost.wait_for(Option::is_some).await.map(|cause| cause.clone()) {
            Ok(Some(cause)) => cause,
            // The sender lives as long as the claim, so nothing is known to be wrong.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// The cause, if the instance is lost already.
    #[must_use]
    pub fn lost_now(&self) -> Option<LostCause> {
        self.ears.lost.borrow().clone()
    }

    /// What is announced about the end of the instance, as it changes; `None` while nothing is, or when it is called off. The
    /// job decides what to make of it: the slot is its own as long as the instance is there.
    #[must_use]
    pub fn doom(&self) -> watch::Receiver<Option<Doom>> {
        self.ears.doom.clone()
    }

    /// Gives an instance that could not be used back and keeps the claim, to wait for a slot of another one.
    pub fn exchange(self, why: &str) -> Reservation {
        self.claim.shared.requeue(&self.claim.key, &self.slot.instance, why);
        Reservation { claim: self.claim }
    }

    /// Tells the scaler that the instance could not be used, so that no other job goes there before it proved healthy.
    pub fn report_unhealthy(&self, why: &str) {
        self.claim.shared.suspect(self.instance(), why);
    }
}

impl fmt::Debug for Acquisition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquisition")
            .field("key", &self.claim.key)
            .field("slot", &self.slot)
            .finish_non_exhaustive()
    }
}

// === impl LostCause ===

impl fmt::Display for LostCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "instance {} was lost: {}", self.instance, self.why)
    }
}

// === impl Claim ===

impl Drop for Claim {
    fn drop(&mut self) {
        self.shared.release(&self.key);
    }
}
