//! How a job ends: result, failure reason, and what the log says about it.

use std::fmt;
use std::time::Duration;

/// Why a job failed, in the words of GitLab's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureReason {
    /// A process of the job ended with an error.
    ScriptFailure,
    /// Something around the job broke.
    RunnerSystemFailure,
    /// Out of time.
    JobExecutionTimeout,
    /// An image could not be pulled, for no reason known better.
    ImagePullFailure,
    /// Nobody knows.
    UnknownFailure,
    /// A setting of the runner or the job makes it impossible.
    RunnerConfigurationError,
    /// A registry or secrets provider is not there.
    RunnerExternalDependencyFailure,
    /// The manager was stopped while the job ran.
    RunnerInterrupted,
    /// Cancelled.
    JobCanceled,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobResult {
    /// All was well.
    Success,
    /// It was not.
    Failed(JobFailure),
}

/// A failed job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct JobFailure {
    /// Why.
    pub reason: FailureReason,
    /// Status of the process that failed, if one did.
    pub exit_code: Option<i32>,
    /// What happened, for the log.
    pub message: String,
}

/// A bound on time, as it is named in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deadline {
    /// The job's own.
    Job,
    /// `prepare_timeout`.
    Prepare,
    /// `get_sources_timeout`.
    GetSources,
    /// `RUNNER_SCRIPT_TIMEOUT`.
    Script,
    /// `RUNNER_AFTER_SCRIPT_TIMEOUT`.
    AfterScript,
}

// === impl FailureReason ===

impl FailureReason {
    /// The word in GitLab's API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ScriptFailure => "script_failure",
            Self::RunnerSystemFailure => "runner_system_failure",
            Self::JobExecutionTimeout => "job_execution_timeout",
            Self::ImagePullFailure => "image_pull_failure",
            Self::UnknownFailure => "unknown_failure",
            Self::RunnerConfigurationError => "runner_configuration_error",
            Self::RunnerExternalDependencyFailure => "runner_external_dependency_failure",
            Self::RunnerInterrupted => "runner_interrupted",
            Self::JobCanceled => "job_canceled",
        }
    }

    /// The reason to send to a server that understands `supported` (the payload's `features.failure_reasons`). Three
    /// reasons are understood by every server; others fall back as in GitLab Runner.
    #[must_use]
    pub fn sent_as(self, supported: &[String]) -> Self {
        let known = |reason: Self| {
            matches!(reason, Self::ScriptFailure | Self::RunnerSystemFailure | Self::JobExecutionTimeout)
                || supported.iter().any(|name| name == reason.as_str())
        };
        if known(self) {
            return self;
        }
        match self {
            Self::ImagePullFailure | Self::RunnerExternalDependencyFailure => Self::RunnerSystemFailure,
            Self::RunnerConfigurationError => Self::ScriptFailure,
            Self::ScriptFailure
            | Self::RunnerSystemFailure
            | Self::JobExecutionTimeout
            | Self::UnknownFailure
            | Self::RunnerInterrupted
            | Self::JobCanceled => Self::UnknownFailure,
        }
    }

    /// The class of an image pull failure, from the engine's text; GitLab Runner's table, first hit wins.
    #[must_use]
    pub fn of_image_pull(text: &str) -> Self {
        const EXTERNAL: &[&str] = &[
            "dial tcp",
            "connection refused",
            "no such host",
            "i/o timeout",
            "tls handshake",
            "client.timeout exceeded",
            "request canceled",
            "connection reset",
        ];
        const CONFIGURATION: &[&str] = &[
            "not found",
            "manifest unknown",
            "pull access denied",
            "access to the resource is denied",
            "no basic auth credentials",
            "repository does not exist or may require",
            "unauthorized",
            "authentication required",
        ];
        let text = text.to_ascii_lowercase();
        let any = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
        if any(EXTERNAL) {
            Self::RunnerExternalDependencyFailure
        } else if any(CONFIGURATION) {
            Self::RunnerConfigurationError
        } else {
            Self::ImagePullFailure
        }
    }
}

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl JobResult ===

impl JobResult {
    /// The last line of the log. A success is shown as information, a failure as an error.
    #[must_use]
    pub fn log_line(&self) -> String {
        match self {
            Self::Success => "Job succeeded".to_owned(),
            Self::Failed(failure) if failure.reason == FailureReason::RunnerSystemFailure => {
                format!("Job failed (system failure): {failure}")
            }
            Self::Failed(failure) => format!("Job failed: {failure}"),
        }
    }

