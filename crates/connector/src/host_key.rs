//! Which host key is accepted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use russh::keys::ssh_key::{Algorithm, Fingerprint, HashAlg, PublicKey};

use crate::error::DialError;

/// Remembers the host key that each instance showed first. Clones share the memory.
///
/// An instance is new to the manager and its key is unknown, so the first key is accepted; a different one later is refused,
/// because either another machine answers under the instance's address or the instance was rebuilt under its name. The key is
/// remembered once the login succeeded: images often make fresh host keys during their first boot, after `sshd` was up
/// already, and a login proves that it is the instance that answered.
#[derive(Debug, Clone, Default)]
pub struct HostKeys {
    first_seen: Arc<Mutex<BTreeMap<String, Fingerprint>>>,
}

/// What a server must show.
#[derive(Debug, Clone)]
pub(crate) enum Expected {
    /// The configured key; its algorithm is known if the whole key was configured, not only its fingerprint.
    Pinned(Fingerprint, Option<Algorithm>),
    /// The key of an earlier connection.
    Remembered(Fingerprint),
    /// Anything.
    Unknown,
}

// === impl HostKeys ===

impl HostKeys {
    /// Forgets the key of `instance`; to be called when the instance is gone, since its name may be used again.
    pub fn forget(&self, instance: &str) {
        self.lock().remove(instance);
    }

    /// The fingerprint (`SHA256:...`) remembered for `instance`.
    #[must_use]
    pub fn fingerprint(&self, instance: &str) -> Option<String> {
        self.lock().get(instance).map(ToString::to_string)
    }

    pub(crate) fn remember(&self, instance: &str, key: Fingerprint) {
        self.lock().entry(instance.to_owned()).or_insert(key);
    }

    /// The expectation for `instance`: the configured key, else the one seen first.
    pub(crate) fn expected(&self, instance: &str, configured: Option<&str>) -> Result<Expected, DialError> {
        if let Some(text) = configured.map(str::trim).filter(|text| !text.is_empty()) {
            let parsed = if text.starts_with("SHA256:") {
                text.parse::<Fingerprint>().ok().map(|fingerprint| (fingerprint, None))
            } else {
                PublicKey::from_openssh(text)
                    .ok()
                    .map(|key| (key.fingerprint(HashAlg::Sha256), Some(key.algorithm())))
            };
            return match parsed {
                Some((fingerprint, algorithm)) => Ok(Expected::Pinned(fingerprint, algorithm)),
                None => Err(DialError::HostKeyUnreadable { text: text.to_owned() }),
            };
        }
        Ok(self.lock().get(instance).map_or(Expected::Unknown, |key| Expected::Remembered(*key)))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Fingerprint>> {
        self.first_seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Expected ===

impl Expected {
    /// The host key algorithms to ask for, if the expectation narrows them: a server with several host keys must show the one
    /// that is configured.
    pub(crate) fn algorithms(&self) -> Option<Vec<Algorithm>> {
        match self {
            Self::Pinned(_, Some(Algorithm::Rsa { .. })) => Some(
                [Some(HashAlg::Sha512), Some(HashAlg::Sha256), None]
                    .map(|hash| Algorithm::Rsa { hash })
                    .to_vec(),
            ),
            Self::Pinned(_, Some(algorithm)) => Some(vec![algorithm.clone()]),
            Self::Pinned(_, None) | Self::Remembered(_) | Self::Unknown => None,
        }
    }

    /// Checks the key that the server showed.
    pub(crate) fn check(&self, instance: &str, presented: Fingerprint) -> Result<(), DialError> {
        let (expected, pinned) = match self {
            Self::Unknown => return Ok(()),
            Self::Pinned(key, _) => (key, true),
            Self::Remembered(key) => (key, false),
        };
        if *expected == presented {
            return Ok(());
        }
        Err(DialError::HostKeyMismatch {
            instance: instance.to_owned(),
            expected: expected.to_string(),
            presented: presented.to_string(),
            pinned,
        })
    }
}
