//! The arithmetic: from what is there and what is wanted to a number of instances. Everything is computed in slots and
//! converted to instances at the end.

use serde::{Deserialize, Serialize};

use crate::policy::ScaleFactor;

/// What the scaling formula looks at. The names are those of GitLab Runner's log line "required scaling change".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inputs {
    /// Instances requested, creating, booting, ready, suspect or marked for removal.
    pub instance_count: u32,
    /// The effective ceiling on instances in every state.
    pub max_instance_count: Option<u32>,
    /// Instances whose deletion is under way. They occupy places below the ceiling and nothing else.
    pub deleting: u32,
    /// Instances among `instance_count` that are marked for removal.
    pub draining: u32,
    /// Slots running a job.
    pub acquired: u32,
    /// Slots that will never take another job, or not before their instance has proved healthy.
    pub unavailable_capacity: u32,
    /// Jobs waiting for a slot.
    pub pending: u32,
    /// Claims made before a job was asked for. Not demand: a poll must not create an instance.
    pub reserved: u32,
    /// Idle capacity to keep, in jobs.
    pub idle_count: u32,
    /// Idle capacity as a factor of `acquired`.
    pub scale_factor: ScaleFactor,
    /// The most that the factor may yield; `0` for no limit.
    pub scale_factor_limit: u32,
    /// Slots of one instance, at least 1.
    pub capacity_per_instance: u32,
}

/// What the formula yields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Idle capacity wanted, in jobs.
    pub idle: u32,
    /// Instances wanted if there were no ceiling.
    pub uncapped: u32,
    /// Instances wanted. `None` when the counts contradict each other, so that nothing is concluded from them.
    pub target: Option<u32>,
    /// Change wanted: above 0 instances to create, below 0 instances that may go.
    pub required: i64,
    /// How many idle instances may go. Equal to `-required` unless instances marked for removal hide behind the ceiling.
    pub excess: u32,
}

/// What admission of a reservation looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Admission {
    /// Free slots of ready instances.
    pub(crate) idle: u32,
    pub(crate) acquired: u32,
    pub(crate) unavailable: u32,
    pub(crate) pending: u32,
    pub(crate) reserved: u32,
    pub(crate) ceiling: Option<u32>,
    pub(crate) capacity: u32,
    pub(crate) preemptive: bool,
    pub(crate) throttling: bool,
}

/// Why a reservation is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No free slot, and preemptive mode does not count on new instances.
    NoneReady,
    /// No free slot, and no room for more.
    AtMaximum,
    /// The rest of the idle capacity is left to others.
    Throttled { allowed: u32 },
}

/// The places of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Places {
    /// Slots that may take a job now.
    pub(crate) usable: u32,
    /// Slots that will take none.
    pub(crate) unavailable: u32,
}

// === impl Inputs ===

impl Inputs {
    /// Applies the formula.
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        let capacity = u64::from(self.capacity_per_instance.max(1));
        let count = u64::from(self.instance_count);
        let idle = self.idle();
        let occupied = u64::from(self.acquired) + u64::from(self.unavailable_capacity);
        let need = occupied + u64::from(self.pending) + u64::from(idle);
        let uncapped = need.div_ceil(capacity);
        if occupied > count * capacity {
            return Wanted { idle, uncapped: narrow(uncapped), target: None, required: 0, excess: 0 };
        }
        let room = self.max_instance_count.map(|most| u64::from(most.saturating_sub(self.deleting)));
        let target = room.map_or(uncapped, |room| uncapped.min(room));
        // Instances marked for removal are leaving already: they must neither protect the others from the ceiling nor
        // make it take more of them than are above it.
        let live = count.saturating_sub(u64::from(self.draining));
        let above = room.map_or(0, |room| live.saturating_sub(room));
        Wanted {
            idle,
            uncapped: narrow(uncapped),
            target: Some(narrow(target)),
            required: i64::from(narrow(target)) - i64::from(self.instance_count),
            excess: narrow(count.saturating_sub(uncapped).max(above)),
        }
    }

    fn idle(&self) -> u32 {
        if !self.scale_factor.is_on() {
            return self.idle_count;
        }
        let most = if self.scale_factor_limit == 0 { u32::MAX } else { self.scale_factor_limit };
        self.idle_count.max(self.scale_factor.of(self.acquired).min(most))
    }
}

// === impl Admission ===

impl Admission {
    pub(crate) fn available(&self) -> i64 {
        i64::from(self.idle) - i64::from(self.reserved) - i64::from(self.pending)
    }

    /// Slots that could exist if the group grew to its ceiling; `None` without one.
    pub(crate) fn potential(&self) -> Option<i64> {
        let places = i64::from(self.ceiling?) * i64::from(self.capacity);
        let taken = [self.acquired, self.unavailable, self.pending, self.reserved];
        Some(taken.iter().fold(places, |left, taken| left - i64::from(*taken)))
    }

    pub(crate) fn check(&self) -> Result<(), Refusal> {
        if self.throttling && self.idle > 0 {
            // At least one, or an idle pool of one instance would never work.
            let allowed = self.idle.saturating_sub(self.capacity).max(1);
            if self.reserved >= allowed && (self.available() > 0 || !self.preemptive) {
                return Err(Refusal::Throttled { allowed });
            }
        }
        if self.available() > 0 {
            return Ok(());
        }
        let room = self.potential().is_none_or(|potential| potential > 0);
        match (room, self.preemptive) {
            (true, false) => Ok(()),
            (true, true) => Err(Refusal::NoneReady),
            (false, true | false) => Err(Refusal::AtMaximum),
        }
    }
}

// === impl Places ===

impl Places {
    /// The places of an instance with `acquired` jobs that ran `used` in all. `open`: it may take jobs; `counted`: it is
    /// or was ready, so that places without use are lost and not merely to come.
    pub(crate) fn of(
        capacity: u32,
        max_use_count: u32,
        used: u32,
        acquired: u32,
        open: bool,
        counted: bool,
    ) -> Self {
        let free = capacity.saturating_sub(acquired);
        let left = if max_use_count == 0 { u32::MAX } else { max_use_count.saturating_sub(used) };
        let usable = if open { free.min(left) } else { 0 };
        Self { usable, unavailable: if counted { free - usable } else { 0 } }
    }
}

fn narrow(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
