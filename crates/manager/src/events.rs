//! What a manager lets others see: events as they happen, and the jobs that run now.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use executors::JobWatcher;
use serde::Serialize;
use tokio::time::Instant;

use crate::watch::{EntryObserver, Phase, RunnerWatch};

/// Hears what the manager does. Implementations must not block; everything has a default that does nothing.
pub trait Observer: Send + Sync + 'static {
    /// A runner entry takes jobs from now on.
    fn runner_started(&self, _runner: &str) {}
    /// A job was received. `queued` is GitLab's figure for its time in the queue.
    fn job_received(&self, _runner: &str, _job: u64, _queued: Duration) {}
    /// A job has a place.
    fn job_placed(&self, _job: u64, _place: &str) {}
    /// A job begins a stage.
    fn job_stage(&self, _job: u64, _stage: &str) {}
    /// A job is over: `failure` is the runner's word for why, none for success.
    fn job_ended(&self, _runner: &str, _job: u64, _failure: Option<&str>, _duration: Duration) {}
    /// GitLab was asked and had no job, or an answer that is not one.
    fn asked_in_vain(&self, _runner: &str) {}
    /// There was no room for a job, so GitLab was not asked.
    fn no_room(&self, _runner: &str) {}
    /// A configuration is in force from now on.
    fn configured(&self, _config: &config::Config) {}
    /// A runner entry was found that this build can run; it starts now. Returns who hears what concerns it alone.
    fn runner_added(&self, _runner: &config::Runner) -> RunnerWatch {
        RunnerWatch::default()
    }
    /// The manager has come to another phase.
    fn phase(&self, _phase: Phase) {}
}

/// Hears and says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {}

/// A job that runs now.
#[derive(Debug, Clone, Serialize)]
pub struct JobLine {
    /// Its id.
    pub job: u64,
    /// Name of its runner.
    pub runner: String,
    /// The part of its runner's token that may be shown.
    pub short_token: String,
    /// Where GitLab shows it; empty if it did not say.
    pub url: String,
    /// Where it runs; empty while it has no place.
    pub place: String,
    /// The stage that it is in.
    pub stage: String,
    /// When it was received.
    #[serde(skip)]
    pub since: Instant,
    /// When its stage began.
    #[serde(skip)]
    pub stage_since: Instant,
}

/// The jobs that run now.
#[derive(Clone, Default)]
pub struct Jobs(Arc<Mutex<BTreeMap<u64, JobLine>>>);

/// Tells the observer and the table of jobs what jobs do.
pub(crate) struct Reporter {
    pub(crate) jobs: Jobs,
    pub(crate) observer: Arc<dyn Observer>,
}

/// Tells the observer of the job's runner entry how long its stages took, beside all that the [`Reporter`] tells.
pub(crate) struct StageReporter {
    pub(crate) all: Arc<Reporter>,
    pub(crate) entry: Arc<dyn EntryObserver>,
}

// === impl Jobs ===

impl Jobs {
    /// All of them, by id.
    #[must_use]
    pub fn list(&self) -> Vec<JobLine> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Calls `visit` for each, by id, without copying them. It must not call back.
    pub fn for_each(&self, visit: impl FnMut(&JobLine)) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().for_each(visit);
    }

    pub(crate) fn begin(&self, job: u64, runner: &str, short_token: &str, url: String) {
        let now = Instant::now();
        let line = JobLine {
            job,
            runner: runner.to_owned(),
            short_token: short_token.to_owned(),
            url,
            place: String::new(),
            stage: String::new(),
            since: now,
            stage_since: now,
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(job, line);
    }

    pub(crate) fn end(&self, job: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&job);
    }

    fn change<T>(&self, job: u64, change: impl FnOnce(&mut JobLine) -> T) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&job).map(change)
    }
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.list()).finish()
    }
}

// === impl Reporter ===

impl Reporter {
    /// Returns the stage that is over now, and how long it took.
    fn next_stage(&self, job: u64, stage: &str) -> Option<(String, Duration)> {
        let now = Instant::now();
        let over = self.jobs.change(job, |line| {
            let began = std::mem::replace(&mut line.stage_since, now);
            (std::mem::replace(&mut line.stage, stage.to_owned()), now.duration_since(began))
        });
        self.observer.job_stage(job, stage);
        over.filter(|(name, _)| !name.is_empty())
    }
}

impl JobWatcher for Reporter {
    fn stage(&self, job: u64, stage: &str) {
        self.next_stage(job, stage);
    }

    fn placed(&self, job: u64, place: &str) {
        self.jobs.change(job, |line| place.clone_into(&mut line.place));
        self.observer.job_placed(job, place);
    }
}

// === impl StageReporter ===

impl StageReporter {
    /// The job's last stage is over too.
    pub(crate) fn ended(&self, job: u64) {
        let last = self.all.jobs.change(job, |line| (line.stage.clone(), line.stage_since.elapsed()));
        if let Some((stage, duration)) = last.filter(|(stage, _)| !stage.is_empty()) {
            self.entry.stage_ended(&stage, duration);
        }
    }
}

impl JobWatcher for StageReporter {
    fn stage(&self, job: u64, stage: &str) {
        if let Some((stage, duration)) = self.all.next_stage(job, stage) {
            self.entry.stage_ended(&stage, duration);
        }
    }

    fn placed(&self, job: u64, place: &str) {
        self.all.placed(job, place);
    }
}
