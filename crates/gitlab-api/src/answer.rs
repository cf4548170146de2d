//! Answers, read without having received them: what each status and header means.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::{HeaderMap, StatusCode};
use job_payload::{Job, Token};
use serde::Deserialize;

use crate::error::Call;
use crate::{ApiError, TlsMaterial};

/// The longest update interval that is taken from a server (GitLab Runner's cap).
const MAX_INTERVAL: Duration = Duration::from_secs(15 * 60);

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

/// `PATCH jobs/{id}/trace`; `end` is the offset after the bytes that were sent. The first match of GitLab Runner's table wins.
pub(crate) fn patch(answer: &Answer, end: u64) -> PatchReply {
    let remote = remote_state(&answer.headers);
    let outcome = match (&remote, answer.status.as_u16()) {
        (RemoteState::Canceled | RemoteState::Failed, _) | (_, 403) => PatchOutcome::Abort,
        (_, 202) => PatchOutcome::Accepted { end },
        (_, 404) => PatchOutcome::NotFound,
        (_, 416) => PatchOutcome::RangeMismatch { offset: held_bytes(&answer.headers) },
        _ => PatchOutcome::Failed(failure(answer)),
    };
    PatchReply { outcome, remote, interval: interval(&answer.headers) }
}

/// `PUT jobs/{id}`. The first match of GitLab Runner's table wins.
pub(crate) fn update(answer: &Answer) -> UpdateReply {
    let remote = remote_state(&answer.headers);
    let outcome = match (&remote, answer.status.as_u16()) {
        (RemoteState::Canceled | RemoteState::Failed, _) | (_, 403) => UpdateOutcome::Abort,
        (_, 200) => UpdateOutcome::Done,
        (_, 202) => UpdateOutcome::NotYet,
        (_, 412) => UpdateOutcome::TraceMismatch,
        (_, 404) => UpdateOutcome::NotFound,
        _ => UpdateOutcome::Failed(failure(answer)),
    };
    UpdateReply { outcome, remote, interval: interval(&answer.headers) }
}

/// `POST jobs/request`
pub(crate) fn job(answer: Answer, correlation_id: &str, tls: TlsMaterial) -> JobRequestOutcome {
    match answer.status.as_u16() {
        201 => match Job::from_json(&answer.body) {
            Ok(job) => JobRequestOutcome::Job(Box::new(ReceivedJob {
                job,
                payload: Payload(answer.body),
                correlation_id: correlation_id.to_owned(),
                tls,
            })),
            Err(error) => {
                let dug = job_payload::dig_credentials(&answer.body);
                let error = ApiError::Decode { call: answer.call, source: Box::new(error) };
                match dug {
                    Some((id, token)) => JobRequestOutcome::Undecodable { id, token, error },
                    None => JobRequestOutcome::Failed(error),
                }
            }
        },
        204 => JobRequestOutcome::None,
        403 => JobRequestOutcome::Forbidden,
        503 => JobRequestOutcome::Unavailable,
        _ => JobRequestOutcome::Failed(failure(&answer)),
    }
}

/// `POST runners`
pub(crate) fn registered(answer: &Answer) -> Result<RunnerRecord, RunnerCallError> {
    expect(answer, StatusCode::CREATED)?;
    record(answer).map_err(RunnerCallError::Failed)
}

/// `POST runners/verify`. Very old servers answer without JSON: the token is good all the same.
pub(crate) fn verified(answer: &Answer) -> Verification {
    match answer.status.as_u16() {
        200 => Verification::Valid(record(answer).unwrap_or_default()),
        403 => Verification::Invalid,
        _ => Verification::Unknown(failure(answer)),
    }
}

/// `DELETE runners`, `DELETE runners/managers`
pub(crate) fn removed(answer: &Answer) -> Result<(), RunnerCallError> {
    expect(answer, StatusCode::NO_CONTENT)
}

/// Both ways to reset a token.
pub(crate) fn reset(answer: &Answer, now: DateTime<Utc>) -> Result<NewToken, RunnerCallError> {
    expect(answer, StatusCode::CREATED)?;
    let record = record(answer).map_err(RunnerCallError::Failed)?;
    if record.token.expose().is_empty() {
        let source = "the answer holds no token".into();
        return Err(RunnerCallError::Failed(ApiError::Decode { call: answer.call.clone(), source }));
    }
    Ok(NewToken { token: record.token, expires_at: record.token_expires_at, obtained_at: now })
}

/// `GET runners/router/discovery`. 501 and every other failure mean "no router".
pub(crate) fn discovered(answer: &Answer) -> Result<Option<String>, ApiError> {
    #[derive(Deserialize)]
    struct Body {
        server_url: String,
    }
    match answer.status.as_u16() {
        200 => decode::<Body>(answer).map(|body| Some(body.server_url).filter(|url| !url.is_empty())),
        501 => Ok(None),
        _ => Err(failure(answer)),
    }
}

