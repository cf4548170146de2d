//! Answers, read without having received them: what each status and header means.

mod read;
mod words;

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::{HeaderMap, StatusCode};
use job_payload::{Job, Token};

pub(crate) use self::read::{
    discovered, failure, job, location, patch, registered, removed, reset, update, verified,
};
pub(crate) use self::words::message;

use crate::error::Call;
use crate::{ApiError, TlsMaterial};

/// An answer with its whole body.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) call: Call,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// What GitLab says about the job in `Job-Status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemoteState {
    /// It runs.
    Running,
    /// Somebody wants it cancelled: stop the script, run `after_script` and uploads.
    Canceling,
    /// It is over; stop everything.
    Canceled,
    /// It is over; stop everything.
    Failed,
    /// A state that this client does not know; nothing follows from it.
    Unknown(Box<str>),
    /// The answer does not say.
    Absent,
}

/// The answer to a piece of log.
#[derive(Debug)]
pub struct PatchReply {
    /// What became of it.
    pub outcome: PatchOutcome,
    /// What GitLab says about the job.
    pub remote: RemoteState,
    /// How long GitLab wants the runner to wait between pieces; at most 15 minutes.
    pub interval: Option<Duration>,
}

/// What became of a piece of log.
#[derive(Debug)]
pub enum PatchOutcome {
    /// GitLab has the log up to here.
    Accepted {
        /// Offset of the next byte.
        end: u64,
    },
    /// The piece does not fit to what GitLab has.
    RangeMismatch {
        /// Offset of the byte that GitLab wants next; 0 when it does not say.
        offset: u64,
    },
    /// GitLab does not know the job.
    NotFound,
    /// The job is over for GitLab; stop everything.
    Abort,
    /// Try the same bytes again later.
    Failed(ApiError),
}

/// The answer to an update of the job's state.
#[derive(Debug)]
pub struct UpdateReply {
    /// What became of it.
    pub outcome: UpdateOutcome,
    /// What GitLab says about the job.
    pub remote: RemoteState,
    /// How long GitLab wants the runner to wait between updates; at most 15 minutes.
    pub interval: Option<Duration>,
}

/// What became of an update.
#[derive(Debug)]
pub enum UpdateOutcome {
    /// Accepted and completed.
    Done,
    /// Accepted, not completed (202): send it again after one interval.
    NotYet,
    /// The log that GitLab has is not the one of the checksum (412): send the whole log, then this update, again.
    TraceMismatch,
    /// GitLab does not know the job.
    NotFound,
    /// The job is over for GitLab, or the update could not be formed; stop everything.
    Abort,
    /// Try again later, if this is the final update.
    Failed(ApiError),
}

/// The answer to a request for a job.
#[derive(Debug)]
pub struct JobRequestReply {
    /// What came.
    pub outcome: JobRequestOutcome,
    /// True if an attempt was answered with a status that the retry layer repeats, even when the last one succeeded.
    pub retried: bool,
    /// There was no job, but another request is worth making at once rather than after an interval: GitLab held the request
    /// and saw the queue change or the time run out (a `204` without a cursor), or it named a queue cursor with which
    /// the next request can be held. A server may say this over and over; the caller bounds it.
    pub ask_again: bool,
    /// GitLab's id of the request, or ours when none came back.
    pub correlation_id: String,
}

/// What came of a request for a job.
#[derive(Debug)]
pub enum JobRequestOutcome {
    /// A job.
    Job(Box<ReceivedJob>),
    /// No job.
    None,
    /// GitLab, or a proxy before it, refuses this runner (403).
    Forbidden,
    /// GitLab is not available (503).
    Unavailable,
    /// A job came and cannot be decoded. GitLab believes that it runs here, so it should be failed explicitly.
    Undecodable {
        /// Its id.
        id: u64,
        /// Its token.
        token: Token,
        /// What is wrong with it.
        error: ApiError,
    },
    /// Anything else.
    Failed(ApiError),
}

/// A job, and what belongs to it on receipt.
#[derive(Debug)]
pub struct ReceivedJob {
    /// The job.
    pub job: Job,
    /// Its JSON text as received, to be written down and decoded again after a restart. Holds secrets.
    pub payload: Payload,
    /// GitLab's id of the request that delivered it.
    pub correlation_id: String,
    /// What the job needs to trust GitLab.
    pub tls: TlsMaterial,
}

/// The JSON text of a job, which cannot be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload(pub Bytes);

/// A runner as GitLab describes it after registration or verification.
#[derive(Debug, Clone, Default)]
pub struct RunnerRecord {
    /// Id of the runner; 0 when the server does not say.
    pub id: u64,
    /// Its authentication token; empty when the server does not say.
    pub token: Token,
    /// When the token ends; `None` is never.
    pub token_expires_at: Option<DateTime<Utc>>,
}

/// What GitLab says about a token.
#[derive(Debug)]
pub enum Verification {
    /// The token is good.
    Valid(RunnerRecord),
    /// The runner is gone, or the token is not its own (403).
    Invalid,
    /// Not to be told; the token may be good.
    Unknown(ApiError),
}

/// A new authentication token.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// The token.
    pub token: Token,
    /// When it ends; `None` is never.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was received.
    pub obtained_at: DateTime<Utc>,
}

/// Why a call on a runner failed.
#[derive(Debug, thiserror::Error)]
pub enum RunnerCallError {
    /// The token is not good for this (403).
    #[error("forbidden by GitLab: check the token")]
    Forbidden(#[source] ApiError),
    /// Anything else.
    #[error(transparent)]
    Failed(ApiError),
}

// === impl RemoteState ===

impl RemoteState {
    /// True if somebody wants the job cancelled but GitLab still takes its log and result.
    #[must_use]
    pub fn wants_cancel(&self) -> bool {
        *self == Self::Canceling
    }
}

// === impl JobRequestOutcome ===

impl JobRequestOutcome {
    /// False for what waiting does not mend: 403, and requests that could not be formed. GitLab Runner stops asking for a
    /// while after three of them.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        match self {
            Self::Forbidden => false,
            Self::Failed(error) => !error.is_client_error(),
            Self::Job(_) | Self::None | Self::Unavailable | Self::Undecodable { .. } => true,
        }
    }
}

// === impl Payload ===

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{} hidden bytes]", self.0.len())
    }
}

#[cfg(test)]
mod tests;
