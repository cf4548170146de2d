//! What the outside says beside listings: answers to plans, health, announced ends.

use std::time::Duration;

use crate::core::{Core, Health};
use crate::doom::{Doom, Herald};
use crate::fleet::Seq;
use crate::ids::{ClaimKey, InstanceId, Mono, Now, Slot};
use crate::instance::{Ask, Instance, Origin, Phase, Reason};
use crate::plan::{Event, LostCause, Notice};
use crate::throttle::{Failure, FailureKind};

/// How soon an instance that failed a check is checked again.
const SUSPECT_RECHECK: Duration = Duration::from_secs(30);
// === impl Core: answers ===

impl Core {
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
    /// Takes in what a herald says of an instance's end. It takes no other job then, for good; the jobs that run there hear
    /// each change, so that an end that is called off ends none of them.
    pub(crate) fn foresee(&mut self, seq: Seq, herald: Herald, doom: Option<&Doom>, now: Now) -> bool {
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

    /// Takes the claims off an instance.
    pub(crate) fn cut_off(&mut self, seq: Seq, cause: &LostCause) {
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