/// The error of an answer that does not mean success.
pub(crate) fn failure(answer: &Answer) -> ApiError {
    if answer.status.is_redirection()
        && let Some(mut location) = location(answer)
    {
        crate::error::strip(&mut location);
        return ApiError::Redirected { call: answer.call.clone(), location: location.into() };
    }
    ApiError::Status {
        call: answer.call.clone(),
        status: answer.status,
        message: message(&answer.headers, &answer.body),
    }
}

/// Where a redirect leads, relative to the URL that was asked.
pub(crate) fn location(answer: &Answer) -> Option<url::Url> {
    let text = answer.headers.get(http::header::LOCATION)?.to_str().ok()?.trim();
    (!text.is_empty()).then(|| answer.call.url().join(text).ok()).flatten()
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

fn remote_state(headers: &HeaderMap) -> RemoteState {
    let Some(value) = headers.get("job-status") else { return RemoteState::Absent };
    match value.to_str().unwrap_or("unreadable").trim() {
        "running" => RemoteState::Running,
        "canceling" => RemoteState::Canceling,
        "canceled" => RemoteState::Canceled,
        "failed" => RemoteState::Failed,
        "" => RemoteState::Absent,
        other => RemoteState::Unknown(other.into()),
    }
}

fn interval(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get("x-gitlab-trace-update-interval")?;
    match value.to_str().ok().and_then(|text| text.trim().parse::<i64>().ok()) {
        Some(seconds) => match u64::try_from(seconds) {
            Ok(seconds) if seconds > 0 => Some(Duration::from_secs(seconds).min(MAX_INTERVAL)),
            Ok(_) | Err(_) => None,
        },
        None => {
            tracing::warn!(?value, "unreadable X-GitLab-Trace-Update-Interval");
            None
        }
    }
}

/// N of `Range: 0-N`. Unlike in `Content-Range`, N is the number of bytes that the server holds.
fn held_bytes(headers: &HeaderMap) -> u64 {
    headers
        .get(http::header::RANGE)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.trim().rsplit_once('-'))
        .and_then(|(_, end)| end.trim().parse().ok())
        .unwrap_or(0)
}

fn expect(answer: &Answer, wanted: StatusCode) -> Result<(), RunnerCallError> {
    if answer.status == wanted {
        return Ok(());
    }
    let error = failure(answer);
    Err(match answer.status {
        StatusCode::FORBIDDEN => RunnerCallError::Forbidden(error),
        _ => RunnerCallError::Failed(error),
    })
}

fn record(answer: &Answer) -> Result<RunnerRecord, ApiError> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        id: Option<u64>,
        #[serde(default)]
        token: Option<Token>,
        #[serde(default)]
        token_expires_at: Option<String>,
    }
    let body: Body = decode(answer)?;
    let expires = body.token_expires_at.and_then(|text| {
        let parsed = DateTime::parse_from_rfc3339(&text);
        if parsed.is_err() {
            tracing::warn!(token_expires_at = text, "unreadable end of a token, taken as never");
        }
        // Go's zero time means never.
        parsed.ok().map(|time| time.with_timezone(&Utc)).filter(|time| time.timestamp() > 0)
    });
    Ok(RunnerRecord {
        id: body.id.unwrap_or_default(),
        token: body.token.unwrap_or_default(),
        token_expires_at: expires,
    })
}

fn decode<T: for<'de> Deserialize<'de>>(answer: &Answer) -> Result<T, ApiError> {
    serde_json::from_slice(&answer.body)
        .map_err(|error| ApiError::Decode { call: answer.call.clone(), source: Box::new(error) })
}

/// GitLab's own words in an error body: `message` of a JSON object, or `Code` and `Message` of a storage error in XML.
pub(crate) fn message(headers: &HeaderMap, body: &[u8]) -> Option<String> {
    let kind = headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let text = if kind.contains("xml") {
        let text = std::str::from_utf8(body).ok()?;
        let element = |name: &str| {
            let (_, rest) = text.split_once(&format!("<{name}>"))?;
            rest.split_once(&format!("</{name}>")).map(|(inner, _)| inner.trim().to_owned())
        };
        match (element("Code"), element("Message")) {
            (Some(code), Some(message)) => format!("{code}: {message}"),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => return None,
        }
    } else {
        let value: serde_json::Value = serde_json::from_slice(body).ok()?;
        flatten(value.get("message").or_else(|| value.get("error"))?)?
    };
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(1000).collect();
    let clean = clean.trim();
    (!clean.is_empty()).then(|| clean.to_owned())
}

/// Text as it is; an object of lists as `key: a; b, key2: c`.
fn flatten(message: &serde_json::Value) -> Option<String> {
    use serde_json::Value;
    fn words(value: &Value) -> String {
        match value {
            Value::String(text) => text.clone(),
            Value::Array(list) => list.iter().map(words).collect::<Vec<_>>().join("; "),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
        }
    }
    match message {
        Value::String(text) => Some(text.clone()),
        Value::Object(members) => Some(
            members
                .iter()
                .map(|(key, value)| format!("{key}: {}", words(value)))
                .collect::<Vec<_>>()
                .join(", "),
        ),
        Value::Array(_) => Some(words(message)),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}
