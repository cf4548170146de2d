//! Where an engine is: `host`, `tls_verify` and `tls_cert_path`, or `DOCKER_HOST` and its companions.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use config::Docker as DockerConfig;
use connector::Client;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::transport::{Dial, Stream};
use super::tunnel::{Program, Tunnelled, Way};

/// Time for a TCP connection and its handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
const DEFAULT_PORT: u16 = 2375;
const DEFAULT_TLS_PORT: u16 = 2376;

/// Address of an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// A socket in the file system.
    Unix(String),
    /// A TCP port.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
}

/// Address of an engine, and how the way there is protected.
#[derive(Clone)]
pub(crate) struct Endpoint {
    pub(crate) address: Address,
    tls: Option<TlsConnector>,
}

/// Why an engine cannot be addressed. The file is wrong, or a file that it names.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// Not an address.
    #[error("`host` = \"{0}\" is not an address of an engine: write unix:///path or tcp://host:port")]
    Address(String),
    /// An address of a kind that only managers on Windows can reach.
    #[error("`host` = \"{0}\" is a named pipe, which can be reached on Windows only")]
    NamedPipe(String),
    /// A kind of address that is not built in.
    #[error("`host` = \"{0}\": engines behind ssh are reached with the executor docker-autoscaler")]
    Ssh(String),
    /// A file for TLS.
    #[error("cannot use `{}` for TLS to the engine: {why}", path.display())]
    Tls {
        /// Which file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
}

/// Dials from this machine.
struct Direct(Endpoint);

// === impl EndpointError ===

impl EndpointError {
    /// The key that is wrong.
    pub(crate) fn key(&self) -> &'static str {
        match self {
            Self::Address(_) | Self::NamedPipe(_) | Self::Ssh(_) => "host",
            Self::Tls { .. } => "tls_cert_path",
        }
    }
}

// === impl Address ===

impl Address {
    fn parse(host: &str, tls: bool) -> Result<Self, EndpointError> {
        let wrong = || EndpointError::Address(host.to_owned());
        let (scheme, rest) = host.split_once("://").ok_or_else(wrong)?;
        match scheme {
            "unix" if rest.starts_with('/') => Ok(Self::Unix(rest.to_owned())),
            "tcp" | "http" | "https" => {
                let rest = rest.trim_end_matches('/');
                let (host, port) = match rest.rsplit_once(':') {
                    Some((host, port)) if !port.contains(']') => (host, port.parse().map_err(|_| wrong())?),
                    Some(_) | None => (rest, if tls { DEFAULT_TLS_PORT } else { DEFAULT_PORT }),
                };
                let host = host.trim_start_matches('[').trim_end_matches(']');
                if host.is_empty() || host.contains('/') {
                    return Err(wrong());
                }
                Ok(Self::Tcp { host: host.to_owned(), port })
            }
            "npipe" => Err(EndpointError::NamedPipe(host.to_owned())),
            "ssh" => Err(EndpointError::Ssh(host.to_owned())),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{path}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
        }
    }
}

// === impl Endpoint ===

