//! Where the ledger is kept.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use taskscaler_core::{Ledger, LedgerChanges};

/// Keeps what must survive a restart. Calls come one at a time and must be quick: they are made under the scaler's lock.
pub trait LedgerStore: Send + Sync + 'static {
    /// What was kept of this group ([`GroupInfo::id`](fleeting::GroupInfo)), or an empty ledger. Called once, before the
    /// first [`save`](Self::save).
    ///
    /// # Errors
    /// The store cannot be read; the scaler does not start, because it could not tell its instances from foreign ones.
    fn load(&self, group: &str) -> Result<Ledger, StoreError>;

    /// Keeps what changed. It returns before a slot of a changed record is handed out, so that a manager that dies at any
    /// moment leaves no instance behind that its successor would use too often.
    ///
    /// # Errors
    /// The changes are handed in again with the next ones. Jobs run on, because they matter more than the record of them.
    fn save(&self, changes: &LedgerChanges) -> Result<(), StoreError>;

    /// The scaler has ended: what is kept is free for a successor, also while somebody still has a handle to the scaler.
    /// Later changes are not kept.
    fn close(&self) {}
}

/// Why a ledger could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Reading or writing failed.
    #[error("{doing}")]
    Io {
        /// What was being done, with the path.
        doing: String,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another scaler has it.
    #[error(
        "the ledger `{}` of runner `{runner}` is in use: another process runs with this configuration, or two entries of \
         it have the same name and the same group; end the other process, or give the entries different names and groups",
        path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
        /// The runner entry.
        runner: String,
    },
    /// Another scaler has the group.
    #[error(
        "the instance group `{group}` is in use by runner `{holder}`: two scalers would remove each other's instances; give \
         runner `{runner}` a group of its own, or remove one of the two"
    )]
    GroupInUse {
        /// The group, as its provider names it.
        group: String,
        /// The runner entry that has it.
        holder: String,
        /// The runner entry that cannot have it.
        runner: String,
    },
    /// A later version of the program wrote it.
    #[error(
        "the ledger `{}` has version {found} and this program knows versions up to {known}: run the program that wrote it, \
         or remove the file, then the instances of the group are replaced",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The latest version that is understood.
        known: u32,
    },
}

/// Keeps the ledger for the life of the process only: after a restart, instances found in the group are removed, because
/// their use counts are unknown.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<Ledger>);

impl LedgerStore for MemoryStore {
    fn load(&self, _: &str) -> Result<Ledger, StoreError> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn save(&self, changes: &LedgerChanges) -> Result<(), StoreError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).apply(changes.clone());
        Ok(())
    }
}
