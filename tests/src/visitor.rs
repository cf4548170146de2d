//! GitLab's side of a web terminal.

use std::sync::Arc;

use futures_util::{SinkExt as _, StreamExt as _};
use gitlab_mock::Session;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::machine::within;

/// A terminal as GitLab's Workhorse holds it: it trusts the one certificate that came with the request for the job.
pub struct Visitor {
    socket: WebSocketStream<TlsStream<TcpStream>>,
    shown: String,
}

// === impl Visitor ===

impl Visitor {
    /// Opens a terminal.
    ///
    /// # Panics
    /// When it is not let in.
    pub async fn visit(session: &Session) -> Self {
        let (_, rest) = session.url.split_once("https://").expect("sessions are reached by TLS");
        let address = rest.split('/').next().unwrap_or_default();
        let (host, _) = address.rsplit_once(':').expect("the address has a port");
        let certificate = CertificateDer::from_pem_slice(session.certificate.as_bytes());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate.expect("the certificate is PEM")).expect("the certificate can be trusted");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has the usual versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(address).await.expect("the session server listens");
        let name = ServerName::try_from(host.to_owned()).expect("the host has a name");
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("TLS");
        let url = format!("{}/exec", session.url.replacen("https", "wss", 1));
        let mut request = url.into_client_request().expect("the session has a URL");
        let mut header = |name, value: &str| {
            request.headers_mut().insert(name, value.parse().expect("a header is text"));
        };
        header("authorization", &session.authorization);
        header("sec-websocket-protocol", "terminal.gitlab.com");
        let opening = tokio_tungstenite::client_async(request, stream);
        let (socket, _) = within("the terminal opens", opening).await.expect("the terminal opens");
        Self { socket, shown: String::new() }
    }

    /// Types.
    ///
    /// # Panics
    /// When the terminal is closed.
    pub async fn types(&mut self, text: &str) {
        self.socket.send(Message::Binary(text.to_owned().into())).await.expect("the terminal is open");
    }

    /// Reads on until the screen has this text.
    ///
    /// # Panics
    /// When it does not come.
    pub async fn sees(&mut self, text: &str) {
        while !self.shown.contains(text) {
            match within(&format!("the terminal shows {text:?}"), self.socket.next()).await {
                Some(Ok(Message::Binary(bytes))) => self.shown.push_str(&String::from_utf8_lossy(&bytes)),
                other => panic!("{other:?} instead of {text:?} after {:?}", self.shown),
            }
        }
    }
}
