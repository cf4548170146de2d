//! Every call: faults first, then the handler of the endpoint.

mod artifacts;
mod body_check;
mod git;
mod jobs;
mod request;
mod runners;

pub use self::body_check::FEATURES;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::Utc;
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::Value;
use tokio::time::Instant;

use crate::admin;
use crate::body::{self, Body, ReadError, Reply, refusal};
use crate::core::Core;
use crate::endpoint::{Endpoint, Route};
use crate::fault::{FaultAction, duration};
use crate::job::JobRecord;
use crate::server::{Cut, Role};
use crate::storage;
use crate::violation::Rule;

/// JSON bodies above this are refused, as Workhorse does for job requests.
const MAX_JSON: usize = 32 << 10;

/// A call on its way through the handlers.
pub(crate) struct Call<'a> {
    pub(crate) core: &'a Arc<Core>,
    pub(crate) endpoint: Endpoint,
    /// Job id, or runner id for a token reset.
    pub(crate) id: Option<u64>,
    pub(crate) head: http::request::Parts,
    pub(crate) body: Incoming,
}

/// Notes that the answer to a call about a job was lost, unless it is disarmed.
struct AnswerLost<'a>(Option<&'a Arc<JobRecord>>);

/// Serves one request.
pub(crate) async fn handle(
    core: Arc<Core>,
    role: Role,
    request: Request<Incoming>,
) -> Result<Response<Body>, Cut> {
    answer(core, role, request).await.map(|reply| *reply)
}

async fn answer(core: Arc<Core>, role: Role, request: Request<Incoming>) -> Result<Reply, Cut> {
    let route = match role {
        Role::Gitlab => Route::of(request.method(), request.uri().path()),
        Role::Storage => Route { endpoint: Endpoint::Storage, id: None },
    };
    let endpoint = route.endpoint;
    core.count(endpoint);
    let job_id = route.id.filter(|_| endpoint != Endpoint::ResetToken);
    let fault = core.faults.befall(endpoint, job_id, Instant::now());
    let job = fault.as_ref().and(job_id).and_then(|id| core.job(id));
    match fault {
        None => Ok(dispatch(&core, route, request).await),
        Some(FaultAction::Status { code, retry_after, rate_limit_reset }) => {
            body::drain(request.into_body()).await;
            Ok(proxy_answer(code, retry_after, rate_limit_reset))
        }
        Some(FaultAction::Delay { seconds }) => {
            tokio::time::sleep(duration(seconds)).await;
            Ok(dispatch(&core, route, request).await)
        }
        Some(FaultAction::SlowAnswer { seconds }) => {
            let reply = dispatch(&core, route, request).await;
            let mut lost = AnswerLost(job.as_ref());
            tokio::time::sleep(duration(seconds)).await;
            lost.0 = None;
            Ok(reply)
        }
        Some(FaultAction::Reset) => Err(Cut::Reset),
        Some(FaultAction::LoseAnswer) => {
            let lost = AnswerLost(job.as_ref());
            dispatch(&core, route, request).await;
            drop(lost);
            Err(Cut::Close)
        }
    }
}

async fn dispatch(core: &Arc<Core>, route: Route, request: Request<Incoming>) -> Reply {
    let (head, body) = request.into_parts();
    let call = Call { core, endpoint: route.endpoint, id: route.id, head, body };
    match route.endpoint {
        Endpoint::Register => runners::register(call).await,
        Endpoint::Verify => runners::verify(call).await,
        Endpoint::Unregister => runners::unregister(call).await,
        Endpoint::UnregisterManager => runners::unregister_manager(call).await,
        Endpoint::ResetToken if call.id.is_some() => runners::reset_token_by_id(call).await,
        Endpoint::ResetToken => runners::reset_token(call).await,
        Endpoint::Discovery => runners::discovery(&call),
        Endpoint::RequestJob => request::request_job(call).await,
        Endpoint::UpdateJob => jobs::update(call).await,
        Endpoint::PatchTrace => jobs::patch_trace(call).await,
        Endpoint::UploadArtifact => artifacts::upload(call).await,
        Endpoint::DownloadArtifact => artifacts::download(&call),
        Endpoint::Git => git::serve(call).await,
        Endpoint::Storage => storage::serve(&call),
        Endpoint::Admin => admin::serve(call).await,
        Endpoint::Unknown => {
            let what = format!("{} {}", call.head.method, call.head.uri.path());
            call.refuse(StatusCode::NOT_FOUND, Rule::UnknownRoute, &what)
        }
    }
}

/// What a proxy in front of GitLab answers.
fn proxy_answer(code: u16, retry_after: Option<u64>, rate_limit_reset: Option<u64>) -> Reply {
    let status = StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut reply = body::text(status, status.canonical_reason().unwrap_or("fault"));
    if let Some(seconds) = retry_after {
        reply = body::with_header(reply, "retry-after", &seconds.to_string());
    }
    if let Some(seconds) = rate_limit_reset {
        let at = Utc::now() + Duration::from_secs(seconds);
        let text = at.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        reply = body::with_header(reply, "ratelimit-resettime", &text);
    }
    reply
}

// === impl Call ===

