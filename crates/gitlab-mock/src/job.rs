//! A job on the server: its states, its log, and what the runner reported.

mod decide;
mod record;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::violation::seconds;

pub(crate) use decide::{Patch, Update};
pub(crate) use record::{Inner, JobRecord, Shared, expect_confirmation, watch_running};

/// What a runner's session server wants of those who open a terminal in a job.
#[derive(Clone, PartialEq, Eq)]
pub struct Session {
    /// Address; `/exec` below it is the terminal.
    pub url: String,
    /// The only certificate to trust, in PEM.
    pub certificate: String,
    /// Value of the header `Authorization`.
    pub authorization: String,
}

/// A job of the mock. Clones are handles on the same job.
#[derive(Debug, Clone)]
pub struct Job {
    pub(crate) record: Arc<JobRecord>,
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// In the queue.
    Queued,
    /// Given to a runner that has announced `two_phase_job_commit` and has not confirmed the job yet.
    Given,
    /// Running.
    Running,
    /// To be cancelled gracefully: the runner is told, and `after_script` still runs.
    Canceling,
    /// Ended well.
    Success,
    /// Ended badly.
    Failed,
    /// Cancelled.
    Canceled,
}

/// A change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Transition {
    /// The new state.
    pub state: JobState,
    /// When it was entered, since the mock was started.
    #[serde(rename = "at_seconds", serialize_with = "seconds")]
    pub at: Duration,
}

/// How often a runner called for a job, and with what success.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Calls {
    /// Log patches that were taken.
    pub patches: u64,
    /// Log patches that were refused.
    pub patches_refused: u64,
    /// Updates with `state=running` that were taken.
    pub keep_alives: u64,
    /// Updates with a final state, taken or not.
    pub final_updates: u64,
    /// Updates that were refused.
    pub updates_refused: u64,
    /// Artifacts that were stored.
    pub uploads: u64,
    /// Downloads of this job's archive.
    pub downloads: u64,
    /// Git requests with this job's token that were served.
    pub git_requests: u64,
}

/// What is known of a job at one moment. All times are since the mock was started and never run backwards.
#[derive(Debug, Clone, Serialize)]
pub struct JobView {
    /// Job id.
    pub id: u64,
    /// Job name.
    pub name: String,
    /// Where it stands.
    pub state: JobState,
    /// Every state so far, oldest first.
    pub history: Vec<Transition>,
    /// The runner whose queue it is in.
    pub runner_id: u64,
    /// The manager that it was given to.
    pub system_id: Option<String>,
    /// How often it was given to a runner.
    pub times_given: u32,
    /// When it was queued.
    #[serde(rename = "queued_at_seconds", serialize_with = "seconds")]
    pub queued_at: Duration,
    /// When it was (last) given to a runner.
    pub given_at: Option<Duration>,
    /// When it began to run on the server: when it was given, or confirmed in two phases.
    pub started_at: Option<Duration>,
    /// When its first log byte was stored.
    pub first_log_at: Option<Duration>,
    /// When it reached its final state.
    pub finished_at: Option<Duration>,
    /// Why it failed.
    pub failure_reason: Option<String>,
    /// What the runner reported.
    pub exit_code: Option<i64>,
    /// Whether the final state was set by the server (cancel, timeout) and not by the runner's final update.
    pub ended_by_server: bool,
    /// Whether the final update carried the checksum and the size of the log, and both were right.
    pub checksum_verified: bool,
    /// Size of the whole log.
    pub log_bytes: u64,
    /// Checksum of the whole log.
    pub log_checksum: String,
    /// How often the log was thrown away so that the runner had to send it again.
    pub log_resets: u32,
    /// How often the runner called.
    pub calls: Calls,
    /// What was uploaded.
    pub artifacts: Vec<ArtifactView>,
}

