//! What a manager lets others see: events as they happen, and the jobs that run now.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use executors::JobWatcher;
use serde::Serialize;
use tokio::time::Instant;

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
    /// Where it runs; empty while it has no place.
    pub place: String,
    /// The stage that it is in.
    pub stage: String,
    /// When it was received.
    #[serde(skip)]
    pub since: Instant,
}

/// The jobs that run now.
#[derive(Clone, Default)]
pub struct Jobs(Arc<Mutex<BTreeMap<u64, JobLine>>>);

/// Tells the observer and the table of jobs what one job does.
pub(crate) struct Reporter {
    pub(crate) jobs: Jobs,
    pub(crate) observer: Arc<dyn Observer>,
}

// === impl Jobs ===

impl Jobs {
    /// All of them, by id.
    #[must_use]
    pub fn list(&self) -> Vec<JobLine> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(crate) fn begin(&self, job: u64, runner: &str) {
        let line = JobLine {
            job,
            runner: runner.to_owned(),
            place: String::new(),
            stage: String::new(),
            since: Instant::now(),
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(job, line);
    }

    pub(crate) fn end(&self, job: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&job);
    }

    fn change(&self, job: u64, change: impl FnOnce(&mut JobLine)) {
        if let Some(line) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&job) {
            change(line);
        }
    }
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.list()).finish()
    }
}

// === impl Reporter ===

impl JobWatcher for Reporter {
    fn stage(&self, job: u64, stage: &str) {
        self.jobs.change(job, |line| stage.clone_into(&mut line.stage));
        self.observer.job_stage(job, stage);
    }

    fn placed(&self, job: u64, place: &str) {
        self.jobs.change(job, |line| place.clone_into(&mut line.place));
        self.observer.job_placed(job, place);
    }
}
