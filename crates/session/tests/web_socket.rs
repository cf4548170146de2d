//! What GitLab's side sees of a session.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use drover_session::{Options, Session, SessionServer, Terminal, TerminalError, Terminals};
use futures_util::{SinkExt as _, StreamExt as _};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use secrecy::ExposeSecret as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};

/// Repeats what is typed, in capitals, and hangs up after `bye`.
struct Loud;

#[async_trait]
impl Terminals for Loud {
    async fn open(&self) -> Result<Box<dyn Terminal>, TerminalError> {
        let (ours, theirs) = tokio::io::duplex(1024);
        tokio::spawn(async move {
            let (mut input, mut output) = tokio::io::split(theirs);
            let mut buffer = [0; 256];
            while let Ok(length) = tokio::io::AsyncReadExt::read(&mut input, &mut buffer).await {
                if length == 0 || output.write_all(&buffer[..length].to_ascii_uppercase()).await.is_err() {
                    break;
                }
                if buffer.starts_with(b"bye") {
                    break;
                }
            }
        });
        Ok(Box::new(ours))
    }
}

/// Has no terminal.
struct Broken;

#[async_trait]
impl Terminals for Broken {
    async fn open(&self) -> Result<Box<dyn Terminal>, TerminalError> {
        Err(TerminalError("the instance is gone".into()))
    }
}

async fn server() -> SessionServer {
    let options = Options {
        listen: "127.0.0.1:0".into(),
        advertise: "localhost".into(),
        timeout: Duration::from_secs(60),
    };
    SessionServer::start(options).await.unwrap()
}

/// Connects as GitLab does: it trusts the one certificate that came with the job request.
async fn connect(
    server: &SessionServer,
    session: &Session,
    authorization: &str,
    protocol: &str,
) -> Result<WebSocketStream<TlsStream<TcpStream>>, Error> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(server.certificate().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(server.address()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    let mut request =
        format!("{}/exec", session.url().replacen("https", "wss", 1)).into_client_request().unwrap();
    request.headers_mut().insert("authorization", authorization.parse().unwrap());
    request.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
    tokio_tungstenite::client_async(request, stream).await.map(|(socket, _)| socket)
}

fn status(result: Result<WebSocketStream<TlsStream<TcpStream>>, Error>) -> u16 {
    match result {
        Err(Error::Http(response)) => response.status().as_u16(),
        other => panic!("not refused: {:?}", other.map(|_| "connected")),
    }
}

#[tokio::test]
async fn what_is_typed_reaches_the_terminal_and_what_it_shows_comes_back() {
    let server = server().await;
    let session = server.open();
    session.offer(Arc::new(Loud));
    let secret = session.authorization().expose_secret().to_owned();
    let mut socket = connect(&server, &session, &secret, "terminal.gitlab.com").await.unwrap();
    socket.send(Message::Binary("hello".into())).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::Binary("HELLO".into()));
    socket.send(Message::Binary("bye".into())).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::Binary("BYE".into()));
    assert!(
        matches!(socket.next().await, Some(Ok(Message::Close(_))) | None),
        "the end of the terminal ends the socket"
    );
}

#[tokio::test]
async fn the_protocol_of_browsers_is_base64_in_text() {
    let server = server().await;
    let session = server.open();
    session.offer(Arc::new(Loud));
    let secret = session.authorization().expose_secret().to_owned();
    let mut socket = connect(&server, &session, &secret, "base64.terminal.gitlab.com").await.unwrap();
    socket.send(Message::Text("aGk=".into())).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::Text("SEk=".into()));
}

#[tokio::test]
async fn who_does_not_know_the_secret_is_turned_away() {
    let server = server().await;
    let (session, other) = (server.open(), server.open());
    session.offer(Arc::new(Loud));
    let wrong = other.authorization().expose_secret().to_owned();
    assert_eq!(status(connect(&server, &session, &wrong, "terminal.gitlab.com").await), 401);
    assert_eq!(status(connect(&server, &session, "", "terminal.gitlab.com").await), 401);
}

#[tokio::test]
async fn a_second_visitor_a_broken_place_and_an_ended_job_have_their_own_answers() {
    let server = server().await;
    let session = server.open();
    session.offer(Arc::new(Loud));
    let secret = session.authorization().expose_secret().to_owned();
    let first = connect(&server, &session, &secret, "terminal.gitlab.com").await.unwrap();
    assert_eq!(status(connect(&server, &session, &secret, "terminal.gitlab.com").await), 423);
    drop(first);

    let broken = server.open();
    broken.offer(Arc::new(Broken));
    let theirs = broken.authorization().expose_secret().to_owned();
    assert_eq!(status(connect(&server, &broken, &theirs, "terminal.gitlab.com").await), 503);
    broken.finished(|_| {}).await;
    assert_eq!(status(connect(&server, &broken, &theirs, "terminal.gitlab.com").await), 423);
}

#[tokio::test]
async fn the_end_of_the_job_closes_the_terminal() {
    let server = server().await;
    let session = server.open();
    session.offer(Arc::new(Loud));
    let secret = session.authorization().expose_secret().to_owned();
    let mut socket = connect(&server, &session, &secret, "terminal.gitlab.com").await.unwrap();
    drop(session);
    assert!(!matches!(socket.next().await, Some(Ok(Message::Binary(_) | Message::Text(_)))));
}

#[tokio::test]
async fn a_plain_request_is_not_a_terminal() {
    let server = server().await;
    let session = server.open();
    let authority = reqwest::Certificate::from_pem(server.certificate().as_bytes()).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([authority]).build().unwrap();
    let url = session.url().to_owned();
    let get = async |path: &str, secret: &str| {
        client
            .get(format!("{url}{path}"))
            .header("authorization", secret)
            .send()
            .await
            .unwrap()
            .status()
            .as_u16()
    };
    let secret = session.authorization().expose_secret().to_owned();
    assert_eq!(get("/exec", &secret).await, 405);
    assert_eq!(get("/exec", "wrong").await, 401);
    assert_eq!(get("/proxy/db/5432/", &secret).await, 404);
}