    /// Whether the job went well.
    #[must_use]
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Success)
    }
}

// === impl JobFailure ===

impl JobFailure {
    /// A stage's process ended with this status.
    #[must_use]
    pub fn exit_code(code: i32) -> Self {
        Self {
            reason: FailureReason::ScriptFailure,
            exit_code: Some(code),
            message: format!("exit code {code}"),
        }
    }

    /// Something around the job broke.
    #[must_use]
    pub fn system(message: impl Into<String>) -> Self {
        Self { reason: FailureReason::RunnerSystemFailure, exit_code: None, message: message.into() }
    }

    /// Any other failure.
    #[must_use]
    pub fn new(reason: FailureReason, message: impl Into<String>) -> Self {
        Self { reason, exit_code: None, message: message.into() }
    }

    /// A bound on time was reached.
    #[must_use]
    pub fn timeout(deadline: Deadline, bound: Duration) -> Self {
        let bound = go_duration::format(bound);
        let message = match deadline {
            Deadline::Job => format!("execution took longer than {bound} seconds"),
            Deadline::Prepare => format!("prepare timeout: exceeded timeout of {bound}"),
            Deadline::GetSources => format!("get sources timeout: exceeded timeout of {bound}"),
            Deadline::Script => format!("script timeout: exceeded timeout of {bound}"),
            Deadline::AfterScript => format!("after_script timeout: exceeded timeout of {bound}"),
        };
        Self::new(FailureReason::JobExecutionTimeout, message)
    }

    /// Cancelled by a user.
    #[must_use]
    pub fn canceled() -> Self {
        Self::new(FailureReason::JobCanceled, "canceled")
    }

    /// The manager was told to stop, by this signal.
    #[must_use]
    pub fn interrupted(signal: &str) -> Self {
        Self::new(FailureReason::RunnerInterrupted, format!("aborted: {signal}"))
    }

    /// [`Stage::PrepareScript`](crate::Stage::PrepareScript) failed: the job ends at once.
    #[must_use]
    pub fn environment(cause: Self) -> Self {
        Self {
            message: format!(
                "prepare environment: {}. Check https://docs.gitlab.com/runner/shells/#shell-profile-loading for more information",
                cause.message
            ),
            ..cause
        }
    }
}

impl From<JobFailure> for JobResult {
    fn from(failure: JobFailure) -> Self {
        Self::Failed(failure)
    }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case(FailureReason::ScriptFailure, &[], "script_failure"; "always known")]
    #[test_case(FailureReason::ImagePullFailure, &[], "runner_system_failure"; "falls back")]
    #[test_case(FailureReason::ImagePullFailure, &["image_pull_failure"], "image_pull_failure"; "listed")]
    #[test_case(FailureReason::RunnerConfigurationError, &[], "script_failure"; "configuration")]
    #[test_case(FailureReason::RunnerExternalDependencyFailure, &[], "runner_system_failure"; "external")]
    #[test_case(FailureReason::RunnerInterrupted, &[], "unknown_failure"; "interrupted")]
    #[test_case(FailureReason::JobCanceled, &[], "unknown_failure"; "canceled")]
    fn reasons_are_sent_as_the_server_understands_them(reason: FailureReason, known: &[&str], sent: &str) {
        let known: Vec<String> = known.iter().map(|&name| name.to_owned()).collect();
        assert_eq!(reason.sent_as(&known).as_str(), sent);
    }

    #[test_case("dial tcp 10.0.0.1:443: connect: manifest unknown", FailureReason::RunnerExternalDependencyFailure; "first hit wins")]
    #[test_case("Manifest Unknown", FailureReason::RunnerConfigurationError; "any case")]
    #[test_case("disk quota exceeded", FailureReason::ImagePullFailure; "else")]
    fn image_pull_failures_are_classified(text: &str, expected: FailureReason) {
        assert_eq!(FailureReason::of_image_pull(text), expected);
    }

    #[test]
    fn the_last_line_says_how_the_job_ended() {
        assert_eq!(JobResult::Success.log_line(), "Job succeeded");
        assert_eq!(JobResult::from(JobFailure::exit_code(137)).log_line(), "Job failed: exit code 137");
        assert_eq!(
            JobResult::from(JobFailure::system("instance lost")).log_line(),
            "Job failed (system failure): instance lost"
        );
    }
}
