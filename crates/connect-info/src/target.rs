//! Which address is dialled.

use crate::{ConnectInfo, Protocol};

/// The address that was chosen for a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Host name or IP address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Protocol spoken there.
    pub protocol: Protocol,
    /// True when the internal address was wanted but only an external one exists; worth a warning.
    pub fell_back_to_external: bool,
}

/// Why an instance cannot be dialled at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The provider gave neither an internal nor an external address.
    #[error("instance `{0}` has no address")]
    NoAddress(String),
    /// The address cannot be split into host and port.
    #[error("instance `{instance}` has the address `{address}`, which is neither a host nor host:port")]
    Malformed {
        /// Whose address it is.
        instance: String,
        /// The text that was given.
        address: String,
    },
}

impl ConnectInfo {
    /// Chooses the address: the external one if wanted and present, else the internal one, else whichever exists
    /// (GitLab's rule for `use_external_addr`). An address that carries a port keeps it.
    ///
    /// # Errors
    /// [`AddressError`] if there is no address or it is malformed.
    pub fn target(&self, use_external_addr: bool) -> Result<Target, AddressError> {
        let external = self.external_addr.as_deref().filter(|a| !a.is_empty());
        let internal = self.internal_addr.as_deref().filter(|a| !a.is_empty());
        let (address, fell_back_to_external) = match (use_external_addr, internal, external) {
            (true, _, Some(external)) => (external, false),
            (_, Some(internal), _) => (internal, false),
            (false, None, Some(external)) => (external, true),
            (_, None, None) => return Err(AddressError::NoAddress(self.instance.clone())),
        };
        let malformed =
            || AddressError::Malformed { instance: self.instance.clone(), address: address.to_owned() };
        let (host, port) = split(address).ok_or_else(malformed)?;
        Ok(Target {
            host: host.to_owned(),
            port: port.unwrap_or_else(|| self.settings.port()),
            protocol: self.settings.protocol(),
            fell_back_to_external,
        })
    }
}

/// Splits `host`, `host:port`, `v6` and `[v6]:port`.
pub(crate) fn split(address: &str) -> Option<(&str, Option<u16>)> {
    if let Some(rest) = address.strip_prefix('[') {
        let (host, tail) = rest.split_once(']')?;
        return match tail.strip_prefix(':') {
            Some(port) => Some((host, Some(port.parse().ok()?))),
            None if tail.is_empty() => Some((host, None)),
            None => None,
        };
    }
    match address.split_once(':') {
        Some((_, tail)) if tail.contains(':') => Some((address, None)),
        Some((host, port)) if !host.is_empty() => Some((host, Some(port.parse().ok()?))),
        Some(_) => None,
        None => Some((address, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ConnectorSettings;

    fn info(internal: Option<&str>, external: Option<&str>) -> ConnectInfo {
        let mut info = ConnectInfo::new("i-1", ConnectorSettings::default());
        info.internal_addr = internal.map(Into::into);
        info.external_addr = external.map(Into::into);
        info
    }

    #[test]
    fn address_choice_follows_the_table() {
        let both = info(Some("10.0.0.1"), Some("1.2.3.4"));
        assert_eq!(both.target(false).unwrap().host, "10.0.0.1");
        assert_eq!(both.target(true).unwrap().host, "1.2.3.4");
        assert_eq!(info(Some("10.0.0.1"), None).target(true).unwrap().host, "10.0.0.1");
        let fallback = info(None, Some("1.2.3.4")).target(false).unwrap();
        assert!(fallback.fell_back_to_external);
        assert_eq!(info(None, Some("")).target(true), Err(AddressError::NoAddress("i-1".into())));
    }

    #[test]
    fn ports_come_from_the_address_then_the_setting_then_the_protocol() {
        assert_eq!(info(Some("h:2222"), None).target(false).unwrap().port, 2222);
        assert_eq!(info(Some("[::1]:2222"), None).target(false).unwrap().port, 2222);
        assert_eq!(info(Some("::1"), None).target(false).unwrap().host, "::1");
        let mut zero = info(Some("h"), None);
        zero.settings.protocol_port = Some(0);
        assert_eq!(zero.target(false).unwrap().port, 22);
        assert!(matches!(info(Some("h:port"), None).target(false), Err(AddressError::Malformed { .. })));
    }
}
