//! The endpoint of `listen_address`: metrics, health and debugging, for reading only.
//!
//! It has no authentication, as GitLab Runner's has none; it shows nothing secret. A connection carries one request and is
//! closed after [`DEADLINE`], so that slow clients cost nothing; more than [`CONNECTIONS`] wait.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use manager::{Jobs, Phase};
use status::Document;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::exposition::CONTENT_TYPE;
use crate::jobs;
use crate::metrics::Metrics;

/// Most connections that are served at once.
pub const CONNECTIONS: usize = 16;
/// How long one connection may last.
pub const DEADLINE: Duration = Duration::from_secs(20);
/// How long a client may take to say what it wants.
const HEADER_DEADLINE: Duration = Duration::from_secs(5);
/// Most bytes of a request's head.
const MOST_HEAD: usize = 16 * 1024;
/// Pause after a failure to take a connection, which is usually a lack of file descriptors.
const PAUSE: Duration = Duration::from_millis(500);

const LIST_VERSION: HeaderName = HeaderName::from_static("x-list-version");

/// A bound endpoint, not yet serving.
#[derive(Debug)]
pub struct Endpoint {
    listener: TcpListener,
    status: Option<Status>,
}

/// Makes the document that `/status` shows.
struct Status(Box<dyn Fn() -> Document + Send + Sync>);

/// What the endpoint shows.
struct Shown {
    metrics: Arc<Metrics>,
    jobs: Jobs,
    status: Option<Status>,
}

// === impl Endpoint ===

impl Endpoint {
    /// Binds `host:port`; without a host all addresses of this machine.
    ///
    /// # Errors
    /// The address cannot be resolved or bound.
    pub async fn bind(address: &str) -> io::Result<Self> {
        let listener = match address.strip_prefix(':') {
            Some(port) => match TcpListener::bind(format!("[::]:{port}")).await {
                Ok(listener) => listener,
                // A machine without IPv6.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
                Err(_) => TcpListener::bind(format!("0.0.0.0:{port}")).await?,
            },
            None => TcpListener::bind(address).await?,
        };
        Ok(Self { listener, status: None })
    }

    /// Shows `/status` (JSON) and `/status.html` too. `document` must not block.
    #[must_use]
    pub fn with_status(self, document: impl Fn() -> Document + Send + Sync + 'static) -> Self {
        Self { status: Some(Status(Box::new(document))), ..self }
    }

    /// The address that was bound.
    ///
    /// # Errors
    /// The operating system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until it is dropped. `jobs` are those of the manager's [`View`](manager::View).
    pub async fn serve(self, metrics: Arc<Metrics>, jobs: Jobs) -> Infallible {
        let shown = Arc::new(Shown { metrics, jobs, status: self.status });
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = tokio::task::JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            // The semaphore is never closed.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { continue };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let shown = Arc::clone(&shown);
                    connections.spawn(async move {
                        connection(stream, shown).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "the metrics endpoint could not take a connection");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

async fn connection(stream: TcpStream, shown: Arc<Shown>) {
    let service = service_fn(|request: Request<Incoming>| {
        let answer = shown.answer(request.method(), request.uri().path());
        async move { Ok::<_, Infallible>(answer) }
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_DEADLINE)
        .max_buf_size(MOST_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // What goes wrong with a client is its own business.
    let _ = tokio::time::timeout(DEADLINE, serving).await;
}

// === impl Shown ===

impl Shown {
    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if method != Method::GET && method != Method::HEAD {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned());
            answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        match path {
            "/metrics" => {
                let mut answer = text(StatusCode::OK, self.metrics.exposition(&self.jobs));
                answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
                answer
            }
            "/health/ready" => match self.metrics.phase() {
                Phase::Starting => text(StatusCode::SERVICE_UNAVAILABLE, "starting\n".to_owned()),
                Phase::Running | Phase::GracefulShutdown | Phase::ForcefulShutdown => {
                    text(StatusCode::OK, "ready\n".to_owned())
                }
            },
            "/debug/jobs/list" => {
                let mut answer = text(StatusCode::OK, jobs::list(&self.jobs));
                answer.headers_mut().insert(LIST_VERSION, HeaderValue::from_static("2"));
                answer
            }
            "/debug/process/state" => text(StatusCode::OK, format!("{}\n", self.metrics.phase().as_str())),
            "/status" | "/status.html" => match &self.status {
                Some(Status(document)) if path == "/status" => json(&document()),
                Some(Status(document)) => html(status::page(&document())),
                None => text(
                    StatusCode::NOT_FOUND,
                    "not found: `page = true` in the table `[status]` of the configuration switches it on\n"
                        .to_owned(),
                ),
            },
            _ => text(StatusCode::NOT_FOUND, "not found\n".to_owned()),
        }
    }
}

fn json(document: &Document) -> Response<Full<Bytes>> {
    let Ok(body) = serde_json::to_string_pretty(document) else {
        return text(StatusCode::INTERNAL_SERVER_ERROR, "the status cannot be written\n".to_owned());
    };
    let mut answer = text(StatusCode::OK, body + "\n");
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// The browser is told to load and run nothing, whatever the page should come to hold.
fn html(page: String) -> Response<Full<Bytes>> {
    let mut answer = text(StatusCode::OK, page);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    let policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    answer
}

impl std::fmt::Debug for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Status")
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}
