//! Whom the client trusts, how it identifies itself, and what a job is given of it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use base64::Engine as _;
use job_payload::{SecretString, Token};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::ClientError;
use crate::der;

/// The files of `tls-ca-file`, `tls-cert-file` and `tls-key-file`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate authorities, trusted beside those of the system. PEM or DER. A missing file is ignored with a warning.
    pub ca_file: Option<PathBuf>,
    /// Client certificate with its chain. PEM or DER. Used only together with the key.
    pub cert_file: Option<PathBuf>,
    /// Its private key. PEM or DER.
    pub key_file: Option<PathBuf>,
}

/// What a job needs to reach GitLab as the runner does: the contents of `CI_SERVER_TLS_CA_FILE`, `CI_SERVER_TLS_CERT_FILE`
/// and `CI_SERVER_TLS_KEY_FILE`.
#[derive(Debug, Clone, Default)]
pub struct TlsMaterial {
    /// The content of the CA file when there is one, else the chain with which GitLab was verified; PEM.
    pub ca_chain: Option<Arc<str>>,
    /// Client certificate; PEM.
    pub cert: Option<Arc<str>>,
    /// Client key; PEM. Not public.
    pub key: Option<Token>,
}

/// TLS as it was set up from one state of the files.
#[derive(Debug)]
pub(crate) struct TlsSetup {
    pub(crate) config: ClientConfig,
    ca_pem: Option<Arc<str>>,
    cert_pem: Option<Arc<str>>,
    key_pem: Option<Token>,
    verifier: Arc<Verifier>,
    trust: String,
}

/// What is compared to see that files have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamp([Option<(SystemTime, u64)>; 3]);

/// Verifies servers by the usual rules and remembers how GitLab was verified.
#[derive(Debug)]
struct Verifier {
    /// `None` when no certificate authority is trusted at all.
    usual: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
    /// Chains of other servers (artifact storage) are no business of the jobs.
    host: String,
    roots: Vec<CertificateDer<'static>>,
    chain: Mutex<Option<Chain>>,
}

#[derive(Debug)]
struct Chain {
    presented: Vec<CertificateDer<'static>>,
    pem: Option<Arc<str>>,
}

// === impl TlsFiles ===

impl TlsFiles {
    /// When and how large the files are.
    pub(crate) fn stamp(&self) -> Stamp {
        let stamp = |path: &Option<PathBuf>| {
            let meta = std::fs::metadata(path.as_deref()?).ok()?;
            Some((meta.modified().ok()?, meta.len()))
        };
        Stamp([stamp(&self.ca_file), stamp(&self.cert_file), stamp(&self.key_file)])
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

// === impl TlsSetup ===

impl TlsSetup {
    /// Reads the files. A CA file that is missing or holds no certificate is a warning, because the system's authorities may
    /// do; a client certificate that cannot be used is an error.
    pub(crate) fn load(files: &TlsFiles, host: &str) -> Result<Self, ClientError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let system = system_roots();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(system.iter().cloned());
        let mut known = system.to_vec();
        let mut trust = "the system's certificate authorities".to_owned();
        let mut ca_pem = None;
        if let Some(path) = &files.ca_file {
            match read_ca(path, &mut roots, &mut known) {
                Ok(Some(pem)) => {
                    let _ = write!(trust, " or those in `{}`", path.display());
                    ca_pem = Some(pem);
                }
                Ok(None) => {
                    tracing::warn!(path = %path.display(), "the CA file does not exist and is ignored");
                    let _ = write!(trust, " (`{}` does not exist)", path.display());
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), error = %error, "the CA file cannot be used and is ignored");
                    let _ = write!(trust, " ({error})");
                }
            }
        }
        let usual = match roots.is_empty() {
            true => None,
            false => Some(
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                    .build()
                    .map_err(|error| ClientError::Tls(Box::new(error)))?,
            ),
        };
        let verifier = Arc::new(Verifier {
            usual,
            provider: Arc::clone(&provider),
            host: host.trim_matches(['[', ']']).to_owned(),
            roots: known,
            chain: Mutex::new(None),
        });
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| ClientError::Tls(Box::new(error)))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier) as Arc<dyn ServerCertVerifier>);
        let (mut cert_pem, mut key_pem) = (None, None);
        let config = match (&files.cert_file, &files.key_file) {
            (Some(cert), Some(key)) => {
                let (chain, pem) = read_certificates(cert)?;
                let (private, secret) = read_key(key)?;
                cert_pem = Some(pem);
                key_pem = Some(secret);
                builder.with_client_auth_cert(chain, private).map_err(|source| ClientError::Identity {
                    cert: cert.clone(),
                    key: key.clone(),
                    source,
                })?
            }
            (Some(one), None) | (None, Some(one)) => {
                tracing::warn!(path = %one.display(), "a client certificate needs both a certificate and a key and is ignored");
                builder.with_no_client_auth()
            }
            (None, None) => builder.with_no_client_auth(),
        };
        Ok(Self { config, ca_pem, cert_pem, key_pem, verifier, trust })
    }

    /// Which authorities are trusted, for people.
    pub(crate) fn trust(&self) -> &str {
        &self.trust
    }

    /// What a job is given.
    pub(crate) fn material(&self) -> TlsMaterial {
        TlsMaterial {
            ca_chain: self.ca_pem.clone().or_else(|| self.verifier.verified_chain()),
            cert: self.cert_pem.clone(),
            key: self.key_pem.clone(),
        }
    }
}