/// An uploaded artifact without its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ArtifactView {
    /// `archive`, `junit`, ...
    pub artifact_type: String,
    /// `zip`, `gzip`, ...
    pub artifact_format: String,
    /// File name in the upload.
    pub filename: String,
    /// As it was sent.
    pub expire_in: Option<String>,
    /// Bytes.
    pub size: u64,
}

/// An uploaded artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredArtifact {
    /// What it is.
    pub view: ArtifactView,
    /// Its bytes.
    pub data: Bytes,
}

/// A job did not come to where it was expected in time.
#[derive(Debug, thiserror::Error)]
#[error("job {id} is {state} after {waited:?}, log of {log_bytes} bytes ends with:\n{log_end}", id = view.id,
    state = view.state, log_bytes = view.log_bytes)]
pub struct WaitError {
    /// How long was waited.
    pub waited: Duration,
    /// Where the job stood at the end.
    pub view: Box<JobView>,
    /// The last lines of its log.
    pub log_end: String,
}

// === impl JobState ===

impl JobState {
    /// Whether nothing can follow.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, JobState::Success | JobState::Failed | JobState::Canceled)
    }

    /// Whether a runner works on it.
    #[must_use]
    pub const fn is_processing(self) -> bool {
        matches!(self, JobState::Running | JobState::Canceling)
    }

    /// The name in the header `Job-Status`.
    #[must_use]
    pub const fn status(self) -> &'static str {
        match self {
            JobState::Queued => "pending",
            JobState::Given => "pending",
            JobState::Running => "running",
            JobState::Canceling => "canceling",
            JobState::Success => "success",
            JobState::Failed => "failed",
            JobState::Canceled => "canceled",
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            JobState::Queued => "queued",
            JobState::Given => "given",
            JobState::Running => "running",
            JobState::Canceling => "canceling",
            JobState::Success => "success",
            JobState::Failed => "failed",
            JobState::Canceled => "canceled",
        })
    }
}

// === impl Session ===

impl Session {
    pub(crate) fn of(body: &serde_json::Value) -> Option<Self> {
        let session = body.get("session")?;
        let member = |name: &str| Some(session.get(name)?.as_str()?.to_owned());
        Some(Self {
            url: member("url")?,
            certificate: member("certificate")?,
            authorization: member("authorization")?,
        })
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("url", &self.url).finish_non_exhaustive()
    }
}

// === impl Job ===

