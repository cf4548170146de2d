//! What can go wrong while an instance is dialled, and afterwards.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use connect_info::{AddressError, Protocol, RenewalError};

/// What an SSH server answers that does not forward to where it was asked to.
pub(crate) const PROHIBITED: &str = "administratively prohibited";

/// Why no connection to an instance came about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The instance has no usable address.
    #[error("cannot choose an address")]
    Address(#[from] AddressError),
    /// The instance wants a protocol that this crate does not speak.
    #[error("instance `{instance}` wants {protocol}, which is not available yet")]
    UnsupportedProtocol {
        /// The instance that was asked for.
        instance: String,
        /// Its protocol.
        protocol: Protocol,
    },
    /// Neither a private key nor a password is known, or no login name.
    #[error("instance `{instance}` has no {what} to log in with")]
    NoCredentials {
        /// The instance that was asked for.
        instance: String,
        /// What is missing.
        what: &'static str,
    },
    /// The private key is protected by a passphrase.
    #[error("the private key for instance `{instance}` is encrypted")]
    KeyEncrypted {
        /// The instance that was asked for.
        instance: String,
    },
    /// The private key is in no known format.
    #[error("cannot read the private key for instance `{instance}`")]
    KeyUnreadable {
        /// The instance that was asked for.
        instance: String,
        /// What the parser met.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The configured host key is neither a `SHA256:` fingerprint nor a public key.
    #[error(
        "the configured host key `{text}` is neither a SHA256 fingerprint nor a public key in OpenSSH form"
    )]
    HostKeyUnreadable {
        /// The configured text.
        text: String,
    },
    /// The server's host key is not the expected one: another machine answers, or the instance was rebuilt.
    #[error("host key of instance `{instance}` is {presented}, but {expected} is {}", if *.pinned { "configured" } else { "known from earlier" })]
    HostKeyMismatch {
        /// The instance that was asked for.
        instance: String,
        /// Fingerprint that was expected.
        expected: String,
        /// Fingerprint that the server showed.
        presented: String,
        /// True if the expectation was configured, false if it was remembered from an earlier connection.
        pinned: bool,
    },
    /// The credentials had expired and the provider could not have the instance accept them again.
    #[error("cannot renew the credentials for instance `{instance}`")]
    Renewal {
        /// The instance that was asked for.
        instance: String,
        /// What the provider said.
        #[source]
        source: RenewalError,
    },
    /// The server accepted none of the credentials.
    #[error("authentication refused for user `{user}` (tried {})", .tried.join(", "))]
    Authentication {
        /// Login name.
        user: String,
        /// Methods that were tried, in order.
        tried: Vec<&'static str>,
    },
    /// No TCP connection. The text follows GitLab Runner's.
    #[error("dial tcp {address}")]
    Connect {
        /// `host:port` that was dialled.
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The instance that is between could not connect to the address, or its connection is over.
    #[error("dial tcp {address}")]
    Through {
        /// `host:port` that was dialled.
        address: String,
        /// What the instance between said.
        #[source]
        source: ConnectionError,
    },
    /// The TCP connection stands but the SSH handshake failed.
    #[error("ssh handshake with {address} failed")]
    Handshake {
        /// `host:port` that was dialled.
        address: String,
        /// What the SSH implementation met.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server accepted the TCP connection but did not finish the handshake in time.
    #[error("ssh handshake with {address} did not finish within {}", go_duration::format(*after))]
    HandshakeTimeout {
        /// `host:port` that was dialled.
        address: String,
        /// How long was waited.
        after: Duration,
    },
    /// All attempts within the timeout failed. The text follows GitLab Runner's.
    #[error("dial ssh: after retrying {attempts} times during {} timeout", go_duration::format(*timeout))]
    TimedOut {
        /// Attempts that were made.
        attempts: u32,
        /// The total time that was allowed.
        timeout: Duration,
        /// What the last attempt met; absent if not even the first one ended.
        #[source]
        last: Option<Box<DialError>>,
    },
}

/// Why something on an established connection failed.
///
/// Cheap to clone: when a connection is lost, everything that was pending on it fails with the same value.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The connection broke. Whether remote commands still run is not known.
    #[error("connection to instance `{instance}` lost: {reason}")]
    Lost {
        /// The instance at the other end.
        instance: Arc<str>,
        /// What was noticed.
        reason: Arc<str>,
    },
    /// [`Client::close`](crate::Client::close) was called.
    #[error("connection to instance `{instance}` was closed")]
    Closed {
        /// The instance at the other end.
        instance: Arc<str>,
    },
    /// The server refuses even the first session on a fresh connection.
    #[error("instance `{instance}` refuses to open a session: {reason}")]
    SessionRefused {
        /// The instance at the other end.
        instance: Arc<str>,
        /// The server's reason.
        reason: Arc<str>,
    },
    /// The server does not run commands for this login (a forced subsystem, a disabled account). A missing shell or program
    /// is no refusal: it is exit code 127.
    #[error("instance `{instance}` refuses to run a command")]
    ExecRefused {
        /// The instance at the other end.
        instance: Arc<str>,
    },
    /// The channel ended without telling how the command ended.
    #[error("command on instance `{instance}` ended without an exit status")]
    NoExitStatus {
        /// The instance at the other end.
        instance: Arc<str>,
    },
    /// The instance did not connect the tunnel to its target, for example because nothing listens there. The text follows
    /// GitLab Runner's.
    #[error("ssh: rejected: {reason} (tunnel to {target} on instance `{instance}`)")]
    TunnelRefused {
        /// The instance at the other end.
        instance: Arc<str>,
        /// Where the tunnel should have led.
        target: Arc<str>,
        /// The server's reason.
        reason: Arc<str>,
    },
    /// Output that nobody read outgrew the limit, or the file that held it could not be written.
    #[error("output of instance `{instance}` was not read: {reason}")]
    Unread {
        /// The instance at the other end.
        instance: Arc<str>,
        /// What went wrong.
        reason: Arc<str>,
    },
}

