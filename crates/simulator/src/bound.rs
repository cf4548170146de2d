//! What no policy can beat, however much it knows of the future. Each bound says of whom it is a bound.
//!
//! Let job `j` be created at `r_j` and run for `p_j`, on instances of `C` slots that serve at most `m` jobs each and cannot
//! run a job in the first `b` of their life, because they boot.
//!
//! **Instance time when every job starts at once.** If every job runs during `[r_j, r_j + p_j)`, then `B(t)` jobs run at `t`,
//! where `B` does not depend on the policy. They need at least `ceil(B(t) / C)` instances that have booted, so the booted
//! instances exist for at least the integral of that. Each instance that serves a job also exists for `b` before. There are at
//! least `ceil(max B / C)` of them, and at least `ceil(n / m)`. The two times of one instance do not overlap, so they add up.
//!
//! **Instance time whatever the waiting.** The slots must exist for the sum of all `p_j`, so instances for a `C`-th of it;
//! and again `b` for each of at least `ceil(n / m)` instances.
//!
//! Whatever is billed for an instance is no less than its life ([`Billing::of`](crate::Billing)), failed boots and
//! interruptions only add to it, and prices are per time: so both bound the cost too.
//!
//! **Mean waiting on `S` slots.** A schedule starts job `j` at `s_j >= r_j` and runs it to its end, at most `S` at a time. Let
//! `M_j = s_j + p_j / 2` be the mean time at which `j` is served, so that its waiting is `M_j - p_j / 2 - r_j`. Think of the
//! schedule as a fluid one: at every moment each job is served at a rate, no job before `r_j`, the rates sum to at most `S`, and
//! `M_j` is the integral of `t x_j(t) / p_j`. Allowing every such fluid schedule can only lower the sum of all `M_j`. Among them
//! the one that always gives the whole rate `S` to the available job with the least `p_j` has the lowest sum: if at `t1 < t2`,
//! when both `i` and `j` are available, a bit of service went to `i` at `t1` and to `j` at `t2` although `p_j < p_i`, then
//! exchanging the two changes the sum by `(t1 - t2) (1 / p_j - 1 / p_i) < 0`. So the sum of waiting over any set of jobs is at
//! least that schedule's sum of `M_j - p_j / 2 - r_j`, where the jobs outside of the set are left out, which lets the others
//! start no later. Over disjoint sets the bounds add up, and none is below 0. The sets are the crowds of
//! first come, first served: any sets would do, and those are where waiting is.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::world::Millis;

/// A job: when it was created, how long it runs.
type Job = (Millis, Millis);

/// What bounds are about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    /// Slots of an instance.
    pub(crate) slots: u32,
    /// Most jobs of an instance; 0 for unlimited.
    pub(crate) max_use_count: u32,
    /// The least that an instance boots.
    pub(crate) boot: Millis,
}

/// Least instance time of a policy that starts every job at once, in milliseconds.
pub(crate) fn at_once(jobs: &[Job], terms: Terms) -> u64 {
    let mut steps: Vec<(Millis, i64)> = jobs
        .iter()
        .filter(|(_, long)| *long > 0)
        .flat_map(|(at, long)| [(*at, 1), (at + long, -1)])
        .collect();
    steps.sort_unstable();
    let (mut sum, mut running, mut peak, mut since) = (0_u64, 0_i64, 0_i64, 0);
    for (at, step) in steps {
        sum += instances(running, terms.slots) * (at - since);
        running += step;
        peak = peak.max(running);
        since = at;
    }
    sum + instances(peak, terms.slots).max(worn(jobs, terms)) * terms.boot
}

/// Least instance time of any policy.
pub(crate) fn work(jobs: &[Job], terms: Terms) -> u64 {
    let served: u64 = jobs.iter().map(|(_, long)| long).sum();
    served / u64::from(terms.slots.max(1)) + worn(jobs, terms) * terms.boot
}

/// Least mean waiting with at most this many jobs at once.
pub(crate) fn mean_wait(jobs: &[Job], slots: u32) -> Millis {
    if jobs.is_empty() || slots == 0 {
        return 0;
    }
    let total: f64 = crowds(jobs, slots as usize).iter().map(|crowd| fluid(crowd, slots).max(0.0)).sum();
    // Rounding errors must not lift the bound.
    let total = (total * (1.0 - 1e-9) - 1.0).max(0.0);
    floor(total) / jobs.len() as u64
}

fn instances(jobs: i64, slots: u32) -> u64 {
    u64::try_from(jobs).unwrap_or(0).div_ceil(u64::from(slots.max(1)))
}

/// Instances that are used up by so many jobs, at least one.
fn worn(jobs: &[Job], terms: Terms) -> u64 {
    match (jobs.len() as u64, terms.max_use_count) {
        (0, _) => 0,
        (_, 0) => 1,
        (jobs, most) => jobs.div_ceil(u64::from(most)),
    }
}

/// Disjoint sets of jobs: each run of jobs that wait under first come, first served, and those running when it began.
fn crowds(jobs: &[Job], slots: usize) -> Vec<Vec<Job>> {
    let mut ends: BinaryHeap<Reverse<Millis>> = BinaryHeap::new();
    let mut crowds: Vec<Vec<Job>> = Vec::new();
    // Jobs that did not wait, until they are put into a crowd.
    let mut before: Vec<(Millis, Job)> = Vec::new();
    let mut crowded = false;
    for job in jobs {
        let (created, long) = *job;
        let free = if ends.len() < slots { 0 } else { ends.pop().map_or(0, |Reverse(end)| end) };
        let start = created.max(free);
        ends.push(Reverse(start + long));
        if start == created {
            crowded = false;
            if before.len() > 4 * slots {
                before.retain(|(end, _)| *end > created);
            }
            before.push((start + long, *job));
            continue;
        }
        if !crowded {
            let running = before.drain(..).filter(|(end, _)| *end > created).map(|(_, job)| job);
            crowds.push(running.collect());
            crowded = true;
        }
        if let Some(crowd) = crowds.last_mut() {
            crowd.push(*job);
        }
    }
    crowds
}

