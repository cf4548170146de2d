//! What must survive a restart.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::ids::{ClaimKey, InstanceId};
use crate::instance::{Origin, Reason};

/// Everything that a new manager must know about the instances of the last one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Version of the format: [`Ledger::VERSION`].
    pub version: u32,
    /// What is known about each instance.
    pub instances: BTreeMap<InstanceId, InstanceRecord>,
    /// When instances were asked for that have not appeared yet, oldest first.
    #[serde(default)]
    pub requests: Vec<DateTime<Utc>>,
}

/// What is known about one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceRecord {
    /// Jobs ever started on it.
    pub use_count: u32,
    /// Claims on its slots, by slot.
    pub claims: Vec<ClaimKey>,
    /// Why it is known.
    pub cause: Origin,
    /// When it was first seen.
    pub created: DateTime<Utc>,
    /// Since when it is idle.
    pub idle_since: DateTime<Utc>,
    /// Set once it is marked for removal: it must never take a job again.
    #[serde(default)]
    pub leaving: Option<Reason>,
    /// Set once it is gone. The record stays until no delayed listing can name the instance any more, so that it is never
    /// taken for a new one.
    #[serde(default)]
    pub gone: Option<DateTime<Utc>>,
}

/// What changed in the ledger since it was asked last.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LedgerChanges {
    /// Records that are new or differ.
    pub upserts: Vec<(InstanceId, InstanceRecord)>,
    /// Records to drop.
    pub removals: Vec<InstanceId>,
    /// The open requests, if they changed.
    pub requests: Option<Vec<DateTime<Utc>>>,
}

// === impl Ledger ===

impl Ledger {
    /// The version that this code writes.
    pub const VERSION: u32 = 1;

    /// Brings a stored ledger up to date.
    pub fn apply(&mut self, changes: LedgerChanges) {
        for id in &changes.removals {
            self.instances.remove(id);
        }
        self.instances.extend(changes.upserts);
        if let Some(requests) = changes.requests {
            self.requests = requests;
        }
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self { version: Self::VERSION, instances: BTreeMap::new(), requests: Vec::new() }
    }
}

// === impl LedgerChanges ===

impl LedgerChanges {
    /// True if there is nothing to persist.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.upserts.is_empty() && self.removals.is_empty() && self.requests.is_none()
    }

    /// Adds changes that came after these, so that applying the result is the same as applying both.
    pub fn then(&mut self, later: Self) {
        let mut instances: BTreeMap<InstanceId, Option<InstanceRecord>> = BTreeMap::new();
        let earlier = std::mem::take(self);
        self.requests = later.requests.or(earlier.requests);
        for (upserts, removals) in [(earlier.upserts, earlier.removals), (later.upserts, later.removals)] {
            instances.extend(removals.into_iter().map(|id| (id, None)));
            instances.extend(upserts.into_iter().map(|(id, record)| (id, Some(record))));
        }
        for (id, record) in instances {
            match record {
                Some(record) => self.upserts.push((id, record)),
                None => self.removals.push(id),
            }
        }
    }
}
