//! The record behind a job, and the clocks that run while it is given or running.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::{Calls, JobState, JobView, StoredArtifact, Transition};
use crate::builder::JobBuilder;
use crate::config::Config;
use crate::log::LogStore;
use crate::repository::Checkout;
use crate::runner::RunnerRecord;
use crate::sync::lock;

/// What all jobs of a mock share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) started: Instant,
    /// Jobs without a final state.
    pub(crate) unfinished: watch::Sender<usize>,
}

#[derive(Debug)]
pub(crate) struct JobRecord {
    pub(crate) id: u64,
    pub(crate) token: String,
    pub(crate) runner_id: u64,
    pub(crate) spec: Arc<JobBuilder>,
    pub(crate) checkout: Option<Checkout>,
    shared: Arc<Shared>,
    inner: Mutex<Inner>,
    changed: watch::Sender<()>,
}

/// What changes in the life of a job.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) state: JobState,
    pub(crate) history: Vec<Transition>,
    pub(crate) log: LogStore,
    pub(crate) features: BTreeSet<String>,
    pub(crate) system_id: Option<String>,
    pub(crate) session: Option<super::Session>,
    pub(crate) times_given: u32,
    pub(crate) given_at: Option<Duration>,
    pub(crate) started_at: Option<Duration>,
    pub(crate) first_log_at: Option<Duration>,
    pub(crate) finished_at: Option<Duration>,
    pub(crate) heard_at: Duration,
    pub(crate) failure_reason: Option<String>,
    pub(crate) exit_code: Option<i64>,
    pub(crate) ended_by_server: bool,
    pub(crate) checksum_verified: bool,
    pub(crate) final_updates_delayed: u32,
    /// The state of a final update that was answered with 202.
    pub(crate) announced: Option<JobState>,
    pub(crate) log_resets: u32,
    /// Calls that may repeat what the server already has, because it lost or spoiled something itself.
    pub(crate) excuses: u32,
    /// Calls after the server ended the job by itself.
    pub(crate) calls_after_end: u32,
    pub(crate) calls: Calls,
    pub(crate) artifacts: Vec<StoredArtifact>,
    timer: Option<AbortHandle>,
}

// === impl Shared ===

impl Shared {
    /// Time since the mock was started.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

// === impl JobRecord ===

impl JobRecord {
    pub(crate) fn new(
        id: u64,
        token: String,
        runner_id: u64,
        spec: Arc<JobBuilder>,
        checkout: Option<Checkout>,
        shared: Arc<Shared>,
    ) -> Self {
        let inner = Inner::new(shared.now(), LogStore::new(shared.config.log_retention), &spec);
        shared.unfinished.send_modify(|count| *count += 1);
        let changed = watch::Sender::new(());
        Self { id, token, runner_id, spec, checkout, shared, inner: Mutex::new(inner), changed }
    }

    pub(crate) fn read<R>(&self, look: impl FnOnce(&Inner) -> R) -> R {
        look(&lock(&self.inner))
    }

    /// Changes the job and wakes whoever waits for it.
    pub(crate) fn update<R>(&self, change: impl FnOnce(&mut Inner, Duration) -> R) -> R {
        let mut inner = lock(&self.inner);
        let was_final = inner.state.is_final();
        let result = change(&mut inner, self.shared.now());
        let ended = !was_final && inner.state.is_final();
        let timer = if ended { inner.timer.take() } else { None };
        drop(inner);
        if ended {
            self.shared.unfinished.send_modify(|count| *count -= 1);
        }
        if let Some(timer) = timer {
            timer.abort();
        }
        self.changed.send_replace(());
        result
    }

    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    pub(crate) fn config(&self) -> &Config {
        &self.shared.config
    }

    pub(crate) fn view(&self) -> JobView {
        self.read(|inner| JobView {
            id: self.id,
            name: self.spec.name.clone(),
            state: inner.state,
            history: inner.history.clone(),
            runner_id: self.runner_id,
            system_id: inner.system_id.clone(),
            times_given: inner.times_given,
            queued_at: inner.history.first().map_or(Duration::ZERO, |first| first.at),
            given_at: inner.given_at,
            started_at: inner.started_at,
            first_log_at: inner.first_log_at,
            finished_at: inner.finished_at,
            failure_reason: inner.failure_reason.clone(),
            exit_code: inner.exit_code,
            ended_by_server: inner.ended_by_server,
            checksum_verified: inner.checksum_verified,
            log_bytes: inner.log.len(),
            log_checksum: inner.log.checksum(),
            log_resets: inner.log_resets,
            calls: inner.calls,
            artifacts: inner.artifacts.iter().map(|artifact| artifact.view.clone()).collect(),
        })
    }

