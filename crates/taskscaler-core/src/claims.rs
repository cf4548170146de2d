//! Who wants a slot and who has one.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use crate::breaker::Circuit;
use crate::core::{Core, Elsewhere};
use crate::fleet::Seq;
use crate::ids::{ClaimKey, Mono, Now, Slot};
use crate::math::{Admission, Refusal};
use crate::plan::Event;

/// Failures in a row after which jobs are no longer taken on the hope for new instances.
const HOPELESS: u32 = 3;

/// What [`Core::acquire`] came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acquire {
    /// The claim has this slot.
    Granted(Slot),
    /// The claim waits; [`Event::Granted`] tells when it has a slot.
    Pending,
}

/// There is no such claim, or it lost its instance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown claim `{key}`")]
pub struct UnknownClaim {
    /// The key.
    pub key: ClaimKey,
}

/// Why a reservation is refused. None of these is a fault; the next poll may succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoCapacity {
    /// The manager takes no more jobs.
    #[error("no capacity: shutting down")]
    ShuttingDown,
    /// The group has not been listed yet.
    #[error("no capacity: the instance group has not been listed yet")]
    NotListed,
    /// Another manager has the group.
    #[error("no capacity: the instance group is held by {holder}")]
    HeldElsewhere {
        /// Who.
        holder: String,
    },
    /// A claim of this name exists.
    #[error("claim `{key}` exists already")]
    KeyInUse {
        /// The name.
        key: ClaimKey,
    },
    /// No ready slot is free, and in preemptive mode only those count (`reserve_available_capacity_failure`).
    #[error("no capacity: none of the {idle} free slots is unclaimed")]
    NoneReady {
        /// Free slots of ready instances, all claimed.
        idle: u32,
    },
    /// No slot is free and none can come (`reserve_iop_capacity_failure`).
    #[error("no capacity: every slot of the most {max} instances is taken")]
    AtMaximum {
        /// The ceiling.
        max: u32,
    },
    /// No slot is free and none can come, because the group has less to give than it was made for.
    #[error("no capacity: {why}")]
    Lacking {
        /// What it lacks, in its own words.
        why: String,
    },
    /// The rest of the idle capacity is left to other managers (`reservation_throttling`).
    #[error("no capacity: {reserved} of {allowed} allowed reservations are held while idle capacity exists")]
    Throttled {
        /// Reservations held.
        reserved: u32,
        /// Reservations allowed at this idle capacity.
        allowed: u32,
    },
    /// No slot is free, and new instances keep failing.
    #[error("no capacity: instances keep failing, next try at {until}: {last}")]
    Backoff {
        /// When the next instance is tried.
        until: DateTime<Utc>,
        /// The last failure.
        last: String,
    },
}

/// Where a claim stands. A key is in exactly one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// On one slot somewhere.
    Reserved { ticket: u64, since: Mono },
    /// Waiting for a slot, in the order of the tickets.
    Pending { ticket: u64 },
    /// Has a slot.
    Acquired { seq: Seq, index: u32 },
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Claims {
    next_ticket: u64,
    by_key: BTreeMap<ClaimKey, Claim>,
    pending: BTreeMap<u64, ClaimKey>,
    /// Reservations, oldest first, from which [`Claims::young`] drops those that have come of age.
    young: BTreeSet<(Mono, u64)>,
    reserved: u32,
}

// === impl Claims ===

impl Claims {
    pub(crate) fn get(&self, key: &ClaimKey) -> Option<Claim> {
        self.by_key.get(key).copied()
    }

    pub(crate) fn reserved(&self) -> u32 {
        self.reserved
    }

