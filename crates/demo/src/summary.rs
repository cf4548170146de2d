//! What came of it, in figures.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::model::Model;
use crate::settings::CAPACITY;

/// What came of a demonstration. Durations are in seconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Summary {
    /// From the beginning until nothing was left.
    pub seconds: f64,
    /// What became of the jobs.
    pub jobs: JobFigures,
    /// From a job's arrival at GitLab until it had a slot on an instance.
    pub waiting: Waiting,
    /// What the instances cost.
    pub instances: InstanceFigures,
    /// Calls to GitLab by kind; `git` are the requests of the jobs themselves.
    pub gitlab_calls: BTreeMap<String, u64>,
    /// What the manager did that GitLab's protocol does not allow.
    pub violations: u64,
    /// The instance that was killed, if one was to be.
    pub killed: Option<Killed>,
}

/// What became of the jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct JobFigures {
    /// All of them.
    pub total: usize,
    /// Ended well.
    pub succeeded: usize,
    /// Failed, and was meant to.
    pub failed_as_intended: usize,
    /// Ended in another way than was meant, or not at all.
    pub otherwise: usize,
}

/// Waiting times. Percentiles are nearest ranks.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
#[non_exhaustive]
pub struct Waiting {
    /// Half of the jobs waited no longer.
    pub p50: f64,
    /// 95 of 100 jobs waited no longer.
    pub p95: f64,
    /// No job waited longer.
    pub max: f64,
}

/// What the instances cost.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
#[non_exhaustive]
pub struct InstanceFigures {
    /// How many there were in all.
    pub started: usize,
    /// Most at once.
    pub most_at_once: u32,
    /// Still there at the end.
    pub left: usize,
    /// Sum over all instances of the time from request to removal.
    pub seconds_used: f64,
    /// What no schedule can be below: the sum of the times that jobs held a slot, divided by the slots of an instance.
    pub seconds_least: f64,
    /// What this schedule needed: the integral over time of `ceil(jobs that hold a slot / slots of an instance)`. It is
    /// what would have been used by instances that need no time to boot, are never idle, and are packed without gaps.
    pub seconds_packed: f64,
}

/// An instance that was killed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Killed {
    /// Which.
    pub instance: String,
    /// The jobs that ran on it.
    pub jobs: Vec<u64>,
    /// The end of the log of the first of them.
    pub log_tail: String,
}

/// What is known from GitLab's side.
pub(crate) struct Outcome {
    pub(crate) jobs: JobFigures,
    pub(crate) gitlab_calls: BTreeMap<String, u64>,
    pub(crate) violations: u64,
    pub(crate) killed: Option<Killed>,
}

// === impl Summary ===

impl Summary {
    pub(crate) fn new(model: &Model, now: Duration, outcome: Outcome) -> Self {
        Self {
            seconds: seconds(now),
            jobs: outcome.jobs,
            waiting: Waiting::of(model),
            instances: InstanceFigures::of(model, now),
            gitlab_calls: outcome.gitlab_calls,
            violations: outcome.violations,
            killed: outcome.killed,
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let JobFigures { total, succeeded, failed_as_intended, otherwise } = self.jobs;
        writeln!(
            f,
            "jobs        {total}: {succeeded} succeeded, {failed_as_intended} failed as intended, {otherwise} otherwise"
        )?;
        let Waiting { p50, p95, max } = self.waiting;
        writeln!(
            f,
            "waiting     p50 {p50:.1} s, p95 {p95:.1} s, max {max:.1} s from arrival to a slot on an instance"
        )?;
        let figures = &self.instances;
        writeln!(
            f,
            "instances   {} started, at most {} at once, {} left",
            figures.started, figures.most_at_once, figures.left
        )?;
        writeln!(
            f,
            "used        {:.1} instance-seconds; {:.1} with perfect packing and no boot, {:.1} at the very least",
            figures.seconds_used, figures.seconds_packed, figures.seconds_least
        )?;
        let calls: Vec<String> =
            self.gitlab_calls.iter().map(|(name, count)| format!("{count} {name}")).collect();
        writeln!(f, "calls       {}", calls.join(", "))?;
        writeln!(f, "violations  {}", self.violations)?;
        write!(f, "time        {:.1} s", self.seconds)?;
        if let Some(Killed { instance, jobs, log_tail }) = &self.killed {
            let jobs: Vec<String> = jobs.iter().map(u64::to_string).collect();
            write!(f, "\nkilled      {instance} under job {}, whose log ends:", jobs.join(" and "))?;
            for line in log_tail.lines() {
                write!(f, "\n  | {line}")?;
            }
        }
        Ok(())
    }
}

// === impl Waiting ===

impl Waiting {
    fn of(model: &Model) -> Self {
        let waits = model
            .jobs
            .values()
            .filter_map(|job| Some(job.place.as_ref()?.since.saturating_sub(job.arrived)))
            .collect();
        Self::ranks(waits)
    }

