//! What metrics want to know about each call.

use std::time::Duration;

use http::StatusCode;

use crate::Endpoint;

/// Is told about every call. Implementations must be quick: they run inside the call.
pub trait Observer: Send + Sync + 'static {
    /// A call has ended; called once per call, whatever its outcome.
    fn ended(&self, ended: &Ended) {
        let _ = ended;
    }

    /// An attempt was answered with a status that the retry layer repeats, whether or not another attempt follows.
    fn retriable(&self, endpoint: Endpoint, status: StatusCode) {
        let _ = (endpoint, status);
    }
}

/// A call that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Which call.
    pub endpoint: Endpoint,
    /// Status of the last answer; `None` without an answer (GitLab Runner's label is `-1` then).
    pub status: Option<StatusCode>,
    /// From the start of the first attempt to the head of the last answer, waits included.
    pub duration: Duration,
    /// Attempts, the first one included.
    pub attempts: u32,
    /// True if any attempt was answered with a status that the retry layer repeats. GitLab Runner then adds `attempts` to
    /// `gitlab_runner_api_request_retries_total`.
    pub retried: bool,
}