// === impl Verifier ===

impl Verifier {
    /// The chain of the last full handshake with GitLab, leaf first, up to the root where it is known.
    fn verified_chain(&self) -> Option<Arc<str>> {
        let mut guard = self.chain.lock().unwrap_or_else(PoisonError::into_inner);
        let chain = guard.as_mut()?;
        let pem = chain.pem.get_or_insert_with(|| {
            let complete = der::complete_chain(&chain.presented, &self.roots);
            complete.iter().map(|cert| pem("CERTIFICATE", cert)).collect::<String>().into()
        });
        Some(Arc::clone(pem))
    }

    fn remember(&self, leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>]) {
        let same = |chain: &Chain| {
            chain.presented.len() == others.len() + 1
                && chain.presented[0] == *leaf
                && chain.presented[1..].iter().zip(others).all(|(ours, theirs)| ours == theirs)
        };
        let mut guard = self.chain.lock().unwrap_or_else(PoisonError::into_inner);
        if !guard.as_ref().is_some_and(same) {
            let presented =
                std::iter::once(leaf).chain(others).map(|cert| cert.clone().into_owned()).collect();
            *guard = Some(Chain { presented, pem: None });
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(usual) = &self.usual else {
            return Err(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer));
        };
        let verified =
            usual.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        if server_name.to_str().eq_ignore_ascii_case(&self.host) {
            self.remember(end_entity, intermediates);
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The verification failure inside a transport error, if that is what it was.
pub(crate) fn certificate_error<'e>(
    error: &'e (dyn std::error::Error + 'static),
) -> Option<&'e rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found @ rustls::Error::InvalidCertificate(_)) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        // An I/O error that wraps another names that one's cause as its own, so the wrapped error itself has to be looked at.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match wrapped {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// The system's authorities, read once per process.
fn system_roots() -> &'static [CertificateDer<'static>] {
    static ROOTS: OnceLock<Vec<CertificateDer<'static>>> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "failed to read some of the system's certificate authorities");
        }
        found.certs
    })
}

