//! Requests, built without sending them.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use job_payload::{ExposeSecret, SecretString};
use serde::Serialize;
use url::form_urlencoded;

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

/// `POST runners`. Only the network features are advertised, as GitLab Runner does here: pass an `info` without executor.
///
/// # Errors
/// [`ClientError::Token`], [`ClientError::Encode`]; the same holds for all functions here.
pub fn register(
    token: &SecretString,
    request: &RegisterRequest,
    info: &RunnerInfo,
) -> Result<ApiRequest, ClientError> {
    #[derive(Serialize)]
    struct Body<'a> {
        #[serde(flatten)]
        request: &'a RegisterRequest,
        info: &'a RunnerInfo,
        token: &'a str,
    }
    let request = RegisterRequest {
        run_untagged: request.run_untagged || request.tag_list.is_empty(),
        ..request.clone()
    };
    let body = Body { request: &request, info, token: token.expose_secret() };
    json(Endpoint::Register, (RUNNER_TOKEN, token), &body)
}

/// `POST runners/verify`. `info` is always sent: GitLab keeps a manager's features from its first call.
///
/// # Errors
/// See [`register`].
pub fn verify(token: &SecretString, system_id: &str, info: &RunnerInfo) -> Result<ApiRequest, ClientError> {
    #[derive(Serialize)]
    struct Body<'a> {
        info: &'a RunnerInfo,
        token: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        system_id: &'a str,
    }
    json(Endpoint::Verify, (RUNNER_TOKEN, token), &Body { info, token: token.expose_secret(), system_id })
}

/// `DELETE runners`
///
/// # Errors
/// See [`register`].
pub fn unregister_runner(token: &SecretString) -> Result<ApiRequest, ClientError> {
    #[derive(Serialize)]
    struct Body<'a> {
        token: &'a str,
    }
    let body = Body { token: token.expose_secret() };
    Ok(without_answer(json(Endpoint::UnregisterRunner, (RUNNER_TOKEN, token), &body)?))
}

/// `DELETE runners/managers`
///
/// # Errors
/// See [`register`].
pub fn unregister_manager(token: &SecretString, system_id: &str) -> Result<ApiRequest, ClientError> {
    #[derive(Serialize)]
    struct Body<'a> {
        token: &'a str,
        system_id: &'a str,
    }
    let body = Body { token: token.expose_secret(), system_id };
    Ok(without_answer(json(Endpoint::UnregisterManager, (RUNNER_TOKEN, token), &body)?))
}

/// `POST runners/reset_authentication_token`, authenticated by the token in the body alone.
///
/// # Errors
/// See [`register`].
pub fn reset_token(token: &SecretString) -> Result<ApiRequest, ClientError> {
    #[derive(Serialize)]
    struct Body<'a> {
        token: &'a str,
    }
    encode(Endpoint::ResetToken, HeaderMap::with_capacity(4), &Body { token: token.expose_secret() })
}

/// `POST runners/{id}/reset_authentication_token` with a personal access token; the body is the JSON text `null`.
///
/// # Errors
/// See [`register`].
pub fn reset_token_with_pat(runner: u64, pat: &SecretString) -> Result<ApiRequest, ClientError> {
    let mut request = json(Endpoint::ResetTokenWithPat, (PRIVATE_TOKEN, pat), &())?;
    request.path = format!("runners/{runner}/reset_authentication_token");
    Ok(request)
}

/// `GET runners/router/discovery`
///
/// # Errors
/// See [`register`].
pub fn discovery(token: &SecretString) -> Result<ApiRequest, ClientError> {
    let mut headers = HeaderMap::with_capacity(4);
    authenticate(&mut headers, RUNNER_TOKEN, token)?;
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    let endpoint = Endpoint::Discovery;
    Ok(ApiRequest { endpoint, path: endpoint.path().to_owned(), headers, body: Bytes::new() })
}

