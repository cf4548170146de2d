//! What a listing of the group says: instances come, change and go.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::core::{Core, Tomb};
use crate::doom::{Dooms, Herald};
use crate::fleet::Seq;
use crate::ids::{InstanceId, Mono, Now};
use crate::instance::{Ask, Instance, Origin, Phase, Reason, Seen, SeenState, Step};
use crate::ledger::InstanceRecord;
use crate::persist::record;
use crate::plan::{LostCause, Notice};

/// How long a delayed listing may still name an instance that is gone.
const TOMB_LIFE: Duration = Duration::from_secs(900);

// === impl Core: listings ===

impl Core {
    /// Takes in a complete listing of the group. The order of the lines has no meaning.
    ///
    /// Clouds list with delay. What is missing counts as gone, and the jobs of a ready instance fail at once instead of
    /// hanging; but an instance that was seen and never ready may be missing from one listing, and an instance that was
    /// only asked for may take `creation_timeout` to appear. An instance that is gone and listed again never takes a job.
    ///
    /// A new instance is taken for the oldest open request; if there is none, it existed before. Without a record such
    /// an instance is removed for safety, unless jobs run isolated.
    pub fn observe(&mut self, listing: &[Seen], now: Now) {
        self.listings += 1;
        let mut new: Vec<&Seen> = Vec::new();
        for seen in listing {
            match self.fleet.seq(&seen.id) {
                None => new.push(seen),
                Some(seq) => {
                    if self.fleet.mark_listed(seq, self.listings) {
                        self.hear(seq, Some(seen), now);
                    }
                }
            }
        }
        let missing: Vec<Seq> = self
            .fleet
            .iter()
            .filter(|(_, instance)| instance.listing != self.listings)
            .map(|(seq, _)| seq)
            .collect();
        for seq in missing {
            self.hear(seq, None, now);
        }
        new.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        new.dedup_by(|a, b| a.id == b.id);
        for seen in new {
            self.meet(seen, now);
        }
        // Only after a look at the listing: a pause between listings must not bring anything back to life.
        self.expire_tombs(now.tick());
        self.assign(now);
    }
}

// === impl Core: parts ===

impl Core {
    /// Takes in what a listing says about a known instance.
    fn hear(&mut self, seq: Seq, seen: Option<&Seen>, now: Now) {
        let Some(instance) = self.fleet.get(seq) else { return };
        let step = instance.phase.name().step(seen.map(|seen| seen.state));
        let step = if step == Step::Doubt && instance.doubted { Step::Vanish } else { step };
        if instance.doubted && seen.is_some() {
            self.fleet.edit(seq, |instance| instance.doubted = false);
        }
        match step {
            Step::Stay => {}
            Step::Create => {
                let until = now.tick() + self.config.creation_timeout;
                self.fleet.edit(seq, |instance| instance.phase = Phase::Creating { until });
            }
            Step::Boot => self.boot(seq, now),
            Step::Doubt => {
                self.fleet.edit(seq, |instance| instance.doubted = true);
            }
            Step::Forget => self.forget(seq, now),
            Step::Vanish => {
                self.lose(seq, now);
                self.forget(seq, now);
            }
            Step::TakenAway => {
                self.lose(seq, now);
                let since = now.tick();
                self.fleet.edit(seq, |instance| {
                    let reason = instance.leaving().cloned().unwrap_or(Reason::TakenAway);
                    instance.phase = Phase::Deleting { reason, since, delete: Ask::Never };
                });
            }
            Step::TimeOut => {
                self.creation_failed("the provider gave up on an instance", now);
                self.cut_off(seq, &LostCause::TimedOut);
                self.drain(seq, Reason::CreationTimeout, now);
            }
            Step::Linger => self.ask_again(seq, now),
        }
        if let Some(seen) = seen {
            self.foresee(seq, Herald::Listing, seen.doomed.as_ref(), now);
        }
    }

    /// Takes in an instance that is listed for the first time.
    fn meet(&mut self, seen: &Seen, now: Now) {
        if seen.state == SeenState::Deleted {
            return;
        }
        let tomb = self.tombs.get(&seen.id);
        let reappeared = tomb.is_some();
        if reappeared && seen.state == SeenState::Deleting {
            return;
        }
        let used = tomb.map_or(0, |tomb| tomb.record.use_count);
        let tick = now.tick();
        let request = if reappeared { None } else { self.requests.pop_front() };
        self.requests_changed |= request.is_some();
        let origin = if request.is_some() { Origin::Requested } else { Origin::Preexisted };
        let until = tick + self.config.creation_timeout;
        let phase = match seen.state {
            SeenState::Deleting => {
                Phase::Deleting { reason: Reason::TakenAway, since: tick, delete: Ask::Never }
            }
            SeenState::Creating | SeenState::Running | SeenState::Timeout | SeenState::Deleted => {
                Phase::Creating { until }
            }
        };
        let seq = self.fleet.insert(Instance {
            id: seen.id.clone(),
            origin,
            phase,
            slots: BTreeMap::new(),
            ghosts: Vec::new(),
            used,
            created: now.wall,
            created_mono: tick,
            idle_since: tick,
            idle_since_wall: now.wall,
            failures: 0,
            complaints: 0,
            doubted: false,
            listing: self.listings,
            dooms: Dooms::default(),
        });
        let after = request.map(|request| tick.since(request.at));
        self.notice(Notice::Appeared { id: seen.id.clone(), origin, after });
        if reappeared {
            self.drain(seq, Reason::Reappeared, now);
        } else if request.is_none() && !self.config.vm_isolation {
            self.drain(seq, Reason::NoRecord, now);
        }
        match seen.state {
            SeenState::Running => self.boot(seq, now),
            SeenState::Timeout => {
                self.creation_failed("the provider gave up on an instance", now);
                self.drain(seq, Reason::CreationTimeout, now);
            }
            SeenState::Deleting => self.creation_failed("an instance was deleted before it ran", now),
            SeenState::Creating | SeenState::Deleted => {}
        }
        self.foresee(seq, Herald::Listing, seen.doomed.as_ref(), now);
        if self.shutdown.is_some_and(|shutdown| shutdown.delete_instances) {
            self.drain(seq, Reason::Shutdown, now);
        }
    }