impl Endpoint {
    /// The engine that an entry names. With an empty `host`, all three keys come from the environment, which `variable` reads.
    ///
    /// # Errors
    /// [`EndpointError`]
    pub(crate) fn of(
        config: &DockerConfig,
        base: &Path,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, EndpointError> {
        let configured = config.host.as_deref().filter(|host| !host.is_empty());
        let (host, verify, certificates) = match configured {
            Some(host) => (
                host.to_owned(),
                config.tls_verify.unwrap_or(false),
                config.tls_cert_path.as_ref().map(|path| base.join(path)),
            ),
            None => (
                variable("DOCKER_HOST")
                    .filter(|host| !host.is_empty())
                    .unwrap_or_else(|| format!("unix://{DEFAULT_SOCKET}")),
                variable("DOCKER_TLS_VERIFY").is_some_and(|value| !value.is_empty()),
                variable("DOCKER_CERT_PATH").map(PathBuf::from),
            ),
        };
        let address = Address::parse(&host, verify)?;
        let tls = match (&address, verify) {
            (Address::Tcp { .. }, true) => Some(tls(certificates.as_deref())?),
            (Address::Tcp { .. } | Address::Unix(_), _) => None,
        };
        Ok(Self { address, tls })
    }

    /// Checks the engine that the entry itself names, if it does. Without a folder for relative paths, no file is read.
    pub(crate) fn named(config: &DockerConfig, base: Option<&Path>) -> Result<(), EndpointError> {
        let Some(host) = config.host.as_deref().filter(|host| !host.is_empty()) else { return Ok(()) };
        match base {
            Some(base) => Self::of(config, base, |_| None).map(drop),
            None => Address::parse(host, false).map(drop),
        }
    }

    /// Dials from this machine.
    pub(crate) fn direct(self) -> Arc<dyn Dial> {
        Arc::new(Direct(self))
    }

    /// Dials as the instance of this connection. There the entry's own address counts, not the manager's environment.
    pub(crate) fn tunnelled(
        config: &DockerConfig,
        client: Client,
        way: Way,
    ) -> Result<Arc<dyn Dial>, EndpointError> {
        let host = config.host.as_deref().filter(|host| !host.is_empty());
        let address = match host {
            Some(host) => Address::parse(host, false)?,
            None => Address::Unix(DEFAULT_SOCKET.to_owned()),
        };
        Ok(Arc::new(Tunnelled::new(client, address, Program::new(host), way)))
    }
}

// === impl Direct ===

#[async_trait]
impl Dial for Direct {
    async fn dial(&self) -> io::Result<Box<dyn Stream>> {
        match &self.0.address {
            Address::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
            Address::Tcp { host, port } => {
                let connecting = async {
                    let stream = TcpStream::connect((host.as_str(), *port)).await?;
                    stream.set_nodelay(true)?;
                    let Some(tls) = &self.0.tls else { return Ok(Box::new(stream) as Box<dyn Stream>) };
                    let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
                    Ok(Box::new(tls.connect(name, stream).await?) as Box<dyn Stream>)
                };
                tokio::time::timeout(CONNECT_TIMEOUT, connecting).await?
            }
        }
    }
}

/// Trusts the given authority alone, never the system's, as GitLab Runner does.
fn tls(folder: Option<&Path>) -> Result<TlsConnector, EndpointError> {
    let folder = folder.map_or_else(PathBuf::new, Path::to_owned);
    let bad = |path: &Path, why: &dyn fmt::Display| EndpointError::Tls {
        path: path.to_owned(),
        why: why.to_string(),
    };
    let certificates = |name: &str| -> Result<Vec<CertificateDer<'static>>, EndpointError> {
        let path = folder.join(name);
        let read = CertificateDer::pem_file_iter(&path).map_err(|error| bad(&path, &error))?;
        let certificates: Result<Vec<_>, _> = read.collect();
        let certificates = certificates.map_err(|error| bad(&path, &error))?;
        if certificates.is_empty() { Err(bad(&path, &"it holds no certificate")) } else { Ok(certificates) }
    };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in certificates("ca.pem")? {
        roots.add(certificate).map_err(|error| bad(&folder.join("ca.pem"), &error))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| bad(&folder, &error))?
        .with_root_certificates(roots);
    let key_path = folder.join("key.pem");
    let config = if folder.join("cert.pem").exists() {
        let key = PrivateKeyDer::from_pem_file(&key_path).map_err(|error| bad(&key_path, &error))?;
        builder
            .with_client_auth_cert(certificates("cert.pem")?, key)
            .map_err(|error| bad(&folder.join("cert.pem"), &error))?
    } else {
        builder.with_no_client_auth()
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    fn address(host: Option<&str>, environment: Option<&str>) -> Result<String, String> {
        let config = DockerConfig { host: host.map(str::to_owned), ..DockerConfig::default() };
        let variable = |name: &str| environment.filter(|_| name == "DOCKER_HOST").map(str::to_owned);
        Endpoint::of(&config, Path::new("/etc"), variable)
            .map(|endpoint| endpoint.address.to_string())
            .map_err(|error| error.to_string())
    }

    #[test_case(None, None, "unix:///var/run/docker.sock"; "the default")]
    #[test_case(None, Some("tcp://10.0.0.1:99"), "tcp://10.0.0.1:99"; "from the environment")]
    #[test_case(Some("unix:///run/e.sock"), Some("tcp://10.0.0.1:99"), "unix:///run/e.sock"; "the file comes first")]
    #[test_case(Some("tcp://engine"), None, "tcp://engine:2375"; "the default port")]
    #[test_case(Some("tcp://[::1]:5"), None, "tcp://::1:5"; "an address in brackets")]
    fn engines_are_addressed_as_documented(host: Option<&str>, environment: Option<&str>, expected: &str) {
        assert_eq!(address(host, environment), Ok(expected.to_owned()));
    }

    #[test_case("/var/run/docker.sock", "is not an address"; "a path")]
    #[test_case("npipe:////./pipe/docker_engine", "named pipe"; "a pipe")]
    #[test_case("ssh://me@engine", "docker-autoscaler"; "over ssh")]
    #[test_case("tcp://", "is not an address"; "nothing")]
    fn what_is_no_address_is_refused_with_the_way_out(host: &str, why: &str) {
        assert!(address(Some(host), None).unwrap_err().contains(why));
    }
}
