//! Writing the ledger, and starting from one.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::core::{Core, Request};
use crate::doom::Dooms;
use crate::fleet::claims_of;
use crate::ids::Now;
use crate::instance::{Ask, Instance, Origin, Phase, Reason};
use crate::ledger::{InstanceRecord, Ledger, LedgerChanges};

// === impl Core ===

impl Core {
    /// What must survive a restart, in full.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        let gone = self.tombs.iter().map(|(id, tomb)| (id.clone(), tomb.record.clone()));
        let known = self.fleet.iter().map(|(_, instance)| (instance.id.clone(), record(instance)));
        Ledger {
            version: Ledger::VERSION,
            instances: gone.chain(known).collect(),
            requests: self.requests.iter().map(|request| request.wall).collect(),
        }
    }

    /// True if [`take_ledger_changes`](Self::take_ledger_changes) would return something.
    #[must_use]
    pub fn ledger_changed(&self) -> bool {
        self.requests_changed || self.fleet.has_changed()
    }

    /// What changed in the ledger since the last call. Persist it before acting on a plan or handing out a slot: then a
    /// manager that dies at any moment leaves nothing behind that its successor would use too often or forget.
    pub fn take_ledger_changes(&mut self) -> LedgerChanges {
        let mut changes = LedgerChanges::default();
        for id in self.fleet.take_changed() {
            let known = self.fleet.seq(&id).and_then(|seq| self.fleet.get(seq)).map(record);
            match known.or_else(|| self.tombs.get(&id).map(|tomb| tomb.record.clone())) {
                Some(record) => changes.upserts.push((id, record)),
                None => changes.removals.push(id),
            }
        }
        if std::mem::take(&mut self.requests_changed) {
            changes.requests = Some(self.requests.iter().map(|request| request.wall).collect());
        }
        changes
    }

    /// Takes over what a ledger knows. Instances wait for the first listing; those that may not take jobs are marked.
    pub(crate) fn restore(&mut self, ledger: Ledger, now: Now) {
        let tick = now.tick();
        let ago = |wall: DateTime<Utc>| tick.before((now.wall - wall).to_std().unwrap_or_default());
        self.requests = ledger
            .requests
            .into_iter()
            .map(|wall| Request { at: ago(wall), wall, confirmed: true })
            .collect();
        let mut gone = Vec::new();
        for (id, record) in ledger.instances {
            if let Some(at) = record.gone {
                gone.push((at, id, record));
                continue;
            }
            let had_claims = !record.claims.is_empty();
            let leaving = record.leaving.or_else(|| {
                let over = self.config.max_use_count > 0 && record.use_count >= self.config.max_use_count;
                if had_claims && !self.config.keep_instance_with_acquisitions {
                    Some(Reason::RestoredWithAcquisitions)
                } else {
                    over.then_some(Reason::UsedUp)
                }
            });
            let phase = match leaving {
                None => Phase::Restoring,
                Some(reason) => Phase::Draining { reason, delete: Ask::At(tick) },
            };
            self.fleet.insert(Instance {
                id,
                origin: Origin::Restored { had_claims },
                phase,
                slots: BTreeMap::new(),
                ghosts: record.claims,
                used: record.use_count,
                created: record.created,
                created_mono: ago(record.created),
                idle_since: ago(record.idle_since),
                idle_since_wall: record.idle_since,
                failures: 0,
                complaints: 0,
                doubted: false,
                listing: 0,
                dooms: Dooms::default(),
            });
        }
        gone.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        for (at, id, record) in gone {
            self.bury(id, record, ago(at));
        }
    }
}

pub(crate) fn record(instance: &Instance) -> InstanceRecord {
    InstanceRecord {
        use_count: instance.used,
        claims: claims_of(instance),
        cause: instance.origin,
        created: instance.created,
        idle_since: instance.idle_since_wall,
        leaving: instance.leaving().cloned(),
        gone: None,
    }
}
