//! The client.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use chrono::Utc;
use http::StatusCode;
use job_payload::SecretString;

use crate::answer::{self, Answer, PatchOutcome, PatchReply, RemoteState, UpdateOutcome, UpdateReply};
use crate::request::{self, ApiRequest, JobCredentials, JobRequest, JobUpdate, RegisterRequest};
use crate::transport::{Exchange, Outgoing, Transport};
use crate::{
    ApiError, BaseUrl, ClientError, JobRequestOutcome, JobRequestReply, NewToken, Observer, RetryPolicy,
    RunnerCallError, RunnerInfo, RunnerRecord, Timeouts, TlsFiles, TlsMaterial, Verification,
};

/// How to reach one GitLab.
#[derive(Clone)]
pub struct ClientOptions {
    /// Address of GitLab, as in the `url` of a runner.
    pub url: String,
    /// Certificates.
    pub tls: TlsFiles,
    /// `User-Agent`; see [`user_agent`](crate::user_agent).
    pub user_agent: String,
    /// Idle connections are closed at least this often, so that changes behind a load balancer take effect; 15 minutes by default, zero
    /// for never.
    pub connection_max_age: Duration,
    /// The retry layer under every call.
    pub retry: RetryPolicy,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// Is told about every call.
    pub observer: Option<Arc<dyn Observer>>,
}

/// Speaks to one GitLab for one runner. Cheap to clone; clones share connections and the queue cursor, so each runner (each
/// token) has its own client.
///
/// Every call ends when its future is dropped. Nothing is sent after that.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    base: BaseUrl,
    transport: Transport,
    /// The queue cursor: the last `X-GitLab-Last-Update`.
    last_update: Mutex<Option<Arc<str>>>,
}

// === impl ClientOptions ===

impl ClientOptions {
    /// Options with their defaults.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            tls: TlsFiles::default(),
            user_agent: concat!("drover ", env!("CARGO_PKG_VERSION")).to_owned(),
            connection_max_age: Duration::from_secs(15 * 60),
            retry: RetryPolicy::default(),
            timeouts: Timeouts::default(),
            observer: None,
        }
    }
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL may hold a password.
        f.debug_struct("ClientOptions")
            .field("tls", &self.tls)
            .field("user_agent", &self.user_agent)
            .field("connection_max_age", &self.connection_max_age)
            .field("retry", &self.retry)
            .field("timeouts", &self.timeouts)
            .finish_non_exhaustive()
    }
}

// === impl Client ===

impl Client {
    /// Reads the certificate files and prepares connections; nothing is sent.
    ///
    /// # Errors
    /// [`ClientError`]: a bad address, or a client certificate that cannot be used.
    pub fn new(options: ClientOptions) -> Result<Self, ClientError> {
        let base = BaseUrl::parse(&options.url)?;
        let transport = Transport::new(options, base.host())?;
        Ok(Self(Arc::new(Inner { base, transport, last_update: Mutex::new(None) })))
    }

    /// Where GitLab's API is.
    #[must_use]
    pub fn base_url(&self) -> &BaseUrl {
        &self.0.base
    }

    /// What a job needs to trust GitLab, as of the last connection.
    #[must_use]
    pub fn tls_material(&self) -> TlsMaterial {
        self.0.transport.tls().material()
    }

    /// Registers a runner with a registration token (deprecated by GitLab). `info` should say no executor and no
    /// features but [`Features::NETWORK`](crate::Features::NETWORK), as GitLab Runner does.
    ///
    /// # Errors
    /// [`RunnerCallError`].
    pub async fn register(
        &self,
        registration_token: &SecretString,
        runner: &RegisterRequest,
        info: &RunnerInfo,
    ) -> Result<RunnerRecord, RunnerCallError> {
        let exchange = self.call(request::register(registration_token, runner, info)).await;
        answer::registered(&exchange.result.map_err(RunnerCallError::Failed)?)
    }