    fn boot(&mut self, seq: Seq, now: Now) {
        let booted = self.fleet.edit(seq, |instance| {
            if instance.leaving().is_some() {
                return None;
            }
            instance.phase = Phase::Booting { ready_up: Ask::At(Mono::MIN) };
            Some((instance.id.clone(), now.tick().since(instance.created_mono)))
        });
        if let Some((id, after)) = booted.flatten() {
            self.notice(Notice::Running { id, after });
        }
    }

    /// Tells the owners of its slots that an instance went unasked.
    fn lose(&mut self, seq: Seq, now: Now) {
        let Some(instance) = self.fleet.get(seq) else { return };
        let announced = instance.dooms.first().map(|doom| LostCause::Doomed { why: doom.to_string() });
        let (cause, asked_to_go) = match &instance.phase {
            Phase::Draining { reason: Reason::Doomed { why }, .. } => {
                (LostCause::Doomed { why: why.clone() }, true)
            }
            Phase::Draining { reason: Reason::Unhealthy { why }, .. } | Phase::Suspect { why, .. } => {
                (LostCause::Unhealthy { why: why.clone() }, false)
            }
            Phase::Draining { .. } | Phase::Deleting { .. } => {
                (LostCause::UnexpectedlyRemoved, !instance.is_busy())
            }
            Phase::Restoring | Phase::Creating { .. } | Phase::Booting { .. } | Phase::Ready { .. } => {
                (LostCause::UnexpectedlyRemoved, false)
            }
        };
        let asked_to_go = asked_to_go || announced.is_some();
        let cause = announced.unwrap_or(cause);
        let never_ready = matches!(instance.phase, Phase::Creating { .. } | Phase::Booting { .. });
        let was_usable =
            matches!(instance.phase, Phase::Ready { .. } | Phase::Suspect { .. }) || instance.is_busy();
        let id = instance.id.clone();
        if !asked_to_go {
            let notice = Notice::UnexpectedlyRemoved {
                id: instance.id.clone(),
                used: instance.used,
                slots: instance.slots.iter().map(|(index, key)| (*index, key.clone())).collect(),
            };
            self.notice(notice);
        }
        if was_usable && !asked_to_go {
            self.troubles.taken(id, now.tick());
        }
        if never_ready {
            self.creation_failed("an instance vanished before it was ready", now);
        }
        self.cut_off(seq, &cause);
    }

    /// A deletion that somebody else began did not go through: it becomes ours.
    fn ask_again(&mut self, seq: Seq, now: Now) {
        let retry = now.tick() + self.config.deletion_retry_interval;
        self.fleet.edit(seq, |instance| {
            if let Phase::Deleting { delete, .. } = &mut instance.phase
                && *delete == Ask::Never
            {
                *delete = Ask::At(retry);
            }
        });
    }

    fn forget(&mut self, seq: Seq, now: Now) {
        let Some(instance) = self.fleet.remove(seq) else { return };
        let tick = now.tick();
        if instance.used == 0 && instance.origin == Origin::Requested {
            self.troubles.wasted(tick);
        }
        let mut record = record(&instance);
        record.gone = Some(now.wall);
        self.bury(instance.id.clone(), record, tick);
        if let Phase::Deleting { since, .. } = instance.phase {
            self.notice(Notice::Deleted {
                id: instance.id,
                after: tick.since(since),
                life: tick.since(instance.created_mono),
            });
        }
    }

    fn expire_tombs(&mut self, now: Mono) {
        while let Some((at, _)) = self.tomb_order.front()
            && now.since(*at) >= TOMB_LIFE
        {
            if let Some((at, id)) = self.tomb_order.pop_front()
                && self.tombs.get(&id).is_some_and(|tomb| tomb.at == at)
            {
                self.tombs.remove(&id);
                self.fleet.touch(id);
            }
        }
    }

    pub(crate) fn bury(&mut self, id: InstanceId, record: InstanceRecord, at: Mono) {
        self.tombs.insert(id.clone(), Tomb { at, record });
        self.tomb_order.push_back((at, id));
    }
}
