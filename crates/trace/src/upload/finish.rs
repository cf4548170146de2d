//! When the job has ended: the rest of the log, then the final state, until GitLab has both.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::stream::{length, unreadable};
use super::{Delivery, RemoteState, Undelivered, Worker, pace};
use crate::JobResult;
use crate::api::{Failure, FailureKind, PatchOutcome, RemoteJob, State, TraceApi, Update, UpdateOutcome};

/// How often GitLab may disagree about the log (416 without progress, 412) before that counts as its verdict.
const MOST_DISAGREEMENTS: u32 = 20;

/// What stands between the job and its end, over all attempts.
struct Patience {
    ended: Instant,
    /// Failures that count towards the limit of attempts.
    rejections: u32,
    /// Failures since GitLab last answered.
    outages: u32,
    disagreements: u32,
    /// An update may have arrived whose answer did not.
    unheard: bool,
    /// What failed last was sending the log, not the state.
    log_refused: bool,
}

/// Result of one attempt.
enum Attempt {
    Delivered(Delivery),
    /// GitLab answers and wants this to be done again.
    Again,
    Failed(Failure),
}

// === impl Worker ===

impl<A: TraceApi> Worker<A> {
    pub(super) async fn finish(&mut self, result: JobResult) -> Result<Delivery, Undelivered> {
        self.pace.reset();
        let summary = self.log.summary();
        let update = final_update(result, summary.checksum, summary.len);
        let mut patience = Patience {
            ended: Instant::now(),
            rejections: 0,
            outages: 0,
            disagreements: 0,
            unheard: false,
            log_refused: false,
        };
        if self.is_aborted() {
            // GitLab knows more than this job does; it is told once and the answer changes nothing.
            self.api.update(update).await;
            return Ok(Delivery::JobWasOver);
        }
        loop {
            let pause = match self.attempt(&update, &mut patience).await {
                Attempt::Delivered(delivery) => return Ok(delivery),
                Attempt::Again => {
                    patience.outages = 0;
                    self.still_patient(&patience, None)?;
                    self.pace.interval()
                }
                Attempt::Failed(failure) => {
                    self.failed("final", &failure);
                    match failure.kind {
                        FailureKind::Outage => {
                            patience.outages = patience.outages.saturating_add(1);
                            self.still_patient(&patience, Some(failure))?;
                            pace::backoff(patience.outages, self.options.job)
                        }
                        FailureKind::Rejected => {
                            patience.rejections += 1;
                            let limit = match self.options.final_update_retry_limit {
                                0 => 10,
                                limit => limit,
                            };
                            if patience.rejections >= limit {
                                return self.last_resort(update, &patience, failure).await;
                            }
                            pace::backoff(patience.rejections, self.options.job)
                        }
                    }
                }
            };
            sleep(pause).await;
        }
    }

    async fn attempt(&mut self, update: &Update, patience: &mut Patience) -> Attempt {
        let unsent = self.send_rest(patience).await;
        patience.log_refused = unsent.is_some();
        if let Some(attempt) = unsent {
            return attempt;
        }
        let reply = self.api.update(update.clone()).await;
        self.pace.heed(reply.interval);
        match reply.outcome {
            UpdateOutcome::Done => Attempt::Delivered(Delivery::Accepted),
            UpdateOutcome::NotYet => Attempt::Again,
            UpdateOutcome::TraceMismatch => {
                self.offset = 0;
                disagree(patience, "GitLab's copy of the job's log differs, however often it is sent")
            }
            // The status that a job has after this update reads like an abort.
            UpdateOutcome::Abort if self.is_natural_end(update.state, reply.remote) => {
                Attempt::Delivered(Delivery::Accepted)
            }
            UpdateOutcome::Abort | UpdateOutcome::NotFound if patience.unheard => {
                Attempt::Delivered(Delivery::AcceptedUnheard)
            }
            UpdateOutcome::Abort | UpdateOutcome::NotFound => Attempt::Delivered(Delivery::JobWasOver),
            UpdateOutcome::Failed(failure) => {
                patience.unheard |= failure.kind == FailureKind::Outage;
                Attempt::Failed(failure)
            }
        }
    }

    /// The state without the whole log, if it is the log that GitLab or a proxy refuses: better than a job that stays
    /// running.
    async fn last_resort(
        &self,
        update: Update,
        patience: &Patience,
        last: Failure,
    ) -> Result<Delivery, Undelivered> {
        if patience.log_refused && self.api.update(update).await.outcome == UpdateOutcome::Done {
            tracing::error!(
                sent = self.offset,
                of = self.log.written(),
                "GitLab refused the rest of the job's log"
            );
            return Ok(Delivery::AcceptedWithoutLog);
        }
        Err(Undelivered::Rejected { attempts: patience.rejections, last })
    }

    /// Patches back to back; `None` when there is nothing left to send.
    async fn send_rest(&mut self, patience: &mut Patience) -> Option<Attempt> {
        loop {
            let bytes = match self.log.read(self.offset, self.options.chunk).await {
                Ok(bytes) if bytes.is_empty() => return None,
                Ok(bytes) => bytes,
                Err(error) => return Some(Attempt::Failed(unreadable(&error))),
            };
            let len = length(&bytes);
            let reply = self.api.patch(self.offset, bytes).await;
            self.pace.heed(reply.interval);
            match reply.outcome {
                PatchOutcome::Accepted => {
                    patience.outages = 0;
                    self.advance(len);
                }
                PatchOutcome::RangeMismatch { offset } => {
                    self.move_to(offset);
                    return Some(disagree(
                        patience,
                        "GitLab wants another part of the job's log, time after time",
                    ));
                }
                // The log is not wanted any more; the final state may be.
                PatchOutcome::NotFound | PatchOutcome::Abort => return None,
                PatchOutcome::Failed(failure) => return Some(Attempt::Failed(failure)),
            }
        }
    }

    /// A job that is reported as failed is `failed` then; one whose cancel was requested is `canceled`.
    fn is_natural_end(&self, sent: State, remote: RemoteJob) -> bool {
        match remote {
            RemoteJob::Failed => sent == State::Failed,
            RemoteJob::Canceled => *self.remote.borrow() == RemoteState::CancelRequested,
            RemoteJob::Running | RemoteJob::Canceling => false,
        }
    }

    fn still_patient(&self, patience: &Patience, last: Option<Failure>) -> Result<(), Undelivered> {
        let after: Duration = patience.ended.elapsed();
        if after < self.options.outage_patience { Ok(()) } else { Err(Undelivered::Outage { after, last }) }
    }
}

fn disagree(patience: &mut Patience, text: &str) -> Attempt {
    patience.disagreements += 1;
    if patience.disagreements <= MOST_DISAGREEMENTS {
        Attempt::Again
    } else {
        Attempt::Failed(Failure { kind: FailureKind::Rejected, text: text.to_owned() })
    }
}

fn final_update(result: JobResult, checksum: String, bytesize: u64) -> Update {
    let (state, failure_reason, exit_code) = match result {
        JobResult::Success => (State::Success, None, None),
        JobResult::Failed { sent_reason, exit_code, .. } => {
            (State::Failed, Some(sent_reason), Some(exit_code).filter(|&code| code != 0))
        }
    };
    Update { state, failure_reason, exit_code, checksum, bytesize }
}