/// Adds the authorities of a file and returns them as PEM; `None` if there is no such file.
fn read_ca(
    path: &Path,
    roots: &mut RootCertStore,
    known: &mut Vec<CertificateDer<'static>>,
) -> Result<Option<Arc<str>>, ClientError> {
    let (certificates, pem) = match read_certificates(path) {
        Ok(found) => found,
        Err(ClientError::ReadFile { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let mut refused = None;
    let mut added = 0_u32;
    for certificate in certificates {
        match roots.add(certificate.clone()) {
            Ok(()) => {
                added += 1;
                known.push(certificate);
            }
            Err(error) => refused = Some(error),
        }
    }
    match refused {
        Some(error) if added == 0 => {
            Err(ClientError::Certificate { path: path.to_owned(), reason: error.to_string() })
        }
        Some(_) | None => Ok(Some(pem)),
    }
}

/// The certificates of a file in PEM or DER, and the same in PEM.
fn read_certificates(path: &Path) -> Result<(Vec<CertificateDer<'static>>, Arc<str>), ClientError> {
    let bytes = read(path)?;
    let bad = |reason: String| ClientError::Certificate { path: path.to_owned(), reason };
    match std::str::from_utf8(&bytes) {
        Ok(text) if text.contains("-----BEGIN") => {
            let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
            let certificates = certificates.map_err(|error| bad(error.to_string()))?;
            if certificates.is_empty() {
                return Err(bad("it has PEM sections, but no certificate among them".to_owned()));
            }
            Ok((certificates, text.into()))
        }
        Ok(_) | Err(_) => {
            let certificate = CertificateDer::from(bytes);
            if der::names(&certificate).is_none() {
                return Err(bad("it is neither PEM nor DER".to_owned()));
            }
            let pem = pem("CERTIFICATE", &certificate);
            Ok((vec![certificate], pem.into()))
        }
    }
}

fn read_key(path: &Path) -> Result<(PrivateKeyDer<'static>, Token), ClientError> {
    let bytes = read(path)?;
    let bad = |reason: String| ClientError::PrivateKey { path: path.to_owned(), reason };
    match std::str::from_utf8(&bytes) {
        Ok(text) if text.contains("-----BEGIN") => {
            let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| bad(error.to_string()))?;
            Ok((key, Token(SecretString::from(text))))
        }
        Ok(_) | Err(_) => {
            let key = PrivateKeyDer::try_from(bytes).map_err(|error| bad(error.to_owned()))?;
            let label = match &key {
                PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
                PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
                PrivateKeyDer::Pkcs8(_) | _ => "PRIVATE KEY",
            };
            let pem = pem(label, key.secret_der());
            Ok((key, Token(SecretString::from(pem))))
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ClientError> {
    std::fs::read(path).map_err(|source| ClientError::ReadFile { path: path.to_owned(), source })
}

/// One section of PEM.
fn pem(label: &str, der: &[u8]) -> String {
    let encoded = base64::engine::general_purpose::STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in encoded.as_bytes().chunks(64) {
        // Base64 is ASCII.
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    let _ = writeln!(text, "-----END {label}-----");
    text
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

    use super::*;

    #[test]
    fn the_chain_that_verified_gitlab_is_kept_up_to_its_root() {
        let home = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "test authority");
        let root_key = KeyPair::generate().unwrap();
        let root = params.self_signed(&root_key).unwrap();
        let issuer = Issuer::new(params, root_key);
        let issue = |name: &str| {
            let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap()
        };
        let (gitlab, storage) = (issue("gitlab.test"), issue("storage.test"));
        let path = home.path().join("ca.crt");
        std::fs::write(&path, root.pem()).unwrap();
        let files = TlsFiles { ca_file: Some(path), ..TlsFiles::default() };
        let setup = TlsSetup::load(&files, "gitlab.test").unwrap();
        let verify = |certificate: &rcgen::Certificate, name: &str| {
            let name = ServerName::try_from(name.to_owned()).unwrap();
            setup.verifier.verify_server_cert(certificate.der(), &[], &name, &[], UnixTime::now())
        };

        assert_eq!(setup.verifier.verified_chain(), None);
        assert!(verify(&gitlab, "storage.test").is_err());
        assert_eq!(setup.verifier.verified_chain(), None);
        verify(&gitlab, "gitlab.test").unwrap();
        verify(&storage, "storage.test").unwrap();
        let chain = setup.verifier.verified_chain().unwrap();
        let found: Vec<_> =
            CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>().unwrap();
        assert_eq!(found, [gitlab.der().clone(), root.der().clone()]);
        assert!(chain.starts_with("-----BEGIN CERTIFICATE-----\n"));
        assert!(chain.lines().all(|line| line.len() <= 64));
    }

    #[test]
    fn half_a_client_certificate_is_ignored() {
        let files = TlsFiles { cert_file: Some("/no/such.crt".into()), ..TlsFiles::default() };
        let material = TlsSetup::load(&files, "gitlab.test").unwrap().material();
        assert!(material.cert.is_none() && material.key.is_none());
    }
}
