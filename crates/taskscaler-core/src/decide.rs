//! The decision.

use std::time::Duration;

use crate::breaker::Circuit;
use crate::core::{Core, Elsewhere, Request};
use crate::fate::{Fate, InstanceLine};
use crate::fleet::Seq;
use crate::ids::{Mono, Now};
use crate::instance::{Ask, Instance, Phase, Reason};
use crate::math::Inputs;
use crate::plan::{Deletion, Notice, Plan};
use crate::report::{ActivePolicy, Report};
use crate::why::{Demand, Keep, Why};

/// How long a reservation protects an idle slot: the time that a request for a job may take.
const REQUEST_IN_FLIGHT: Duration = Duration::from_secs(10);
/// The wall clock may be set at any time, so a schedule is looked at this often.
const SCHEDULE_CHECK: Duration = Duration::from_secs(60);
/// An idle instance goes once its age is above `idle_time`, so one tick later.
const TICK: Duration = Duration::from_nanos(1);

/// A plan and its reasons in the making.
#[derive(Default)]
struct Draft {
    plan: Plan,
    why: Vec<Why>,
    wake: Option<Mono>,
    /// Why idle instances stay although there are more than wanted.
    held: Option<Why>,
}

// === impl Core ===

impl Core {
    /// Decides what to do now, and says why. Items of the plan count as under way until they are answered, so that
    /// deciding again with nothing in between yields an empty plan.
    pub fn decide(&mut self, now: Now) -> (Plan, Report) {
        let mut draft = Draft::default();
        if let Some(Elsewhere { holder, until }) = self.elsewhere.clone() {
            let mut report = self.report(now);
            report.why.push(Why::HeldElsewhere { holder, until });
            return (draft.plan, report);
        }
        if self.listings == 0 {
            let mut report = self.report(now);
            report.why.push(Why::NoListing);
            return (draft.plan, report);
        }
        self.troubles.expire(now.tick());
        self.drop_lost_requests(now);
        self.do_due(&mut draft, now);
        let mut report = self.report(now);
        self.announce(&report.policy);
        if self.shutdown.is_some() {
            draft.why.push(Why::ShuttingDown);
        } else if report.wanted.target.is_none() {
            draft.why.push(guard(&report.inputs));
        } else {
            self.grow(&mut draft, &report, now);
            self.shrink(&mut draft, &report, now);
            self.do_due(&mut draft, now);
        }
        self.explain(&mut draft, &report);
        self.set_wake(&mut draft, &report.policy, now);
        self.last_excess = report.wanted.excess;
        self.last_idle_time = report.policy.idle_time;
        report.why = draft.why;
        (draft.plan, report)
    }

