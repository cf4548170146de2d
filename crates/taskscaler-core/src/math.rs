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
    /// The part of `unavailable_capacity` on ready instances without jobs. It vanishes with them, so it must not keep
    /// them: an instance whose last uses are fewer than its slots would otherwise demand itself for ever.
    pub idle_unavailable: u32,
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
    /// How many idle instances may go at most. Equal to `-required`, except that what vanishes with an instance does not
    /// keep it, and that instances marked for removal are not counted against the ceiling again.
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
    /// Applies the formula: `need = acquired + pending + unavailable + idle`, rounded up to instances and cut to what the
    /// ceiling leaves beside instances being deleted. `idle` is `idle_count`, or with a factor
    /// `max(idle_count, min(ceil(scale_factor x acquired), scale_factor_limit))`.
    ///
    /// That capacity is counted in slots, that the factor has a minimum and a limit, and that nothing is concluded from
    /// more slots in use than there are, is GitLab Runner's behaviour; the exact formula is this project's.
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
        let kept = (need - u64::from(self.idle_unavailable).min(need)).div_ceil(capacity);
        Wanted {
            idle,
            uncapped: narrow(uncapped),
            target: Some(narrow(target)),
            required: i64::from(narrow(target)) - i64::from(self.instance_count),
            excess: narrow(count.saturating_sub(kept).max(self.above_ceiling())),
        }
    }

    /// True if an idle instance may go that has `unavailable` slots without use and leaves `ready` free slots behind.
    /// Instances on their way are no replacement yet for idle capacity that is there.
    pub(crate) fn may_go(&self, unavailable: u32, ready: u32) -> bool {
        let occupied = u64::from(self.acquired) + u64::from(self.unavailable_capacity);
        let need = occupied + u64::from(self.pending) + u64::from(self.idle());
        let without =
            u64::from(self.instance_count.saturating_sub(1)) * u64::from(self.capacity_per_instance);
        let unneeded = need.saturating_sub(u64::from(unavailable)) <= without;
        (unneeded && ready >= self.idle()) || self.above_ceiling() > 0
    }

    /// Instances above the ceiling. Those marked for removal are leaving already: they must neither protect the others
    /// from the ceiling nor make it take more of them than are above it.
    fn above_ceiling(&self) -> u64 {
        let live = self.instance_count.saturating_sub(self.draining);
        let room = self.max_instance_count.map(|most| most.saturating_sub(self.deleting));
        u64::from(room.map_or(0, |room| live.saturating_sub(room)))
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

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    /// Columns: instances, ceiling (0: none), acquired, unavailable, pending, reserved, idle count, factor limit, capacity.
    #[test_case([0, 10, 0, 0, 0, 0, 5, 0, 1], "0", 0, 5, Some(5), 5; "row 1 five whole instances at rest")]
    #[test_case([5, 10, 0, 0, 0, 0, 5, 0, 1], "0", 0, 5, Some(5), 0; "row 2 steady state")]
    #[test_case([5, 10, 3, 0, 0, 0, 5, 0, 1], "0", 0, 5, Some(8), 3; "row 3 idle refilled while 3 run")]
    #[test_case([8, 10, 8, 0, 0, 0, 5, 0, 1], "0", 0, 5, Some(10), 2; "row 4 ceiling beats idle")]
    #[test_case([10, 10, 10, 0, 3, 0, 5, 0, 1], "0", 0, 5, Some(10), 0; "row 5 never above the maximum")]
    #[test_case([0, 10, 0, 0, 0, 0, 5, 0, 5], "0", 0, 5, Some(1), 1; "row 6 five slots = one instance")]
    #[test_case([1, 10, 1, 0, 0, 0, 5, 0, 5], "0", 0, 5, Some(2), 1; "row 7 one further instance as soon as idle < 5")]
    #[test_case([1, 10, 5, 0, 0, 0, 5, 0, 5], "0", 0, 5, Some(2), 1; "row 8 exact fit")]
    #[test_case([2, 10, 6, 0, 0, 0, 5, 0, 5], "0", 0, 5, Some(3), 1; "row 9 round up")]
    #[test_case([0, 4, 0, 0, 0, 0, 2, 0, 2], "0", 0, 2, Some(1), 1; "row 10 EC2 Mac: idle 2, capacity 2")]
    #[test_case([1, 4, 1, 0, 0, 0, 2, 0, 2], "0", 0, 2, Some(2), 1; "row 11 second host when in-use < 2 leaves idle short")]
    #[test_case([4, 4, 8, 0, 0, 0, 2, 0, 2], "0", 0, 2, Some(4), 0; "row 12 concurrent 8 = 4 x 2")]
    #[test_case([0, 1000, 0, 0, 0, 1, 0, 0, 1], "0", 0, 0, Some(0), 0; "row 13 polling alone creates nothing")]
    #[test_case([0, 1000, 0, 0, 1, 0, 0, 0, 1], "0", 0, 0, Some(1), 1; "row 14 a real job does")]
    #[test_case([1, 1000, 0, 0, 0, 0, 0, 0, 1], "0", 0, 0, Some(0), -1; "row 15 removable after idle_time")]
    #[test_case([1, 1000, 0, 0, 0, 1, 0, 0, 1], "0", 0, 0, Some(0), -1; "row 16 reservation does not block; see 3.7")]
    #[test_case([1, 1000, 1, 0, 0, 0, 0, 0, 1], "0", 0, 0, Some(1), 0; "row 17 running job holds it")]
    #[test_case([0, 0, 0, 0, 25, 0, 0, 0, 3], "0", 0, 0, Some(9), 9; "row 18 no ceiling")]
    #[test_case([0, 0, 0, 0, 50, 0, 0, 0, 3], "0", 0, 0, Some(17), 17; "row 19 no ceiling and twice the jobs")]
    #[test_case([12, 100, 10, 0, 0, 0, 2, 0, 1], "0.5", 0, 5, Some(15), 3; "row 20 factor above minimum")]
    #[test_case([12, 100, 10, 0, 0, 0, 2, 8, 1], "1.5", 0, 8, Some(18), 6; "row 21 15 cut to the limit 8")]
    #[test_case([40, 100, 20, 0, 0, 0, 2, 0, 1], "1.1", 0, 22, Some(42), 2; "row 22 float-noise trap")]
    #[test_case([3, 100, 0, 0, 0, 0, 2, 0, 1], "1.1", 0, 2, Some(2), -1; "row 23 nothing in use -> minimum")]
    #[test_case([3, 10, 3, 2, 0, 0, 0, 0, 5], "0", 0, 0, Some(1), -2; "row 24 fragmented: 3 instances with a job each, nothing removable")]
    #[test_case([1, 10, 1, 4, 1, 0, 0, 0, 5], "0", 0, 0, Some(2), 1; "row 25 used-up instance cannot take the pending job")]
    #[test_case([1, 10, 0, 5, 1, 0, 0, 0, 5], "0", 0, 0, Some(2), 1; "row 26 marked instance does not hide demand")]
    #[test_case([9, 10, 9, 0, 4, 0, 0, 0, 1], "0", 1, 0, Some(9), 0; "row 27 D = 1 deleting uses up the tenth place")]
    #[test_case([2, 10, 3, 0, 2, 0, 0, 0, 1], "0", 0, 0, None, 0; "row 28 guard: 3 acquired on capacity 2")]
    #[test_case([6, 10, 0, 0, 0, 0, 5, 0, 1], "0", 0, 5, Some(5), -1; "row 29 one too many, after idle_time")]
    #[test_case([20, 10, 5, 0, 0, 0, 0, 0, 1], "0", 0, 0, Some(5), -15; "row 30 group grown from outside; only 15 idle ones may go")]
    #[test_case([0, 10, 0, 1, 0, 0, 0, 0, 1], "0", 0, 0, None, 0; "row 31 stale unavailability of a deleted instance must not create a VM (users saw endless create/destroy [so78659650, aws#64])")]
    fn scaling(row: [u32; 9], factor: &str, deleting: u32, idle: u32, target: Option<u32>, required: i64) {
        let inputs = Inputs { deleting, scale_factor: factor.parse().unwrap(), ..inputs(row) };
        let wanted = inputs.wanted();
        assert_eq!((wanted.idle, wanted.target, wanted.required), (idle, target, required));
        let excess = if target.is_some() { u32::try_from(-required).unwrap_or(0) } else { 0 };
        assert_eq!(wanted.excess, excess);
    }

    #[test]
    fn instances_marked_above_the_ceiling_do_not_make_more_of_them_go() {
        let before = inputs([20, 10, 0, 0, 0, 0, 5, 0, 1]);
        assert_eq!(before.wanted().excess, 15);
        let marked = Inputs { draining: 15, unavailable_capacity: 15, ..before };
        assert_eq!(marked.wanted().excess, 0);
    }

    #[test]
    fn slots_without_use_do_not_keep_their_own_instance() {
        let idle = inputs([1, 10, 0, 2, 0, 0, 0, 0, 5]);
        assert_eq!(idle.wanted().excess, 0);
        let idle = Inputs { idle_unavailable: 2, ..idle };
        assert_eq!(idle.wanted().excess, 1);
        assert!(idle.may_go(2, 0));
    }

    #[test]
    fn idle_capacity_that_is_there_stays_until_its_replacement_is_ready() {
        let replaced = Inputs { idle_unavailable: 4, ..inputs([2, 10, 0, 4, 0, 0, 3, 0, 5]) };
        assert!(!replaced.may_go(4, 0));
        assert!(replaced.may_go(4, 3));
    }

    /// Columns: capacity, max_use_count, used, acquired.
    #[test_case([1, 1, 1, 1], true, true, 0, 0; "a single use instance at its only job")]
    #[test_case([1, 1, 1, 0], true, true, 0, 1; "a single use instance after its job")]
    #[test_case([5, 0, 45, 0], true, true, 5, 0; "unlimited use")]
    #[test_case([5, 3, 3, 3], true, true, 0, 2; "used up by running jobs")]
    #[test_case([5, 3, 3, 1], true, true, 0, 4; "used up with one job left")]
    #[test_case([5, 10, 8, 1], true, true, 2, 2; "two uses left")]
    #[test_case([2, 0, 7, 1], false, true, 0, 1; "marked for removal")]
    #[test_case([2, 0, 0, 0], false, false, 0, 0; "creating")]
    fn places(row: [u32; 4], open: bool, counted: bool, usable: u32, unavailable: u32) {
        let [capacity, max_use_count, used, acquired] = row;
        let places = Places::of(capacity, max_use_count, used, acquired, open, counted);
        assert_eq!(places, Places { usable, unavailable });
    }

    const NONE_READY: Result<(), Refusal> = Err(Refusal::NoneReady);
    const AT_MAXIMUM: Result<(), Refusal> = Err(Refusal::AtMaximum);

    /// Columns: idle capacity, acquired, pending, reserved, ceiling (0: none), capacity.
    #[test_case([0, 0, 0, 0, 10, 1], false, true => Ok(()); "idle 0 potential 10 the throttle rule applies only when idle exists")]
    #[test_case([5, 0, 0, 3, 10, 1], true, true => Ok(()); "4 of 5 may be reserved")]
    #[test_case([5, 0, 0, 4, 10, 1], true, true => Err(Refusal::Throttled { allowed: 4 }); "the fifth is left to others")]
    #[test_case([5, 0, 0, 4, 10, 1], true, false => Ok(()); "without throttling the fifth is taken")]
    #[test_case([1, 0, 0, 0, 10, 1], true, true => Ok(()); "an idle pool of one works")]
    #[test_case([1, 0, 0, 1, 10, 1], true, true => NONE_READY; "an idle pool of one gives one")]
    #[test_case([10, 0, 0, 5, 4, 5], true, true => Err(Refusal::Throttled { allowed: 5 }); "capacity is left to others")]
    #[test_case([0, 0, 0, 0, 10, 1], true, true => NONE_READY; "preemptive scale from 0 is impossible")]
    #[test_case([0, 10, 0, 0, 10, 1], true, true => AT_MAXIMUM; "preemptive and full")]
    #[test_case([0, 9, 0, 0, 10, 1], false, true => Ok(()); "one place left")]
    #[test_case([0, 9, 0, 1, 10, 1], false, true => AT_MAXIMUM; "a reservation takes the last place")]
    #[test_case([0, 9, 1, 0, 10, 1], false, true => AT_MAXIMUM; "a waiting job takes the last place")]
    #[test_case([0, 8, 0, 0, 4, 2], false, true => AT_MAXIMUM; "max instances times capacity bounds the jobs")]
    #[test_case([0, 1000, 1000, 1000, 0, 1], false, true => Ok(()); "no ceiling no bound")]
    fn admission(row: [u32; 6], preemptive: bool, throttling: bool) -> Result<(), Refusal> {
        let [idle, acquired, pending, reserved, ceiling, capacity] = row;
        let ceiling = (ceiling > 0).then_some(ceiling);
        Admission {
            idle,
            acquired,
            unavailable: 0,
            pending,
            reserved,
            ceiling,
            capacity,
            preemptive,
            throttling,
        }
        .check()
    }

    fn inputs(row: [u32; 9]) -> Inputs {
        let [
            instance_count,
            max,
            acquired,
            unavailable_capacity,
            pending,
            reserved,
            idle_count,
            scale_factor_limit,
            capacity_per_instance,
        ] = row;
        Inputs {
            instance_count,
            max_instance_count: (max > 0).then_some(max),
            deleting: 0,
            draining: 0,
            acquired,
            unavailable_capacity,
            idle_unavailable: 0,
            pending,
            reserved,
            idle_count,
            scale_factor: ScaleFactor::default(),
            scale_factor_limit,
            capacity_per_instance,
        }
    }
}
