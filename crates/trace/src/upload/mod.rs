//! One job's task that talks to GitLab.

mod finish;
mod pace;
mod stream;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tracing::Instrument as _;

use crate::api::RemoteJob;
use crate::log::JobLog;
use crate::{Failure, JobResult, TraceApi, UploadOptions};
use pace::Pace;

/// Sends the log of one job while it runs, and its result at the end. One task, one timer.
///
/// Dropping it without [`finish`](Self::finish) reports a `runner_system_failure` to GitLab.
#[derive(Debug)]
pub struct Uploader {
    result: Option<oneshot::Sender<JobResult>>,
    remote: watch::Receiver<RemoteState>,
    task: JoinHandle<Result<Delivery, Undelivered>>,
}

/// What GitLab wants of the job. Only ever moves downwards in this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RemoteState {
    /// Go on.
    Running,
    /// A user wants the job to end: its script is to be stopped, what cleans up may still run.
    CancelRequested,
    /// The job is over for GitLab (cancelled, failed, erased, token revoked): everything is to be stopped.
    Aborted,
}

/// What became of the final state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// GitLab took it.
    Accepted,
    /// GitLab refused it after an attempt whose answer was lost: it had taken that one.
    AcceptedUnheard,
    /// GitLab took it, but refused the rest of the log time after time.
    AcceptedWithoutLog,
    /// GitLab had closed the job before: cancelled, timed out, erased.
    JobWasOver,
}

/// GitLab never took the final state. It will find out itself, by its own timeout.
#[derive(Debug, thiserror::Error)]
pub enum Undelivered {
    /// All attempts were answered by errors.
    #[error("GitLab did not take the job's result in {attempts} attempts")]
    Rejected {
        /// Attempts that count towards the limit.
        attempts: u32,
        /// The last answer.
        #[source]
        last: Failure,
    },
    /// GitLab was away, or not ready, for too long.
    #[error("GitLab could not take the job's result for {} s", after.as_secs())]
    Outage {
        /// Time since the job ended.
        after: std::time::Duration,
        /// The last failure; absent if GitLab kept saying that it is not ready.
        #[source]
        last: Option<Failure>,
    },
    /// The task that sends was stopped: the runtime is shutting down.
    #[error("the runtime shut down before GitLab took the job's result")]
    Stopped,
}

/// The state of the task.
struct Worker<A> {
    api: A,
    log: JobLog,
    options: UploadOptions,
    remote: watch::Sender<RemoteState>,
    pace: Pace,
    /// Bytes that GitLab holds.
    offset: u64,
}

// === impl Uploader ===

impl Uploader {
    /// Starts the task; needs a tokio runtime. The first patch goes out after one interval, or at the end of the job.
    pub fn start<A: TraceApi>(log: JobLog, api: A, mut options: UploadOptions) -> Self {
        options.chunk = options.chunk.max(1);
        let (result, ended) = oneshot::channel();
        let (remote, watched) = watch::channel(RemoteState::Running);
        let pace = Pace::new(options.interval, options.dynamic_force_interval);
        let span = tracing::debug_span!("job_log", job = options.job);
        let worker = Worker { api, log, options, remote, pace, offset: 0 };
        let task = tokio::spawn(worker.run(ended).instrument(span));
        Self { result: Some(result), remote: watched, task }
    }

    /// What GitLab wants; as soon as a patch or keep-alive says so.
    #[must_use]
    pub fn remote(&self) -> watch::Receiver<RemoteState> {
        self.remote.clone()
    }

    /// The job has ended and its writers are finished: closes the log, sends the rest of it at once, then the final state,
    /// until GitLab has taken both. The task goes on if this future is dropped.
    ///
    /// # Errors
    /// [`Undelivered`] when GitLab did not take the final state within the bounds of the options.
    pub async fn finish(mut self, result: JobResult) -> Result<Delivery, Undelivered> {
        if let Some(sender) = self.result.take() {
            // The task only ends after it has received a result.
            let _ = sender.send(result);
        }
        (&mut self.task).await.unwrap_or(Err(Undelivered::Stopped))
    }
}

// === impl Worker ===

impl<A: TraceApi> Worker<A> {
    async fn run(mut self, mut ended: oneshot::Receiver<JobResult>) -> Result<Delivery, Undelivered> {
        let result = self.stream(&mut ended).await;
        if let JobResult::Failed { reason, .. } = &result {
            let reason = if reason.is_empty() { "script_failure" } else { reason };
            self.options.observer.job_failed(reason);
        }
        self.log.close();
        let delivered = self.finish(result).await;
        match &delivered {
            Ok(delivery) => tracing::debug!(?delivery, bytes = self.log.written(), "job finished"),
            Err(error) => tracing::error!(error = error as &dyn std::error::Error, "job's result is lost"),
        }
        self.log.discard();
        delivered
    }

    /// Tells the job what GitLab wants.
    fn signal(&self, state: RemoteState) {
        self.remote.send_if_modified(|current| {
            let worse = state > *current;
            if worse {
                *current = state;
                tracing::info!(?state, "GitLab wants the job to end");
            }
            worse
        });
    }

    fn heed(&mut self, remote: RemoteJob, interval: Option<std::time::Duration>) {
        self.pace.heed(interval);
        match remote {
            RemoteJob::Running => {}
            RemoteJob::Canceling => self.signal(RemoteState::CancelRequested),
            RemoteJob::Canceled | RemoteJob::Failed => self.signal(RemoteState::Aborted),
        }
    }

    fn is_aborted(&self) -> bool {
        *self.remote.borrow() == RemoteState::Aborted
    }

    fn failed(&self, call: &str, failure: &Failure) {
        tracing::warn!(call, kind = ?failure.kind, error = %failure, "GitLab did not take part of the job's log or state");
        self.options.observer.request_failed(failure);
    }

    /// GitLab took this many bytes.
    fn advance(&mut self, len: u64) {
        self.options.observer.sent(len);
        self.offset += len;
    }
}
