//! How instances are reached.

use std::time::Duration;

use connect_info::{ConnectorSettings, Os, Protocol};
use secrecy::SecretString;

use super::global::positive;
use crate::schema::{choice, section};

section! {
    /// How instances are reached; fills in or overrides what the provider finds out.
    pub struct Connector = "[runners.autoscaler.connector_config]" {
        /// Operating system of the instances.
        os: Option<ConnectorOs>, default "the provider's answer";
        /// Architecture of the instances: `amd64`, `arm64`, `386`.
        arch: Option<String>, default "the provider's answer";
        /// Protocol.
        protocol: Option<ConnectorProtocol>, default "`ssh`; `winrm` when the instance is known to be Windows";
        /// Port; 0 means the default.
        protocol_port: Option<i64>, default "22, 5985 or 5986 by protocol";
        /// Login name.
        username: Option<String>, default "the provider's choice for the image";
        /// Password for SSH or WinRM.
        password: Option<SecretString>;
        /// Private key file, read when the runner starts.
        key_path: Option<String>;
        /// Use the configured credentials only; the provider must not make any.
        use_static_credentials: bool, default "false";
        /// Interval of keepalive probes.
        keepalive: Option<Duration>, default "15s";
        /// Time to connect, all attempts together.
        timeout: Option<Duration>, default "10m";
        /// Dial the external address where there is one.
        use_external_addr: bool, default "false";
        /// Expected host key, as `SHA256:` fingerprint or public key. Not a key of GitLab Runner. Without it the first key
        /// seen for an instance is remembered for that instance's life.
        host_key: Option<String>;
    }
}

choice! {
    /// Operating system of instances.
    pub enum ConnectorOs {
        /// Linux.
        Linux = "linux",
        /// Windows.
        Windows = "windows",
        /// macOS.
        Darwin = "darwin",
    }
}

choice! {
    /// Protocol to instances.
    pub enum ConnectorProtocol {
        /// SSH.
        Ssh = "ssh",
        /// WS-Management over http.
        Winrm = "winrm",
        /// WS-Management over https.
        WinrmHttps = "winrm+https",
    }
}

// === impl Connector ===

impl Connector {
    /// The settings that a provider and the connector take. `key_pem` is the content of `key_path`, which the caller reads
    /// once when the runner starts.
    #[must_use]
    pub fn settings(&self, key_pem: Option<SecretString>) -> ConnectorSettings {
        ConnectorSettings {
            os: self.os.map(ConnectorOs::os),
            arch: self.arch.clone(),
            protocol: self.protocol.map(ConnectorProtocol::protocol),
            protocol_port: self
                .protocol_port
                .and_then(|port| u16::try_from(port).ok())
                .filter(|port| *port != 0),
            username: self.username.clone(),
            password: self.password.clone(),
            key_pem,
            use_static_credentials: self.use_static_credentials,
            keepalive: positive(self.keepalive),
            timeout: positive(self.timeout),
            use_external_addr: self.use_external_addr,
            host_key: self.host_key.clone(),
        }
    }
}

// === impl ConnectorOs ===

impl ConnectorOs {
    fn os(self) -> Os {
        match self {
            Self::Linux => Os::Linux,
            Self::Windows => Os::Windows,
            Self::Darwin => Os::Darwin,
        }
    }
}

// === impl ConnectorProtocol ===

impl ConnectorProtocol {
    fn protocol(self) -> Protocol {
        match self {
            Self::Ssh => Protocol::Ssh,
            Self::Winrm => Protocol::Winrm,
            Self::WinrmHttps => Protocol::WinrmHttps,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_of_zero_means_the_default() {
        let connector = Connector { protocol_port: Some(0), ..Connector::default() };
        assert_eq!(connector.settings(None).port(), 22);
    }
}
