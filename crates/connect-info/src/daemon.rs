//! Where a program listens on an instance.

use std::fmt;
use std::str::FromStr;

use crate::target::split;

/// The address of a program on an instance, as the instance sees it.
///
/// It is written `unix:///path` or `unix:path` for a unix socket, `tcp://host:port` or `host:port` for a port. A path is taken as it
/// stands: what looks like an escape in it is none, and spaces are allowed, as in `/Users/ci/Library/Application Support`.
///
/// ```
/// use drover_connect_info::DaemonAddress;
///
/// let address: DaemonAddress = "unix:///var/run/my daemon.sock".parse().unwrap();
/// assert_eq!(address, DaemonAddress::Unix("/var/run/my daemon.sock".to_owned()));
/// assert!("my-daemon".parse::<DaemonAddress>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DaemonAddress {
    /// A unix socket. A relative path starts from the folder that the login of the instance begins in.
    Unix(String),
    /// A TCP port.
    Tcp {
        /// Host name or IP address, without brackets.
        host: String,
        /// The port.
        port: u16,
    },
}

/// The text is no address of a program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an address: write unix:///path/to/socket or tcp://host:port")]
pub struct DaemonAddressError(pub String);

impl FromStr for DaemonAddress {
    type Err = DaemonAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || DaemonAddressError(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            // Two slashes begin an authority, which is empty here.
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(wrong()) } else { Ok(Self::Unix(path.to_owned())) };
        }
        let address = text.strip_prefix("tcp://").unwrap_or(text);
        match split(address) {
            Some((host, Some(port))) if port > 0 && !host.is_empty() && !host.contains('/') => {
                Ok(Self::Tcp { host: host.to_owned(), port })
            }
            Some(_) | None => Err(wrong()),
        }
    }
}

impl fmt::Display for DaemonAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) if path.starts_with('/') => write!(f, "unix://{path}"),
            Self::Unix(path) => write!(f, "unix:{path}"),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_and_ports_are_told_apart() {
        for (text, canonical) in [
            ("unix:///run/n.sock", "unix:///run/n.sock"),
            (
                "unix:///Users/ec2-user/Library/Application Support/nesting.sock",
                "unix:///Users/ec2-user/Library/Application Support/nesting.sock",
            ),
            ("unix:///a%20b", "unix:///a%20b"),
            ("unix:n.sock", "unix:n.sock"),
            ("unix:/run/n.sock", "unix:///run/n.sock"),
            ("tcp://10.0.0.1:5000", "tcp://10.0.0.1:5000"),
            ("localhost:5000", "tcp://localhost:5000"),
            ("tcp://[::1]:5000", "tcp://[::1]:5000"),
        ] {
            let address: DaemonAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), canonical);
            assert_eq!(canonical.parse(), Ok(address), "it is read as it is written");
        }
    }

    #[test]
    fn what_names_neither_is_refused() {
        for text in
            ["", "unix:", "unix://", "/run/n.sock", "localhost", "tcp://", "host:0", "http://h/x", "h:x"]
        {
            assert_eq!(text.parse::<DaemonAddress>(), Err(DaemonAddressError(text.to_owned())));
        }
    }
}
