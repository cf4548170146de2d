//! How bytes get to an engine, and HTTP on top of them.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::upgrade::Upgraded;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tower_service::Service;

use super::EngineError;

/// A call that got no answer within this time has failed. Waiting for a container is not such a call: its answer begins at
/// once.
const CALL_TIMEOUT: Duration = Duration::from_secs(300);
/// Connections that wait for the next call. Shorter than engines and address translators keep them.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
const IDLE_CONNECTIONS: usize = 2;
/// Stands where the client wants a host; nothing resolves it.
const HOST: &str = "http://engine.invalid";
const REGISTRY_AUTH: &str = "x-registry-auth";

/// A byte stream to an engine.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Opens byte streams to one engine.
#[async_trait]
pub(crate) trait Dial: Send + Sync + 'static {
    /// Opens one more.
    async fn dial(&self) -> io::Result<Box<dyn Stream>>;
}

/// The version that paths name, once it is known: without one, an engine answers with its newest behaviour, whatever that
/// will be.
pub(crate) type ApiVersion = Arc<OnceLock<String>>;

/// A client whose calls share kept connections.
pub(crate) fn client(dial: Arc<dyn Dial>, version: ApiVersion) -> Result<Docker, bollard::errors::Error> {
    let client = Client::builder(TokioExecutor::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .pool_timer(TokioTimer::new())
        .build(Connector(dial));
    let transport = move |request: BollardRequest| {
        let client = client.clone();
        let request = addressed(request, version.get().map(String::as_str));
        async move { Ok(client.request(request).await?) }
    };
    Docker::connect_with_custom_transport(transport, Some(HOST), CALL_TIMEOUT.as_secs(), API_DEFAULT_VERSION)
}

/// Puts the version into the path, and credentials into the alphabet that engines read: a `+` or `/` in it is dropped by them
/// without a word, and the pull is anonymous.
fn addressed(mut request: BollardRequest, version: Option<&str>) -> BollardRequest {
    if let Some(version) = version {
        let path = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        if let Ok(uri) = format!("{HOST}/v{version}{path}").parse::<Uri>() {
            *request.uri_mut() = uri;
        }
    }
    if let Some(auth) = request.headers().get(REGISTRY_AUTH).and_then(|value| value.to_str().ok())
        && auth.contains(['+', '/'])
        && let Ok(mut value) = HeaderValue::from_str(&auth.replace('+', "-").replace('/', "_"))
    {
        value.set_sensitive(true);
        request.headers_mut().insert(REGISTRY_AUTH, value);
    }
    request
}

/// A byte stream that took the place of a call's answer.
pub(crate) type Raw = TokioIo<Upgraded>;

/// Makes one call over a connection of its own, which becomes the byte stream.
pub(crate) async fn upgrade(
    dial: &dyn Dial,
    version: Option<&str>,
    path: &str,
    body: &serde_json::Value,
) -> Result<Raw, EngineError> {
    let unreachable = |error: &dyn std::fmt::Display| EngineError::Unreachable(error.to_string());
    let stream = dial.dial().await.map_err(|error| unreachable(&error))?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| unreachable(&error))?;
    tokio::spawn(connection.with_upgrades());
    let path = version.map_or_else(|| path.to_owned(), |version| format!("/v{version}{path}"));
    let request = http::Request::post(path)
        .header(http::header::HOST, "engine.invalid")
        .header(http::header::CONTENT_TYPE, "application/json")
        .header(http::header::CONNECTION, "Upgrade")
        .header(http::header::UPGRADE, "tcp")
        .body(bollard::body_full(Bytes::from(body.to_string())))
        .map_err(|error| EngineError::Failed(error.to_string()))?;
    let response = sender.send_request(request).await.map_err(|error| unreachable(&error))?;
    match response.status() {
        StatusCode::SWITCHING_PROTOCOLS => match hyper::upgrade::on(response).await {
            Ok(upgraded) => Ok(TokioIo::new(upgraded)),
            Err(error) => Err(unreachable(&error)),
        },
        StatusCode::NOT_FOUND => {
            Err(EngineError::NotFound("the engine does not know it any more".to_owned()))
        }
        StatusCode::CONFLICT => Err(EngineError::Conflict("the container does not run".to_owned())),
        status => Err(EngineError::Failed(format!("the engine answered {status}"))),
    }
}

/// Dials for the HTTP client.
#[derive(Clone)]
struct Connector(Arc<dyn Dial>);

/// A stream as the HTTP client wants it.
struct Dialled(TokioIo<Box<dyn Stream>>);

// === impl Connector ===

impl Service<Uri> for Connector {
    type Response = Dialled;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Dialled>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let dial = Arc::clone(&self.0);
        Box::pin(async move { Ok(Dialled(TokioIo::new(dial.dial().await?))) })
    }
}

// === impl Dialled ===

impl Connection for Dialled {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Dialled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for Dialled {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