impl Job {
    /// Job id.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.record.id
    }

    /// Job token, for calls that a test makes itself.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.record.token
    }

    /// What is known of it now.
    #[must_use]
    pub fn view(&self) -> JobView {
        self.record.view()
    }

    /// Where it stands now.
    #[must_use]
    pub fn state(&self) -> JobState {
        self.record.read(|inner| inner.state)
    }

    /// How its runner's session server is reached, if the runner has one.
    #[must_use]
    pub fn session(&self) -> Option<Session> {
        self.record.read(|inner| inner.session.clone())
    }

    /// The log as far as it is kept (see [`LogRetention`](crate::LogRetention)).
    #[must_use]
    pub fn log(&self) -> Vec<u8> {
        self.record.read(|inner| inner.log.kept().to_vec())
    }

    /// The log as text.
    #[must_use]
    pub fn log_text(&self) -> String {
        self.record.read(|inner| String::from_utf8_lossy(inner.log.kept()).into_owned())
    }

    /// What was uploaded.
    #[must_use]
    pub fn artifacts(&self) -> Vec<StoredArtifact> {
        self.record.read(|inner| inner.artifacts.clone())
    }

    /// Stores an artifact as if the job had uploaded it.
    pub fn store_artifact(&self, view: ArtifactView, data: impl Into<Bytes>) {
        let data = data.into();
        let view = ArtifactView { size: data.len() as u64, ..view };
        self.record.update(|inner, _| inner.artifacts.push(StoredArtifact { view, data }));
    }

    /// Keys of masked variables, and `CI_JOB_TOKEN`, whose value stands in the log in clear.
    #[must_use]
    pub fn leaked_secrets(&self) -> Vec<String> {
        let log = self.log();
        let mut leaked = Vec::new();
        let mut look = |key: &str, value: &str| {
            let value = value.trim().as_bytes();
            if !value.is_empty() && log.windows(value.len()).any(|window| window == value) {
                leaked.push(key.to_owned());
            }
        };
        look("CI_JOB_TOKEN", self.token());
        for variable in self.record.spec.variables.iter().filter(|variable| variable.masked) {
            look(&variable.key, &variable.value);
        }
        leaked
    }

    /// Cancels the job as a user does: at once while it is queued; gracefully when the runner has announced
    /// `cancel_gracefully`; otherwise at once. Returns the state that follows.
    pub fn cancel(&self) -> JobState {
        self.record.update(record::Inner::cancel)
    }

    /// Cancels the job at once, as a user does who presses "force cancel".
    pub fn force_cancel(&self) -> JobState {
        self.record.update(|inner, now| {
            inner.end_by_server(JobState::Canceled, None, now);
            inner.state
        })
    }

    /// Fails the job on the server's side.
    pub fn drop_with(&self, failure_reason: &str) -> JobState {
        self.record.update(|inner, now| {
            inner.end_by_server(JobState::Failed, Some(failure_reason), now);
            inner.state
        })
    }

    /// Forgets the log behind the first `len` bytes, as a server does that lost a chunk. The next patch is answered with
    /// 416, which the runner has to follow. Nothing happens when the log is shorter or not kept in full.
    pub fn truncate_log(&self, len: usize) -> bool {
        self.record.update(|inner, _| {
            let truncated = inner.log.truncate(len);
            if truncated {
                inner.excuses += 1;
                inner.log_resets += 1;
            }
            truncated
        })
    }

    /// Spoils the stored log, so that the next final update is answered with 412 and the runner has to send the whole
    /// log again.
    pub fn corrupt_log(&self) {
        self.record.update(|inner, _| inner.log.corrupt());
    }

    /// Answers the next `count` final updates with 202.
    pub fn delay_final_updates(&self, count: u32) {
        self.record.update(|inner, _| inner.final_updates_delayed = count);
    }

    /// Waits until the job is as wanted.
    ///
    /// # Errors
    ///
    /// When it is not within `timeout`.
    pub async fn wait_until(
        &self,
        timeout: Duration,
        mut wanted: impl FnMut(&JobView) -> bool,
    ) -> Result<JobView, WaitError> {
        let mut changes = self.record.changes();
        let reached = async {
            loop {
                changes.mark_unchanged();
                let view = self.view();
                if wanted(&view) || changes.changed().await.is_err() {
                    return view;
                }
            }
        };
        match tokio::time::timeout(timeout, reached).await {
            Ok(view) => Ok(view),
            Err(_elapsed) => Err(self.wait_error(timeout)),
        }
    }

    /// Waits until the job has reached its final state.
    ///
    /// # Errors
    ///
    /// When it has not within `timeout`.
    pub async fn finished(&self, timeout: Duration) -> Result<JobView, WaitError> {
        self.wait_until(timeout, |view| view.state.is_final()).await
    }

    /// Waits until the job is in a state.
    ///
    /// # Errors
    ///
    /// When it is not within `timeout`.
    pub async fn in_state(&self, state: JobState, timeout: Duration) -> Result<JobView, WaitError> {
        self.wait_until(timeout, |view| view.state == state).await
    }

    /// Waits until the kept part of the log contains a text.
    ///
    /// # Errors
    ///
    /// When it does not within `timeout`.
    pub async fn log_contains(&self, text: &str, timeout: Duration) -> Result<JobView, WaitError> {
        self.wait_until(timeout, |_| self.log_text().contains(text)).await
    }

    fn wait_error(&self, waited: Duration) -> WaitError {
        let text = self.log_text();
        let lines: Vec<&str> = text.lines().collect();
        let log_end = lines[lines.len().saturating_sub(20)..].join("\n");
        WaitError { waited, view: Box::new(self.view()), log_end }
    }
}
