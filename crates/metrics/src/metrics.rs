//! All numbers of one manager.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use config::{Config, Runner};
use manager::{EntryObserver, Jobs, Observer, Phase, RunnerWatch};
use taskscaler_core::Zone;

use crate::api::{ApiObserver, Calls, Retries};
use crate::cells::{Counter, Family, Gauge};
use crate::exposition::{EntryLabels, Exposition};
use crate::jobs::JobState;
use crate::logs::{LogCounter, LogLines};
use crate::process;
use crate::runner::{MODE, RunnerMetrics};
use crate::table::Id;

/// What was built, and who runs it.
#[derive(Debug, Clone, Default)]
pub struct Build {
    /// Name of the program.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its source revision.
    pub revision: String,
    /// Identity of this manager at GitLab: the label `system_id`.
    pub system_id: String,
}

/// All numbers of one manager. Give it to the manager as its observer.
#[derive(Debug)]
pub struct Metrics {
    build: Build,
    local: Zone,
    lines: Arc<LogLines>,
    retries: Arc<Retries>,
    phase: AtomicU8,
    concurrent: Gauge,
    slots_started: Counter,
    slots_stopped: Counter,
    loaded: Counter,
    load_errors: Counter,
    saved: Counter,
    save_errors: Counter,
    executors: Family<String, Counter>,
    entries: Mutex<Entries>,
}

/// Numbers of runner entries. They are forgotten when nobody counts any more, which is after the last job of a removed
/// entry. Two entries with equal labels share theirs, as rows with equal labels would not be valid.
#[derive(Debug, Default)]
struct Entries {
    /// By the part of the token that may be shown, and name.
    runners: BTreeMap<(String, String), Weak<RunnerMetrics>>,
    /// By the part of the token that may be shown.
    calls: BTreeMap<String, Weak<Calls>>,
}

/// Living entries by the part of the token that may be shown, and name.
type Runners = BTreeMap<(String, String), Arc<RunnerMetrics>>;

// === impl Metrics ===

impl Metrics {
    /// Numbers that are all zero. `local` is the zone of the host, for rules that name none; `lines` is the subscriber's
    /// layer, which is there before anything is known that makes up the `build`.
    #[must_use]
    pub fn new(build: Build, local: Zone, lines: &LogCounter) -> Arc<Self> {
        Arc::new(Self {
            build,
            local,
            lines: Arc::clone(&lines.0),
            retries: Arc::default(),
            phase: AtomicU8::new(Phase::Starting as u8),
            concurrent: Gauge::default(),
            slots_started: Counter::default(),
            slots_stopped: Counter::default(),
            loaded: Counter::default(),
            load_errors: Counter::default(),
            saved: Counter::default(),
            save_errors: Counter::default(),
            executors: Family::default(),
            entries: Mutex::default(),
        })
    }

    /// A configuration could not be put in force.
    pub fn configuration_refused(&self) {
        self.load_errors.inc();
    }

    /// The configuration was saved, or could not be.
    pub fn configuration_saved(&self, success: bool) {
        if success { self.saved.inc() } else { self.save_errors.inc() }
    }

    /// How far the manager has come.
    #[must_use]
    pub fn phase(&self) -> Phase {
        let phase = self.phase.load(Ordering::Relaxed);
        Phase::ALL.into_iter().find(|candidate| *candidate as u8 == phase).unwrap_or_default()
    }

    /// The text that Prometheus scrapes. `jobs` are those that run now.
    #[must_use]
    pub fn exposition(&self, jobs: &Jobs) -> String {
        let mut text = Exposition::new();
        self.show_process(&mut text);
        let runners = self.living();
        let mut calls_shown = BTreeSet::new();
        for ((token, _), runner) in &runners {
            runner.show(&mut text);
            // Calls are counted by token, which several entries may have.
            if calls_shown.insert(token) {
                runner.calls.show(&mut text, &runner.labels);
            }
        }
        show_requests(&mut text, &runners);
        show_jobs(&mut text, &runners, jobs);
        text.finish()
    }

    fn show_process(&self, text: &mut Exposition) {
        let Build { name, version, revision, .. } = &self.build;
        let os = std::env::consts::OS;
        // GitLab Runner's word is Go's.
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let values = [name, version, revision, "", "", "", os, architecture];
        text.process(Id::VersionInfo, &values, 1);
        let phase = self.phase();
        for state in Phase::ALL {
            text.process(Id::ProcessState, &[state.as_str()], u8::from(state == phase));
        }
        text.process(Id::Concurrent, &[], self.concurrent.get());
        text.process(Id::SlotsNumber, &[], self.concurrent.get());
        text.process(Id::SlotOperationsTotal, &["started"], self.slots_started.get());
        text.process(Id::SlotOperationsTotal, &["stopped"], self.slots_stopped.get());
        text.process(Id::ConfigLoadedTotal, &[], self.loaded.get());
        text.process(Id::ConfigLoadErrorsTotal, &[], self.load_errors.get());
        text.process(Id::ConfigSavedTotal, &[], self.saved.get());
        text.process(Id::ConfigSaveErrorsTotal, &[], self.save_errors.get());
        self.executors.for_each(|executor, count| {
            text.process(Id::JobExecutionModeTotal, &[MODE, executor], count.get());
        });
        self.retries.show(text);
        self.lines.show(text);
        process::show(text);
    }