    pub(crate) fn pending(&self) -> u32 {
        u32::try_from(self.pending.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn reserve(&mut self, key: ClaimKey, now: Mono) {
        let ticket = self.ticket();
        self.young.insert((now, ticket));
        self.reserved += 1;
        self.by_key.insert(key, Claim::Reserved { ticket, since: now });
    }

    /// A reservation starts to wait for a slot, behind those that wait already.
    pub(crate) fn wait(&mut self, key: &ClaimKey) {
        self.remove(key);
        let ticket = self.ticket();
        self.pending.insert(ticket, key.clone());
        self.by_key.insert(key.clone(), Claim::Pending { ticket });
    }

    pub(crate) fn grant(&mut self, key: &ClaimKey, seq: Seq, index: u32) {
        self.remove(key);
        self.by_key.insert(key.clone(), Claim::Acquired { seq, index });
    }

    pub(crate) fn first_pending(&self) -> Option<&ClaimKey> {
        self.pending.values().next()
    }

    pub(crate) fn remove(&mut self, key: &ClaimKey) -> Option<Claim> {
        let claim = self.by_key.remove(key)?;
        match claim {
            Claim::Reserved { ticket, since } => {
                self.young.remove(&(since, ticket));
                self.reserved -= 1;
            }
            Claim::Pending { ticket } => {
                self.pending.remove(&ticket);
            }
            Claim::Acquired { .. } => {}
        }
        Some(claim)
    }

    /// How many reservations are younger than `since`, and the oldest of them.
    pub(crate) fn young(&mut self, since: Mono) -> (u32, Option<Mono>) {
        while self.young.first().is_some_and(|(at, _)| *at <= since) {
            self.young.pop_first();
        }
        let oldest = self.young.first().map(|(at, _)| *at);
        (u32::try_from(self.young.len()).unwrap_or(u32::MAX), oldest)
    }

    fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }
}

// === impl Core: claims ===

impl Core {
    /// Claims one slot somewhere, before a job is asked for.
    ///
    /// # Errors
    /// [`NoCapacity`] says why there is none.
    pub fn reserve(&mut self, key: ClaimKey, now: Now) -> Result<(), NoCapacity> {
        if self.claims.get(&key).is_some() {
            return Err(NoCapacity::KeyInUse { key });
        }
        if self.shutdown.is_some() {
            return Err(NoCapacity::ShuttingDown);
        }
        if let Some(Elsewhere { holder, .. }) = &self.elsewhere {
            return Err(NoCapacity::HeldElsewhere { holder: holder.clone() });
        }
        if self.listings == 0 {
            return Err(NoCapacity::NotListed);
        }
        let admission = self.admission(now);
        admission.check().map_err(|refusal| match refusal {
            Refusal::NoneReady => NoCapacity::NoneReady { idle: admission.idle },
            Refusal::AtMaximum => match self.lack() {
                Some(why) => NoCapacity::Lacking { why: why.to_owned() },
                None => NoCapacity::AtMaximum { max: admission.ceiling.unwrap_or(0) },
            },
            Refusal::Throttled { allowed } => NoCapacity::Throttled { reserved: admission.reserved, allowed },
        })?;
        if admission.available() <= 0 {
            self.check_hope(&admission, now)?;
        }
        self.claims.reserve(key, now.tick());
        Ok(())
    }

    /// Turns a reservation into a slot, now or as soon as one is free, in the order of the calls. Asking again for a
    /// claim that has or awaits its slot tells how it stands.
    ///
    /// # Errors
    /// [`UnknownClaim`] if the key was not reserved, was released, or lost its instance.
    pub fn acquire(&mut self, key: &ClaimKey, now: Now) -> Result<Acquire, UnknownClaim> {
        match self.claims.get(key) {
            None => return Err(UnknownClaim { key: key.clone() }),
            Some(Claim::Pending { .. }) => return Ok(Acquire::Pending),
            Some(Claim::Acquired { seq, index }) => {
                return match self.fleet.get(seq) {
                    Some(instance) => Ok(Acquire::Granted(Slot { instance: instance.id.clone(), index })),
                    None => Err(UnknownClaim { key: key.clone() }),
                };
            }
            Some(Claim::Reserved { .. }) => {}
        }
        if self.claims.first_pending().is_none()
            && let Some(slot) = self.occupy(key, now)
        {
            return Ok(Acquire::Granted(slot));
        }
        self.claims.wait(key);
        Ok(Acquire::Pending)
    }

