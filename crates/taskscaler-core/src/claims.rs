//! Who wants a slot and who has one.

use std::collections::{BTreeMap, BTreeSet};

use crate::fleet::Seq;
use crate::ids::{ClaimKey, Mono};

/// Where a claim stands. A key is in exactly one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// On one slot somewhere.
    Reserved { ticket: u64, since: Mono },
    /// Waiting for a slot, in the order of the tickets.
    Pending { ticket: u64 },
    /// Has a slot.
    Acquired { seq: Seq, index: u32 },
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Claims {
    next_ticket: u64,
    by_key: BTreeMap<ClaimKey, Claim>,
    pending: BTreeMap<u64, ClaimKey>,
    /// Reservations, oldest first, from which [`Claims::young`] drops those that have come of age.
    young: BTreeSet<(Mono, u64)>,
    reserved: u32,
}

// === impl Claims ===

impl Claims {
    pub(crate) fn get(&self, key: &ClaimKey) -> Option<Claim> {
        self.by_key.get(key).copied()
    }

    pub(crate) fn reserved(&self) -> u32 {
        self.reserved
    }

    pub(crate) fn pending(&self) -> u32 {
        u32::try_from(self.pending.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn reserve(&mut self, key: ClaimKey, now: Mono) {
        let ticket = self.ticket();
        self.young.insert((now, ticket));
        self.reserved += 1;
        self.by_key.insert(key, Claim::Reserved { ticket, since: now });
    }

    /// A reservation starts to wait for a slot, behind those that wait already.
    pub(crate) fn wait(&mut self, key: &ClaimKey) {
        self.remove(key);
        let ticket = self.ticket();
        self.pending.insert(ticket, key.clone());
        self.by_key.insert(key.clone(), Claim::Pending { ticket });
    }

    pub(crate) fn grant(&mut self, key: &ClaimKey, seq: Seq, index: u32) {
        self.remove(key);
        self.by_key.insert(key.clone(), Claim::Acquired { seq, index });
    }

    pub(crate) fn first_pending(&self) -> Option<&ClaimKey> {
        self.pending.values().next()
    }

    pub(crate) fn remove(&mut self, key: &ClaimKey) -> Option<Claim> {
        let claim = self.by_key.remove(key)?;
        match claim {
            Claim::Reserved { ticket, since } => {
                self.young.remove(&(since, ticket));
                self.reserved -= 1;
            }
            Claim::Pending { ticket } => {
                self.pending.remove(&ticket);
            }
            Claim::Acquired { .. } => {}
        }
        Some(claim)
    }

    /// How many reservations are younger than `since`, and the oldest of them.
    pub(crate) fn young(&mut self, since: Mono) -> (u32, Option<Mono>) {
        while self.young.first().is_some_and(|(at, _)| *at <= since) {
            self.young.pop_first();
        }
        let oldest = self.young.first().map(|(at, _)| *at);
        (u32::try_from(self.young.len()).unwrap_or(u32::MAX), oldest)
    }

    fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }
}
