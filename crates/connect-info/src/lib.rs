//! What is needed to reach one instance: its addresses, how to speak to it, and with which credentials.
//!
//! Providers fill a [`ConnectInfo`] from what their cloud knows, overlaid with what the user configured
//! ([`ConnectorSettings`], the `connector_config` table); the connector dials it. The crate holds data only, so that
//! a provider does not depend on an SSH implementation.
//!
//! ```
//! use drover_connect_info::{ConnectInfo, ConnectorSettings, Protocol};
//!
//! let settings = ConnectorSettings { username: Some("ci".into()), ..ConnectorSettings::default() };
//! let mut info = ConnectInfo::new("i-1", settings);
//! info.internal_addr = Some("10.0.0.7".into());
//! let target = info.target(false).unwrap();
//! assert_eq!((target.host.as_str(), target.port), ("10.0.0.7", 22));
//! assert_eq!(info.settings.protocol(), Protocol::Ssh);
//! ```

use std::fmt;
use std::time::{Duration, SystemTime};

pub use secrecy::{ExposeSecret, SecretString};

mod daemon;
mod renewal;
mod target;

pub use daemon::{DaemonAddress, DaemonAddressError};
pub use renewal::{Renewal, RenewalError};
pub use target::{AddressError, Target};

/// How commands are run on an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// SSH; default port 22.
    Ssh,
    /// WS-Management over http; default port 5985.
    Winrm,
    /// WS-Management over https; default port 5986.
    WinrmHttps,
}

/// The operating system of an instance, as far as the scripts that run there care.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Os {
    /// Any Linux.
    Linux,
    /// Windows Server.
    Windows,
    /// macOS.
    Darwin,
}

/// The `connector_config` table: what the user fixed. `None` leaves the choice to the provider or to a default.
///
/// Source of the keys: GitLab's `[runners.autoscaler.connector_config]`.
#[derive(Clone, Default)]
pub struct ConnectorSettings {
    /// Operating system; the provider's discovery when absent.
    pub os: Option<Os>,
    /// Architecture in Go's naming (`amd64`, `arm64`, `386`); the provider's discovery when absent.
    pub arch: Option<String>,
    /// Protocol; SSH unless the instance is known to be Windows.
    pub protocol: Option<Protocol>,
    /// Port; 0 and absent both mean the protocol's default.
    pub protocol_port: Option<u16>,
    /// Login name; the provider's default for the image when absent.
    pub username: Option<String>,
    /// Password for login.
    pub password: Option<SecretString>,
    /// Private key in PEM (OpenSSH, PKCS#1 or PKCS#8), already read from `key_path`.
    pub key_pem: Option<SecretString>,
    /// Use only the configured credentials; the provider must not provision any.
    pub use_static_credentials: bool,
    /// Interval of keepalive probes on a connection; default 15 s.
    pub keepalive: Option<Duration>,
    /// Total time to connect, all attempts included; default 10 min.
    pub timeout: Option<Duration>,
    /// Dial the external address where there is one.
    pub use_external_addr: bool,
    /// Expected host key, as `SHA256:...` fingerprint or a public key in OpenSSH form. Without it the first key seen for
    /// an instance is remembered for that instance's life.
    pub host_key: Option<String>,
}

/// Everything needed to dial one instance now.
#[derive(Clone)]
pub struct ConnectInfo {
    /// The provider's name for the instance, as shown in the job log.
    pub instance: String,
    /// Host or `host:port` reachable from outside the instance's network.
    pub external_addr: Option<String>,
    /// Host or `host:port` inside the instance's network.
    pub internal_addr: Option<String>,
    /// User settings completed by the provider's discovery; a value set by the user wins.
    pub settings: ConnectorSettings,
    /// When the credentials stop working; the information must be fetched again before that, or renewed.
    pub expires: Option<SystemTime>,
    /// How expired credentials are made to work again, where the provider can do that.
    pub renewal: Option<Renewal>,
}

// === impl Protocol ===

impl Protocol {
    /// The port used when none is configured.
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Self::Ssh => 22,
            Self::Winrm => 5985,
            Self::WinrmHttps => 5986,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ssh => "ssh",
            Self::Winrm => "winrm",
            Self::WinrmHttps => "winrm+https",
        })
    }
}

// === impl ConnectorSettings ===

impl ConnectorSettings {
    /// Default of [`timeout`](Self::timeout).
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);
    /// Default of [`keepalive`](Self::keepalive).
    pub const DEFAULT_KEEPALIVE: Duration = Duration::from_secs(15);

    /// The protocol in force: the configured one, else WinRM for Windows, else SSH.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol.unwrap_or(match self.os {
            Some(Os::Windows) => Protocol::Winrm,
            Some(Os::Linux | Os::Darwin) | None => Protocol::Ssh,
        })
    }

    /// The port in force; a configured 0 means the protocol's default.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.protocol_port.filter(|port| *port != 0).unwrap_or_else(|| self.protocol().default_port())
    }

    /// Total time to connect, all attempts included.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(Self::DEFAULT_TIMEOUT)
    }

    /// Interval of keepalive probes.
    #[must_use]
    pub fn keepalive(&self) -> Duration {
        self.keepalive.unwrap_or(Self::DEFAULT_KEEPALIVE)
    }
}

impl fmt::Debug for ConnectorSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectorSettings")
            .field("os", &self.os)
            .field("arch", &self.arch)
            .field("protocol", &self.protocol)
            .field("protocol_port", &self.protocol_port)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "[hidden]"))
            .field("key_pem", &self.key_pem.as_ref().map(|_| "[hidden]"))
            .field("use_static_credentials", &self.use_static_credentials)
            .field("keepalive", &self.keepalive)
            .field("timeout", &self.timeout)
            .field("use_external_addr", &self.use_external_addr)
            .field("host_key", &self.host_key)
            .finish()
    }
}

// === impl ConnectInfo ===

impl ConnectInfo {
    /// Information about `instance` with no address yet.
    #[must_use]
    pub fn new(instance: impl Into<String>, settings: ConnectorSettings) -> Self {
        Self {
            instance: instance.into(),
            external_addr: None,
            internal_addr: None,
            settings,
            expires: None,
            renewal: None,
        }
    }
}

impl fmt::Debug for ConnectInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectInfo")
            .field("instance", &self.instance)
            .field("external_addr", &self.external_addr)
            .field("internal_addr", &self.internal_addr)
            .field("settings", &self.settings)
            .field("expires", &self.expires)
            .field("renewal", &self.renewal)
            .finish()
    }
}
