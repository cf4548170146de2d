//! The key pair with which a group logs in to its instances.

use fleeting::{ConnectorSettings, ExposeSecret, GroupError, SecretString};
use russh::keys::key::safe_rng;
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey};

/// Lives in memory only.
pub(crate) struct Login {
    pub(crate) key_pem: SecretString,
    /// In OpenSSH's public form.
    pub(crate) public: String,
}

// === impl Login ===

impl Login {
    /// A fresh pair, or the configured key if credentials are static.
    pub(crate) fn new(settings: &ConnectorSettings) -> Result<Self, GroupError> {
        if !settings.use_static_credentials {
            let key = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519)
                .map_err(|error| GroupError::transient("making a key pair", &error))?;
            let pem = key
                .to_openssh(LineEnding::LF)
                .map_err(|error| GroupError::transient("writing a private key", &error))?;
            return Ok(Self { key_pem: SecretString::from(pem.as_str()), public: public(&key)? });
        }
        let Some(key_pem) = settings.key_pem.clone() else {
            let message =
                "connector_config.use_static_credentials needs key_path: local instances take keys only";
            return Err(GroupError::Configuration { message: message.to_owned() });
        };
        let key = russh::keys::decode_secret_key(key_pem.expose_secret(), None).map_err(|error| {
            GroupError::Configuration {
                message: format!("connector_config.key_path: unusable private key: {error}"),
            }
        })?;
        Ok(Self { public: public(&key)?, key_pem })
    }
}

fn public(key: &PrivateKey) -> Result<String, GroupError> {
    key.public_key().to_openssh().map_err(|error| GroupError::transient("writing a public key", &error))
}
