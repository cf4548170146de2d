//! Several setups under the same jobs, side by side.

use std::fmt::Write as _;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::bound::{self, Terms};
use crate::cloud::{Billing, CloudModel};
use crate::replay::{Outcome, Setup, Surroundings, replay, start_of};
use crate::trace::Trace;
use crate::words::{count, money, span, thousands};
use crate::world::millis;

/// What several setups made of the same jobs.
#[derive(Debug, Clone)]
pub struct Comparison {
    pub(crate) jobs: JobFacts,
    pub(crate) start: DateTime<Utc>,
    pub(crate) around: Surroundings,
    pub(crate) results: Vec<Result>,
}

/// The jobs, in figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct JobFacts {
    pub(crate) count: usize,
    /// Entries of the file that never ran.
    pub(crate) left_out: usize,
    pub(crate) first: DateTime<Utc>,
    pub(crate) last: DateTime<Utc>,
    /// All durations together, in seconds.
    pub(crate) work_seconds: u64,
}

/// One setup.
#[derive(Debug, Clone)]
pub(crate) struct Result {
    pub(crate) figures: Figures,
    pub(crate) outcome: Outcome,
}

/// What is reported of one setup.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Figures {
    pub(crate) name: String,
    pub(crate) waiting_seconds: Waiting,
    pub(crate) instances: u64,
    pub(crate) most_instances: u32,
    pub(crate) instance_hours: f64,
    /// Share of the slots' life in which a job ran.
    pub(crate) utilisation: f64,
    pub(crate) cost: f64,
    #[serde(skip)]
    pub(crate) cost_micros: u64,
    pub(crate) bounds: Bounds,
    pub(crate) jobs_started: usize,
    /// Jobs that had not started a day after the last one was to have ended, and the last refusal.
    pub(crate) jobs_never_started: u64,
    pub(crate) never_started_because: Option<String>,
    /// Jobs that waited longer for an instance than `instance_acquire_timeout`; a real manager fails those.
    pub(crate) jobs_beyond_acquire_timeout: u64,
    /// Jobs that lost their instance and ran again.
    pub(crate) jobs_interrupted: u64,
}

/// How long jobs waited from their creation until they had a slot.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Waiting {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p95: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
    pub(crate) mean: f64,
}

/// What no policy can beat; the documentation of the module `bound` proves it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Bounds {
    /// Cost of any policy with these instances under which no job waits, even if it knows the future.
    pub(crate) cost_if_no_job_waits: f64,
    /// Cost of any policy with these instances, however long jobs wait.
    pub(crate) cost_of_any_policy: f64,
    /// Mean waiting, in seconds, of any policy and any order of jobs with this many at once.
    pub(crate) mean_wait_seconds: f64,
    /// How many jobs at once that is; none without a maximum.
    pub(crate) most_jobs: Option<u32>,
    #[serde(skip)]
    pub(crate) at_once_micros: u64,
    #[serde(skip)]
    pub(crate) any_micros: u64,
}

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    seed: u64,
    jobs: &'a JobFacts,
    cloud: &'a CloudModel,
    policies: Vec<&'a Figures>,
}

/// Replays a trace under each of the setups.
#[must_use]
pub fn compare(setups: &[Setup], trace: &Trace, around: &Surroundings) -> Comparison {
    let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let running: Vec<_> =
            setups.iter().map(|setup| scope.spawn(move || replay(setup, trace, around))).collect();
        running
            .into_iter()
            .zip(setups)
            .map(|(run, setup)| run.join().unwrap_or_else(|_| replay(setup, trace, around)))
            .collect()
    });
    let jobs = JobFacts::of(trace);
    let results = setups
        .iter()
        .zip(outcomes)
        .map(|(setup, outcome)| Result { figures: Figures::of(setup, &outcome, trace, around), outcome })
        .collect();
    Comparison { jobs, start: start_of(trace), around: around.clone(), results }
}

// === impl Comparison ===

impl Comparison {
    /// The figures as JSON.
    #[must_use]
    pub fn json(&self) -> String {
        let document = Document {
            version: 1,
            seed: self.around.seed,
            jobs: &self.jobs,
            cloud: &self.around.cloud,
            policies: self.results.iter().map(|result| &result.figures).collect(),
        };
        serde_json::to_string_pretty(&document).unwrap_or_default()
    }

