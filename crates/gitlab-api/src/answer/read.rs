//! What an answer means, by its status and headers.

use std::time::Duration;

use chrono::{DateTime, Utc};
use http::{HeaderMap, StatusCode};
use job_payload::{Job, Token};
use serde::Deserialize;

use super::{
    Answer, JobRequestOutcome, NewToken, PatchOutcome, PatchReply, Payload, ReceivedJob, RemoteState,
    RunnerCallError, RunnerRecord, UpdateOutcome, UpdateReply, Verification, message,
};
use crate::{ApiError, TlsMaterial};

/// The longest update interval that is taken from a server (GitLab Runner's cap).
const MAX_INTERVAL: Duration = Duration::from_secs(15 * 60);

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

// === helpers ===

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
