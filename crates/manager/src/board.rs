//! The runner entries as others may see them: what `drover explain` and the status endpoint show.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use config::Runner;
use executors::Executor;
use status::{Diary, Document, EntryState, JobStatus, Kind, ManagerStatus, RunnerStatus, VERSION};
use tokio::time::Instant;

use crate::dispatch::RunnerIndex;
use crate::events::{JobLine, Jobs};
use crate::runner::Identity;
use crate::watch::{Phase, Requests};

/// The state of the manager and of its entries. Clones are handles to the same one.
#[derive(Clone)]
pub(crate) struct Board(Arc<Mutex<State>>);

struct State {
    manager: ManagerStatus,
    entries: BTreeMap<RunnerIndex, Line>,
    /// Entries of the file that this build cannot run.
    refused: Vec<Line>,
}

struct Line {
    label: String,
    name: String,
    short_token: String,
    executor_name: String,
    limit: u32,
    state: EntryState,
    why: String,
    requests: Requests,
    no_room: String,
    errors: Diary,
    executor: Option<Arc<dyn Executor>>,
}

// === impl Board ===

impl Board {
    pub(crate) fn new(identity: &Identity) -> Self {
        let product = &identity.product;
        let manager = ManagerStatus {
            name: product.name.clone(),
            version: product.version.clone(),
            revision: product.revision.clone(),
            system_id: identity.system_id.clone(),
            pid: std::process::id(),
            started: Utc::now(),
            phase: Phase::default().as_str().to_owned(),
            concurrent: 0,
            jobs: 0,
        };
        Self(Arc::new(Mutex::new(State { manager, entries: BTreeMap::new(), refused: Vec::new() })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(&self, index: RunnerIndex, change: impl FnOnce(&mut Line)) {
        if let Some(line) = self.lock().entries.get_mut(&index) {
            change(line);
        }
    }

    pub(crate) fn phase(&self, phase: Phase) {
        phase.as_str().clone_into(&mut self.lock().manager.phase);
    }

    /// A configuration is in force; these of its entries are refused.
    pub(crate) fn configured(&self, concurrent: u32, refused: impl IntoIterator<Item = (Runner, String)>) {
        let mut state = self.lock();
        state.manager.concurrent = concurrent;
        state.refused = refused
            .into_iter()
            .map(|(runner, why)| Line { state: EntryState::Refused, why, ..Line::new(&runner) })
            .collect();
    }

    pub(crate) fn added(&self, index: RunnerIndex, runner: &Runner) {
        self.lock().entries.insert(index, Line::new(runner));
    }

    pub(crate) fn changed(&self, index: RunnerIndex, runner: &Runner) {
        self.entry(index, |line| line.limit = runner.limit().unwrap_or(0));
    }

    pub(crate) fn working(&self, index: RunnerIndex, executor: Arc<dyn Executor>) {
        self.entry(index, |line| {
            if line.state != EntryState::Removed {
                line.state = EntryState::Working;
            }
            line.why.clear();
            line.executor = Some(executor);
        });
    }

    /// The entry does not work: it is tried again, or left alone until it changes.
    pub(crate) fn broken(&self, index: RunnerIndex, why: &str, tried_again: bool) {
        self.entry(index, |line| {
            line.state = if tried_again { EntryState::Retrying } else { EntryState::Refused };
            why.clone_into(&mut line.why);
            line.errors.add(Utc::now(), Kind::Error, why);
        });
    }

    pub(crate) fn failed(&self, index: RunnerIndex, what: impl Into<String>) {
        self.entry(index, |line| line.errors.add(Utc::now(), Kind::Error, what));
    }

    pub(crate) fn requests(&self, index: RunnerIndex, requests: &Requests) {
        self.entry(index, |line| line.requests = *requests);
    }

    /// Why the executor had no room at the last turn; empty if it had.
    pub(crate) fn room(&self, index: RunnerIndex, why: &str) {
        self.entry(index, |line| why.clone_into(&mut line.no_room));
    }

    pub(crate) fn removed(&self, index: RunnerIndex) {
        self.entry(index, |line| line.state = EntryState::Removed);
    }

    pub(crate) fn retired(&self, index: RunnerIndex) {
        self.lock().entries.remove(&index);
    }

    /// All that there is to say now.
    pub(crate) fn document(&self, jobs: &Jobs) -> Document {
        let at = Utc::now();
        let mut by_runner: BTreeMap<(String, String), Vec<JobStatus>> = BTreeMap::new();
        let mut count = 0;
        jobs.for_each(|line| {
            count += 1;
            let key = (line.short_token.clone(), line.runner.clone());
            by_runner.entry(key).or_default().push(job(line, at));
        });
        let mut state = self.lock();
        state.manager.jobs = count;
        let manager = state.manager.clone();
        let mut runners = Vec::new();
        let mut executors = Vec::new();
        for line in state.entries.values().chain(&state.refused) {
            let key = (line.short_token.clone(), line.label.clone());
            runners.push(line.status(by_runner.remove(&key).unwrap_or_default()));
            executors.push(line.executor.clone());
        }
        drop(state);
        // Scalers have locks of their own, so they are asked without this one.
        for (runner, executor) in runners.iter_mut().zip(executors) {
            runner.scaling = executor.and_then(|executor| executor.scaling());
        }
        Document { version: VERSION, at, manager, runners }
    }
}

// === impl Line ===

impl Line {
    fn new(runner: &Runner) -> Self {
        Self {
            label: runner.label(),
            name: runner.name().to_owned(),
            short_token: runner.short_token().to_owned(),
            executor_name: runner.executor.clone().unwrap_or_default(),
            limit: runner.limit().unwrap_or(0),
            state: EntryState::Starting,
            why: String::new(),
            requests: Requests { healthy: true, ..Requests::default() },
            no_room: String::new(),
            errors: Diary::default(),
            executor: None,
        }
    }

    fn status(&self, jobs: Vec<JobStatus>) -> RunnerStatus {
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        RunnerStatus {
            name: self.name.clone(),
            short_token: self.short_token.clone(),
            executor: self.executor_name.clone(),
            state: self.state,
            why: self.why.clone(),
            healthy: self.requests.healthy,
            limit: self.limit,
            requests: number(self.requests.in_flight),
            requests_limit: number(self.requests.used_limit),
            no_room: self.no_room.clone(),
            jobs,
            errors: self.errors.moments(),
            scaling: None,
        }
    }
}

// === helpers ===

fn job(line: &JobLine, at: DateTime<Utc>) -> JobStatus {
    let before = |then: Instant| at - TimeDelta::from_std(then.elapsed()).unwrap_or_default();
    JobStatus {
        job: line.job,
        url: line.url.clone(),
        place: line.place.clone(),
        stage: line.stage.clone(),
        since: before(line.since),
        stage_since: before(line.stage_since),
    }
}
