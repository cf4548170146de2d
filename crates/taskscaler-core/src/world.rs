//! What the outside says: listings, answers to plans, health.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::core::{Core, Health, Tomb};
use crate::doom::{Doom, Dooms, Herald};
use crate::fleet::Seq;
use crate::ids::{ClaimKey, InstanceId, Mono, Now, Slot};
use crate::instance::{Ask, Instance, Origin, Phase, Reason, Seen, SeenState, Step};
use crate::ledger::InstanceRecord;
use crate::persist::record;
use crate::plan::{Event, LostCause, Notice};
use crate::throttle::{Failure, FailureKind};

/// How soon an instance that failed a check is checked again.
const SUSPECT_RECHECK: Duration = Duration::from_secs(30);
/// How long a delayed listing may still name an instance that is gone.
const TOMB_LIFE: Duration = Duration::from_secs(900);

// === impl Core: the world ===

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

    /// The answer to [`Plan::launch`](crate::Plan::launch): of `asked` instances the cloud accepted `granted`.
    pub fn increased(&mut self, asked: u32, granted: u32, failure: Option<Failure>, now: Now) {
        let mut refused = asked.saturating_sub(granted);
        while refused > 0 && self.requests.back().is_some_and(|request| !request.confirmed) {
            self.requests.pop_back();
            refused -= 1;
        }
        for request in self.requests.iter_mut().filter(|request| !request.confirmed) {
            request.confirmed = true;
            request.at = now.tick();
        }
        self.requests_changed = true;
        match failure {
            Some(failure) => self.increase_failed(failure, now),
            None if granted < asked => {
                let message = format!("{granted} of {asked} requests for instances were accepted");
                self.increase_failed(Failure::new(FailureKind::Transient, message), now);
            }
            None => self.increase_backoff.succeed(),
        }
    }

    /// The answer to [`Plan::delete`](crate::Plan::delete): of the `asked` instances the cloud accepted the deletion of
    /// `accepted`. The others are asked for again after `deletion_retry_interval`.
    pub fn decreased(
        &mut self,
        asked: &[InstanceId],
        accepted: &[InstanceId],
        failure: Option<Failure>,
        now: Now,
    ) {
        let retry = now.tick() + self.config.deletion_retry_interval;
        self.deletion_failure = failure;
        for seq in asked.iter().filter_map(|id| self.fleet.seq(id)).collect::<Vec<_>>() {
            self.fleet.edit(seq, |instance| match &mut instance.phase {
                Phase::Draining { delete, .. } | Phase::Deleting { delete, .. } => {
                    if *delete == Ask::InFlight {
                        *delete = Ask::At(retry);
                    }
                }
                Phase::Restoring
                | Phase::Creating { .. }
                | Phase::Booting { .. }
                | Phase::Ready { .. }
                | Phase::Suspect { .. } => {}
            });
        }
        for seq in accepted.iter().filter_map(|id| self.fleet.seq(id)).collect::<Vec<_>>() {
            self.begin_deleting(seq, now);
        }
    }

    /// The answer to [`Plan::ready_up`](crate::Plan::ready_up). A failure removes the instance.
    pub fn readied(&mut self, id: &InstanceId, outcome: Result<(), String>, now: Now) {
        let Some(seq) = self.fleet.seq(id) else { return };
        let tick = now.tick();
        let check = self.first_check(tick);
        let was_booting = self.fleet.edit(seq, |instance| {
            let booting = matches!(instance.phase, Phase::Booting { .. });
            if booting && outcome.is_ok() {
                instance.phase = Phase::Ready { check };
                instance.ghosts.clear();
                if !matches!(instance.origin, Origin::Restored { .. }) {
                    instance.idle_since = tick;
                    instance.idle_since_wall = now.wall;
                }
            }
            booting.then(|| tick.since(instance.created_mono))
        });
        let Some(Some(after)) = was_booting else { return };
        match outcome {
            Ok(()) => {
                self.instance_succeeded();
                self.notice(Notice::Ready { id: id.clone(), after });
                self.assign(now);
            }
            Err(why) => {
                self.instance_failed(Failure::new(FailureKind::NotReady, why.clone()), now);
                self.drain(seq, Reason::ReadyUpFailed { why }, now);
            }
        }
    }

    /// The answer to [`Plan::check`](crate::Plan::check), or a health check made for another reason.
    pub fn health(&mut self, id: &InstanceId, health: Health, now: Now) {
        let Some(seq) = self.fleet.seq(id) else { return };
        let tick = now.tick();
        let regular = self.first_check(tick);
        let soon = self.soon(tick);
        let threshold = self.config.failure_threshold.max(1);
        let unfit = self.fleet.edit(seq, |instance| match (&mut instance.phase, health) {
            (Phase::Ready { check }, Health::Healthy) => {
                instance.failures = 0;
                *check = regular;
                None
            }
            (Phase::Suspect { .. }, Health::Healthy) => {
                instance.failures = 0;
                instance.phase = Phase::Ready { check: regular };
                None
            }
            (Phase::Ready { .. } | Phase::Suspect { .. }, Health::Unhealthy(why)) => {
                instance.failures += 1;
                instance.phase = Phase::Suspect { why: why.clone(), check: soon };
                (instance.failures >= threshold).then_some(why)
            }
            (Phase::Ready { check }, Health::Unknown(_)) => {
                *check = regular;
                None
            }
            (Phase::Suspect { check, .. }, Health::Unknown(_)) => {
                *check = soon;
                None
            }
            (
                Phase::Restoring
                | Phase::Creating { .. }
                | Phase::Booting { .. }
                | Phase::Draining { .. }
                | Phase::Deleting { .. },
                Health::Healthy | Health::Unhealthy(_) | Health::Unknown(_),
            ) => None,
        });
        if let Some(Some(why)) = unfit {
            self.drain(seq, Reason::Unhealthy { why }, now);
        }
        self.retire_if_used_up(seq, now);
        self.assign(now);
    }

    /// What an instance itself says was announced about its end, beside what listings say; `None` if nothing is, also when
    /// that is called off. An instance that is not known is ignored. Returns whether it was something else than before.
    pub fn told(&mut self, id: &InstanceId, doom: Option<&Doom>, now: Now) -> bool {
        self.fleet.seq(id).is_some_and(|seq| self.foresee(seq, Herald::Instance, doom, now))
    }

    /// What was announced about the end of an instance.
    #[must_use]
    pub fn doom(&self, id: &InstanceId) -> Option<&Doom> {
        self.fleet.seq(id).and_then(|seq| self.fleet.get(seq)).and_then(|instance| instance.dooms.first())
    }

    /// Whether jobs run on an instance.
    #[must_use]
    pub fn is_busy(&self, id: &InstanceId) -> bool {
        self.fleet.seq(id).and_then(|seq| self.fleet.get(seq)).is_some_and(Instance::is_busy)
    }

    /// An instance proved unusable for a job that tried as long as it was allowed to. It takes no other job and goes when
    /// its last one ends, whatever its health checks say: the same job must not meet it again.
    pub fn condemn(&mut self, id: &InstanceId, why: String, now: Now) {
        if let Some(seq) = self.fleet.seq(id) {
            self.drain(seq, Reason::Unhealthy { why }, now);
        }
    }

    /// A job could not use the instance: no job goes there until it proves healthy. It is checked at once; where the
    /// provider has no health checks it is replaced. After `failure_threshold` such complaints in its life it is
    /// replaced as well, whatever its health checks say.
    pub fn suspect(&mut self, id: &InstanceId, why: String, now: Now) {
        let Some(seq) = self.fleet.seq(id) else { return };
        let tick = now.tick();
        let threshold = self.config.failure_threshold.max(1);
        let checked = !self.config.heartbeat_interval.is_zero();
        let unfit = self.fleet.edit(seq, |instance| match &instance.phase {
            Phase::Ready { check } | Phase::Suspect { check, .. } => {
                instance.complaints += 1;
                let check = if *check == Ask::InFlight { Ask::InFlight } else { Ask::At(tick) };
                instance.phase = Phase::Suspect { why: why.clone(), check };
                !checked || instance.complaints >= threshold
            }
            Phase::Restoring
            | Phase::Creating { .. }
            | Phase::Booting { .. }
            | Phase::Draining { .. }
            | Phase::Deleting { .. } => false,
        });
        if unfit == Some(true) {
            self.drain(seq, Reason::Unhealthy { why }, now);
        }
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

    /// Takes in what a herald says of an instance's end. It takes no other job then, for good; the jobs that run there hear
    /// each change, so that an end that is called off ends none of them.
    fn foresee(&mut self, seq: Seq, herald: Herald, doom: Option<&Doom>, now: Now) -> bool {
        if self.fleet.get(seq).is_none_or(|instance| !instance.dooms.differs(herald, doom)) {
            return false;
        }
        let heard = self.fleet.edit(seq, |instance| {
            let before = instance.dooms.first().cloned();
            instance.dooms.hear(herald, doom.cloned());
            let first = instance.dooms.first().cloned();
            (before != first).then(|| {
                let keys: Vec<ClaimKey> = instance.slots.values().cloned().collect();
                (instance.id.clone(), keys, before, first)
            })
        });
        let Some((id, keys, before, first)) = heard.flatten() else { return true };
        self.events.extend(keys.into_iter().map(|key| Event::Doomed { key, doom: first.clone() }));
        let Some(first) = first else { return true };
        if first.is_news(before.as_ref()) {
            self.notice(Notice::Announced { id, doom: first.clone() });
        }
        self.drain(seq, Reason::Doomed { why: first.to_string() }, now);
        true
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

    /// Takes the claims off an instance.
    fn cut_off(&mut self, seq: Seq, cause: &LostCause) {
        // One claim per edit keeps the record's change visible to the fleet.
        while let Some((key, slot)) = self
            .fleet
            .edit(seq, |instance| {
                let (index, key) = instance.slots.pop_first()?;
                Some((key, Slot { instance: instance.id.clone(), index }))
            })
            .flatten()
        {
            self.claims.remove(&key);
            self.events.push_back(Event::Lost { key, slot, cause: cause.clone() });
        }
    }

    /// The cloud accepted the deletion.
    fn begin_deleting(&mut self, seq: Seq, now: Now) {
        let tick = now.tick();
        let retry = Ask::At(tick + self.config.deletion_retry_interval);
        // An instance that the core did not plan to delete: the caller cleared the group at shutdown.
        self.drain(seq, Reason::Shutdown, now);
        let Some(reason) = self.fleet.get(seq).and_then(|instance| instance.leaving().cloned()) else {
            return;
        };
        self.cut_off(seq, &LostCause::Deleted { reason: reason.clone() });
        self.fleet.edit(seq, |instance| match &mut instance.phase {
            Phase::Deleting { delete, .. } => *delete = retry,
            Phase::Restoring
            | Phase::Creating { .. }
            | Phase::Booting { .. }
            | Phase::Ready { .. }
            | Phase::Suspect { .. }
            | Phase::Draining { .. } => {
                instance.phase = Phase::Deleting { reason, since: tick, delete: retry };
            }
        });
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

    pub(crate) fn creation_failed(&mut self, what: &str, now: Now) {
        self.instance_failed(Failure::new(FailureKind::NotReady, what), now);
    }

    /// When a healthy instance is checked next.
    fn first_check(&self, now: Mono) -> Ask {
        let interval = self.config.heartbeat_interval;
        if interval.is_zero() { Ask::Never } else { Ask::At(now + interval) }
    }

    /// When a suspect instance is checked next.
    fn soon(&self, now: Mono) -> Ask {
        Ask::At(now + self.config.heartbeat_interval.min(SUSPECT_RECHECK))
    }
}
