//! The key pair with which a group logs in to its instances, and the archives in which keys travel.

use std::io::Read;

use fleeting::{ConnectorSettings, ExposeSecret, GroupError, SecretString};
use russh::keys::key::safe_rng;
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, HashAlg, PrivateKey, PublicKey};

/// A public key is no longer than this.
const KEY_SIZE: u64 = 16 << 10;

/// Lives in memory only.
pub(crate) struct Login {
    pub(crate) key_pem: SecretString,
    /// In OpenSSH's public form.
    public: String,
}

// === impl Login ===

impl Login {
    /// A fresh pair; none if the credentials are static, since the image has them.
    pub(crate) fn new(settings: &ConnectorSettings) -> Result<Option<Self>, GroupError> {
        if settings.use_static_credentials {
            if settings
                .key_pem
                .as_ref()
                .is_some_and(|key| russh::keys::decode_secret_key(key.expose_secret(), None).is_err())
            {
                let message = "connector_config.key_path: unusable private key".to_owned();
                return Err(GroupError::Configuration { message });
            }
            return Ok(None);
        }
        let key = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519)
            .map_err(|error| GroupError::transient("making a key pair", &error))?;
        let pem = key
            .to_openssh(LineEnding::LF)
            .map_err(|error| GroupError::transient("writing a private key", &error))?;
        let public = key
            .public_key()
            .to_openssh()
            .map_err(|error| GroupError::transient("writing a public key", &error))?;
        Ok(Some(Self { key_pem: SecretString::from(pem.as_str()), public }))
    }

    /// An archive that puts the public key into a file. It is root's and readable by everyone, which suits any login.
    pub(crate) fn archive(&self, path: &str) -> Result<Vec<u8>, GroupError> {
        let line = format!("{}\n", self.public);
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(line.len() as u64);
        let mut archive = tar::Builder::new(Vec::new());
        archive
            .append_data(&mut header, path.trim_start_matches('/'), line.as_bytes())
            .and_then(|()| archive.into_inner())
            .map_err(|error| GroupError::transient("packing a public key", &error))
    }
}

/// The fingerprint of the public key that is the one file of an archive; none if it is no key (yet).
pub(crate) fn fingerprint(archive: &[u8]) -> Option<String> {
    let mut archive = tar::Archive::new(archive);
    let entry = archive.entries().ok()?.next()?.ok()?;
    let mut line = String::new();
    entry.take(KEY_SIZE).read_to_string(&mut line).ok()?;
    Some(PublicKey::from_openssh(line.trim()).ok()?.fingerprint(HashAlg::Sha256).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_archive() {
        let login = Login::new(&ConnectorSettings::default()).unwrap().unwrap();
        let archive = login.archive("/root/.ssh/authorized_keys").unwrap();

        let mut read = tar::Archive::new(&archive[..]);
        let entry = read.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.path().unwrap().to_str(), Some("root/.ssh/authorized_keys"));
        assert_eq!(entry.header().mode().unwrap(), 0o644);
        let key = PublicKey::from_openssh(&login.public).unwrap();
        assert_eq!(fingerprint(&archive), Some(key.fingerprint(HashAlg::Sha256).to_string()));
    }

    #[test]
    fn what_is_no_key_has_no_fingerprint() {
        assert_eq!(fingerprint(b""), None);
        let mut header = tar::Header::new_gnu();
        header.set_size(3);
        let mut archive = tar::Builder::new(Vec::new());
        archive.append_data(&mut header, "key.pub", &b"ssh"[..]).unwrap();
        assert_eq!(fingerprint(&archive.into_inner().unwrap()), None);
    }

    #[test]
    fn static_credentials_are_left_alone() {
        let settings = ConnectorSettings { use_static_credentials: true, ..ConnectorSettings::default() };
        assert!(Login::new(&settings).unwrap().is_none());
        let key_pem = Some(SecretString::from("no key"));
        assert!(Login::new(&ConnectorSettings { key_pem, ..settings }).is_err());
    }
}
