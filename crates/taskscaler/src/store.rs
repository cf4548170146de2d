//! Where the ledger is kept.

use std::sync::{Mutex, PoisonError};

use taskscaler_core::{Ledger, LedgerChanges};

/// Keeps what must survive a restart. Calls come one at a time and must be quick: they are made under the scaler's lock.
pub trait LedgerStore: Send + Sync + 'static {
    /// What was kept, or an empty ledger.
    ///
    /// # Errors
    /// The store cannot be read; the scaler does not start, because it could not tell its instances from foreign ones.
    fn load(&self) -> Result<Ledger, StoreError>;

    /// Keeps what changed. It returns before a slot of a changed record is handed out, so that a manager that dies at any
    /// moment leaves no instance behind that its successor would use too often.
    ///
    /// # Errors
    /// Logged; nothing else happens, because jobs matter more than the record of them.
    fn save(&self, changes: LedgerChanges) -> Result<(), StoreError>;
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
}

/// Keeps the ledger for the life of the process only: after a restart, instances found in the group are removed, because
/// their use counts are unknown.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<Ledger>);

impl LedgerStore for MemoryStore {
    fn load(&self) -> Result<Ledger, StoreError> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn save(&self, changes: LedgerChanges) -> Result<(), StoreError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).apply(changes);
        Ok(())
    }
}