/// The sum of `M_j - p_j / 2 - r_j` in the best fluid schedule; `jobs` are sorted by creation.
#[expect(clippy::cast_precision_loss, reason = "milliseconds of some years are exact in a double")]
fn fluid(jobs: &[Job], slots: u32) -> f64 {
    let mut jobs: Vec<Job> = jobs.iter().copied().filter(|(_, long)| *long > 0).collect();
    jobs.sort_unstable();
    let rate = f64::from(slots);
    let origin = jobs.first().map_or(0, |(at, _)| *at);
    let mut arriving = jobs.iter().map(|(at, long)| ((at - origin) as f64, *long)).peekable();
    // Available jobs, shortest first, with what is left of each.
    let mut available: BinaryHeap<Reverse<(Millis, u64)>> = BinaryHeap::new();
    let mut left: Vec<f64> = Vec::new();
    let (mut now, mut sum) = (0.0_f64, 0.0_f64);
    loop {
        while let Some((at, long)) = arriving.next_if(|(at, _)| *at <= now) {
            sum -= long as f64 / 2.0 + at;
            available.push(Reverse((long, left.len() as u64)));
            left.push(long as f64);
        }
        let next = arriving.peek().map(|(at, _)| *at);
        let Some(Reverse((long, index))) = available.peek().copied() else {
            match next {
                Some(at) => now = at,
                None => return sum,
            }
            continue;
        };
        let Some(rest) = left.get_mut(usize::try_from(index).unwrap_or(0)) else { return sum };
        let until = (now + *rest / rate).min(next.unwrap_or(f64::INFINITY));
        let served = (until - now) * rate;
        sum += served * f64::midpoint(now, until) / long as f64;
        if next.is_none_or(|next| until < next) {
            available.pop();
        } else {
            *rest -= served;
            if *rest <= 0.0 {
                available.pop();
            }
        }
        now = until;
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "not below 0, and far below 2^64"
)]
fn floor(number: f64) -> u64 {
    number.floor() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    const PLAIN: Terms = Terms { slots: 1, max_use_count: 0, boot: 0 };

    #[test]
    fn instances_for_jobs_that_start_at_once_are_counted_exactly() {
        // Two at once for 10, then one for 10.
        let jobs = [(0, 20), (0, 10)];
        assert_eq!(at_once(&jobs, PLAIN), 30);
        assert_eq!(at_once(&jobs, Terms { slots: 2, ..PLAIN }), 20);
        assert_eq!(at_once(&jobs, Terms { boot: 5, ..PLAIN }), 40);
        assert_eq!(at_once(&[(0, 10), (10, 10), (20, 10)], Terms { max_use_count: 1, boot: 5, ..PLAIN }), 45);
    }

    #[test]
    fn work_is_needed_whatever_the_order() {
        let jobs = [(0, 20), (0, 10)];
        assert_eq!(work(&jobs, PLAIN), 30);
        assert_eq!(work(&jobs, Terms { slots: 2, ..PLAIN }), 15);
        assert!(work(&jobs, PLAIN) <= at_once(&jobs, PLAIN));
    }

    #[test]
    fn the_bound_on_waiting_is_met_by_equal_jobs_in_a_row() {
        // On one slot they wait 0, 1,000 and 2,000.
        let bound = mean_wait(&[(0, 1_000), (0, 1_000), (0, 1_000)], 1);
        assert!((998..=1_000).contains(&bound), "{bound}");
        assert_eq!(mean_wait(&[(0, 1_000), (1_000, 1_000)], 1), 0);
        assert_eq!(mean_wait(&[(0, 1_000), (0, 1_000)], 2), 0);
    }

    #[test]
    fn no_schedule_of_a_few_jobs_waits_less_than_the_bound() {
        let mut tight = 0;
        for seed in 0..400 {
            let mut random = Random::new(seed);
            let slots = 1 + (random.next() % 2) as u32;
            let count = 2 + random.next() % 4;
            let mut jobs: Vec<Job> =
                (0..count).map(|_| (random.next() % 8 * 1_000, 1_000 + random.next() % 6 * 1_000)).collect();
            jobs.sort_unstable();
            let best = best_sum(&jobs, slots as usize);
            let bound = mean_wait(&jobs, slots);
            assert!(bound * count <= best, "seed {seed}: {jobs:?} on {slots}: {bound} > {best}/{count}");
            tight += u32::from(bound > 0);
        }
        assert!(tight > 50, "the bound says something: {tight}");
    }

    /// The least sum of waiting, by trying every order: each schedule that cannot be moved to the left starts the jobs of
    /// some order, one after the other, on the slot that is free first.
    fn best_sum(jobs: &[Job], slots: usize) -> u64 {
        fn try_all(left: &mut Vec<Job>, free: &[u64], sum: u64, best: &mut u64) {
            if left.is_empty() {
                *best = (*best).min(sum);
                return;
            }
            for index in 0..left.len() {
                let (created, long) = left.remove(index);
                for slot in 0..free.len() {
                    let start = created.max(free[slot]);
                    let mut free = free.to_vec();
                    free[slot] = start + long;
                    try_all(left, &free, sum + start - created, best);
                }
                left.insert(index, (created, long));
            }
        }
        let mut best = u64::MAX;
        try_all(&mut jobs.to_vec(), &vec![0; slots], 0, &mut best);
        best
    }
}