    /// Asks whether a token is good. For `glrt-` tokens this is also what registers a manager, and how GitLab learns its
    /// features.
    pub async fn verify(&self, token: &SecretString, system_id: &str, info: &RunnerInfo) -> Verification {
        match self.call(request::verify(token, system_id, info)).await.result {
            Ok(answer) => answer::verified(&answer),
            Err(error) => Verification::Unknown(error),
        }
    }

    /// Removes a runner of the old kind.
    ///
    /// # Errors
    /// [`RunnerCallError`].
    pub async fn unregister_runner(&self, token: &SecretString) -> Result<(), RunnerCallError> {
        let exchange = self.call(request::unregister_runner(token)).await;
        answer::removed(&exchange.result.map_err(RunnerCallError::Failed)?)
    }

    /// Removes this manager of a runner that was created in GitLab; the runner stays.
    ///
    /// # Errors
    /// [`RunnerCallError`].
    pub async fn unregister_manager(
        &self,
        token: &SecretString,
        system_id: &str,
    ) -> Result<(), RunnerCallError> {
        let exchange = self.call(request::unregister_manager(token, system_id)).await;
        answer::removed(&exchange.result.map_err(RunnerCallError::Failed)?)
    }

    /// Replaces the runner's token, authenticated by the current one, which ends with this.
    ///
    /// # Errors
    /// [`RunnerCallError`].
    pub async fn reset_token(&self, token: &SecretString) -> Result<NewToken, RunnerCallError> {
        let exchange = self.call(request::reset_token(token)).await;
        answer::reset(&exchange.result.map_err(RunnerCallError::Failed)?, Utc::now())
    }

    /// Replaces the token of the runner with this id, authenticated by a personal access token.
    ///
    /// # Errors
    /// [`RunnerCallError`].
    pub async fn reset_token_with_pat(
        &self,
        runner: u64,
        pat: &SecretString,
    ) -> Result<NewToken, RunnerCallError> {
        let exchange = self.call(request::reset_token_with_pat(runner, pat)).await;
        answer::reset(&exchange.result.map_err(RunnerCallError::Failed)?, Utc::now())
    }

    /// Where GitLab's job router is; `None` when it has none.
    ///
    /// # Errors
    /// [`ApiError`], which also means "no router" to most callers.
    pub async fn discover_router(&self, token: &SecretString) -> Result<Option<String>, ApiError> {
        answer::discovered(&self.call(request::discovery(token)).await.result?)
    }

    /// Asks for a job. A long poll may take about a minute; dropping the future ends it.
    pub async fn request_job(&self, wanted: &JobRequest) -> JobRequestReply {
        let cursor = wanted.long_poll.then(|| self.last_update()).flatten();
        let exchange = self.call(request::job_request(wanted, cursor.as_deref())).await;
        let Exchange { result, retried, correlation_id } = exchange;
        let ask_again = wanted.long_poll
            && result.as_ref().is_ok_and(|answer| answer.status == StatusCode::NO_CONTENT)
            && match result.as_ref().ok().and_then(cursor_of) {
                Some(new) => cursor.as_deref() != Some(new),
                None => cursor.is_some(),
            };
        let outcome = match result {
            Ok(answer) => answer::job(answer, &correlation_id, || self.tls_material()),
            Err(error) => JobRequestOutcome::Failed(error),
        };
        JobRequestReply { outcome, retried, ask_again, correlation_id }
    }

