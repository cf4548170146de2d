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
pub(crate) fn job(
    answer: Answer,
    correlation_id: &str,
    tls: impl FnOnce() -> TlsMaterial,
) -> JobRequestOutcome {
    match answer.status.as_u16() {
        201 => match Job::from_json(&answer.body) {
            Ok(job) => JobRequestOutcome::Job(Box::new(ReceivedJob {
                job,
                payload: Payload(answer.body),
                correlation_id: correlation_id.to_owned(),
                tls: tls(),
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

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue, Method};
    use test_case::test_case;

    use super::*;
    use crate::ClientError;

    fn answer(status: u16, headers: &[(&'static str, &'static str)], body: &'static str) -> Answer {
        Answer {
            call: Call::new(Method::POST, "https://gitlab.test/api/v4/x".parse().unwrap()),
            status: StatusCode::from_u16(status).unwrap(),
            headers: headers
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
                .collect(),
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    fn patched(status: u16, headers: &[(&'static str, &'static str)]) -> PatchReply {
        patch(&answer(status, headers, ""), 100)
    }

    fn updated(status: u16, headers: &[(&'static str, &'static str)]) -> UpdateReply {
        update(&answer(status, headers, ""))
    }

    #[test]
    fn patches_follow_the_table() {
        assert!(matches!(patched(202, &[]).outcome, PatchOutcome::Accepted { end: 100 }));
        assert!(matches!(patched(403, &[]).outcome, PatchOutcome::Abort));
        assert!(matches!(patched(404, &[]).outcome, PatchOutcome::NotFound));
        for status in [200, 400, 500, 503] {
            assert!(matches!(patched(status, &[]).outcome, PatchOutcome::Failed(_)), "{status}");
        }
    }

    #[test_case("0-17", 17; "the number of bytes held")]
    #[test_case("0-0", 0; "nothing held")]
    #[test_case("nonsense", 0; "unreadable")]
    fn a_range_mismatch_says_where_to_go_on(range: &'static str, wanted: u64) {
        let reply = patched(416, &[("range", range)]);
        assert!(matches!(reply.outcome, PatchOutcome::RangeMismatch { offset } if offset == wanted));
    }

    #[test]
    fn a_range_mismatch_without_range_starts_over() {
        assert!(matches!(patched(416, &[]).outcome, PatchOutcome::RangeMismatch { offset: 0 }));
    }

    #[test]
    fn updates_follow_the_table() {
        assert!(matches!(updated(200, &[]).outcome, UpdateOutcome::Done));
        assert!(matches!(updated(202, &[]).outcome, UpdateOutcome::NotYet));
        assert!(matches!(updated(403, &[]).outcome, UpdateOutcome::Abort));
        assert!(matches!(updated(404, &[]).outcome, UpdateOutcome::NotFound));
        assert!(matches!(updated(412, &[]).outcome, UpdateOutcome::TraceMismatch));
        assert!(matches!(updated(500, &[]).outcome, UpdateOutcome::Failed(_)));
    }

    #[test_case("canceled")]
    #[test_case("failed")]
    fn a_job_that_is_over_aborts_whatever_the_status(state: &'static str) {
        for status in [200, 202, 404, 412, 416, 500] {
            let headers = [("job-status", state)];
            assert!(matches!(patched(status, &headers).outcome, PatchOutcome::Abort), "{status}");
            assert!(matches!(updated(status, &headers).outcome, UpdateOutcome::Abort), "{status}");
        }
    }

    #[test]
    fn a_wish_to_cancel_comes_beside_the_outcome() {
        let reply = patched(202, &[("job-status", "canceling")]);
        assert!(reply.remote.wants_cancel());
        assert!(matches!(reply.outcome, PatchOutcome::Accepted { .. }));
        assert_eq!(updated(200, &[("job-status", "paused")]).remote, RemoteState::Unknown("paused".into()));
        assert_eq!(updated(200, &[("job-status", "running")]).remote, RemoteState::Running);
        assert_eq!(updated(200, &[]).remote, RemoteState::Absent);
    }

    #[test_case("3", Some(3))]
    #[test_case("86400", Some(900); "capped at 15 minutes")]
    #[test_case("0", None; "zero is ignored")]
    #[test_case("-4", None; "negative is ignored")]
    #[test_case("soon", None; "unreadable")]
    fn update_intervals(text: &'static str, seconds: Option<u64>) {
        let reply = patched(202, &[("x-gitlab-trace-update-interval", text)]);
        assert_eq!(reply.interval, seconds.map(Duration::from_secs));
    }

    #[test]
    fn job_requests_follow_the_table() {
        let outcome = |status| job(answer(status, &[], ""), "c", TlsMaterial::default);
        assert!(matches!(outcome(204), JobRequestOutcome::None));
        assert!(matches!(outcome(403), JobRequestOutcome::Forbidden));
        assert!(matches!(outcome(503), JobRequestOutcome::Unavailable));
        for status in [200, 409, 422, 500] {
            assert!(matches!(outcome(status), JobRequestOutcome::Failed(_)), "{status}");
        }
    }

    #[test]
    fn only_refusals_and_client_errors_are_unhealthy() {
        let outcome = |status| job(answer(status, &[], ""), "c", TlsMaterial::default);
        assert!(!outcome(403).is_healthy());
        assert!(!JobRequestOutcome::Failed(ClientError::Scheme("ftp".into()).into()).is_healthy());
        for status in [201, 204, 409, 422, 500, 503] {
            assert!(outcome(status).is_healthy(), "{status}");
        }
    }

    #[test]
    fn a_job_that_breaks_off_can_still_be_failed() {
        let body = r#"{"id": 7, "token": "glcbt-x", "steps": [{"name": "scr"#;
        let outcome = job(answer(201, &[], body), "c", TlsMaterial::default);
        let JobRequestOutcome::Undecodable { id, token, error } = outcome else { panic!("{outcome:?}") };
        assert_eq!((id, token.expose()), (7, "glcbt-x"));
        assert!(error.report().contains("the job is not JSON"), "{}", error.report());
        let hopeless = job(answer(201, &[], "<html>"), "c", TlsMaterial::default);
        assert!(matches!(hopeless, JobRequestOutcome::Failed(ApiError::Decode { .. })));
    }

    #[test]
    fn a_received_job_prints_no_secret() {
        let body = r#"{"id": 7, "token": "sesame", "variables": [{"key": "K", "value": "sesame"}]}"#;
        let received = job(answer(201, &[], body), "c", TlsMaterial::default);
        assert!(matches!(received, JobRequestOutcome::Job(_)));
        assert!(!format!("{received:?}").contains("sesame"));
    }

    #[test_case("application/json", r#"{"message": "no"}"#, Some("no"); "text")]
    #[test_case("application/json", r#"{"message": {"name": ["short", "odd"], "tags": ["many"]}}"#, Some("name: short; odd, tags: many"); "object of lists")]
    #[test_case("application/json", r#"{"error": "tags is missing"}"#, Some("tags is missing"); "error member")]
    #[test_case("application/xml", "<Error><Code>AccessDenied</Code><Message>Denied</Message></Error>", Some("AccessDenied: Denied"); "storage error")]
    #[test_case("text/html", "<html>proxy</html>", None; "a page")]
    #[test_case("application/json", r#"{"message": "a\nb"}"#, Some("a b"); "one line")]
    fn words_of_an_error(kind: &'static str, body: &'static str, wanted: Option<&str>) {
        let error = failure(&answer(409, &[("content-type", kind)], body));
        let text = match wanted {
            Some(words) => format!("POST https://gitlab.test/api/v4/x: 409 Conflict ({words})"),
            None => "POST https://gitlab.test/api/v4/x: 409 Conflict".to_owned(),
        };
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn a_redirect_names_the_place_without_its_secrets() {
        let error = failure(&answer(302, &[("location", "https://u:p@other.test/y?sig=s")], ""));
        assert_eq!(
            error.to_string(),
            "POST https://gitlab.test/api/v4/x: redirected to https://other.test/y; set `url` to the address that GitLab itself uses"
        );
    }

    #[test]
    fn registration_and_verification_follow_the_table() {
        let record = r#"{"id": 3, "token": "glrt-n", "token_expires_at": "2030-01-01T00:00:00.000Z"}"#;
        let runner = registered(&answer(201, &[], record)).unwrap();
        assert_eq!((runner.id, runner.token.expose()), (3, "glrt-n"));
        assert_eq!(runner.token_expires_at, Some("2030-01-01T00:00:00Z".parse().unwrap()));
        assert!(matches!(registered(&answer(403, &[], "")), Err(RunnerCallError::Forbidden(_))));
        assert!(matches!(registered(&answer(410, &[], "")), Err(RunnerCallError::Failed(_))));
        assert!(matches!(verified(&answer(200, &[], record)), Verification::Valid(r) if r.id == 3));
        assert!(matches!(verified(&answer(200, &[], "200")), Verification::Valid(r) if r.id == 0));
        assert!(matches!(verified(&answer(403, &[], "")), Verification::Invalid));
        assert!(matches!(verified(&answer(500, &[], "")), Verification::Unknown(_)));
        assert!(removed(&answer(204, &[], "")).is_ok());
        assert!(matches!(removed(&answer(403, &[], "")), Err(RunnerCallError::Forbidden(_))));
        assert!(matches!(removed(&answer(404, &[], "")), Err(RunnerCallError::Failed(_))));
    }

    #[test_case(r#"{"token": "t", "token_expires_at": null}"#; "null")]
    #[test_case(r#"{"token": "t"}"#; "missing")]
    #[test_case(r#"{"token": "t", "token_expires_at": "0001-01-01T00:00:00Z"}"#; "zero time")]
    fn tokens_without_end(body: &'static str) {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let token = reset(&answer(201, &[], body), now).unwrap();
        assert_eq!((token.expires_at, token.obtained_at), (None, now));
    }

    #[test]
    fn a_reset_without_a_token_is_a_failure() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        assert!(matches!(reset(&answer(201, &[], "{}"), now), Err(RunnerCallError::Failed(_))));
        assert!(matches!(reset(&answer(403, &[], "{}"), now), Err(RunnerCallError::Forbidden(_))));
    }

    #[test]
    fn a_router_is_found_or_not_there() {
        let found = discovered(&answer(200, &[], r#"{"server_url": "grpcs://kas.test"}"#)).unwrap();
        assert_eq!(found.as_deref(), Some("grpcs://kas.test"));
        assert_eq!(discovered(&answer(501, &[], "")).unwrap(), None);
        assert!(discovered(&answer(403, &[], "")).is_err());
    }
}
