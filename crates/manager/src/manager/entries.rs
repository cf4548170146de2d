//! Runner entries come to work, change and go.

use std::sync::Arc;
use std::time::Duration;

use config::{Diagnostic, Loaded, Runner, RunnerChange, Verdict};
use fleeting::with_causes;
use taskscaler::StoreError;
use tokio::sync::watch;

use super::{Entry, Event, Manager};
use crate::dispatch::RunnerIndex;
use crate::numbers::Numbers;
use crate::runner::{EntryError, Working};

/// Pauses between tries to bring an entry to work.
const START_PAUSES: [Duration; 5] = [
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(30),
    Duration::from_secs(60),
];

impl Manager {
    /// Brings all entries of the first configuration to work.
    pub(super) fn begin(&mut self, loaded: &Loaded) {
        self.reporter.observer.configured(&self.config);
        let verdicts = self.verdicts(loaded);
        self.tell_configured(&loaded.config.runners, &verdicts);
        for (runner, verdict) in loaded.config.runners.iter().zip(verdicts) {
            self.add(runner.clone(), verdict);
        }
    }

    fn tell_configured(&self, runners: &[Runner], verdicts: &[Verdict]) {
        let refused = runners.iter().zip(verdicts).filter_map(|(runner, verdict)| match verdict {
            Verdict::Refused(why) => Some((runner.clone(), why.clone())),
            Verdict::Runnable => None,
        });
        self.board.configured(self.config.concurrent(), refused);
    }

    fn verdicts(&self, loaded: &Loaded) -> Vec<Verdict> {
        let mut verdicts = loaded.verdicts(&self.around.providers.capabilities());
        for (index, verdict) in verdicts.iter_mut().enumerate() {
            let of_entry = |found: &&Diagnostic| found.is_error() && found.runner == Some(index);
            let hint = loaded.diagnostics.iter().find(of_entry).and_then(|found| found.hint.as_deref());
            if let (Verdict::Refused(why), Some(hint)) = (verdict, hint) {
                why.push_str("; ");
                why.push_str(hint);
            }
        }
        verdicts
    }

    /// Adds an entry, after the end of one that still uses the same instances.
    fn add(&mut self, runner: Runner, verdict: Verdict) {
        if let Verdict::Refused(why) = verdict {
            tracing::error!(runner = runner.label(), %why, "this runner entry takes no jobs; the others do");
            return;
        }
        // Two scalers on one group would delete each other's instances.
        let before =
            self.runners.values_mut().find(|entry| entry.is_removed() && same_group(&entry.runner, &runner));
        if let Some(before) = before {
            tracing::info!(
                runner = runner.label(),
                after = before.label,
                jobs = before.jobs,
                "the entry starts when the last job of the one before it has ended: both use the same instances"
            );
            before.successors.push((runner, verdict));
            return;
        }
        self.next_index += 1;
        let index = RunnerIndex(self.next_index);
        let entry = Entry {
            watch: self.reporter.observer.runner_added(&runner),
            label: runner.label(),
            runner,
            working: None,
            numbers: Numbers::default(),
            removed: watch::Sender::new(false),
            jobs: 0,
            starting: false,
            changed: false,
            again: None,
            retiring: false,
            successors: Vec::new(),
        };
        self.board.added(index, &entry.runner);
        self.runners.insert(index, entry);
        self.start(index, 0);
    }

    /// Brings an entry to work, unless it works, is about to, or goes: two executors would scale one group.
    pub(super) fn start(&mut self, index: RunnerIndex, tries: u32) {
        let waits = |entry: &&mut Entry| !entry.is_removed() && !entry.starting && entry.working.is_none();
        let Some(entry) = self.runners.get_mut(&index).filter(waits) else { return };
        if let Some(again) = entry.again.take() {
            again.abort();
        }
        entry.starting = true;
        entry.changed = false;
        let (runner, config, around) = (entry.runner.clone(), self.config.clone(), Arc::clone(&self.around));
        let (events, watch) = (self.events.clone(), entry.watch.clone());
        tokio::spawn(async move {
            let outcome = Working::start(runner, &config, &around, &watch).await;
            let _ = events.send(Event::Started(index, Box::new(outcome), tries));
        });
    }