    /// Takes the slot away from a claim, or finds the claim gone with its instance, and makes it a reservation again. It is
    /// not asked whether there is room: the job was admitted once, and turning it away now would lose it.
    pub fn requeue(&mut self, key: &ClaimKey, now: Now) {
        self.release(key, now);
        self.claims.reserve(key.clone(), now.tick());
    }

    /// Gives up a claim in whatever state it is. An unknown key is a no-op.
    pub fn release(&mut self, key: &ClaimKey, now: Now) {
        let Some(Claim::Acquired { seq, index }) = self.claims.remove(key) else { return };
        self.fleet.edit(seq, |instance| {
            instance.slots.remove(&index);
            if !instance.is_busy() {
                instance.idle_since = now.tick();
                instance.idle_since_wall = now.wall;
            }
        });
        self.retire_if_used_up(seq, now);
        self.assign(now);
    }

    pub(crate) fn admission(&mut self, now: Now) -> Admission {
        let preemptive = self.policy_at(now).1.preemptive();
        let tally = self.fleet.tally();
        Admission {
            idle: tally.usable,
            acquired: tally.acquired,
            unavailable: tally.unavailable,
            pending: self.claims.pending(),
            reserved: self.claims.reserved(),
            ceiling: self.config.ceiling(),
            capacity: self.config.capacity(),
            preemptive,
            throttling: self.config.reservation_throttling,
        }
    }

    /// What the group lacks, if that is what bounds the instances.
    pub(crate) fn lack(&self) -> Option<&str> {
        let binds =
            self.config.group_max_size.is_some() && self.config.ceiling() == self.config.group_max_size;
        self.lacking.as_deref().filter(|_| binds)
    }

    /// Gives free slots to those who wait longest.
    pub(crate) fn assign(&mut self, now: Now) {
        while let Some(key) = self.claims.first_pending().cloned() {
            let Some(slot) = self.occupy(&key, now) else { return };
            self.events.push_back(Event::Granted { key, slot });
        }
    }

    /// Puts a claim on the best free slot.
    fn occupy(&mut self, key: &ClaimKey, now: Now) -> Option<Slot> {
        if self.elsewhere.is_some() {
            return None;
        }
        let seq = self.fleet.best_free()?;
        let slot = self.fleet.edit(seq, |instance| {
            let index = instance.free_index();
            instance.slots.insert(index, key.clone());
            instance.used = instance.used.saturating_add(1);
            Slot { instance: instance.id.clone(), index }
        })?;
        self.claims.grant(key, seq, slot.index);
        self.troubles.job(now.tick());
        Some(slot)
    }

    /// Refuses jobs that could only wait for instances that do not come.
    fn check_hope(&self, admission: &Admission, now: Now) -> Result<(), NoCapacity> {
        let coming = i64::from(self.coming()) * i64::from(admission.capacity);
        if admission.available() + coming > 0 {
            return Ok(());
        }
        match self.breaker.circuit(now.tick()) {
            Circuit::Closed => {}
            Circuit::Open { until } => {
                let last = self.last_failure().to_owned();
                return Err(NoCapacity::Backoff { until: now.wall_at(until), last });
            }
            // One job is worth the try; the others wait for what comes of it.
            Circuit::HalfOpen if admission.reserved + admission.pending > 0 => {
                let last = self.last_failure().to_owned();
                return Err(NoCapacity::Backoff { until: now.wall_at(now.tick()), last });
            }
            Circuit::HalfOpen => {}
        }
        match self.backoff(now.tick()) {
            Some((until, failures, last)) if failures >= HOPELESS => {
                Err(NoCapacity::Backoff { until: now.wall_at(until), last: last.message.clone() })
            }
            Some(_) | None => Ok(()),
        }
    }
}
