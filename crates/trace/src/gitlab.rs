//! The real GitLab behind [`TraceApi`].

use std::sync::Arc;

use bytes::Bytes;
use gitlab_api::{ApiError, Client, JobCredentials, JobState, JobUpdate, RunnerInfo};

use crate::api::{
    Failure, FailureKind, PatchOutcome, PatchReply, RemoteJob, State, TraceApi, Update, UpdateOutcome,
    UpdateReply,
};

/// One job at GitLab.
#[derive(Debug, Clone)]
pub struct GitLab {
    /// Shared by all jobs of a runner.
    pub client: Client,
    /// Id and token of the job.
    pub job: JobCredentials,
    /// Whether the job shows its commands (`CI_DEBUG_TRACE`, `CI_DEBUG_SERVICES`), which GitLab then hides from guests.
    pub debug_trace: bool,
    /// What this runner is.
    pub info: Arc<RunnerInfo>,
}

// === impl GitLab ===

impl TraceApi for GitLab {
    async fn patch(&self, offset: u64, bytes: Bytes) -> PatchReply {
        let reply = self.client.patch_trace(&self.job, offset, bytes, self.debug_trace).await;
        let outcome = match reply.outcome {
            gitlab_api::PatchOutcome::Accepted { .. } => PatchOutcome::Accepted,
            gitlab_api::PatchOutcome::RangeMismatch { offset } => PatchOutcome::RangeMismatch { offset },
            gitlab_api::PatchOutcome::NotFound => PatchOutcome::NotFound,
            gitlab_api::PatchOutcome::Abort => PatchOutcome::Abort,
            gitlab_api::PatchOutcome::Failed(error) => PatchOutcome::Failed(Failure::from(&error)),
        };
        PatchReply { outcome, remote: RemoteJob::from(&reply.remote), interval: reply.interval }
    }

    async fn update(&self, update: Update) -> UpdateReply {
        let update = JobUpdate {
            state: match update.state {
                State::Running => JobState::Running,
                State::Success => JobState::Success,
                State::Failed => JobState::Failed,
            },
            failure_reason: update.failure_reason,
            checksum: Some(update.checksum),
            bytesize: Some(update.bytesize),
            exit_code: update.exit_code,
            info: Arc::clone(&self.info),
        };
        let reply = self.client.update_job(&self.job, &update).await;
        let outcome = match reply.outcome {
            gitlab_api::UpdateOutcome::Done => UpdateOutcome::Done,
            gitlab_api::UpdateOutcome::NotYet => UpdateOutcome::NotYet,
            gitlab_api::UpdateOutcome::TraceMismatch => UpdateOutcome::TraceMismatch,
            gitlab_api::UpdateOutcome::NotFound => UpdateOutcome::NotFound,
            gitlab_api::UpdateOutcome::Abort => UpdateOutcome::Abort,
            gitlab_api::UpdateOutcome::Failed(error) => UpdateOutcome::Failed(Failure::from(&error)),
        };
        UpdateReply { outcome, remote: RemoteJob::from(&reply.remote), interval: reply.interval }
    }
}

// === impl RemoteJob ===

impl From<&gitlab_api::RemoteState> for RemoteJob {
    fn from(state: &gitlab_api::RemoteState) -> Self {
        match state {
            gitlab_api::RemoteState::Canceling => Self::Canceling,
            gitlab_api::RemoteState::Canceled => Self::Canceled,
            gitlab_api::RemoteState::Failed => Self::Failed,
            gitlab_api::RemoteState::Running
            | gitlab_api::RemoteState::Unknown(_)
            | gitlab_api::RemoteState::Absent => Self::Running,
        }
    }
}

// === impl Failure ===

impl From<&ApiError> for Failure {
    fn from(error: &ApiError) -> Self {
        let kind = match error {
            ApiError::Status { status, .. }
                if !status.is_server_error() && !matches!(status.as_u16(), 408 | 429) =>
            {
                FailureKind::Rejected
            }
            ApiError::Redirected { .. } => FailureKind::Rejected,
            ApiError::Client(_)
            | ApiError::Status { .. }
            | ApiError::Transport { .. }
            | ApiError::Timeout { .. }
            | ApiError::Untrusted { .. }
            | ApiError::Body { .. }
            | ApiError::Decode { .. } => FailureKind::Outage,
        };
        Self { kind, text: error.report() }
    }
}