    /// The figures as a table.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("{}\n{}\n\n", self.about_jobs(), self.about_cloud());
        let rows = self.rows();
        let label = rows.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
        let width = |column: usize| {
            rows.iter()
                .filter_map(|(_, cells)| cells.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        for (name, cells) in &rows {
            let _ = write!(text, "{name:label$}");
            for (column, cell) in cells.iter().enumerate() {
                let _ = write!(text, "  {cell:>width$}", width = width(column));
            }
            text.push('\n');
        }
        for note in self.notes() {
            let _ = write!(text, "\n{note}\n");
        }
        text
    }

    /// The whole report as one HTML file, which needs nothing else.
    #[must_use]
    pub fn html(&self) -> String {
        crate::html::page(self)
    }

    /// Jobs and instances over time as an SVG picture, for a page of one's own.
    #[must_use]
    pub fn picture(&self) -> String {
        crate::chart::picture(self)
    }

    pub(crate) fn about_jobs(&self) -> String {
        let JobFacts { count: jobs, first, last, work_seconds, left_out } = &self.jobs;
        let form = "%Y-%m-%d %H:%M";
        let out = if *left_out == 0 {
            String::new()
        } else {
            format!(" ({} never ran)", thousands(*left_out as u64))
        };
        format!(
            "{}{out} from {} to {} UTC, {} of work; seed {}",
            count(*jobs as u64, "job"),
            first.format(form),
            last.format(form),
            count(work_seconds.div_ceil(3_600), "hour"),
            self.around.seed,
        )
    }

    pub(crate) fn about_cloud(&self) -> String {
        let cloud = &self.around.cloud;
        let billing = match cloud.price.billing {
            Billing::Hourly => "every begun hour".to_owned(),
            Billing::PerSecond { minimum } => format!("by the second, at least {}", span(minimum)),
        };
        let mut text = format!(
            "cloud: instances run after {}, take jobs {} later, and cost {} an hour, {billing}",
            cloud.boot,
            cloud.ready,
            price(cloud.price.micros_per_hour),
        );
        if cloud.boot_failures > 0.0 {
            let _ = write!(text, "; {} of them fail", percent(cloud.boot_failures));
        }
        if cloud.interruptions_per_hour > 0.0 {
            let _ = write!(text, "; {} are taken away each hour", percent(cloud.interruptions_per_hour));
        }
        if cloud.capacity > 0 {
            let _ = write!(text, "; there are {} at most", cloud.capacity);
        }
        text
    }

    /// The table: a label, and one cell for each setup.
    pub(crate) fn rows(&self) -> Vec<(&'static str, Vec<String>)> {
        let row = |label: &'static str, cell: &dyn Fn(&Result) -> String| {
            (label, self.results.iter().map(cell).collect::<Vec<String>>())
        };
        let wait =
            |label: &'static str, share: f64| row(label, &|result| span(result.outcome.percentile(share)));
        let mut rows = vec![
            row("", &|result| result.figures.name.clone()),
            wait("waiting, half of the jobs at most", 0.5),
            wait("  90 % at most", 0.9),
            wait("  95 % at most", 0.95),
            wait("  99 % at most", 0.99),
            wait("  longest", 1.0),
            row("  mean", &|result| span(result.outcome.mean_wait())),
            row("  mean, no policy can beat", &|result| {
                span(crate::random::seconds(result.figures.bounds.mean_wait_seconds))
            }),
            row("instances made", &|result| thousands(result.figures.instances)),
            row("  at once, at most", &|result| thousands(result.figures.most_instances.into())),
            row("instance hours", &|result| format!("{:.1}", result.figures.instance_hours)),
            row("utilisation", &|result| percent(result.figures.utilisation)),
            row("cost", &|result| money(result.figures.cost_micros)),
            row("  if no job waits, no policy can beat", &|result| {
                money(result.figures.bounds.at_once_micros)
            }),
            row("  however long jobs wait, no policy can beat", &|result| {
                money(result.figures.bounds.any_micros)
            }),
        ];
        let mut odd = |label: &'static str, number: &dyn Fn(&Figures) -> u64| {
            if self.results.iter().any(|result| number(&result.figures) > 0) {
                rows.push(row(label, &|result| thousands(number(&result.figures))));
            }
        };
        odd("jobs that never started", &|figures| figures.jobs_never_started);
        odd("jobs beyond instance_acquire_timeout", &|figures| figures.jobs_beyond_acquire_timeout);
        odd("jobs that lost their instance", &|figures| figures.jobs_interrupted);
        rows
    }

    /// What the figures do not say by themselves.
    pub(crate) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for Figures { name, jobs_never_started, never_started_because, .. } in
            self.results.iter().map(|result| &result.figures)
        {
            if *jobs_never_started > 0 {
                let why = never_started_because.as_deref().unwrap_or("nobody asked for them");
                notes.push(format!("`{name}`: {} never started: {why}", count(*jobs_never_started, "job")));
            }
        }
        if self.results.iter().any(|result| result.figures.jobs_beyond_acquire_timeout > 0) {
            notes.push(
                "A real manager fails jobs that wait longer for an instance than `instance_acquire_timeout`; here they go on."
                    .to_owned(),
            );
        }
        notes
    }
}