    /// The entries that somebody still counts for; the others are forgotten.
    fn living(&self) -> Runners {
        let mut entries = self.entries();
        entries.runners.retain(|_, entry| entry.strong_count() > 0);
        entries.calls.retain(|_, entry| entry.strong_count() > 0);
        entries.runners.iter().filter_map(|(key, entry)| Some((key.clone(), entry.upgrade()?))).collect()
    }

    fn entry(&self, runner: &Runner) -> Arc<RunnerMetrics> {
        let executor = runner.executor.as_deref().unwrap_or_default();
        let jobs_of_executor = self.executors.row(executor, executor, Counter::default);
        let token = runner.short_token().to_owned();
        let key = (token.clone(), runner.name().to_owned());
        let mut entries = self.entries();
        if let Some(known) = entries.runners.get(&key).and_then(Weak::upgrade) {
            known.replaced(runner, jobs_of_executor);
            return known;
        }
        let calls = entries.calls.get(&token).and_then(Weak::upgrade).unwrap_or_default();
        entries.calls.insert(token, Arc::downgrade(&calls));
        let made =
            Arc::new(RunnerMetrics::new(runner, &self.build.system_id, self.local, calls, jobs_of_executor));
        entries.runners.insert(key, Arc::downgrade(&made));
        made
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Metrics {
    fn configured(&self, config: &Config) {
        self.loaded.inc();
        let before = u64::try_from(self.concurrent.get()).unwrap_or(0);
        let after = u64::from(config.concurrent());
        self.slots_started.add(after.saturating_sub(before));
        self.slots_stopped.add(before.saturating_sub(after));
        self.concurrent.set(i64::from(config.concurrent()));
    }

    fn runner_added(&self, runner: &Runner) -> RunnerWatch {
        let entry = self.entry(runner);
        let api = ApiObserver { calls: Arc::clone(&entry.calls), retries: Arc::clone(&self.retries) };
        RunnerWatch {
            api: Some(Arc::new(api)),
            log: Some(Arc::clone(&entry) as Arc<dyn trace::Observer>),
            scaler: Some(entry.new_scaler()),
            entry: entry as Arc<dyn EntryObserver>,
        }
    }

    fn phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }
}

// === helpers ===

/// Requests are counted by token, which several entries may have.
fn show_requests(text: &mut Exposition, runners: &Runners) {
    let mut tokens = BTreeMap::<&str, (&EntryLabels, [i64; 3], f64, u64)>::new();
    for ((token, _), runner) in runners {
        let requests = &runner.requests;
        let sums = tokens.entry(token).or_insert((&runner.labels, [0; 3], 0.0, 0));
        for (sum, cell) in
            sums.1.iter_mut().zip([&requests.in_flight, &requests.hard_limit, &requests.used_limit])
        {
            *sum += cell.get();
        }
        sums.2 += requests.adaptive_limit();
        sums.3 += requests.exceeded.get();
    }
    for (entry, [in_flight, hard_limit, used_limit], adaptive_limit, exceeded) in tokens.into_values() {
        text.row(Id::RequestConcurrency, entry, &[], in_flight);
        text.row(Id::RequestHardLimit, entry, &[], hard_limit);
        text.row(Id::RequestAdaptiveLimit, entry, &[], adaptive_limit);
        text.row(Id::RequestUsedLimit, entry, &[], used_limit);
        text.row(Id::RequestExceededTotal, entry, &[], exceeded);
    }
}

/// Counts the jobs that run by what they do.
fn show_jobs(text: &mut Exposition, runners: &Runners, jobs: &Jobs) {
    let by_name: BTreeMap<(&str, &str), &RunnerMetrics> = runners
        .iter()
        .map(|((token, _), runner)| ((token.as_str(), runner.label.as_str()), &**runner))
        .collect();
    let mut counts = BTreeMap::<(String, String, JobState), u64>::new();
    jobs.for_each(|line| {
        let key = (line.short_token.clone(), line.runner.clone(), JobState::of(line));
        *counts.entry(key).or_default() += 1;
    });
    for ((token, label, state), count) in counts {
        if let Some(runner) = by_name.get(&(token.as_str(), label.as_str())) {
            let values = [state.state, &state.stage, state.executor_stage];
            text.row(Id::Jobs, &runner.labels, &values, count);
        }
    }
}
