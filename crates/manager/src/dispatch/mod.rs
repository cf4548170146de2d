//! Who asks GitLab for a job, and when. Pure: it is told what happened and says who may ask now.
//!
//! A request holds room for the job that it may bring, so no limit is ever exceeded: a place under `concurrent` and under
//! the runner's `limit`, and a reservation at its executor. A runner that got a job asks again at once; one that got none
//! waits for `check_interval`. Places go to the runner that has waited longest.
//!
//! A request may wait at GitLab (long polling) only while more places are free than other runners want; where places are
//! scarce, requests are answered at once and the places go round.

mod adaptive;
mod health;
mod runner;

use std::collections::BTreeMap;
use std::time::Duration;

pub(crate) use runner::{Answer, RunnerLimits};

use runner::RunnerState;

use crate::watch::Requests;

/// Names a runner entry for the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RunnerIndex(pub(crate) u64);

/// One request to be made now. Its place is taken already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) runner: RunnerIndex,
    /// The request may be held open by GitLab.
    pub(crate) may_wait: bool,
}

/// All runners' turns.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    concurrent: usize,
    check_interval: Duration,
    /// Places held by jobs and by requests.
    taken: usize,
    runners: BTreeMap<RunnerIndex, RunnerState>,
    /// Counts asks; the order of turns.
    turn: u64,
}

// === impl Dispatcher ===

impl Dispatcher {
    pub(crate) fn new(concurrent: usize, check_interval: Duration) -> Self {
        Self { concurrent, check_interval, taken: 0, runners: BTreeMap::new(), turn: 0 }
    }

    /// New limits for all runners together. Jobs above a lowered limit run on.
    pub(crate) fn configure(&mut self, concurrent: usize, check_interval: Duration) {
        self.concurrent = concurrent;
        self.check_interval = check_interval;
    }

    /// Adds a runner or changes its limits. Health is forgotten, as after every load of the configuration.
    pub(crate) fn set_runner(&mut self, runner: RunnerIndex, limits: RunnerLimits) {
        match self.runners.get_mut(&runner) {
            Some(state) => state.configure(limits),
            None => {
                self.runners.insert(runner, RunnerState::new(limits));
            }
        }
    }

    /// No more requests for this runner; its jobs run on. Its places come back as they end.
    pub(crate) fn remove_runner(&mut self, runner: RunnerIndex) {
        if let Some(state) = self.runners.get_mut(&runner) {
            state.removed = true;
        }
        self.forget_if_done(runner);
    }

    /// Neither a job nor a request of this runner is under way, and none will be.
    pub(crate) fn has_forgotten(&self, runner: RunnerIndex) -> bool {
        !self.runners.contains_key(&runner)
    }

    /// The next request that may be made now, if any. Call until `None`, and [`refused`](Self::refused) for one that
    /// found no room at the executor.
    pub(crate) fn next(&mut self, now: Duration) -> Option<Ask> {
        if self.taken >= self.concurrent {
            return None;
        }
        let runner = self
            .runners
            .iter()
            .filter(|(_, state)| state.may_ask(now))
            .min_by_key(|(index, state)| (state.last_turn, **index))
            .map(|(index, _)| *index)?;
        let others =
            self.runners.iter().filter(|(index, state)| **index != runner && state.wants_a_place()).count();
        self.taken += 1;
        self.turn += 1;
        let free = self.concurrent - self.taken;
        let state = self.runners.get_mut(&runner)?;
        state.ask(self.turn, now);
        Some(Ask { runner, may_wait: others == 0 || free > others })
    }

    /// When to call [`next`](Self::next) again if nothing happens before.
    pub(crate) fn wake_at(&self, now: Duration) -> Option<Duration> {
        if self.taken >= self.concurrent {
            return None;
        }
        self.runners.values().filter_map(|state| state.wakes_at(now)).min()
    }

    /// The executor had no room, so the request was not made. The runner waits for [`room`](Self::room) or the next interval.
    pub(crate) fn refused(&mut self, runner: RunnerIndex, now: Duration) {
        self.taken -= 1;
        let interval = self.check_interval;
        if let Some(state) = self.runners.get_mut(&runner) {
            state.refused(now, interval);
        }
        self.forget_if_done(runner);
    }

    /// The executor may have room again.
    pub(crate) fn room(&mut self, runner: RunnerIndex) {
        if let Some(state) = self.runners.get_mut(&runner) {
            state.room();
        }
    }

    /// A request was answered. With a job, its place now belongs to the job.
    pub(crate) fn answered(&mut self, runner: RunnerIndex, answer: Answer, now: Duration) {
        if !answer.is_job() {
            self.taken -= 1;
        }
        let interval = self.check_interval;
        if let Some(state) = self.runners.get_mut(&runner) {
            state.answered(answer, now, interval);
        }
        self.forget_if_done(runner);
    }

    /// A job is over.
    pub(crate) fn job_ended(&mut self, runner: RunnerIndex) {
        self.taken -= 1;
        if let Some(state) = self.runners.get_mut(&runner) {
            state.jobs -= 1;
        }
        self.forget_if_done(runner);
    }

    /// Jobs of all runners, and requests under way.
    pub(crate) fn load(&self) -> (usize, usize) {
        let jobs = self.runners.values().map(|state| state.jobs).sum();
        (jobs, self.taken - jobs)
    }

    /// Requests of one runner, for metrics; none once it is removed.
    pub(crate) fn requests(&self, runner: RunnerIndex, now: Duration) -> Option<Requests> {
        self.runners.get(&runner).filter(|state| !state.removed).map(|state| state.requests(now))
    }

    /// Another request of this runner would be made if `request_concurrency` allowed it.
    pub(crate) fn requests_exhausted(&self, runner: RunnerIndex) -> bool {
        self.taken < self.concurrent && self.runners.get(&runner).is_some_and(RunnerState::requests_exhausted)
    }

    /// Lifts the unhealthy mark of every runner, as a reload does.
    pub(crate) fn clear_health(&mut self) {
        for state in self.runners.values_mut() {
            state.health.clear();
        }
    }

    fn forget_if_done(&mut self, runner: RunnerIndex) {
        if self.runners.get(&runner).is_some_and(|state| state.removed && state.idle()) {
            self.runners.remove(&runner);
        }
    }
}

#[cfg(test)]
mod tests;
