//! How a mock behaves.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::StatusCode;

/// Settings of a [`GitlabMock`](crate::GitlabMock). The defaults are those of a GitLab as it is installed, except that
/// it listens on a free port of the loopback interface.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The address under which runners and jobs reach this server, without a trailing slash. By default
    /// `http://<listen address>`. Repository URLs and `CI_SERVER_URL` are made from it.
    pub external_url: Option<String>,
    /// How long a request for a job is held while nothing changes; zero answers at once. Workhorse holds for 50 s.
    pub long_poll: Duration,
    /// What a held request is answered when its queue changes.
    pub on_change: OnChange,
    /// `X-GitLab-Trace-Update-Interval` of every answer to a log patch or job update; `None` leaves the header out.
    pub trace_update_interval: Option<Duration>,
    /// How much of each job log is kept.
    pub log_retention: LogRetention,
    /// A job whose log grows beyond this is dropped with `trace_size_exceeded`, as GitLab does at 100 MiB.
    pub max_log_bytes: Option<u64>,
    /// Artifacts above this size are refused with 413.
    pub max_artifact_bytes: u64,
    /// Whether artifacts can be uploaded at all; if not, 405.
    pub artifacts_enabled: bool,
    /// Whether `direct_download=true` is answered by a redirect to the object storage, and with which status.
    pub direct_download: Option<StatusCode>,
    /// How long a job that was given to a runner with `two_phase_job_commit` waits for its confirmation before it goes
    /// back to the queue. GitLab waits two minutes.
    pub commit_timeout: Duration,
    /// A running job from which nothing was heard for so long is dropped with `stuck_or_timeout_failure`.
    pub stale_after: Option<Duration>,
    /// A running job is dropped with `job_execution_timeout` so long after its own timeout has passed; `None` never
    /// drops it.
    pub timeout_grace: Option<Duration>,
    /// Answer for a job id that the server does not know. Some proxies and versions say 404, Rails says 403.
    pub unknown_job: StatusCode,
    /// Registration tokens that `POST runners` accepts; `None` means that they are disallowed (410).
    pub registration_token: Option<String>,
    /// Personal access tokens that may rotate a runner's token.
    pub personal_access_tokens: Vec<String>,
    /// Life of the tokens given to runners; `None` means that they never expire.
    pub token_lifetime: Option<Duration>,
    /// Features that a job payload asks for: `failure_reasons`.
    pub failure_reasons: Vec<String>,
    /// Where bare repositories are kept; by default a directory that goes away with the mock.
    pub git_root: Option<PathBuf>,
}

/// What the answer to a held job request is when the queue changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnChange {
    /// 204 without a cursor: the runner has to ask again to get the job. This is what Workhorse does, since it cannot
    /// know whether the connection that it held is still alive.
    AskAgain,
    /// The request goes on as if it had just arrived, and may carry the job.
    Dispatch,
}

/// How much of a job log is kept. Size and checksum cover the whole log in every case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogRetention {
    /// Every byte.
    Full,
    /// The last so many bytes, at least.
    Tail(usize),
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            external_url: None,
            long_poll: Duration::from_secs(50),
            on_change: OnChange::AskAgain,
            trace_update_interval: Some(Duration::from_secs(3)),
            log_retention: LogRetention::Full,
            max_log_bytes: None,
            max_artifact_bytes: 100 << 20,
            artifacts_enabled: true,
            direct_download: Some(StatusCode::FOUND),
            commit_timeout: Duration::from_secs(120),
            stale_after: None,
            timeout_grace: None,
            unknown_job: StatusCode::NOT_FOUND,
            registration_token: Some("GR1348941registration".to_owned()),
            personal_access_tokens: vec!["glpat-mock".to_owned()],
            token_lifetime: None,
            failure_reasons: [
                "unknown_failure",
                "script_failure",
                "runner_system_failure",
                "job_execution_timeout",
                "image_pull_failure",
                "runner_configuration_error",
                "runner_external_dependency_failure",
                "runner_interrupted",
                "job_canceled",
            ]
            .map(str::to_owned)
            .to_vec(),
            git_root: None,
        }
    }
}
