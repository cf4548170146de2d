//! Sends requests: connections, certificates, retries, deadlines.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use chrono::Utc;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::sync::Notify;
use url::Url;
use uuid::Uuid;

use crate::answer::Answer;
use crate::error::Call;
use crate::observe::Ended;
use crate::request::ApiRequest;
use crate::retry::Next;
use crate::tls::{Stamp, TlsSetup, certificate_error};
use crate::{ApiError, ClientError, ClientOptions};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Idle connections that are kept: a third of what GitLab Runner keeps, because calls are short and each costs some 35 KiB.
const POOL_SIZE: usize = 32;
/// How long they are kept (GitLab Runner's number).
const POOL_IDLE: Duration = Duration::from_secs(90);
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// No job and no error page is larger; what is, is no answer of GitLab.
const MAX_BODY: usize = 64 << 20;
/// How much of an unwanted body is read so that its connection can be used again.
const MAX_DRAIN: usize = 1 << 20;

/// How long to wait for what. The defaults are GitLab Runner's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Name lookup, TCP connection and TLS handshake together.
    pub connect: Duration,
    /// From the request's last byte to the head of the answer. Longer than a long poll is held (50 s).
    pub response_headers: Duration,
    /// The whole exchange of one attempt.
    pub total: Duration,
}

/// The connections of one client.
pub(crate) struct Transport {
    options: ClientOptions,
    host: String,
    state: Mutex<State>,
}

struct State {
    client: reqwest::Client,
    tls: Arc<TlsSetup>,
    stamp: Stamp,
    swept: Instant,
}

/// Where the body of a request comes from. It may be needed once per attempt.
pub(crate) enum Outgoing<'a> {
    /// Known bytes, shared with every attempt.
    Bytes(Bytes),
    /// Made for each attempt; tells by the `Notify` that its last byte has been taken.
    Stream(&'a mut (dyn FnMut(Arc<Notify>) -> reqwest::Body + Send)),
}

/// The head of an answer.
pub(crate) struct Head {
    pub(crate) call: Call,
    pub(crate) response: reqwest::Response,
}

/// The end of a call.
pub(crate) struct Exchange<T> {
    pub(crate) result: Result<T, ApiError>,
    /// An attempt was answered with a retriable status.
    pub(crate) retried: bool,
    /// GitLab's id of the last attempt, or ours.
    pub(crate) correlation_id: String,
}

// === impl Timeouts ===

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(30),
            response_headers: Duration::from_secs(10 * 60),
            total: Duration::from_secs(60 * 60),
        }
    }
}

// === impl Transport ===

impl Transport {
    pub(crate) fn new(options: ClientOptions, host: &str) -> Result<Self, ClientError> {
        let stamp = options.tls.stamp();
        let tls = Arc::new(TlsSetup::load(&options.tls, host)?);
        let client = connect(&options, &tls, host)?;
        let state = Mutex::new(State { client, tls, stamp, swept: Instant::now() });
        Ok(Self { options, host: host.to_owned(), state })
    }

    pub(crate) fn tls(&self) -> Arc<TlsSetup> {
        Arc::clone(&self.state.lock().unwrap_or_else(PoisonError::into_inner).tls)
    }

    pub(crate) fn options(&self) -> &ClientOptions {
        &self.options
    }