    /// One line for each known instance, in the order in which they became known, as of the last decision.
    pub fn instances(&self, now: Now) -> impl Iterator<Item = InstanceLine> + '_ {
        self.fleet.iter().map(move |(_, instance)| InstanceLine {
            id: instance.id.clone(),
            phase: instance.phase.name(),
            origin: instance.origin,
            slots_used: instance.acquired(),
            capacity: self.config.capacity(),
            use_count: instance.used,
            created: instance.created,
            idle_since: (!instance.is_busy()).then_some(instance.idle_since_wall),
            fate: self.fate(instance, now),
        })
    }

    fn fate(&self, instance: &Instance, now: Now) -> Fate {
        match &instance.phase {
            Phase::Restoring => Fate::AwaitingListing,
            Phase::Creating { until } => Fate::Creating { until: now.wall_at(*until) },
            Phase::Booting { .. } => Fate::ReadyingUp,
            Phase::Ready { .. } if instance.is_busy() && instance.used_up(self.config.max_use_count) => {
                Fate::LastJobs
            }
            Phase::Ready { .. } if instance.is_busy() => Fate::Busy,
            Phase::Ready { .. } if self.shutdown.is_some() => Fate::Kept { because: Keep::ShuttingDown },
            Phase::Ready { .. } if self.last_excess == 0 => Fate::Kept { because: Keep::Wanted },
            Phase::Ready { .. } => {
                let at = instance.idle_since + self.last_idle_time;
                if at < now.tick() {
                    Fate::Kept { because: Keep::Reserved }
                } else {
                    Fate::RemovableAt { at: now.wall_at(at) }
                }
            }
            Phase::Suspect { why, .. } => Fate::Suspect { why: why.clone() },
            Phase::Draining { reason, .. } => match instance.dooms.first() {
                // It may go before its last job ends, whatever it was to go for.
                Some(doom) => Fate::Draining { reason: Reason::Doomed { why: doom.to_string() } },
                None => Fate::Draining { reason: reason.clone() },
            },
            Phase::Deleting { reason, .. } => Fate::Deleting { reason: reason.clone() },
        }
    }

    /// What there is to decide about, without reasons yet.
    fn report(&mut self, now: Now) -> Report {
        let admission = self.admission(now);
        let requested = self.requested();
        let (inputs, policy) = self.inputs(now);
        let tally = self.fleet.tally();
        Report {
            wanted: inputs.wanted(),
            inputs,
            policy,
            counts: tally.counts(requested),
            idle: tally.usable,
            unhealthy: tally.unhealthy,
            available: admission.available(),
            potential: admission.potential(),
            why: Vec::new(),
        }
    }

    fn inputs(&mut self, now: Now) -> (Inputs, ActivePolicy) {
        let requested = self.requested();
        let pending = self.claims.pending();
        let reserved = self.claims.reserved();
        let tally = *self.fleet.tally();
        let max_instance_count = self.config.ceiling();
        let capacity_per_instance = self.config.capacity();
        let (active, policy) = self.policy_at(now);
        let inputs = Inputs {
            instance_count: requested + tally.present(),
            max_instance_count,
            deleting: tally.deleting,
            draining: tally.draining,
            acquired: tally.acquired,
            unavailable_capacity: tally.unavailable,
            idle_unavailable: tally.idle_unavailable,
            pending,
            reserved,
            idle_count: policy.idle_count,
            scale_factor: policy.scale_factor,
            scale_factor_limit: policy.scale_factor_limit,
            capacity_per_instance,
        };
        let active = ActivePolicy {
            index: active.policy,
            until: active.until,
            idle_time: policy.idle_time,
            preemptive: policy.preemptive(),
        };
        (inputs, active)
    }

    fn announce(&mut self, policy: &ActivePolicy) {
        if self.announced == Some(policy.index) {
            return;
        }
        self.announced = Some(policy.index);
        self.notice(Notice::PolicySwitched { policy: policy.index, until: policy.until });
    }

    /// Gives up on instances that were asked for and did not appear, so that they are asked for again.
    fn drop_lost_requests(&mut self, now: Now) {
        let timeout = self.config.creation_timeout;
        let mut count = 0;
        while let Some(request) = self.requests.front()
            && request.confirmed
            && now.tick().since(request.at) >= timeout
        {
            self.requests.pop_front();
            self.requests_changed = true;
            count += 1;
        }
        if count > 0 {
            self.creation_failed("instances that were asked for did not appear", now);
            self.notice(Notice::RequestsLost { count });
        }
    }

    /// Does what instances are due for.
    fn do_due(&mut self, draft: &mut Draft, now: Now) {
        while let Some((at, seq)) = self.fleet.first_due()
            && at <= now.tick()
        {
            let Some(instance) = self.fleet.get(seq) else { return };
            let id = instance.id.clone();
            match &instance.phase {
                Phase::Creating { .. } => {
                    self.creation_failed("an instance did not become running in time", now);
                    self.drain(seq, Reason::CreationTimeout, now);
                }
                Phase::Booting { .. } => {
                    draft.plan.ready_up.push((id, instance.origin));
                    self.fleet.edit(seq, |instance| {
                        instance.phase = Phase::Booting { ready_up: Ask::InFlight };
                    });
                }
                Phase::Ready { .. } | Phase::Suspect { .. } => {
                    draft.plan.check.push(id);
                    self.fleet.edit(seq, |instance| {
                        if let Phase::Ready { check } | Phase::Suspect { check, .. } = &mut instance.phase {
                            *check = Ask::InFlight;
                        }
                    });
                }
                Phase::Draining { reason, .. } | Phase::Deleting { reason, .. } => {
                    draft.plan.delete.push(Deletion { id, reason: reason.clone() });
                    self.fleet.edit(seq, |instance| {
                        if let Phase::Draining { delete, .. } | Phase::Deleting { delete, .. } =
                            &mut instance.phase
                        {
                            *delete = Ask::InFlight;
                        }
                    });
                }
                Phase::Restoring => return,
            }
        }
    }

    fn grow(&mut self, draft: &mut Draft, report: &Report, now: Now) {
        let wanted = &report.wanted;
        if let Some(max) = report.inputs.max_instance_count
            && wanted.target.is_some_and(|target| target < wanted.uncapped)
        {
            let wanted = wanted.uncapped;
            draft.why.push(match self.lack() {
                Some(lack) => Why::Lacking { max, wanted, lack: lack.to_owned() },
                None => Why::AtMaxInstances { max, wanted },
            });
        }
        let Ok(missing) = u32::try_from(wanted.required) else { return };
        if missing == 0 {
            return;
        }
        let circuit = self.breaker.circuit(now.tick());
        if let Circuit::Open { until } = circuit {
            let (failures, last) = (self.breaker.failures(), self.last_failure().to_owned());
            draft.why.push(Why::CircuitOpen { until: now.wall_at(until), failures, last });
            draft.wake(until);
            return;
        }
        if let Some((until, failures, last)) = self.backoff(now.tick()) {
            let last = last.message.clone();
            draft.why.push(Why::BackoffUntil { until: now.wall_at(until), failures, last });
            draft.wake(until);
            return;
        }
        let mut missing = match self.config.max_coming {
            0 => missing,
            most => missing.min(most.saturating_sub(self.coming())),
        };
        if circuit == Circuit::HalfOpen {
            let (failures, last) = (self.breaker.failures(), self.last_failure().to_owned());
            draft.why.push(Why::Probing { failures, last });
            missing = missing.min(1_u32.saturating_sub(self.coming()));
        }
        if missing == 0 {
            draft.why.push(Why::WaitingForInstances { count: self.coming() });
            return;
        }
        let count = self.bucket.take(missing, now.tick());
        if count > 0 {
            self.breaker.probe();
            draft.plan.launch = count;
            draft.why.push(Why::Launching { count, because: demand(report) });
            let request = Request { at: now.tick(), wall: now.wall, confirmed: false };
            self.requests.extend(std::iter::repeat_n(request, count as usize));
            self.requests_changed = true;
        }
        if count < missing {
            let until = self.bucket.next();
            draft.why.push(Why::ThrottledUntil { until: now.wall_at(until), waiting: missing - count });
            draft.wake(until);
        }
    }

    /// Marks instances that are idle for too long and not wanted. Suspect ones go first: they hold no capacity that
    /// anybody counts on, so they do not lessen what may go besides them.
    fn shrink(&mut self, draft: &mut Draft, report: &Report, now: Now) {
        if self.inputs(now).0.wanted().excess == 0 {
            return;
        }
        let tick = now.tick();
        let idle_time = report.policy.idle_time;
        while let Some((since, seq)) = self.fleet.longest_idle_suspect() {
            let Some(Phase::Suspect { why, .. }) = self.fleet.get(seq).map(|instance| &instance.phase) else {
                break;
            };
            if tick.since(since) <= idle_time {
                draft.wake(since + idle_time + TICK);
                break;
            }
            let reason = Reason::Unhealthy { why: why.clone() };
            self.drain(seq, reason, now);
        }
        loop {
            let (inputs, _) = self.inputs(now);
            if inputs.wanted().excess == 0 {
                return;
            }
            let (young, oldest_young) = match report.policy.preemptive {
                true => self.claims.young(tick.before(REQUEST_IN_FLIGHT)),
                false => (0, None),
            };
            let ready = self.fleet.tally().usable;
            let spare = ready.saturating_sub(young);
            let mut victim: Option<(Mono, Seq)> = None;
            let mut too_young: Option<(Mono, Seq)> = None;
            let mut promised: Option<(Mono, Seq)> = None;
            for (unavailable, since, seq) in self.fleet.longest_idle() {
                let usable = inputs.capacity_per_instance - unavailable;
                if !inputs.may_go(unavailable, ready - usable) {
                    continue;
                }
                let class = if tick.since(since) <= idle_time {
                    &mut too_young
                } else if usable > spare {
                    &mut promised
                } else {
                    &mut victim
                };
                *class = Some(class.map_or((since, seq), |other| other.min((since, seq))));
            }
            if let Some((_, seq)) = victim {
                self.drain(seq, Reason::Idle, now);
                continue;
            }
            if let Some((since, seq)) = too_young {
                let until = since + idle_time;
                draft.wake(until + TICK);
                draft.held = self.fleet.get(seq).map(|instance| Why::TooYoungToRemove {
                    instance: instance.id.clone(),
                    until: now.wall_at(until),
                });
            }
            if let Some((_, seq)) = promised {
                oldest_young.into_iter().for_each(|since| draft.wake(since + REQUEST_IN_FLIGHT));
                draft.held = self.kept_idle(seq, Keep::Reserved);
            }
            return;
        }
    }

    fn kept_idle(&self, seq: Seq, because: Keep) -> Option<Why> {
        let instance = self.fleet.get(seq)?.id.clone();
        Some(Why::KeptIdle { count: count(self.fleet.idle_count()), instance, because })
    }

    /// Completes the reasons.
    fn explain(&mut self, draft: &mut Draft, report: &Report) {
        if let Some(first) = draft.plan.delete.first() {
            draft.why.push(Why::Removing {
                count: count(draft.plan.delete.len()),
                instance: first.id.clone(),
                reason: first.reason.clone(),
            });
        }
        let leaving = self.fleet.tally().draining + self.fleet.tally().deleting;
        if let Some(last) = &self.deletion_failure
            && leaving > 0
        {
            draft.why.push(Why::DeletionFailing { last: last.message.clone() });
        }
        let coming = self.coming();
        let waiting = Why::WaitingForInstances { count: coming };
        if report.inputs.pending > 0 && coming > 0 && draft.plan.launch == 0 && !draft.why.contains(&waiting)
        {
            draft.why.push(waiting);
        }
        let kept = draft.held.take().or_else(|| {
            let (_, seq) = self.fleet.longest_idle().map(|(_, since, seq)| (since, seq)).min()?;
            let because = if self.shutdown.is_some() { Keep::ShuttingDown } else { Keep::Wanted };
            self.kept_idle(seq, because)
        });
        draft.why.extend(kept);
        draft.why.extend(self.troubles.taken_away().map(|(taken, instance)| Why::RemovedByOthers {
            count: count(taken),
            instance: instance.clone(),
        }));
        draft.why.extend(
            self.troubles
                .churn()
                .map(|(wasted, jobs)| Why::Churn { instances: count(wasted), jobs: count(jobs) }),
        );
        if report.policy.index.is_none() {
            draft.why.push(Why::NoPolicyMatches);
        }
        if draft.why.is_empty() {
            draft.why.push(Why::NothingToDo);
        }
    }

    fn set_wake(&mut self, draft: &mut Draft, policy: &ActivePolicy, now: Now) {
        if let Some((at, _)) = self.fleet.first_due() {
            draft.wake(at);
        }
        if let Some(request) = self.requests.front()
            && request.confirmed
        {
            draft.wake(request.at + self.config.creation_timeout);
        }
        if let Some(until) = policy.until {
            let left = (until - now.wall).to_std().unwrap_or_default();
            draft.wake(now.tick() + left.min(SCHEDULE_CHECK));
        }
        draft.plan.wake_at = draft.wake.map(Mono::to_duration);
        let tally = self.fleet.tally();
        draft.plan.expecting =
            !self.requests.is_empty() || tally.creating + tally.deleting + tally.restoring > 0;
    }
}

// === impl Draft ===

impl Draft {
    fn wake(&mut self, at: Mono) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }
}

fn guard(inputs: &Inputs) -> Why {
    Why::GuardExceeded {
        acquired: inputs.acquired,
        unavailable: inputs.unavailable_capacity,
        places: u64::from(inputs.instance_count) * u64::from(inputs.capacity_per_instance),
    }
}

fn demand(report: &Report) -> Demand {
    match (report.inputs.pending > 0, report.wanted.idle > 0) {
        (true, true) => Demand::PendingJobsAndIdleCapacity,
        (true, false) => Demand::PendingJobs,
        (false, true | false) => Demand::IdleCapacity,
    }
}

fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
