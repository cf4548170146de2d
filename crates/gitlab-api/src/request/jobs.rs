//! Calls about jobs: one is asked for, its state, log and artifacts.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use job_payload::ExposeSecret as _;
use serde::Serialize;
use url::form_urlencoded;

use super::{
    ApiRequest, ArtifactUpload, CONTENT_RANGE, JOB_TOKEN, JobCredentials, JobRequest, JobState, JobUpdate,
    RUNNER_TOKEN, Session, authenticate, json, without_answer,
};
use crate::{ClientError, Endpoint, RunnerInfo};

/// `POST jobs/request`. `last_update` is the queue cursor; it is sent only when the request asks for long polling.
///
/// # Errors
/// See [`register`](super::register).
pub fn job_request(request: &JobRequest, last_update: Option<&str>) -> Result<ApiRequest, ClientError> {
    #[derive(Serialize)]
    struct Body<'a> {
        info: &'a RunnerInfo,
        token: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        system_id: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        last_update: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        session: Option<&'a Session>,
    }
    let body = Body {
        info: &request.info,
        token: request.token.expose_secret(),
        system_id: &request.system_id,
        last_update: last_update.filter(|cursor| request.long_poll && !cursor.is_empty()),
        session: request.session.as_ref(),
    };
    json(Endpoint::RequestJob, (RUNNER_TOKEN, &request.token), &body)
}

/// `PUT jobs/{id}`
///
/// # Errors
/// See [`register`](super::register).
pub fn job_update(job: &JobCredentials, update: &JobUpdate) -> Result<ApiRequest, ClientError> {
    #[derive(Serialize)]
    struct Output<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        checksum: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        bytesize: Option<u64>,
    }
    #[derive(Serialize)]
    struct Body<'a> {
        info: &'a RunnerInfo,
        token: &'a str,
        state: JobState,
        #[serde(skip_serializing_if = "Option::is_none")]
        failure_reason: Option<&'a str>,
        /// Deprecated copy of `output.checksum`, still read by older servers.
        #[serde(skip_serializing_if = "Option::is_none")]
        checksum: Option<&'a str>,
        output: Output<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        exit_code: Option<i32>,
    }
    let checksum = update.checksum.as_deref().filter(|text| !text.is_empty());
    let body = Body {
        info: &update.info,
        token: job.token.expose_secret(),
        state: update.state,
        failure_reason: update.failure_reason.as_deref().filter(|text| !text.is_empty()),
        checksum,
        output: Output { checksum, bytesize: update.bytesize.filter(|size| *size > 0) },
        exit_code: update.exit_code.filter(|code| *code != 0),
    };
    let mut request = without_answer(json(Endpoint::UpdateJob, (JOB_TOKEN, &job.token), &body)?);
    request.path = format!("jobs/{}", job.id);
    Ok(request)
}

/// `PATCH jobs/{id}/trace`. `bytes` begin at `offset` of the log and are not empty: the range names its last byte.
///
/// # Errors
/// See [`register`](super::register).
pub fn trace_patch(
    job: &JobCredentials,
    offset: u64,
    bytes: Bytes,
    debug_trace: bool,
) -> Result<ApiRequest, ClientError> {
    let last = (offset + bytes.len() as u64).saturating_sub(1);
    let mut headers = HeaderMap::with_capacity(6);
    authenticate(&mut headers, JOB_TOKEN, &job.token)?;
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    if let Ok(range) = HeaderValue::try_from(format!("{offset}-{last}")) {
        headers.insert(CONTENT_RANGE, range);
    }
    let path = format!("jobs/{}/trace?debug_trace={debug_trace}", job.id);
    Ok(ApiRequest { endpoint: Endpoint::PatchTrace, path, headers, body: bytes })
}

/// `POST jobs/{id}/artifacts`, without its body, which is streamed. `boundary` separates the parts of the body.
///
/// # Errors
/// See [`register`](super::register).
pub fn artifact_upload(
    job: &JobCredentials,
    upload: &ArtifactUpload,
    boundary: &str,
) -> Result<ApiRequest, ClientError> {
    let mut headers = HeaderMap::with_capacity(6);
    authenticate(&mut headers, JOB_TOKEN, &job.token)?;
    if let Ok(kind) = HeaderValue::try_from(format!("multipart/form-data; boundary={boundary}")) {
        headers.insert(CONTENT_TYPE, kind);
    }
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    let mut query = form_urlencoded::Serializer::new(String::new());
    let options = [
        ("artifact_format", &upload.format),
        ("artifact_type", &upload.kind),
        ("expire_in", &upload.expire_in),
    ];
    for (name, value) in options {
        if !value.is_empty() {
            query.append_pair(name, value);
        }
    }
    let query = query.finish();
    let mark = if query.is_empty() { "" } else { "?" };
    let path = format!("jobs/{}/artifacts{mark}{query}", job.id);
    Ok(ApiRequest { endpoint: Endpoint::UploadArtifact, path, headers, body: Bytes::new() })
}

/// `GET jobs/{id}/artifacts`. `job` is the job that made the artifacts. With `direct`, GitLab may answer with a redirect to its storage.
///
/// # Errors
/// See [`register`](super::register).
pub fn artifact_download(job: &JobCredentials, direct: bool) -> Result<ApiRequest, ClientError> {
    let mut headers = HeaderMap::with_capacity(4);
    authenticate(&mut headers, JOB_TOKEN, &job.token)?;
    let query = if direct { "?direct_download=true" } else { "" };
    let path = format!("jobs/{}/artifacts{query}", job.id);
    Ok(ApiRequest { endpoint: Endpoint::DownloadArtifact, path, headers, body: Bytes::new() })
}
