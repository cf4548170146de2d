//! A server that answers from a script and remembers what it was asked.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::response::Response;
use bytes::Bytes;
use drover_gitlab_api::{
    Client, ClientOptions, Features, InfoFields, JobCredentials, JobRequest, JobState, JobUpdate,
    RetryPolicy, RunnerInfo,
};
use http::HeaderMap;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Method, path and query: `PUT /api/v4/jobs/1`.
    pub(crate) line: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Address of the client, to tell connections apart.
    pub(crate) from: SocketAddr,
}

pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    script: Mutex<VecDeque<Response>>,
    seen: watch::Sender<Vec<Seen>>,
}

impl Peer {
    /// Answers one request with each of these; further ones with 418.
    pub(crate) async fn start(script: impl IntoIterator<Item = Response>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shared, app) = Shared::new(script);
        tokio::spawn(async move {
            axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await
        });
        Self { address, shared }
    }

    /// The same on a listener of one's own, for example with TLS.
    pub(crate) fn serve<L>(
        listener: L,
        address: SocketAddr,
        script: impl IntoIterator<Item = Response>,
    ) -> Self
    where
        L: axum::serve::Listener<Addr = SocketAddr>,
    {
        let (shared, app) = Shared::new(script);
        tokio::spawn(async move {
            let app = app.layer(axum::Extension(ConnectInfo(address)));
            axum::serve(listener, app).await
        });
        Self { address, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(options(self.url())).unwrap()
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.borrow().clone()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.line).collect()
    }

    pub(crate) async fn has_seen(&self, count: usize) {
        let mut seen = self.shared.seen.subscribe();
        let waited = tokio::time::timeout(Duration::from_secs(20), seen.wait_for(|seen| seen.len() >= count));
        drop(waited.await.unwrap().unwrap());
    }
}

impl Shared {
    fn new(script: impl IntoIterator<Item = Response>) -> (Arc<Self>, axum::Router) {
        let script = Mutex::new(script.into_iter().collect());
        let shared = Arc::new(Self { script, seen: watch::Sender::new(Vec::new()) });
        (Arc::clone(&shared), axum::Router::new().fallback(answer).with_state(shared))
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 64 << 20).await.unwrap();
    let line = format!("{} {}", head.method, head.uri.path_and_query().unwrap());
    let next = shared.script.lock().unwrap().pop_front();
    shared.seen.send_modify(|seen| seen.push(Seen { line, headers: head.headers, body, from }));
    next.unwrap_or_else(|| reply(418, &[], ""))
}

pub(crate) fn reply(status: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Response {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(body.into()).unwrap()
}

/// Options with waits that a test can afford.
pub(crate) fn options(url: String) -> ClientOptions {
    let wait = Duration::from_millis(1);
    ClientOptions {
        retry: RetryPolicy {
            min_backoff: wait,
            max_backoff: wait,
            min_upload_wait: wait,
            max_upload_wait: wait,
            ..RetryPolicy::default()
        },
        ..ClientOptions::new(url)
    }
}

pub(crate) fn info() -> Arc<RunnerInfo> {
    let fields = InfoFields {
        executor: "instance".into(),
        shell: "bash".into(),
        features: Features::INSTANCE,
        ..InfoFields::of_this_build("drover", "0", "r")
    };
    Arc::new(RunnerInfo::new(fields).unwrap())
}

pub(crate) fn job() -> JobCredentials {
    JobCredentials { id: 42, token: "glcbt-job".into() }
}

pub(crate) fn poll(long_poll: bool) -> JobRequest {
    JobRequest { token: "glrt-t".into(), system_id: "s_0".into(), info: info(), session: None, long_poll }
}

pub(crate) fn running() -> JobUpdate {
    JobUpdate {
        state: JobState::Running,
        failure_reason: None,
        checksum: None,
        bytesize: None,
        exit_code: None,
        info: info(),
    }
}