    /// The client for the next attempt. A changed certificate file gives a new one with the new files (on trouble the old one
    /// goes on, with a warning); `connection_max_age` gives a new one with the same files, which closes the idle connections of
    /// the old one and leaves those in use alone.
    fn client(&self) -> reqwest::Client {
        let stamp = (!self.options.tls.is_empty()).then(|| self.options.tls.stamp());
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stamp) = stamp.filter(|stamp| *stamp != state.stamp) {
            let fresh = TlsSetup::load(&self.options.tls, &self.host)
                .and_then(|tls| connect(&self.options, &tls, &self.host).map(|client| (client, tls)));
            match fresh {
                Ok((client, tls)) => {
                    tracing::info!(
                        host = self.host,
                        "certificate files have changed and are used from now on"
                    );
                    state.client = client;
                    state.tls = Arc::new(tls);
                    state.swept = Instant::now();
                }
                Err(error) => {
                    tracing::warn!(host = self.host, error = %ApiError::from(error).report(),
                        "changed certificate files cannot be used; the earlier ones stay in use");
                }
            }
            state.stamp = stamp;
        }
        let max_age = self.options.connection_max_age;
        if !max_age.is_zero() && state.swept.elapsed() > max_age {
            state.swept = Instant::now();
            match connect(&self.options, &state.tls, &self.host) {
                Ok(client) => state.client = client,
                Err(error) => tracing::warn!(%error, "failed to replace old connections"),
            }
        }
        state.client.clone()
    }

    /// Sends a request, repeating it as the retry policy says, and reads the head of the answer.
    pub(crate) async fn send(
        &self,
        url: Url,
        request: &ApiRequest,
        mut body: Outgoing<'_>,
        timeouts: Timeouts,
    ) -> Exchange<Head> {
        let started = Instant::now();
        let mut attempts = self.options.retry.start();
        let mut correlation_id;
        let mut status = None;
        let result = loop {
            let id = Uuid::new_v4().simple().to_string();
            let answered = self.attempt(&url, request, &mut body, timeouts, &id).await;
            correlation_id = id;
            let head = match answered {
                Ok(head) => head,
                Err(error) => {
                    attempts.unanswered();
                    break Err(error);
                }
            };
            let code = head.response.status();
            status = Some(code);
            if let Some(theirs) = head.response.headers().get(&REQUEST_ID).and_then(|id| id.to_str().ok())
                && !theirs.is_empty()
            {
                theirs.clone_into(&mut correlation_id);
            }
            let next = attempts.answered(code, head.response.headers(), Utc::now(), rand::random());
            if crate::retry::is_retriable(code)
                && let Some(observer) = &self.options.observer
            {
                observer.retriable(request.endpoint, code);
            }
            match next {
                Next::Take => break Ok(head),
                Next::Wait(wait) => {
                    tracing::debug!(call = %head.call, status = code.as_u16(), correlation_id,
                        wait_ms = wait.as_millis(), "repeating a request");
                    drain(head.response).await;
                    tokio::time::sleep(wait).await;
                }
            }
        };
        if let Some(observer) = &self.options.observer {
            observer.ended(&Ended {
                endpoint: request.endpoint,
                status,
                duration: started.elapsed(),
                attempts: attempts.made(),
                retried: attempts.saw_retriable(),
            });
        }
        Exchange { result, retried: attempts.saw_retriable(), correlation_id }
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn exchange(
        &self,
        url: Url,
        request: &ApiRequest,
        body: Outgoing<'_>,
        timeouts: Timeouts,
    ) -> Exchange<Answer> {
        let Exchange { result, retried, correlation_id } = self.send(url, request, body, timeouts).await;
        let result = match result {
            Ok(head) => read(head, request.expects_json()).await,
            Err(error) => Err(error),
        };
        Exchange { result, retried, correlation_id }
    }

    async fn attempt(
        &self,
        url: &Url,
        request: &ApiRequest,
        body: &mut Outgoing<'_>,
        timeouts: Timeouts,
        id: &str,
    ) -> Result<Head, ApiError> {
        let mut outgoing = reqwest::Request::new(request.endpoint.method(), url.clone());
        outgoing.headers_mut().clone_from(&request.headers);
        if let Ok(id) = HeaderValue::from_str(id) {
            outgoing.headers_mut().insert(REQUEST_ID, id);
        }
        *outgoing.timeout_mut() = Some(timeouts.total);
        let sent = match body {
            Outgoing::Bytes(bytes) => {
                if !bytes.is_empty() {
                    *outgoing.body_mut() = Some(bytes.clone().into());
                }
                None
            }
            Outgoing::Stream(make) => {
                let sent = Arc::new(Notify::new());
                *outgoing.body_mut() = Some(make(Arc::clone(&sent)));
                Some(sent)
            }
        };
        let deadline = async {
            if let Some(sent) = sent {
                sent.notified().await;
            }
            tokio::time::sleep(timeouts.response_headers).await;
        };
        let call = || Call::new(request.endpoint.method(), url.clone());
        tokio::select! {
            biased;
            answered = self.client().execute(outgoing) => match answered {
                Ok(response) => Ok(Head { call: call(), response }),
                Err(error) => Err(self.no_answer(call(), error, timeouts)),
            },
            () = deadline => Err(ApiError::Timeout { call: call(), after: timeouts.response_headers }),
        }
    }

    /// Why there is no answer. The library's own text is replaced, because it repeats the URL with its query.
    fn no_answer(&self, call: Call, error: reqwest::Error, timeouts: Timeouts) -> ApiError {
        let error = error.without_url();
        if let Some(source) = certificate_error(&error) {
            let trust = self.tls().trust().to_owned();
            return ApiError::Untrusted { call, trust, source: source.clone() };
        }
        if error.is_timeout() {
            let after = if error.is_connect() { timeouts.connect } else { timeouts.total };
            return ApiError::Timeout { call, after };
        }
        if error.is_builder() {
            return ApiError::Client(ClientError::Build(error));
        }
        ApiError::Transport { call, source: Box::new(error) }
    }
}