// === impl JobFacts ===

impl JobFacts {
    fn of(trace: &Trace) -> Self {
        let jobs = trace.jobs();
        let work: Duration = jobs.iter().map(|job| job.duration).sum();
        Self {
            count: jobs.len(),
            left_out: trace.skipped(),
            first: jobs.first().map(|job| job.created).unwrap_or_default(),
            last: jobs.last().map(|job| job.created).unwrap_or_default(),
            work_seconds: work.as_secs(),
        }
    }
}

// === impl Figures ===

impl Figures {
    fn of(setup: &Setup, outcome: &Outcome, trace: &Trace, around: &Surroundings) -> Self {
        let percentile = |share: f64| outcome.percentile(share).as_secs_f64();
        let cost_micros = around.cloud.price.of(outcome.billed.billed);
        Self {
            name: setup.name.clone(),
            waiting_seconds: Waiting {
                p50: percentile(0.5),
                p90: percentile(0.9),
                p95: percentile(0.95),
                p99: percentile(0.99),
                max: percentile(1.0),
                mean: outcome.mean_wait().as_secs_f64(),
            },
            instances: outcome.billed.instances,
            most_instances: outcome.instances.most(),
            instance_hours: Duration::from_millis(outcome.billed.alive).as_secs_f64() / 3_600.0,
            utilisation: outcome.utilisation(),
            cost: units(cost_micros),
            cost_micros,
            bounds: Bounds::of(setup, trace, around),
            jobs_started: outcome.waits.len(),
            jobs_never_started: outcome.stuck,
            never_started_because: outcome.stuck_because.clone(),
            jobs_beyond_acquire_timeout: outcome.timed_out,
            jobs_interrupted: outcome.lost,
        }
    }
}

// === impl Bounds ===

impl Bounds {
    fn of(setup: &Setup, trace: &Trace, around: &Surroundings) -> Self {
        let start = start_of(trace);
        let jobs: Vec<(u64, u64)> = trace
            .jobs()
            .iter()
            .map(|job| {
                (u64::try_from((job.created - start).num_milliseconds()).unwrap_or(0), millis(job.duration))
            })
            .collect();
        let cloud = &around.cloud;
        let terms = Terms {
            slots: setup.scaler.capacity(),
            max_use_count: setup.scaler.max_use_count,
            boot: millis(cloud.boot.least() + cloud.ready.least()),
        };
        let instances = [setup.scaler.ceiling(), (cloud.capacity > 0).then_some(cloud.capacity)];
        let slots = instances.into_iter().flatten().min().map(|most| most.saturating_mul(terms.slots));
        let most_jobs = slots.map_or(setup.most_jobs, |slots| slots.min(setup.most_jobs));
        let price = cloud.price;
        let (at_once, any) = (price.of(bound::at_once(&jobs, terms)), price.of(bound::work(&jobs, terms)));
        Self {
            cost_if_no_job_waits: units(at_once),
            cost_of_any_policy: units(any),
            mean_wait_seconds: Duration::from_millis(bound::mean_wait(&jobs, most_jobs)).as_secs_f64(),
            most_jobs: Some(most_jobs),
            at_once_micros: at_once,
            any_micros: any,
        }
    }
}

pub(crate) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

#[expect(clippy::cast_precision_loss, reason = "money for a reader")]
fn units(micros: u64) -> f64 {
    (micros / 100) as f64 / 1e4
}

/// A price as it was written: with as many digits as it needs.
fn price(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    let short = text.trim_end_matches('0');
    let least = text.find('.').map_or(text.len(), |point| point + 3);
    text.get(..short.len().max(least)).unwrap_or(&text).to_owned()
}