    pub(super) fn started(&mut self, index: RunnerIndex, outcome: Result<Working, EntryError>, tries: u32) {
        let Some(entry) = self.runners.get_mut(&index) else { return };
        entry.starting = false;
        match outcome {
            Ok(mut working) => {
                if entry.changed {
                    working.reconfigure(entry.runner.clone(), &self.around);
                }
                tracing::info!(
                    runner = entry.label,
                    executor = working.executor.kind(),
                    "runner entry takes jobs"
                );
                self.board.working(index, Arc::clone(&working.executor));
                if !entry.is_removed() {
                    self.dispatcher.set_runner(index, working.limits());
                    self.reporter.observer.runner_started(&entry.label);
                }
                if let Some(requests) = self.dispatcher.requests(index, self.clock.elapsed()) {
                    entry.watch.entry.requests(&requests);
                    self.board.requests(index, &requests);
                }
                let label = entry.label.clone();
                let executor = Arc::clone(&working.executor);
                entry.working = Some(working);
                self.executors.send_modify(|all| {
                    all.insert(label, executor);
                });
                self.retire_if_done(index);
            }
            Err(error) => {
                let error: &(dyn std::error::Error + 'static) = &error;
                if entry.is_removed() {
                    self.retire_if_done(index);
                } else if entry.changed {
                    // What failed is not in the file any more.
                    self.start(index, 0);
                } else if let Some(pause) = pause_before_retry(error, tries) {
                    self.board.broken(index, &with_causes(error), true);
                    tracing::error!(
                        runner = entry.label,
                        error = with_causes(error),
                        ?pause,
                        "runner entry cannot work yet; it is tried again"
                    );
                    let events = self.events.clone();
                    let again = tokio::spawn(async move {
                        tokio::time::sleep(pause).await;
                        let _ = events.send(Event::StartAgain(index, tries + 1));
                    });
                    entry.again = Some(again.abort_handle());
                } else {
                    self.board.broken(index, &with_causes(error), false);
                    tracing::error!(
                        runner = entry.label,
                        error = with_causes(error),
                        "this runner entry takes no jobs; the others do"
                    );
                }
            }
        }
    }

    /// Puts another configuration in force. Running jobs keep what they started with.
    pub(super) fn reload(&mut self, loaded: Loaded) {
        let verdicts = self.verdicts(&loaded);
        let diff = self.config.diff(&loaded.config);
        for change in diff.global.iter().filter(|change| change.reload == config::Reload::Restart) {
            tracing::warn!(key = change.key, "the changed key takes effect after a restart");
        }
        let old = std::mem::replace(&mut self.config, loaded.config);
        self.reporter.observer.configured(&self.config);
        self.tell_configured(&self.config.runners, &verdicts);
        self.dispatcher.configure(self.config.concurrent() as usize, self.config.check_interval());
        for change in diff.runners {
            match change {
                RunnerChange::Same { .. } => {}
                RunnerChange::Changed { old: before, new, changes } => {
                    let runner = self.config.runners[new].clone();
                    let restart = changes.iter().any(|change| change.reload == config::Reload::Restart);
                    let at = self.position(&old.runners[before]);
                    match (at, &verdicts[new]) {
                        (Some(index), Verdict::Runnable) if !restart => self.change(index, runner),
                        (Some(index), verdict) => {
                            self.remove(index);
                            self.add(runner, verdict.clone());
                        }
                        (None, verdict) => self.add(runner, verdict.clone()),
                    }
                }
                RunnerChange::Added { new } => {
                    self.add(self.config.runners[new].clone(), verdicts[new].clone());
                }
                RunnerChange::Removed { old: before } => {
                    if let Some(index) = self.position(&old.runners[before]) {
                        self.remove(index);
                    }
                }
            }
        }
        self.dispatcher.clear_health();
        tracing::info!(
            runners = self.runners.len(),
            concurrent = self.config.concurrent(),
            "configuration loaded"
        );
    }

    fn position(&self, runner: &Runner) -> Option<RunnerIndex> {
        let same = |entry: &Entry| {
            !entry.is_removed()
                && entry.runner.name() == runner.name()
                && entry.runner.short_token() == runner.short_token()
        };
        self.runners.iter().find(|(_, entry)| same(entry)).map(|(index, _)| *index)
    }

    fn change(&mut self, index: RunnerIndex, runner: Runner) {
        let Some(entry) = self.runners.get_mut(&index) else { return };
        entry.runner = runner.clone();
        entry.watch.entry.changed(&runner);
        self.board.changed(index, &runner);
        if let Some(working) = entry.working.as_mut() {
            working.reconfigure(runner, &self.around);
            self.dispatcher.set_runner(index, working.limits());
            tracing::info!(runner = entry.label, "runner entry changed");
        } else {
            entry.changed = true;
            self.start(index, 0);
        }
    }

    fn remove(&mut self, index: RunnerIndex) {
        let Some(entry) = self.runners.get_mut(&index) else { return };
        entry.removed.send_replace(true);
        tracing::info!(
            runner = entry.label,
            jobs = entry.jobs,
            "runner entry removed; its jobs run to their end"
        );
        self.board.removed(index);
        self.dispatcher.remove_runner(index);
        self.retire_if_done(index);
    }

    /// The executor of a removed entry ends after its last job, and after the last request that may bring one.
    pub(super) fn retire_if_done(&mut self, index: RunnerIndex) {
        let asking = !self.dispatcher.has_forgotten(index);
        let Some(entry) = self.runners.get_mut(&index) else { return };
        if !entry.is_removed() || entry.jobs > 0 || asking || entry.starting || entry.retiring {
            return;
        }
        entry.retiring = true;
        self.listening.forget(index);
        let working = entry.working.take();
        let label = entry.label.clone();
        if let Some(working) = &working {
            self.executors.send_modify(|all| {
                let ours = all.get(&label).is_some_and(|executor| Arc::ptr_eq(executor, &working.executor));
                if ours {
                    all.remove(&label);
                }
            });
        }
        let events = self.events.clone();
        tokio::spawn(async move {
            if let Some(working) = working {
                for left in working.executor.shutdown().await {
                    tracing::warn!(runner = label, left, "left behind");
                }
            }
            let _ = events.send(Event::Retired(index));
        });
    }

    /// The instances of a removed entry are free for the next one.
    pub(super) fn retired(&mut self, index: RunnerIndex) {
        let Some(entry) = self.runners.remove(&index) else { return };
        self.board.retired(index);
        for (runner, verdict) in entry.successors {
            self.add(runner, verdict);
        }
    }
}

// === helpers ===

/// Both entries would scale the same group.
fn same_group(a: &Runner, b: &Runner) -> bool {
    let group = |runner: &Runner| {
        let autoscaler = runner.autoscaler.as_ref()?;
        Some((autoscaler.plugin()?.name, autoscaler.plugin_config()))
    };
    group(a).is_some_and(|group_of_a| group(b) == Some(group_of_a))
}

/// Failures of the cloud pass, and so does another scaler on the group; mistakes in the entry do not.
fn pause_before_retry(error: &(dyn std::error::Error + 'static), tries: u32) -> Option<Duration> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(group) = error.downcast_ref::<fleeting::GroupError>() {
            let last = START_PAUSES.len() - 1;
            return (!group.needs_operator()).then(|| START_PAUSES[(tries as usize).min(last)]);
        }
        if let Some(StoreError::InUse { .. } | StoreError::GroupInUse { .. }) = error.downcast_ref() {
            return START_PAUSES.last().copied();
        }
        cause = error.source();
    }
    None
}