    /// Reports the state of a job.
    pub async fn update_job(&self, job: &JobCredentials, update: &JobUpdate) -> UpdateReply {
        let exchange = self.call(request::job_update(job, update)).await;
        let reply = match exchange.result {
            Ok(answer) => answer::update(&answer),
            Err(error) => {
                // Also for a request that cannot be formed, where GitLab Runner gives the job up: certificate files are
                // read again before a call, and what cannot be read now may be readable soon.
                UpdateReply {
                    outcome: UpdateOutcome::Failed(error),
                    remote: RemoteState::Absent,
                    interval: None,
                }
            }
        };
        let correlation_id = exchange.correlation_id;
        match &reply.outcome {
            UpdateOutcome::Failed(error) => {
                tracing::warn!(job = job.id, state = ?update.state, correlation_id, error = error.report(), "failed to report the job");
            }
            // GitLab repeats what it has just been told.
            UpdateOutcome::Abort
                if update.state == request::JobState::Failed && reply.remote == RemoteState::Failed =>
            {
                tracing::debug!(job = job.id, state = ?update.state, correlation_id, "reported the job");
            }
            UpdateOutcome::Abort | UpdateOutcome::NotFound | UpdateOutcome::TraceMismatch => {
                tracing::warn!(job = job.id, state = ?update.state, correlation_id, outcome = ?reply.outcome, "reporting the job");
            }
            UpdateOutcome::Done | UpdateOutcome::NotYet => {
                tracing::debug!(job = job.id, state = ?update.state, correlation_id, outcome = ?reply.outcome, "reporting the job");
            }
        }
        reply
    }

    /// Sends bytes of the job's log that begin at `offset`. Nothing is sent for no bytes.
    pub async fn patch_trace(
        &self,
        job: &JobCredentials,
        offset: u64,
        bytes: Bytes,
        debug_trace: bool,
    ) -> PatchReply {
        let end = offset + bytes.len() as u64;
        if bytes.is_empty() {
            let outcome = PatchOutcome::Accepted { end };
            return PatchReply { outcome, remote: RemoteState::Absent, interval: None };
        }
        let exchange = self.call(request::trace_patch(job, offset, bytes, debug_trace)).await;
        let reply = match exchange.result {
            Ok(answer) => answer::patch(&answer, end),
            Err(error) => PatchReply {
                outcome: PatchOutcome::Failed(error),
                remote: RemoteState::Absent,
                interval: None,
            },
        };
        let correlation_id = exchange.correlation_id;
        match &reply.outcome {
            PatchOutcome::Failed(error) => {
                tracing::warn!(
                    job = job.id,
                    offset,
                    end,
                    correlation_id,
                    error = error.report(),
                    "failed to send the job log"
                );
            }
            PatchOutcome::Abort | PatchOutcome::NotFound | PatchOutcome::RangeMismatch { .. } => {
                tracing::warn!(job = job.id, offset, end, correlation_id, outcome = ?reply.outcome, "sending the job log");
            }
            PatchOutcome::Accepted { .. } => {
                tracing::debug!(job = job.id, offset, end, correlation_id, "sent a piece of the job log");
            }
        }
        reply
    }

    pub(crate) fn transport(&self) -> &Transport {
        &self.0.transport
    }

    /// Sends a request that was formed, and reads the whole answer.
    async fn call(&self, request: Result<ApiRequest, ClientError>) -> Exchange<Answer> {
        let formed = request.and_then(|request| Ok((self.0.base.join(&request.path)?, request)));
        let (url, request) = match formed {
            Ok(formed) => formed,
            Err(error) => {
                return Exchange { result: Err(error.into()), retried: false, correlation_id: String::new() };
            }
        };
        let body = Outgoing::Bytes(request.body.clone());
        let timeouts = self.0.transport.options().timeouts;
        let exchange = self.0.transport.exchange(url, &request, body, timeouts).await;
        if request.expects_json()
            && let Ok(answer) = &exchange.result
        {
            self.remember_cursor(answer);
        }
        exchange
    }

    fn last_update(&self) -> Option<Arc<str>> {
        self.0.last_update.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps the queue cursor of any successful JSON exchange that brings one.
    fn remember_cursor(&self, answer: &Answer) {
        if let Some(cursor) = cursor_of(answer).filter(|_| answer.status.is_success()) {
            let mut kept = self.0.last_update.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.as_deref() != Some(cursor) {
                *kept = Some(cursor.into());
            }
        }
    }
}

fn cursor_of(answer: &Answer) -> Option<&str> {
    let cursor = answer.headers.get("x-gitlab-last-update").and_then(|value| value.to_str().ok());
    cursor.filter(|cursor| !cursor.is_empty())
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("base", &self.0.base.as_url().as_str()).finish_non_exhaustive()
    }
}