/// `POST jobs/request`. `last_update` is the queue cursor; it is sent only when the request asks for long polling.
///
/// # Errors
/// See [`register`].
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
/// See [`register`].
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
/// See [`register`].
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
/// See [`register`].
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
/// See [`register`].
pub fn artifact_download(job: &JobCredentials, direct: bool) -> Result<ApiRequest, ClientError> {
    let mut headers = HeaderMap::with_capacity(4);
    authenticate(&mut headers, JOB_TOKEN, &job.token)?;
    let query = if direct { "?direct_download=true" } else { "" };
    let path = format!("jobs/{}/artifacts{query}", job.id);
    Ok(ApiRequest { endpoint: Endpoint::DownloadArtifact, path, headers, body: Bytes::new() })
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
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{Features, InfoFields};

    fn info() -> Arc<RunnerInfo> {
        let fields =
            InfoFields { name: "drover".into(), features: Features::INSTANCE, ..InfoFields::default() };
        Arc::new(RunnerInfo::new(fields).unwrap())
    }

    fn job() -> JobCredentials {
        JobCredentials { id: 42, token: "glcbt-job".into() }
    }

    fn body(request: &ApiRequest) -> Value {
        serde_json::from_slice(&request.body).unwrap()
    }

    fn header<'r>(request: &'r ApiRequest, name: &str) -> Option<&'r str> {
        request.headers.get(name).map(|value| value.to_str().unwrap())
    }

    fn poll(long_poll: bool) -> JobRequest {
        JobRequest {
            token: "glrt-t".into(),
            system_id: "s_0123456789ab".into(),
            info: info(),
            session: None,
            long_poll,
        }
    }

    #[test]
    fn a_job_request_carries_the_token_twice() {
        let request = job_request(&poll(true), None).unwrap();
        assert_eq!((request.endpoint.method().as_str(), request.path.as_str()), ("POST", "jobs/request"));
        assert_eq!(header(&request, "runner-token"), Some("glrt-t"));
        assert_eq!(header(&request, "content-type"), Some("application/json"));
        assert_eq!(header(&request, "accept"), Some("application/json"));
        let body = body(&request);
        assert_eq!(body["token"], "glrt-t");
        assert_eq!(body["system_id"], "s_0123456789ab");
        assert_eq!(body["info"]["features"]["shared"], true);
        assert_eq!((body.get("last_update"), body.get("session")), (None, None));
    }

    #[test]
    fn the_cursor_is_echoed_only_for_long_polls() {
        assert_eq!(body(&job_request(&poll(true), Some("c1")).unwrap())["last_update"], "c1");
        assert_eq!(body(&job_request(&poll(false), Some("c1")).unwrap()).get("last_update"), None);
        assert_eq!(body(&job_request(&poll(true), Some("")).unwrap()).get("last_update"), None);
    }

    #[test]
    fn a_session_is_sent_but_never_printed() {
        let session = Session {
            url: "https://r:8093".into(),
            certificate: "PEM".into(),
            authorization: "s3cret".into(),
        };
        let request = JobRequest { session: Some(session), ..poll(true) };
        let sent = body(&job_request(&request, None).unwrap());
        assert_eq!(
            sent["session"],
            json!({"url": "https://r:8093", "certificate": "PEM", "authorization": "s3cret"})
        );
        assert!(!format!("{request:?}").contains("s3cret"));
    }

    #[test]
    fn a_final_update_says_everything() {
        let update = JobUpdate {
            state: JobState::Failed,
            failure_reason: Some("script_failure".into()),
            checksum: Some("crc32:0000abcd".into()),
            bytesize: Some(7),
            exit_code: Some(2),
            info: info(),
        };
        let request = job_update(&job(), &update).unwrap();
        assert_eq!((request.endpoint.method().as_str(), request.path.as_str()), ("PUT", "jobs/42"));
        assert_eq!((header(&request, "job-token"), header(&request, "accept")), (Some("glcbt-job"), None));
        let mut sent = body(&request);
        sent["info"].take();
        assert_eq!(
            sent,
            json!({"info": null, "token": "glcbt-job", "state": "failed", "failure_reason": "script_failure",
                   "checksum": "crc32:0000abcd", "output": {"checksum": "crc32:0000abcd", "bytesize": 7}, "exit_code": 2})
        );
    }

    #[test]
    fn what_says_nothing_is_left_out_but_output_stays() {
        let update = JobUpdate {
            state: JobState::Running,
            failure_reason: None,
            checksum: None,
            bytesize: Some(0),
            exit_code: Some(0),
            info: info(),
        };
        let mut sent = body(&job_update(&job(), &update).unwrap());
        sent["info"].take();
        assert_eq!(sent, json!({"info": null, "token": "glcbt-job", "state": "running", "output": {}}));
    }

    #[test]
    fn a_patch_names_its_first_and_last_byte_and_shares_its_bytes() {
        let bytes = Bytes::from_static(b"hello");
        let request = trace_patch(&job(), 10, bytes.clone(), true).unwrap();
        assert_eq!(request.path, "jobs/42/trace?debug_trace=true");
        assert_eq!(header(&request, "content-range"), Some("10-14"));
        assert_eq!(header(&request, "content-type"), Some("text/plain"));
        assert_eq!(request.body.as_ptr(), bytes.as_ptr());
    }

    #[test]
    fn registration_without_tags_takes_untagged_jobs() {
        let request = register(&"r".into(), &RegisterRequest::default(), &info()).unwrap();
        let mut sent = body(&request);
        sent["info"].take();
        assert_eq!(
            sent,
            json!({"run_untagged": true, "locked": false, "paused": false, "info": null, "token": "r"})
        );
        let tagged = RegisterRequest { tag_list: "a,b".into(), maximum_timeout: 60, ..Default::default() };
        let sent = body(&register(&"r".into(), &tagged, &info()).unwrap());
        assert_eq!(
            (&sent["run_untagged"], &sent["tag_list"], &sent["maximum_timeout"]),
            (&json!(false), &json!("a,b"), &json!(60))
        );
    }

    #[test]
    fn verification_always_carries_info() {
        let sent = body(&verify(&"glrt-t".into(), "s_1", &info()).unwrap());
        assert_eq!((&sent["info"]["name"], &sent["system_id"]), (&json!("drover"), &json!("s_1")));
    }

    #[test]
    fn tokens_are_reset_by_body_or_by_personal_access_token() {
        let own = reset_token(&"glrt-t".into()).unwrap();
        assert_eq!(own.body, r#"{"token":"glrt-t"}"#);
        assert_eq!((header(&own, "runner-token"), header(&own, "private-token")), (None, None));
        let pat = reset_token_with_pat(9, &"glpat-x".into()).unwrap();
        assert_eq!(
            (pat.path.as_str(), &pat.body[..]),
            ("runners/9/reset_authentication_token", &b"null"[..])
        );
        assert_eq!(header(&pat, "private-token"), Some("glpat-x"));
    }

    #[test]
    fn removal_expects_no_body() {
        let runner = unregister_runner(&"t".into()).unwrap();
        assert_eq!((runner.endpoint.method().as_str(), runner.path.as_str()), ("DELETE", "runners"));
        let manager = unregister_manager(&"t".into(), "s_1").unwrap();
        assert_eq!(body(&manager), json!({"token": "t", "system_id": "s_1"}));
        assert!(!runner.expects_json() && !manager.expects_json());
    }

    #[test]
    fn artifact_options_are_encoded_and_left_out_when_empty() {
        let upload = ArtifactUpload {
            file_name: "a.zip".into(),
            expire_in: "1 week".into(),
            format: "zip".into(),
            kind: String::new(),
        };
        let request = artifact_upload(&job(), &upload, "b0").unwrap();
        assert_eq!(request.path, "jobs/42/artifacts?artifact_format=zip&expire_in=1+week");
        assert_eq!(header(&request, "content-type"), Some("multipart/form-data; boundary=b0"));
        let plain = artifact_upload(&job(), &ArtifactUpload::default(), "b0").unwrap();
        assert_eq!(plain.path, "jobs/42/artifacts");
        assert_eq!(artifact_download(&job(), true).unwrap().path, "jobs/42/artifacts?direct_download=true");
    }

    #[test]
    fn tokens_are_never_sent_empty_and_never_printed() {
        let request = job_request(&JobRequest { token: "".into(), ..poll(true) }, None).unwrap();
        assert_eq!(header(&request, "runner-token"), None);
        let request = unregister_runner(&"sesame".into()).unwrap();
        assert!(!format!("{:?}", request.headers).contains("sesame"));
    }

    #[test]
    fn a_token_that_http_cannot_carry_is_a_client_error() {
        let error = unregister_runner(&"a\nb".into()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the token for the header RUNNER-TOKEN contains characters that HTTP does not allow"
        );
    }
}
