//! GitLab's side of a terminal.

use std::sync::Arc;

use drover_tests::within;
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

/// A terminal as GitLab's Workhorse holds it.
pub(crate) struct Visitor {
    socket: WebSocketStream<TlsStream<TcpStream>>,
    shown: String,
}

impl Visitor {
    pub(crate) async fn visit(session: &Session) -> Self {
        let address = session.url.strip_prefix("https://").unwrap().split('/').next().unwrap().to_owned();
        let (host, _) = address.rsplit_once(':').unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(session.certificate.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(&address).await.unwrap();
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        let mut request =
            format!("{}/exec", session.url.replacen("https", "wss", 1)).into_client_request().unwrap();
        request.headers_mut().insert("authorization", session.authorization.parse().unwrap());
        request.headers_mut().insert("sec-websocket-protocol", "terminal.gitlab.com".parse().unwrap());
        let (socket, _) =
            within("the terminal opens", tokio_tungstenite::client_async(request, stream)).await.unwrap();
        Self { socket, shown: String::new() }
    }

    /// Types.
    pub(crate) async fn types(&mut self, text: &str) {
        self.socket.send(Message::Binary(text.to_owned().into())).await.unwrap();
    }

    /// Reads on until the screen has this text.
    pub(crate) async fn sees(&mut self, text: &str) {
        while !self.shown.contains(text) {
            match within(&format!("the terminal shows {text:?}"), self.socket.next()).await {
                Some(Ok(Message::Binary(bytes))) => self.shown.push_str(&String::from_utf8_lossy(&bytes)),
                other => panic!("{other:?} instead of {text:?} after {:?}", self.shown),
            }
        }
    }
}
