//! The durable ledger of a scaler: what it knows of its instances survives the end of its process, however that comes.
//!
//! [`DurableStore`] is a [`LedgerStore`](taskscaler::LedgerStore) in a folder. There is one pair of files for each runner
//! entry and instance group, named after both, so that a rotated token or another URL changes nothing:
//!
//! ```
//! use drover_ledger::DurableStore;
//! use taskscaler::LedgerStore as _;
//!
//! # let folder = tempfile::tempdir()?;
//! let store = DurableStore::new(folder.path(), "builders");
//! let known = store.load("aws/eu-central-1/builders")?;
//! assert!(known.instances.is_empty());
//!
//! // The group is locked as long as the store lives: two scalers would remove each other's instances.
//! let other = DurableStore::new(folder.path(), "testers").load("aws/eu-central-1/builders");
//! assert!(other.unwrap_err().to_string().contains("is in use by runner `builders`"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is lost when
//!
//! Each change is one `write` to a journal before anybody hears of it: it is with the operating system when
//! [`save`](taskscaler::LedgerStore::save) returns, without a wait for the disk, because that is called under the scaler's
//! lock for every job. A second later at most a thread of the store brings the changes into an embedded database (redb)
//! that is synced to disk, and starts a new journal.
//!
//! | What dies | What is lost |
//! | --- | --- |
//! | the process (also by `kill -9`, or out of memory) | nothing |
//! | the machine (power, kernel) | at most the last second, or as long as the disk takes to sync; never older records |
//!
//! # What is stored
//!
//! Names of instances, use counts, names of claims (which begin with the part of the runner's token that may be shown),
//! times and reasons. No address, no user, no key: these are asked of the provider again. The folder has mode 0700, the files 0600.
//!
//! # What it does not do
//!
//! A file that cannot be understood is set aside and the ledger starts empty, which is safe: instances without a record are
//! removed and never used. A file of a newer version of the format is refused and left alone.

mod database;
mod journal;
mod place;
mod store;

pub use store::{DurableStore, ForgettingStore};