    fn set_timer(&self, timer: AbortHandle) {
        let mut inner = lock(&self.inner);
        if inner.state.is_final() {
            timer.abort();
        } else if let Some(old) = inner.timer.replace(timer) {
            old.abort();
        }
    }
}

// === impl Inner ===

impl Inner {
    fn new(now: Duration, log: LogStore, spec: &JobBuilder) -> Self {
        Self {
            state: JobState::Queued,
            history: vec![Transition { state: JobState::Queued, at: now }],
            log,
            features: BTreeSet::new(),
            system_id: None,
            session: None,
            times_given: 0,
            given_at: None,
            started_at: None,
            first_log_at: None,
            finished_at: None,
            heard_at: now,
            failure_reason: None,
            exit_code: None,
            ended_by_server: false,
            checksum_verified: false,
            final_updates_delayed: spec.final_updates_delayed,
            announced: None,
            log_resets: 0,
            excuses: 0,
            calls_after_end: 0,
            calls: Calls::default(),
            artifacts: Vec::new(),
            timer: None,
        }
    }

    /// The one place where the state changes.
    pub(crate) fn enter(&mut self, state: JobState, now: Duration) {
        self.state = state;
        self.history.push(Transition { state, at: now });
        if state == JobState::Running {
            self.started_at.get_or_insert(now);
        }
        if state.is_final() {
            self.finished_at = Some(now);
        }
    }

    /// Takes the job out of the queue. False when it is not in it any longer.
    pub(crate) fn give(
        &mut self,
        system_id: Option<&str>,
        features: &BTreeSet<String>,
        now: Duration,
    ) -> bool {
        if self.state != JobState::Queued {
            return false;
        }
        self.system_id = system_id.map(str::to_owned);
        self.features.clone_from(features);
        self.times_given += 1;
        self.given_at = Some(now);
        self.heard_at = now;
        let two_phases = features.contains("two_phase_job_commit");
        self.enter(if two_phases { JobState::Given } else { JobState::Running }, now);
        true
    }

    pub(crate) fn cancel(&mut self, now: Duration) -> JobState {
        match self.state {
            JobState::Running if self.features.contains("cancel_gracefully") => {
                self.enter(JobState::Canceling, now);
            }
            JobState::Queued | JobState::Given | JobState::Running => {
                self.end_by_server(JobState::Canceled, None, now);
            }
            JobState::Canceling | JobState::Success | JobState::Failed | JobState::Canceled => {}
        }
        self.state
    }

    /// Ends the job unless it has ended.
    pub(crate) fn end_by_server(&mut self, state: JobState, reason: Option<&str>, now: Duration) {
        if self.state.is_final() {
            return;
        }
        self.ended_by_server = true;
        self.failure_reason = reason.map(str::to_owned);
        self.enter(state, now);
    }
}

/// Puts the job back into its queue when the runner does not confirm it in time.
pub(crate) fn expect_confirmation(job: &Arc<JobRecord>, runner: &Arc<RunnerRecord>) {
    let (record, queue) = (Arc::downgrade(job), Arc::downgrade(runner));
    let patience = job.config().commit_timeout;
    let timer = tokio::spawn(async move {
        tokio::time::sleep(patience).await;
        let (Some(record), Some(queue)) = (record.upgrade(), queue.upgrade()) else { return };
        let returned = record.update(|inner, now| {
            let waiting = inner.state == JobState::Given;
            if waiting {
                inner.enter(JobState::Queued, now);
            }
            waiting
        });
        if returned {
            queue.push([record]);
        }
    });
    job.set_timer(timer.abort_handle());
}

/// Drops the job when its own timeout and the server's grace are over, or when nothing is heard of it.
pub(crate) fn watch_running(job: &Arc<JobRecord>) {
    let config = job.config();
    let limit = config.timeout_grace.map(|grace| Duration::from_secs(job.spec.timeout_seconds) + grace);
    let stale = config.stale_after;
    if limit.is_none() && stale.is_none() {
        return;
    }
    let timer = tokio::spawn(supervise(Arc::downgrade(job), limit, stale));
    job.set_timer(timer.abort_handle());
}

async fn supervise(job: Weak<JobRecord>, limit: Option<Duration>, stale: Option<Duration>) {
    loop {
        let Some(record) = job.upgrade() else { return };
        let (started, heard) = record.read(|inner| (inner.started_at.unwrap_or_default(), inner.heard_at));
        let now = record.shared.now();
        let times_out = limit.map(|limit| started + limit);
        let goes_stale = stale.map(|stale| heard + stale);
        let reason = match (times_out, goes_stale) {
            (Some(at), _) if at <= now => Some("job_execution_timeout"),
            (_, Some(at)) if at <= now => Some("stuck_or_timeout_failure"),
            _ => None,
        };
        if let Some(reason) = reason {
            record.update(|inner, now| inner.end_by_server(JobState::Failed, Some(reason), now));
            return;
        }
        drop(record);
        let Some(next) = times_out.into_iter().chain(goes_stale).min() else { return };
        tokio::time::sleep(next - now).await;
    }
}
