//! The server that GitLab connects to.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{Path, State as Shared};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::session::{Registry, Session};
use crate::{socket, tls};

/// Somebody who does not finish the handshake in this time is not GitLab.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Pause after a failed accept; it fails for want of file descriptors, which come back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// How the server is reached.
#[derive(Debug, Clone)]
pub struct Options {
    /// `host:port` to listen on.
    pub listen: String,
    /// `host[:port]` that GitLab is told; the port of `listen` if it has none.
    pub advertise: String,
    /// How long a terminal may keep a job that is done from ending.
    pub timeout: Duration,
}

/// Serves terminals of jobs until its last clone is dropped.
#[derive(Clone)]
pub struct SessionServer {
    registry: Arc<Registry>,
    base: Arc<str>,
    certificate: Arc<str>,
    address: SocketAddr,
    timeout: Duration,
    _stop: Arc<DropGuard>,
}

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is taken, or not of this machine.
    #[error("could not listen on `{address}` ([session_server] listen_address)")]
    Listen {
        /// The address as it was given.
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The advertised name cannot stand in a certificate.
    #[error("no certificate can be made for `{host}` ([session_server] advertise_address is `host:port`)")]
    Certificate {
        /// The name.
        host: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// The certificate cannot be served.
    #[error("could not set up TLS for the session server")]
    Tls(#[source] rustls::Error),
}

// === impl SessionServer ===

impl SessionServer {
    /// Listens, with a new certificate for the advertised host.
    ///
    /// # Errors
    /// [`StartError`]
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let listening = |source| StartError::Listen { address: options.listen.clone(), source };
        let listener = TcpListener::bind(&options.listen).await.map_err(listening)?;
        let address = listener.local_addr().map_err(listening)?;
        let (host, authority) = advertised(&options.advertise, address.port());
        let (certificate, config) = tls::certificate(host)?;
        let registry = Arc::new(Registry::default());
        let stop = CancellationToken::new();
        let app = routes(Arc::clone(&registry));
        tokio::spawn(stop.clone().run_until_cancelled_owned(serve(
            listener,
            config.into(),
            app,
            stop.clone(),
        )));
        Ok(Self {
            registry,
            base: format!("https://{authority}").into(),
            certificate: certificate.into(),
            address,
            timeout: options.timeout,
            _stop: Arc::new(stop.drop_guard()),
        })
    }

    /// A session for the next job. Cheap: nothing is done until somebody connects.
    #[must_use]
    pub fn open(&self) -> Session {
        self.registry.open(&self.base, self.timeout)
    }

    /// The server's certificate in PEM, which GitLab trusts for this server alone.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl fmt::Debug for SessionServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionServer").field("address", &self.address).finish_non_exhaustive()
    }
}

/// The host alone, and host and port, of `host[:port]`.
fn advertised(text: &str, port: u16) -> (&str, String) {
    let text = text.trim_start_matches("https://").trim_end_matches('/');
    let (host, given) = match text.rsplit_once(':') {
        Some((host, given)) if !host.ends_with(':') && given.bytes().all(|byte| byte.is_ascii_digit()) => {
            (host, Some(given))
        }
        Some(_) | None => (text, None),
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let shown = if bare.contains(':') { format!("[{bare}]") } else { bare.to_owned() };
    let port = given.filter(|given| !given.is_empty()).map_or_else(|| port.to_string(), str::to_owned);
    (bare, format!("{shown}:{port}"))
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, app: Router, stop: CancellationToken) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "session server could not accept a connection"
                );
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        tokio::spawn(stop.clone().run_until_cancelled_owned(one(stream, tls.clone(), app.clone())));
    }
}

async fn one(stream: TcpStream, tls: TlsAcceptor, app: Router) {
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await else { return };
    let connection = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app))
        .with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(error = &error as &dyn std::error::Error, "session connection ended");
    }
}

fn routes(registry: Arc<Registry>) -> Router {
    Router::new()
        .route("/session/{id}/exec", get(exec).fallback(|| async { StatusCode::METHOD_NOT_ALLOWED }))
        .route("/session/{id}/{*rest}", any(other))
        .with_state(registry)
}

/// A terminal: what is typed comes, what is shown goes, in the frames of one of GitLab's two protocols.
async fn exec(
    Shared(registry): Shared<Arc<Registry>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Response {
    let Some(state) = registry.find(&id) else { return StatusCode::NOT_FOUND.into_response() };
    if !state.admits(headers.get(header::AUTHORIZATION).map(header::HeaderValue::as_bytes)) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let Ok(upgrade) = upgrade else { return StatusCode::METHOD_NOT_ALLOWED.into_response() };
    let Some(seat) = state.sit() else { return StatusCode::LOCKED.into_response() };
    let Some(terminals) = state.terminals().await else {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            "the job has no place yet that a terminal could be opened in",
        )
            .into_response();
    };
    let terminal = match terminals.open().await {
        Ok(terminal) => terminal,
        Err(error) => return (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
    };
    upgrade.protocols([socket::RAW, socket::BASE64]).on_upgrade(async move |socket| {
        tokio::select! {
            () = socket::join(socket, terminal) => {}
            () = state.over() => {}
        }
        drop(seat);
    })
}

/// Ports of services are not offered.
async fn other(
    Shared(registry): Shared<Arc<Registry>>,
    Path((id, _)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    match registry.find(&id) {
        Some(state)
            if !state.admits(headers.get(header::AUTHORIZATION).map(header::HeaderValue::as_bytes)) =>
        {
            StatusCode::UNAUTHORIZED.into_response()
        }
        Some(_) | None => StatusCode::NOT_FOUND.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advertised_address_takes_the_port_that_is_listened_on_if_it_names_none() {
        let cases = [
            ("runner.test:1234", "runner.test", "runner.test:1234"),
            ("runner.test", "runner.test", "runner.test:8093"),
            ("https://runner.test/", "runner.test", "runner.test:8093"),
            ("10.0.0.1:80", "10.0.0.1", "10.0.0.1:80"),
            ("[::1]:80", "::1", "[::1]:80"),
            ("[::1]", "::1", "[::1]:8093"),
        ];
        for (given, host, authority) in cases {
            assert_eq!(advertised(given, 8093), (host, authority.to_owned()), "{given}");
        }
    }
}
