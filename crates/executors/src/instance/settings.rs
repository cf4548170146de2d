//! From a runner entry to the settings of its scaler.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::{Autoscaler, Runner, SecretString};
use fleeting::lease::Owner;
use ledger::{DurableStore, ForgettingStore};
use taskscaler::{LeaseSettings, LedgerStore};
use taskscaler_core::{Config, Zone};

/// Largest private key file; anything bigger is not a key.
const KEY_FILE_LIMIT: u64 = 64 * 1024;

/// Why an entry cannot be turned into a scaler.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// There is no `[runners.autoscaler]`.
    #[error("executor requires autoscaler config: add [runners.autoscaler]")]
    NoAutoscaler,
    /// A policy does not make sense.
    #[error("bad policy: {0}")]
    Policy(String),
    /// The key file cannot be used.
    #[error("cannot use the key file `{}`: {why}", path.display())]
    Key {
        /// Which file.
        path: PathBuf,
        /// Why not, and what to do.
        why: String,
    },
    /// Nested virtual machines cannot be made or reached as the entry says.
    #[error("[runners.autoscaler.vm_isolation]: {0}")]
    Isolation(String),
}

/// The core's settings.
pub(crate) fn core(autoscaler: &Autoscaler, local: Zone) -> Result<Config, SettingsError> {
    let config = autoscaler.scaler(local).map_err(|error| SettingsError::Policy(error.to_string()))?;
    Ok(Config { restores_state: autoscaler.keeps_state(), ..config })
}

/// How the entry's group is marked; none if it is not to be.
pub(crate) fn lease(runner: &Runner, system_id: &str, host: &str) -> Option<LeaseSettings> {
    let valid = runner.autoscaler.as_ref()?.group_lease()?;
    Some(LeaseSettings { owner: group_owner(runner, system_id, host), valid })
}

/// Who scales the group of an entry, as its mark says it.
#[must_use]
pub fn group_owner(runner: &Runner, system_id: &str, host: &str) -> Owner {
    // What stays when the token is rotated.
    let identity = match runner.id.filter(|id| *id > 0) {
        Some(id) => id.to_string(),
        None => runner.name().to_owned(),
    };
    Owner::new(system_id, runner.url(), &identity, &runner.label(), host)
}

/// Where the entry's scaler keeps its ledger. Its name and not its token names the files, so that a token can be rotated.
pub(crate) fn store(runner: &Runner, autoscaler: &Autoscaler, base: &Path) -> Arc<dyn LedgerStore> {
    let folder = base.join(autoscaler.state_dir());
    if !autoscaler.keeps_state() {
        return Arc::new(ForgettingStore::new(&folder, runner.name()));
    }
    let store = DurableStore::new(&folder, runner.name());
    // Who did not ask for it can live without it.
    Arc::new(if autoscaler.state_storage.is_some() { store } else { store.optional() })
}

/// Reads a private key, once. It must not be readable by anybody but its owner.
pub(crate) fn key(path: &Path) -> Result<SecretString, SettingsError> {
    use std::os::unix::fs::PermissionsExt as _;
    let bad = |why: String| SettingsError::Key { path: path.to_owned(), why };
    let metadata = std::fs::metadata(path).map_err(|error| bad(error.to_string()))?;
    if !metadata.is_file() {
        return Err(bad("it is not a file".to_owned()));
    }
    if metadata.len() > KEY_FILE_LIMIT {
        return Err(bad(format!("it has {} bytes, more than any key", metadata.len())));
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(bad(format!(
            "its mode is {mode:04o}, so others can read it: chmod 600 {}",
            path.display()
        )));
    }
    let text = std::fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
    Ok(SecretString::from(text))
}