impl Call<'_> {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head.headers, name)
    }

    /// Records a breach that does not keep the call from being served.
    pub(crate) fn note(&self, rule: Rule, detail: &str) {
        self.core.violation(rule, self.endpoint, self.job_id(), None, detail);
    }

    /// Records a breach and refuses the call.
    pub(crate) fn refuse(&self, status: StatusCode, rule: Rule, detail: &str) -> Reply {
        self.core.violation(rule, self.endpoint, self.job_id(), Some(status), detail);
        refusal(status, detail)
    }

    pub(crate) fn job_id(&self) -> Option<u64> {
        self.id.filter(|_| self.endpoint != Endpoint::ResetToken)
    }

    /// A query parameter, percent-decoded.
    pub(crate) fn query(&self, name: &str) -> Option<String> {
        url::form_urlencoded::parse(self.head.uri.query().unwrap_or("").as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }

    /// Headers that every call of a runner carries.
    pub(crate) fn check_common_headers(&self) {
        if self.header("user-agent").is_none_or(str::is_empty) {
            self.note(Rule::MissingHeader, "no `User-Agent`");
        }
        let hex = |id: &str| id.len() == 32 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match self.header("x-request-id") {
            None => self.note(Rule::MissingHeader, "no `X-Request-Id`"),
            Some(id) if !hex(id) => {
                self.note(Rule::BadHeader, &format!("`X-Request-Id: {id}` is not 32 lower-case hex digits"));
            }
            Some(_) => {}
        }
    }

    /// Calls that expect JSON say so.
    pub(crate) fn check_accepts_json(&self) {
        if self.header("accept") != Some("application/json") {
            self.note(Rule::BadHeader, "no `Accept: application/json` on a call that expects JSON");
        }
    }

    /// Reads the body as JSON, or refuses the call.
    pub(crate) async fn json(self) -> Result<(JsonCall, Value), Reply> {
        let content_type = self.header("content-type").unwrap_or("").to_owned();
        if content_type.split(';').next().map(str::trim) != Some("application/json") {
            let detail = format!("`Content-Type` is `{content_type}`, not `application/json`");
            return Err(self.refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, Rule::BadHeader, &detail));
        }
        let call =
            JsonCall { core: Arc::clone(self.core), endpoint: self.endpoint, id: self.id, head: self.head };
        let bytes: Bytes = match body::read(self.body, MAX_JSON).await {
            Ok(bytes) => bytes,
            Err(ReadError::TooLarge) => {
                return Err(call.refuse(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    Rule::MalformedBody,
                    "the JSON body is too long",
                ));
            }
            Err(ReadError::Broken(error)) => return Err(refusal(StatusCode::BAD_REQUEST, &error)),
        };
        match serde_json::from_slice(&bytes) {
            Ok(value) => Ok((call, value)),
            Err(error) => {
                let detail = format!("the body is not JSON: {error}");
                Err(call.refuse(StatusCode::BAD_REQUEST, Rule::MalformedBody, &detail))
            }
        }
    }
}

/// A call whose body was read.
pub(crate) struct JsonCall {
    pub(crate) core: Arc<Core>,
    endpoint: Endpoint,
    pub(crate) id: Option<u64>,
    pub(crate) head: http::request::Parts,
}

// === impl JsonCall ===

impl JsonCall {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head.headers, name)
    }

    pub(crate) fn note(&self, rule: Rule, detail: &str) {
        self.core.violation(rule, self.endpoint, self.job_id(), None, detail);
    }

    pub(crate) fn refuse(&self, status: StatusCode, rule: Rule, detail: &str) -> Reply {
        self.core.violation(rule, self.endpoint, self.job_id(), Some(status), detail);
        refusal(status, detail)
    }

    fn job_id(&self) -> Option<u64> {
        self.id.filter(|_| self.endpoint != Endpoint::ResetToken)
    }

    /// Records what was found wrong with a body; refuses the call when something essential is.
    pub(crate) fn settle(&self, findings: Vec<body_check::Finding>) -> Result<(), Reply> {
        let mut refused = None;
        for finding in findings {
            if finding.fatal {
                let reply = self.refuse(StatusCode::BAD_REQUEST, finding.rule, &finding.detail);
                refused.get_or_insert(reply);
            } else {
                self.note(finding.rule, &finding.detail);
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// The token of the body, which must be that of the header.
    pub(crate) fn token<'v>(&self, header: &'static str, body: &'v Value) -> Result<&'v str, Reply> {
        let Some(token) = body.get("token").and_then(Value::as_str).filter(|token| !token.is_empty()) else {
            return Err(self.refuse(StatusCode::BAD_REQUEST, Rule::MissingField, "token is missing"));
        };
        match self.header(header) {
            Some(sent) if sent == token => Ok(token),
            Some(_) => {
                let detail = format!("header `{header}` and the body carry different tokens");
                Err(self.refuse(StatusCode::FORBIDDEN, Rule::TokenMismatch, &detail))
            }
            None => {
                self.note(Rule::MissingHeader, &format!("no `{header}`"));
                Ok(token)
            }
        }
    }
}

// === impl AnswerLost ===

impl Drop for AnswerLost<'_> {
    fn drop(&mut self) {
        if let Some(job) = self.0 {
            job.update(|inner, _| inner.excuses += 1);
        }
    }
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
