//! What came of a run: counts, rates and waiting times over all jobs.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::core::Core;
use crate::endpoint::Endpoint;
use crate::job::{JobState, JobView};
use crate::runner::RunnerView;

/// Figures over all jobs of a mock. Making one looks at every job.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Seconds since the mock was started.
    pub seconds: f64,
    /// Jobs by state.
    pub jobs: BTreeMap<JobState, usize>,
    /// Jobs that a runner took and that have no final state, or that the server ended for want of one.
    pub lost: Vec<u64>,
    /// Jobs that ended, per second, between the first job queued and the last one ended.
    pub jobs_per_second: f64,
    /// Seconds from queued to (last) given to a runner.
    pub queue_wait: Percentiles,
    /// Seconds from started to ended.
    pub duration: Percentiles,
    /// Bytes of all logs.
    pub log_bytes: u64,
    /// Requests by endpoint.
    pub calls: BTreeMap<Endpoint, u64>,
    /// Figures of each runner's queue.
    pub runners: Vec<RunnerView>,
    /// Number of violations.
    pub violations: u64,
}

/// Percentiles of a number of durations, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// How many there are.
    pub count: usize,
    /// Half are shorter.
    pub p50: f64,
    /// Nine of ten are shorter.
    pub p90: f64,
    /// All but one of a hundred are shorter.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

// === impl Summary ===

impl Summary {
    pub(crate) fn of(core: &Core) -> Self {
        let views: Vec<JobView> = core.jobs().iter().map(|job| job.view()).collect();
        let mut jobs = BTreeMap::new();
        for view in &views {
            *jobs.entry(view.state).or_insert(0) += 1;
        }
        let wait = |view: &JobView| Some(view.given_at?.saturating_sub(view.queued_at));
        let run = |view: &JobView| Some(view.finished_at?.saturating_sub(view.started_at?));
        Self {
            seconds: core.now().as_secs_f64(),
            jobs,
            lost: views.iter().filter(|view| is_lost(view)).map(|view| view.id).collect(),
            jobs_per_second: rate(&views),
            queue_wait: Percentiles::of(views.iter().filter_map(wait).collect()),
            duration: Percentiles::of(views.iter().filter_map(run).collect()),
            log_bytes: views.iter().map(|view| view.log_bytes).sum(),
            calls: core.calls(),
            runners: core.runners().iter().map(|runner| runner.view()).collect(),
            violations: core.violations.count(),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let states: Vec<String> = self.jobs.iter().map(|(state, count)| format!("{count} {state}")).collect();
        writeln!(f, "jobs        {}", if states.is_empty() { "none".to_owned() } else { states.join(", ") })?;
        writeln!(f, "rate        {:.1} jobs/s", self.jobs_per_second)?;
        writeln!(f, "queue wait  {}", self.queue_wait)?;
        writeln!(f, "duration    {}", self.duration)?;
        writeln!(f, "logs        {} bytes", self.log_bytes)?;
        let calls: Vec<String> =
            self.calls.iter().map(|(endpoint, count)| format!("{count} {endpoint}")).collect();
        writeln!(f, "calls       {}", calls.join(", "))?;
        writeln!(f, "lost        {}", self.lost.len())?;
        write!(f, "violations  {}", self.violations)
    }
}

// === impl Percentiles ===

impl Percentiles {
    fn of(mut durations: Vec<Duration>) -> Self {
        durations.sort_unstable();
        let Some(max) = durations.last() else { return Self::default() };
        let at = |percent: usize| {
            let rank = (durations.len() * percent).div_ceil(100).max(1);
            durations.get(rank - 1).unwrap_or(max).as_secs_f64()
        };
        Self { count: durations.len(), p50: at(50), p90: at(90), p99: at(99), max: max.as_secs_f64() }
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, p50, p90, p99, max } = self;
        write!(f, "p50 {p50:.3} s, p90 {p90:.3} s, p99 {p99:.3} s, max {max:.3} s (n={count})")
    }
}

/// Taken by a runner and never brought to an end by it. Cancelled jobs end on the server's side by right.
fn is_lost(view: &JobView) -> bool {
    let abandoned = view.ended_by_server
        && matches!(
            view.failure_reason.as_deref(),
            Some("stuck_or_timeout_failure" | "job_execution_timeout")
        );
    view.times_given > 0 && (!view.state.is_final() || abandoned)
}

#[expect(clippy::cast_precision_loss, reason = "a rate of jobs needs no more than 52 bits")]
fn rate(views: &[JobView]) -> f64 {
    let first = views.iter().map(|view| view.queued_at).min();
    let last = views.iter().filter_map(|view| view.finished_at).max();
    let ended = views.iter().filter(|view| view.state.is_final()).count();
    match (first, last) {
        (Some(first), Some(last)) if last > first => ended as f64 / (last - first).as_secs_f64(),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let hundred = (1..=100).map(Duration::from_secs).rev().collect();
        let percentiles = Percentiles::of(hundred);
        assert_eq!(percentiles, Percentiles { count: 100, p50: 50.0, p90: 90.0, p99: 99.0, max: 100.0 });
    }

    #[test]
    fn percentiles_of_nothing_are_zero() {
        assert_eq!(Percentiles::of(Vec::new()), Percentiles::default());
    }
}
