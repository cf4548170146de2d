//! TLS against a server with certificates of our own making.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::peer::{Peer, options, poll, reply};
use drover_gitlab_api::{
    ApiError, Client, ClientError, ClientOptions, JobRequestOutcome, JobRequestReply, TlsFiles,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

#[tokio::test]
async fn an_authority_of_our_own_is_accepted_and_given_to_jobs() {
    let site = Site::new();
    let ca = site.write("ca.crt", &site.ca.pem);
    let peer = site.serve(false, [reply(201, &[], r#"{"id": 1, "token": "t"}"#)]).await;
    let reply = ask(&peer, TlsFiles { ca_file: Some(ca), ..TlsFiles::default() }).await;
    let JobRequestOutcome::Job(received) = reply.outcome else { panic!("{:?}", reply.outcome) };
    assert_eq!(received.tls.ca_chain.as_deref(), Some(site.ca.pem.as_str()));
    assert!(received.tls.cert.is_none() && received.tls.key.is_none());
}

#[tokio::test]
async fn der_is_accepted_and_given_to_jobs_as_pem() {
    let site = Site::new();
    let ca = site.write("ca.der", &site.ca.der);
    let peer = site.serve(false, [reply(201, &[], r#"{"id": 1, "token": "t"}"#)]).await;
    let reply = ask(&peer, TlsFiles { ca_file: Some(ca), ..TlsFiles::default() }).await;
    let JobRequestOutcome::Job(received) = reply.outcome else { panic!("{:?}", reply.outcome) };
    let wanted: String = site.ca.pem.split_whitespace().collect();
    let given: String = received.tls.ca_chain.unwrap().split_whitespace().collect();
    assert_eq!(given, wanted);
}

#[tokio::test]
async fn a_foreign_authority_is_refused_with_the_name_of_the_file() {
    let site = Site::new();
    let ca = site.write("other.crt", &Site::new().ca.pem);
    let peer = site.serve(false, [reply(204, &[], "")]).await;
    let reply = ask(&peer, TlsFiles { ca_file: Some(ca.clone()), ..TlsFiles::default() }).await;
    let JobRequestOutcome::Failed(error) = reply.outcome else { panic!("{:?}", reply.outcome) };
    assert!(matches!(error, ApiError::Untrusted { .. }));
    let text = error.report();
    assert!(text.contains("the server's certificate is not trusted by"), "{text}");
    assert!(text.contains(&format!("or those in `{}`", ca.display())), "{text}");
    assert_eq!(peer.seen().len(), 0);
}

#[tokio::test]
async fn a_missing_or_spoilt_ca_file_is_ignored_but_named_when_trust_fails() {
    let site = Site::new();
    let peer = site.serve(false, []).await;
    let spoilt = site.write("spoilt.crt", "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n");
    for (path, wanted) in
        [(site.home.path().join("no.crt"), "does not exist"), (spoilt, "no usable certificate")]
    {
        let reply = ask(&peer, TlsFiles { ca_file: Some(path.clone()), ..TlsFiles::default() }).await;
        let JobRequestOutcome::Failed(error) = reply.outcome else { panic!("{:?}", reply.outcome) };
        let text = error.report();
        assert!(text.contains(wanted) && text.contains(path.to_str().unwrap()), "{text}");
    }
}

#[tokio::test]
async fn a_certificate_for_another_host_is_refused() {
    let site = Site::with_name("elsewhere.test");
    let ca = site.write("ca.crt", &site.ca.pem);
    let peer = site.serve(false, []).await;
    let reply = ask(&peer, TlsFiles { ca_file: Some(ca), ..TlsFiles::default() }).await;
    assert!(matches!(reply.outcome, JobRequestOutcome::Failed(ApiError::Untrusted { .. })), "{reply:?}");
}

#[tokio::test]
async fn a_client_certificate_opens_the_door_and_is_given_to_jobs() {
    let site = Site::new();
    let ca = site.write("ca.crt", &site.ca.pem);
    let own = site.ca.issue("runner", ExtendedKeyUsagePurpose::ClientAuth);
    let cert = site.write("runner.crt", &own.pem);
    let key = site.write("runner.key", own.key.serialize_pem());
    let peer = site.serve(true, [reply(201, &[], r#"{"id": 1, "token": "t"}"#)]).await;

    let without = ask(&peer, TlsFiles { ca_file: Some(ca.clone()), ..TlsFiles::default() }).await;
    assert!(matches!(without.outcome, JobRequestOutcome::Failed(_)));

    let files = TlsFiles { ca_file: Some(ca), cert_file: Some(cert), key_file: Some(key) };
    let with = ask(&peer, files).await;
    let JobRequestOutcome::Job(received) = with.outcome else { panic!("{:?}", with.outcome) };
    assert_eq!(received.tls.cert.as_deref(), Some(own.pem.as_str()));
    assert_eq!(received.tls.key.as_ref().unwrap().expose(), own.key.serialize_pem());
    assert!(!format!("{received:?}").contains("PRIVATE KEY"));
}

#[test]
fn a_client_certificate_that_cannot_be_used_is_refused_at_once() {
    let site = Site::new();
    let cert = site.write("runner.crt", &site.ca.issue("runner", ExtendedKeyUsagePurpose::ClientAuth).pem);
    let foreign = site.write("foreign.key", KeyPair::generate().unwrap().serialize_pem());
    let no_key = site.write("no.key", "nothing");
    let client = |key: &Path| {
        let tls = TlsFiles { ca_file: None, cert_file: Some(cert.clone()), key_file: Some(key.to_owned()) };
        Client::new(ClientOptions { tls, ..options("https://gitlab.test".to_owned()) }).unwrap_err()
    };
    assert!(matches!(client(&foreign), ClientError::Identity { .. }));
    assert!(matches!(client(&no_key), ClientError::PrivateKey { .. }));
    assert!(matches!(client(Path::new("/no/such.key")), ClientError::ReadFile { .. }));
}

#[tokio::test]
async fn changed_files_are_used_by_the_next_call() {
    let site = Site::new();
    let ca = site.write("ca.crt", &Site::new().ca.pem);
    let peer = site.serve(false, [reply(204, &[], ""), reply(204, &[], "")]).await;
    let tls = TlsFiles { ca_file: Some(ca), ..TlsFiles::default() };
    let client = Client::new(ClientOptions { tls, ..options(url(&peer)) }).unwrap();
    let before = client.request_job(&poll(true)).await;
    assert!(matches!(before.outcome, JobRequestOutcome::Failed(ApiError::Untrusted { .. })), "{before:?}");
    site.write("ca.crt", format!("# new\n{}", site.ca.pem));
    let after = client.request_job(&poll(true)).await;
    assert!(matches!(after.outcome, JobRequestOutcome::None), "{after:?}");
}

#[tokio::test]
async fn files_that_become_unusable_leave_the_earlier_ones_in_use() {
    let site = Site::new();
    let ca = site.write("ca.crt", &site.ca.pem);
    let own = site.ca.issue("runner", ExtendedKeyUsagePurpose::ClientAuth);
    let cert = site.write("runner.crt", &own.pem);
    let key = site.write("runner.key", own.key.serialize_pem());
    let peer = site.serve(true, [reply(204, &[], ""), reply(204, &[], "")]).await;
    let tls = TlsFiles { ca_file: Some(ca), cert_file: Some(cert), key_file: Some(key) };
    let client = Client::new(ClientOptions { tls, ..options(url(&peer)) }).unwrap();
    assert!(matches!(client.request_job(&poll(true)).await.outcome, JobRequestOutcome::None));
    site.write("runner.key", "half written");
    assert!(matches!(client.request_job(&poll(true)).await.outcome, JobRequestOutcome::None));
}

/// A server, its authority, and a place for files.
struct Site {
    home: tempfile::TempDir,
    ca: Authority,
    server: Issued,
}

struct Authority {
    pem: String,
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

struct Issued {
    pem: String,
    der: CertificateDer<'static>,
    key: KeyPair,
}

impl Site {
    fn new() -> Self {
        Self::with_name("127.0.0.1")
    }

    fn with_name(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test authority");
        let key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        let ca = Authority { pem: cert.pem(), der: cert.der().clone(), issuer: Issuer::new(params, key) };
        let server = ca.issue(name, ExtendedKeyUsagePurpose::ServerAuth);
        Self { home: tempfile::tempdir().unwrap(), ca, server }
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.home.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    async fn serve(
        &self,
        wants_client_certificate: bool,
        script: impl IntoIterator<Item = axum::response::Response>,
    ) -> Peer {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if wants_client_certificate {
            let mut roots = RootCertStore::empty();
            roots.add(self.ca.der.clone()).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::try_from(self.server.key.serialize_der()).unwrap();
        let config = builder.with_single_cert(vec![self.server.der.clone()], key).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        Peer::serve(TlsListener { tcp, acceptor: TlsAcceptor::from(Arc::new(config)) }, address, script)
    }
}

impl Authority {
    fn issue(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> Issued {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Issued { pem: cert.pem(), der: cert.der().clone(), key }
    }
}

struct TlsListener {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for TlsListener {
    type Io = tokio_rustls::server::TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, from) = self.tcp.accept().await.unwrap();
            // A client that does not trust the server, or is not trusted, ends the handshake.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, from);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}

fn url(peer: &Peer) -> String {
    format!("https://{}", peer.address)
}

async fn ask(peer: &Peer, tls: TlsFiles) -> JobRequestReply {
    Client::new(ClientOptions { tls, ..options(url(peer)) }).unwrap().request_job(&poll(true)).await
}