// === impl DialError ===

impl DialError {
    /// True if another attempt may succeed because the instance is still booting.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Authentication { .. }
            | Self::Connect { .. }
            | Self::Handshake { .. }
            | Self::HandshakeTimeout { .. } => true,
            Self::Renewal { source, .. } => match source {
                RenewalError::Failed(_) => true,
                RenewalError::Gone(_) => false,
            },
            // Nobody listens yet; but an instance that forwards nothing will not begin to.
            Self::Through { source, .. } => match source {
                ConnectionError::TunnelRefused { reason, .. } => &**reason != PROHIBITED,
                ConnectionError::Lost { .. }
                | ConnectionError::Closed { .. }
                | ConnectionError::SessionRefused { .. }
                | ConnectionError::ExecRefused { .. }
                | ConnectionError::NoExitStatus { .. }
                | ConnectionError::Unread { .. } => false,
            },
            Self::Address(_)
            | Self::UnsupportedProtocol { .. }
            | Self::NoCredentials { .. }
            | Self::KeyEncrypted { .. }
            | Self::KeyUnreadable { .. }
            | Self::HostKeyUnreadable { .. }
            | Self::HostKeyMismatch { .. }
            | Self::TimedOut { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_counts_the_attempts_and_leaves_the_cause_to_the_source() {
        let error = DialError::TimedOut { attempts: 7, timeout: Duration::from_secs(600), last: None };
        assert_eq!(error.to_string(), "dial ssh: after retrying 7 times during 10m0s timeout");
    }

    #[test]
    fn a_refused_login_names_the_user_and_the_methods() {
        let error = DialError::Authentication { user: "ci".into(), tried: vec!["publickey", "password"] };
        assert_eq!(error.to_string(), "authentication refused for user `ci` (tried publickey, password)");
    }
}
