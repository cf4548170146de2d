//! Web terminals into running jobs, opened as GitLab opens them.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests may panic")]

use std::sync::Arc;

use drover_tests::{Entry, Setup, Sshd, World, eventually, within};
use futures_util::{SinkExt as _, StreamExt as _};
use gitlab_mock::{Job, JobBuilder, Session};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

/// A terminal as GitLab's Workhorse holds it.
struct Visitor {
    socket: WebSocketStream<TlsStream<TcpStream>>,
    shown: String,
}

impl Visitor {
    async fn visit(session: &Session) -> Self {
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

    async fn types(&mut self, text: &str) {
        self.socket.send(Message::Binary(text.to_owned().into())).await.unwrap();
    }

    /// Reads on until the screen has this text.
    async fn sees(&mut self, text: &str) {
        while !self.shown.contains(text) {
            match within(&format!("the terminal shows {text:?}"), self.socket.next()).await {
                Some(Ok(Message::Binary(bytes))) => self.shown.push_str(&String::from_utf8_lossy(&bytes)),
                other => panic!("{other:?} instead of {text:?} after {:?}", self.shown),
            }
        }
    }
}

async fn world(sshd: &Sshd, timeout: i64) -> World {
    Setup::new()
        .set("session_server.listen_address", "127.0.0.1:0")
        .set("session_server.advertise_address", "127.0.0.1")
        .set("session_server.session_timeout", timeout)
        .runner(Entry::machines("ssh", [sshd]))
        .start()
        .await
}

/// A job that goes on until the file is there.
fn until(path: &std::path::Path) -> JobBuilder {
    let wait = format!("until test -e {}; do sleep 0.1; done", path.display());
    JobBuilder::new("looked into").script(["echo working".to_owned(), wait, "echo seen".to_owned()])
}

async fn session(world: &World, job: &Job) -> Session {
    world.says(job, "working").await;
    job.session().expect("the job request named a session")
}

#[tokio::test]
async fn a_user_looks_into_a_running_job_and_ends_its_wait() {
    let sshd = Sshd::start();
    let world = world(&sshd, 60).await;
    let signal = world.folder().join("signal");
    let job = world.enqueue(until(&signal));
    let mut visitor = Visitor::visit(&session(&world, &job).await).await;
    visitor.types("echo in:$(pwd)\n").await;
    visitor.sees(&format!("in:{}", world.folder().join("builds").display())).await;
    visitor.types(&format!("touch {}\n", signal.display())).await;
    // The script is done, but the visitor has not left.
    world.says(&job, "Terminal is connected, will time out in 1m0s...").await;
    visitor.types("exit\n").await;
    let finished = world.finished(&job).await.succeeded();
    finished.says("Terminal disconnected").says("seen");
    world.stop().await;
}

#[tokio::test]
async fn a_visitor_who_stays_is_shown_out() {
    let sshd = Sshd::start();
    let world = world(&sshd, 1).await;
    let signal = world.folder().join("signal");
    let job = world.enqueue(until(&signal));
    let mut visitor = Visitor::visit(&session(&world, &job).await).await;
    visitor.types(&format!("touch {}\n", signal.display())).await;
    let finished = world.finished(&job).await.succeeded();
    finished.says("Terminal session timed out (maximum time allowed - 1s)");
    eventually("the shell of the visitor is gone", || drover_tests::processes_in(world.folder()).is_empty())
        .await;
    world.stop().await;
}

#[tokio::test]
async fn a_cancel_does_not_wait_for_visitors() {
    let sshd = Sshd::start();
    let world = world(&sshd, 3600).await;
    let never = world.folder().join("never");
    let job = world.enqueue(until(&never));
    let mut visitor = Visitor::visit(&session(&world, &job).await).await;
    visitor.types("echo here\n").await;
    visitor.sees("here").await;
    job.force_cancel();
    eventually("the visitor is cut off", || drover_tests::processes_in(world.folder()).is_empty()).await;
    world.stop().await;
}

#[tokio::test]
async fn without_a_server_no_session_is_offered() {
    let sshd = Sshd::start();
    let world = Setup::new().runner(Entry::machines("ssh", [&sshd])).start().await;
    let job = world.enqueue(JobBuilder::new("private").script(["true"]));
    world.finished(&job).await.succeeded();
    assert!(job.session().is_none());
    let announced = world.runners[0].view().managers.into_values().next().unwrap().features;
    assert!(!announced.contains("terminal") && !announced.contains("session"), "{announced:?}");
    world.stop().await;
}