impl Head {
    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }
}

/// Reads the body to its end. Only a body that is wanted has to be complete.
pub(crate) async fn read(head: Head, wanted: bool) -> Result<Answer, ApiError> {
    let Head { call, mut response } = head;
    let status = response.status();
    let headers: HeaderMap = std::mem::take(response.headers_mut());
    let wanted = wanted && status.is_success();
    let limit = if wanted { MAX_BODY } else { MAX_DRAIN };
    let mut body = BytesMut::new();
    // The only piece of a small body needs no copy.
    let mut single = Bytes::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                let held = body.len() + single.len();
                if held + chunk.len() > limit {
                    if wanted {
                        let source = format!("it is larger than {limit} bytes").into();
                        return Err(ApiError::Body { call, source });
                    }
                    break;
                }
                if held == 0 {
                    single = chunk;
                } else {
                    body.extend_from_slice(&single);
                    single = Bytes::new();
                    body.extend_from_slice(&chunk);
                }
            }
            Ok(None) => break,
            Err(error) if wanted => {
                return Err(ApiError::Body { call, source: Box::new(error.without_url()) });
            }
            Err(_) => break,
        }
    }
    let body = if single.is_empty() { body.freeze() } else { single };
    Ok(Answer { call, status, headers, body })
}

/// Reads a body that nobody wants, so that its connection can be used again.
async fn drain(mut response: reqwest::Response) {
    let mut left = MAX_DRAIN;
    while let Ok(Some(chunk)) = response.chunk().await {
        left = left.saturating_sub(chunk.len());
        if left == 0 {
            break;
        }
    }
}

fn connect(options: &ClientOptions, tls: &TlsSetup, host: &str) -> Result<reqwest::Client, ClientError> {
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls.config.clone())
        .http1_only()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .connect_timeout(options.timeouts.connect)
        .tcp_keepalive(KEEP_ALIVE)
        .tcp_nodelay(true)
        .pool_idle_timeout(POOL_IDLE)
        .pool_max_idle_per_host(POOL_SIZE);
    if !options.user_agent.is_empty() {
        builder = builder.user_agent(&options.user_agent);
    }
    if is_this_machine(host) {
        builder = builder.no_proxy();
    }
    builder.build().map_err(ClientError::Build)
}

/// True for hosts that are never reached through a proxy from the environment (Go's rule).
fn is_this_machine(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_reached_without_a_proxy() {
        for host in ["localhost", "LocalHost", "127.0.0.1", "127.9.9.9", "[::1]"] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in ["gitlab.test", "localhost.test", "10.0.0.1", "[2001:db8::1]", ""] {
            assert!(!is_this_machine(host), "{host}");
        }
    }
}
