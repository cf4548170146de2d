//! Requests, built without sending them.

mod jobs;
mod runners;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use job_payload::{ExposeSecret, SecretString};
use serde::Serialize;

pub use self::jobs::{artifact_download, artifact_upload, job_request, job_update, trace_patch};
pub use self::runners::{
    discovery, register, reset_token, reset_token_with_pat, unregister_manager, unregister_runner, verify,
};

use crate::{ClientError, Endpoint, RunnerInfo};

const RUNNER_TOKEN: HeaderName = HeaderName::from_static("runner-token");
const JOB_TOKEN: HeaderName = HeaderName::from_static("job-token");
const PRIVATE_TOKEN: HeaderName = HeaderName::from_static("private-token");
const CONTENT_RANGE: HeaderName = http::header::CONTENT_RANGE;

/// One request, ready to be sent: everything but scheme, host, user agent and request id.
#[derive(Debug, Clone)]
pub struct ApiRequest {
    /// Which call; its method is the request's.
    pub endpoint: Endpoint,
    /// Path below `api/v4/`, with the query.
    pub path: String,
    /// Headers. Tokens are marked as sensitive and do not show in debug output.
    pub headers: HeaderMap,
    /// Body; empty when there is none, or when it is streamed.
    pub body: Bytes,
}

/// Who speaks for a job.
#[derive(Debug, Clone)]
pub struct JobCredentials {
    /// Job id.
    pub id: u64,
    /// Job token.
    pub token: SecretString,
}

/// Asks for a job.
#[derive(Debug, Clone)]
pub struct JobRequest {
    /// Runner token.
    pub token: SecretString,
    /// Which manager asks; left out when empty.
    pub system_id: String,
    /// What the runner is and can do.
    pub info: Arc<RunnerInfo>,
    /// Where to reach the session server, if there is one.
    pub session: Option<Session>,
    /// Echo the queue cursor, which lets GitLab hold the request open (50 s by default) while the queue is empty. Without it
    /// GitLab answers at once.
    pub long_poll: bool,
}

/// How GitLab reaches the runner's session server.
#[derive(Clone, Serialize)]
pub struct Session {
    /// Address.
    pub url: String,
    /// Certificate in PEM.
    pub certificate: String,
    /// Secret that GitLab presents.
    pub authorization: String,
}

/// State that a runner reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// The job runs; also the keep-alive.
    Running,
    /// Final.
    Success,
    /// Final.
    Failed,
}

/// What a runner reports about a job.
#[derive(Debug, Clone)]
pub struct JobUpdate {
    /// State.
    pub state: JobState,
    /// Why it failed, in GitLab's words (`script_failure`, ...).
    pub failure_reason: Option<String>,
    /// `crc32:` and eight hex digits over the whole log.
    pub checksum: Option<String>,
    /// Bytes of the whole log.
    pub bytesize: Option<u64>,
    /// Exit code of the script; 0 is not sent.
    pub exit_code: Option<i32>,
    /// What the runner is and can do.
    pub info: Arc<RunnerInfo>,
}

/// The old kind of registration, with a registration token.
#[derive(Debug, Clone, Default, Serialize)]
pub struct RegisterRequest {
    /// Name of the runner.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Note for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub maintenance_note: String,
    /// Tags, separated by commas.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tag_list: String,
    /// Take jobs without tags; sent as true when there are no tags, because the runner could take no job at all otherwise.
    pub run_untagged: bool,
    /// Only for the project that it was registered in.
    pub locked: bool,
    /// `not_protected` or `ref_protected`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub access_level: String,
    /// Seconds; 0 for none.
    #[serde(skip_serializing_if = "is_zero")]
    pub maximum_timeout: u64,
    /// Take no jobs yet.
    pub paused: bool,
}

/// What is uploaded. Empty members are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ArtifactUpload {
    /// Name of the file.
    pub file_name: String,
    /// `1 week` and the like.
    pub expire_in: String,
    /// `zip`, `gzip`, `raw`, ...
    pub format: String,
    /// `archive`, `junit`, ...
    pub kind: String,
}

// === impl ApiRequest ===

impl ApiRequest {
    /// True for calls whose successful answer is a JSON body.
    pub(crate) fn expects_json(&self) -> bool {
        self.headers.contains_key(ACCEPT)
    }
}

// === impl Session ===

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("url", &self.url).finish_non_exhaustive()
    }
}

// === helpers ===

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A header that cannot be printed; an empty token is not sent.
fn authenticate(headers: &mut HeaderMap, name: HeaderName, token: &SecretString) -> Result<(), ClientError> {
    let text = token.expose_secret();
    if text.is_empty() {
        return Ok(());
    }
    let mut value = HeaderValue::try_from(text).map_err(|_| {
        ClientError::Token(match name.as_str() {
            "job-token" => "JOB-TOKEN",
            "private-token" => "PRIVATE-TOKEN",
            _ => "RUNNER-TOKEN",
        })
    })?;
    value.set_sensitive(true);
    headers.insert(name, value);
    Ok(())
}

fn json<T: Serialize>(
    endpoint: Endpoint,
    (header, token): (HeaderName, &SecretString),
    body: &T,
) -> Result<ApiRequest, ClientError> {
    let mut headers = HeaderMap::with_capacity(6);
    authenticate(&mut headers, header, token)?;
    encode(endpoint, headers, body)
}

fn encode<T: Serialize>(
    endpoint: Endpoint,
    mut headers: HeaderMap,
    body: &T,
) -> Result<ApiRequest, ClientError> {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    let mut encoded = Vec::with_capacity(2048);
    serde_json::to_writer(&mut encoded, body).map_err(ClientError::Encode)?;
    Ok(ApiRequest { endpoint, path: endpoint.path().to_owned(), headers, body: encoded.into() })
}

/// `Accept` is only for calls that expect a JSON body.
fn without_answer(mut request: ApiRequest) -> ApiRequest {
    request.headers.remove(ACCEPT);
    request
}

#[cfg(test)]
mod tests;
