//! GitLab's side of one job, as far as its log and state go.

use std::time::Duration;

use bytes::Bytes;

/// The two calls that carry a job's log and state, bound to one job and its token.
pub trait TraceApi: Send + Sync + 'static {
    /// `PATCH jobs/{id}/trace`: appends bytes, of which the first has this offset in the log.
    fn patch(&self, offset: u64, bytes: Bytes) -> impl Future<Output = PatchReply> + Send;

    /// `PUT jobs/{id}`: keep-alive or final state.
    fn update(&self, update: Update) -> impl Future<Output = UpdateReply> + Send;
}

/// What `PUT jobs/{id}` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// State of the job.
    pub state: State,
    /// Why it failed, in a word that this server knows.
    pub failure_reason: Option<String>,
    /// Exit code of the script, if it is not 0.
    pub exit_code: Option<i32>,
    /// `crc32:` and eight hex digits, over the whole log.
    pub checksum: String,
    /// Bytes of the whole log.
    pub bytesize: u64,
}

/// States that a runner sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Keep-alive.
    Running,
    /// Final.
    Success,
    /// Final.
    Failed,
}

/// Answer to a patch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatchReply {
    /// What became of the bytes.
    pub outcome: PatchOutcome,
    /// What GitLab thinks of the job.
    pub remote: RemoteJob,
    /// `X-GitLab-Trace-Update-Interval`.
    pub interval: Option<Duration>,
}

/// What became of a patch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PatchOutcome {
    /// 202: GitLab has all the bytes that were sent.
    Accepted,
    /// 416: GitLab holds another number of bytes.
    RangeMismatch {
        /// That number, the offset to go on from.
        offset: u64,
    },
    /// 404: GitLab does not know the job.
    NotFound,
    /// 403, or GitLab says that the job is over.
    Abort,
    /// Anything else.
    Failed(Failure),
}

/// Answer to an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateReply {
    /// What became of the update.
    pub outcome: UpdateOutcome,
    /// What GitLab thinks of the job.
    pub remote: RemoteJob,
    /// `X-GitLab-Trace-Update-Interval`.
    pub interval: Option<Duration>,
}

/// What became of an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpdateOutcome {
    /// 200.
    Done,
    /// 202: ask again.
    NotYet,
    /// 412: GitLab's log differs from checksum or size; the whole log is wanted again.
    TraceMismatch,
    /// 404: GitLab does not know the job.
    NotFound,
    /// 403, or GitLab says that the job is over.
    Abort,
    /// Anything else.
    Failed(Failure),
}

/// The part of `Job-Status` that is acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteJob {
    /// Absent, `running`, or a word that means nothing to a runner.
    Running,
    /// A user wants the job to end.
    Canceling,
    /// The job is over: `canceled`.
    Canceled,
    /// The job is over: `failed`. Also the answer to the final state `failed`.
    Failed,
}

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// What it means for trying again.
    pub kind: FailureKind,
    /// For people; holds no secret.
    pub text: String,
}

/// What a failure means for trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// GitLab did not answer, said that it cannot (408, 429, 5xx), or could not even be asked because certificate files are
    /// unreadable: that will pass.
    Outage,
    /// GitLab answered with something that repeating is not likely to change.
    Rejected,
}