    fn ranks(mut waits: Vec<Duration>) -> Self {
        waits.sort_unstable();
        let Some(max) = waits.last() else { return Self::default() };
        let at = |percent: usize| {
            let rank = (waits.len() * percent).div_ceil(100).max(1);
            seconds(*waits.get(rank - 1).unwrap_or(max))
        };
        Self { p50: at(50), p95: at(95), max: seconds(*max) }
    }
}

// === impl InstanceFigures ===

impl InstanceFigures {
    fn of(model: &Model, now: Duration) -> Self {
        let gone = model.gone.iter().map(|life| life.until.saturating_sub(life.from));
        let living = model.instances.iter().map(|instance| now.saturating_sub(instance.seen));
        let used: Duration = gone.chain(living).sum();
        let held: Vec<(Duration, Duration)> = model
            .jobs
            .values()
            .filter_map(|job| Some((job.place.as_ref()?.since, job.end.as_ref().map_or(now, |end| end.at))))
            .collect();
        Self {
            started: model.gone.len() + model.instances.len(),
            most_at_once: model.samples.iter().map(|sample| sample.instances).max().unwrap_or_default(),
            left: model.instances.len(),
            seconds_used: seconds(used),
            seconds_least: seconds(least(&held, CAPACITY)),
            seconds_packed: seconds(packed(&held, CAPACITY)),
        }
    }
}

/// Whole milliseconds are as much as the figures are worth.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

/// The time that jobs held slots, in instances that are always full.
fn least(held: &[(Duration, Duration)], capacity: u32) -> Duration {
    let sum: Duration = held.iter().map(|(from, until)| until.saturating_sub(*from)).sum();
    sum / capacity.max(1)
}

/// The integral over time of `ceil(jobs / capacity)`.
fn packed(held: &[(Duration, Duration)], capacity: u32) -> Duration {
    // Ends come before beginnings at the same moment: the slot is free then.
    let mut edges: Vec<(Duration, bool)> =
        held.iter().flat_map(|(from, until)| [(*from, true), (*until, false)]).collect();
    edges.sort_unstable();
    let (mut jobs, mut since, mut sum) = (0_u32, Duration::ZERO, Duration::ZERO);
    for (at, begins) in edges {
        sum += (at - since) * jobs.div_ceil(capacity.max(1));
        jobs = if begins { jobs + 1 } else { jobs.saturating_sub(1) };
        since = at;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(pairs: &[(u64, u64)]) -> Vec<(Duration, Duration)> {
        pairs.iter().map(|(from, until)| (Duration::from_secs(*from), Duration::from_secs(*until))).collect()
    }

    #[test]
    fn the_least_is_the_time_of_jobs_over_the_slots() {
        assert_eq!(least(&held(&[(0, 4), (10, 13), (11, 12)]), 2), Duration::from_secs(4));
        assert_eq!(least(&[], 2), Duration::ZERO);
    }

    #[test]
    fn packing_rounds_up_to_whole_instances_at_each_moment() {
        // Two jobs share one instance, a third needs a second one for as long as it overlaps both.
        let overlapping = held(&[(0, 10), (0, 10), (5, 8)]);
        assert_eq!(packed(&overlapping, 2), Duration::from_secs(10 + 3));
        // A job alone needs a whole instance.
        assert_eq!(packed(&held(&[(2, 5)]), 2), Duration::from_secs(3));
        // One that begins as another ends takes its slot.
        assert_eq!(packed(&held(&[(0, 5), (5, 9)]), 1), Duration::from_secs(9));
    }

    #[test]
    fn packing_is_never_below_the_least() {
        let held = held(&[(0, 7), (3, 9), (4, 5), (8, 20), (8, 9), (19, 25)]);
        for capacity in 1..6 {
            assert!(packed(&held, capacity) >= least(&held, capacity));
        }
        assert_eq!(packed(&held, 1), least(&held, 1));
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let waits = (1..=40).rev().map(Duration::from_secs).collect();
        assert_eq!(Waiting::ranks(waits), Waiting { p50: 20.0, p95: 38.0, max: 40.0 });
        assert_eq!(Waiting::ranks(Vec::new()), Waiting::default());
    }
}
