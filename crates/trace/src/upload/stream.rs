//! While the job runs.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::{RemoteState, Worker, pace};
use crate::api::{Failure, FailureKind, PatchOutcome, State, TraceApi, Update, UpdateOutcome};
use crate::{JobResult, SpoolError};

/// Result of one round.
enum Round {
    /// All is sent; look again after an interval.
    Settled,
    /// More than a patch is waiting and GitLab takes it.
    Behind,
    /// GitLab did not take it.
    Failed,
    /// The job is over for GitLab.
    Over,
}

// === impl Worker ===

impl<A: TraceApi> Worker<A> {
    /// Sends until the job ends.
    pub(super) async fn stream(&mut self, ended: &mut oneshot::Receiver<JobResult>) -> JobResult {
        // The update that confirmed the job has just told GitLab that it is alive.
        let mut last_heard = Instant::now();
        let mut failures = 0_u32;
        let mut pause = self.pace.interval();
        loop {
            tokio::select! {
                biased;
                result = &mut *ended => return result.unwrap_or_else(|_| JobResult::system_failure()),
                () = sleep(pause) => {}
            }
            pause = match self.round(&mut last_heard).await {
                Round::Settled => {
                    failures = 0;
                    self.pace.interval()
                }
                Round::Behind => {
                    failures = 0;
                    Duration::ZERO
                }
                Round::Failed => {
                    failures = failures.saturating_add(1);
                    pace::backoff(failures, self.options.job).max(self.pace.interval())
                }
                Round::Over => {
                    self.signal(RemoteState::Aborted);
                    return ended.await.unwrap_or_else(|_| JobResult::system_failure());
                }
            };
        }
    }

    async fn round(&mut self, last_heard: &mut Instant) -> Round {
        let bytes = match self.log.read(self.offset, self.options.chunk).await {
            Ok(bytes) => bytes,
            Err(error) => return self.unreadable(&error),
        };
        if !bytes.is_empty() {
            let (len, full) = (length(&bytes), bytes.len() >= self.options.chunk);
            let reply = self.api.patch(self.offset, bytes).await;
            self.heed(reply.remote, reply.interval);
            match reply.outcome {
                PatchOutcome::Accepted => {
                    self.advance(len);
                    *last_heard = Instant::now();
                    if full && !self.is_aborted() {
                        return Round::Behind;
                    }
                }
                PatchOutcome::RangeMismatch { offset } => self.move_to(offset),
                PatchOutcome::NotFound | PatchOutcome::Abort => return Round::Over,
                PatchOutcome::Failed(failure) => {
                    self.failed("patch", &failure);
                    return Round::Failed;
                }
            }
        }
        if self.is_aborted() {
            return Round::Over;
        }
        if last_heard.elapsed() >= self.pace.force_interval() {
            return self.keep_alive(last_heard).await;
        }
        Round::Settled
    }

    async fn keep_alive(&mut self, last_heard: &mut Instant) -> Round {
        let summary = self.log.summary();
        let update = Update {
            state: State::Running,
            failure_reason: None,
            exit_code: None,
            checksum: summary.checksum,
            bytesize: summary.len,
        };
        let reply = self.api.update(update).await;
        self.heed(reply.remote, reply.interval);
        match reply.outcome {
            // Only a final update asks for the log to be compared.
            UpdateOutcome::Done | UpdateOutcome::NotYet | UpdateOutcome::TraceMismatch => {
                *last_heard = Instant::now();
                if self.is_aborted() { Round::Over } else { Round::Settled }
            }
            UpdateOutcome::NotFound | UpdateOutcome::Abort => Round::Over,
            UpdateOutcome::Failed(failure) => {
                self.failed("keep_alive", &failure);
                Round::Failed
            }
        }
    }

    fn unreadable(&self, error: &SpoolError) -> Round {
        self.failed("read", &unreadable(error));
        self.options.observer.spool_failed(error);
        Round::Failed
    }

    /// GitLab holds this many bytes. It cannot hold more than there are; if it says so, there is nothing to send.
    pub(super) fn move_to(&mut self, offset: u64) {
        tracing::warn!(ours = self.offset, theirs = offset, "GitLab holds another part of the job's log");
        self.offset = offset.min(self.log.written());
    }
}

pub(super) fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// A disk that cannot be read, as a failure of a request.
pub(super) fn unreadable(error: &SpoolError) -> Failure {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    Failure { kind: FailureKind::Rejected, text: format!("{error}{cause}") }
}
