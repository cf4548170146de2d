//! The state of one scaler, and what events do to it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::breaker::{Breaker, Circuit};
use crate::claims::{Claim, Claims};
use crate::config::Config;
use crate::fleet::{Fleet, Rules, Seq};
use crate::ids::{ClaimKey, InstanceId, Mono, Now, Slot};
use crate::instance::{Ask, Phase, Reason};
use crate::ledger::{InstanceRecord, Ledger};
use crate::math::{Admission, Refusal};
use crate::plan::{Event, Notice};
use crate::policy::{Policy, ScheduleCache};
use crate::throttle::{Backoff, Bucket, Failure};
use crate::trouble::Troubles;

/// All state of one scaler. It is changed by events and asked for decisions; it never acts by itself.
///
/// Jobs are packed: of the instances with a free slot, the one with most running jobs takes the next job, then the one that
/// ran most jobs, then the one known longest; on it, the lowest free slot. So the others become idle and can go.
#[derive(Debug, Clone)]
pub struct Core {
    pub(crate) config: Config,
    /// What applies when no policy matches.
    pub(crate) default_policy: Policy,
    pub(crate) schedule: ScheduleCache,
    /// The policy that the last decision was made under, once there was one.
    pub(crate) announced: Option<Option<usize>>,
    pub(crate) fleet: Fleet,
    pub(crate) claims: Claims,
    pub(crate) requests: VecDeque<Request>,
    pub(crate) requests_changed: bool,
    /// Instances that are gone, until no delayed listing can name them any more.
    pub(crate) tombs: BTreeMap<InstanceId, Tomb>,
    pub(crate) tomb_order: VecDeque<(Mono, InstanceId)>,
    pub(crate) bucket: Bucket,
    /// Failing calls to make instances.
    pub(crate) increase_backoff: Backoff,
    /// Instances that come but do not become usable.
    pub(crate) ready_backoff: Backoff,
    pub(crate) breaker: Breaker,
    pub(crate) troubles: Troubles,
    /// How many listings were seen.
    pub(crate) listings: u64,
    pub(crate) shutdown: Option<Shutdown>,
    /// Another manager has the group.
    pub(crate) elsewhere: Option<Elsewhere>,
    /// Why the group can hold fewer instances than it was made for.
    pub(crate) lacking: Option<String>,
    /// Why the last call to delete instances did not do all of it.
    pub(crate) deletion_failure: Option<Failure>,
    /// What the last decision concluded about idle instances.
    pub(crate) last_excess: u32,
    pub(crate) last_idle_time: Duration,
    pub(crate) events: VecDeque<Event>,
    pub(crate) notices: VecDeque<Notice>,
}

/// What [`Core::acquire`] came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acquire {
    /// The claim has this slot.
    Granted(Slot),
    /// The claim waits; [`Event::Granted`] tells when it has a slot.
    Pending,
}

/// There is no such claim, or it lost its instance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown claim `{key}`")]
pub struct UnknownClaim {
    /// The key.
    pub key: ClaimKey,
}

/// Why a reservation is refused. None of these is a fault; the next poll may succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoCapacity {
    /// The manager takes no more jobs.
    #[error("no capacity: shutting down")]
    ShuttingDown,
    /// The group has not been listed yet.
    #[error("no capacity: the instance group has not been listed yet")]
    NotListed,
    /// Another manager has the group.
    #[error("no capacity: the instance group is held by {holder}")]
    HeldElsewhere {
        /// Who.
        holder: String,
    },
    /// A claim of this name exists.
    #[error("claim `{key}` exists already")]
    KeyInUse {
        /// The name.
        key: ClaimKey,
    },
    /// No ready slot is free, and in preemptive mode only those count (`reserve_available_capacity_failure`).
    #[error("no capacity: none of the {idle} free slots is unclaimed")]
    NoneReady {
        /// Free slots of ready instances, all claimed.
        idle: u32,
    },
    /// No slot is free and none can come (`reserve_iop_capacity_failure`).
    #[error("no capacity: every slot of the most {max} instances is taken")]
    AtMaximum {
        /// The ceiling.
        max: u32,
    },
    /// No slot is free and none can come, because the group has less to give than it was made for.
    #[error("no capacity: {why}")]
    Lacking {
        /// What it lacks, in its own words.
        why: String,
    },
    /// The rest of the idle capacity is left to other managers (`reservation_throttling`).
    #[error("no capacity: {reserved} of {allowed} allowed reservations are held while idle capacity exists")]
    Throttled {
        /// Reservations held.
        reserved: u32,
        /// Reservations allowed at this idle capacity.
        allowed: u32,
    },
    /// No slot is free, and new instances keep failing.
    #[error("no capacity: instances keep failing, next try at {until}: {last}")]
    Backoff {
        /// When the next instance is tried.
        until: DateTime<Utc>,
        /// The last failure.
        last: String,
    },
}

/// Who has the group while this manager must leave it alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// Who, for people.
    pub holder: String,
    /// Until when, unless it is renewed; `None` if that is not known.
    pub until: Option<DateTime<Utc>>,
}

/// What a health check said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Fit for jobs.
    Healthy,
    /// Not fit. Counts toward `failure_threshold`.
    Unhealthy(String),
    /// It could not be told. Does not count.
    Unknown(String),
}

/// An instance that was asked for and has not been seen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    pub(crate) at: Mono,
    pub(crate) wall: DateTime<Utc>,
    /// The cloud accepted it. Until then the call is under way.
    pub(crate) confirmed: bool,
}

/// An instance that is gone.
#[derive(Debug, Clone)]
pub(crate) struct Tomb {
    pub(crate) at: Mono,
    pub(crate) record: InstanceRecord,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shutdown {
    pub(crate) delete_instances: bool,
}

/// Failures in a row after which jobs are no longer taken on the hope for new instances.
const HOPELESS: u32 = 3;
/// Notices kept for a reader that is behind.
pub(crate) const NOTICES: usize = 16_384;

// === impl Core: life and claims ===

impl Core {
    /// A scaler that knows what the ledger of its predecessor says. Nothing is decided before the first
    /// [`observe`](Self::observe).
    #[must_use]
    pub fn new(config: Config, restored: Ledger, now: Now) -> Self {
        let tick = now.tick();
        let rules = rules(&config, None);
        let mut core = Self {
            bucket: Bucket::new(&config, tick),
            default_policy: Policy::default(),
            schedule: ScheduleCache::default(),
            announced: None,
            fleet: Fleet::new(rules),
            claims: Claims::default(),
            requests: VecDeque::new(),
            requests_changed: false,
            tombs: BTreeMap::new(),
            tomb_order: VecDeque::new(),
            increase_backoff: Backoff::default(),
            ready_backoff: Backoff::default(),
            breaker: Breaker::default(),
            troubles: Troubles::default(),
            listings: 0,
            shutdown: None,
            elsewhere: None,
            lacking: None,
            deletion_failure: None,
            last_excess: 0,
            last_idle_time: Duration::ZERO,
            events: VecDeque::new(),
            notices: VecDeque::new(),
            config,
        };
        if core.config.restores_state {
            core.restore(restored, now);
        }
        core
    }

    /// The settings in force.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Applies other settings, all of them at once.
    pub fn configure(&mut self, config: Config, now: Now) {
        self.bucket.configure(&config, now.tick());
        self.config = config;
        self.schedule.forget();
        self.apply_rules();
        if self.config.max_use_count > 0 {
            let used_up: Vec<Seq> = self
                .fleet
                .iter()
                .filter(|(_, instance)| !instance.is_busy() && instance.used_up(self.config.max_use_count))
                .map(|(seq, _)| seq)
                .collect();
            for seq in used_up {
                self.retire_if_used_up(seq, now);
            }
        }
        self.assign(now);
    }

    /// Claims one slot somewhere, before a job is asked for.
    ///
    /// # Errors
    /// [`NoCapacity`] says why there is none.
    pub fn reserve(&mut self, key: ClaimKey, now: Now) -> Result<(), NoCapacity> {
        if self.claims.get(&key).is_some() {
            return Err(NoCapacity::KeyInUse { key });
        }
        if self.shutdown.is_some() {
            return Err(NoCapacity::ShuttingDown);
        }
        if let Some(Elsewhere { holder, .. }) = &self.elsewhere {
            return Err(NoCapacity::HeldElsewhere { holder: holder.clone() });
        }
        if self.listings == 0 {
            return Err(NoCapacity::NotListed);
        }
        let admission = self.admission(now);
        admission.check().map_err(|refusal| match refusal {
            Refusal::NoneReady => NoCapacity::NoneReady { idle: admission.idle },
            Refusal::AtMaximum => match self.lack() {
                Some(why) => NoCapacity::Lacking { why: why.to_owned() },
                None => NoCapacity::AtMaximum { max: admission.ceiling.unwrap_or(0) },
            },
            Refusal::Throttled { allowed } => NoCapacity::Throttled { reserved: admission.reserved, allowed },
        })?;
        if admission.available() <= 0 {
            self.check_hope(&admission, now)?;
        }
        self.claims.reserve(key, now.tick());
        Ok(())
    }

    /// Turns a reservation into a slot, now or as soon as one is free, in the order of the calls. Asking again for a
    /// claim that has or awaits its slot tells how it stands.
    ///
    /// # Errors
    /// [`UnknownClaim`] if the key was not reserved, was released, or lost its instance.
    pub fn acquire(&mut self, key: &ClaimKey, now: Now) -> Result<Acquire, UnknownClaim> {
        match self.claims.get(key) {
            None => return Err(UnknownClaim { key: key.clone() }),
            Some(Claim::Pending { .. }) => return Ok(Acquire::Pending),
            Some(Claim::Acquired { seq, index }) => {
                return match self.fleet.get(seq) {
                    Some(instance) => Ok(Acquire::Granted(Slot { instance: instance.id.clone(), index })),
                    None => Err(UnknownClaim { key: key.clone() }),
                };
            }
            Some(Claim::Reserved { .. }) => {}
        }
        if self.claims.first_pending().is_none()
            && let Some(slot) = self.occupy(key, now)
        {
            return Ok(Acquire::Granted(slot));
        }
        self.claims.wait(key);
        Ok(Acquire::Pending)
    }

    /// Takes the slot away from a claim, or finds the claim gone with its instance, and makes it a reservation again. It is
    /// not asked whether there is room: the job was admitted once, and turning it away now would lose it.
    pub fn requeue(&mut self, key: &ClaimKey, now: Now) {
        self.release(key, now);
        self.claims.reserve(key.clone(), now.tick());
    }

    /// Gives up a claim in whatever state it is. An unknown key is a no-op.
    pub fn release(&mut self, key: &ClaimKey, now: Now) {
        let Some(Claim::Acquired { seq, index }) = self.claims.remove(key) else { return };
        self.fleet.edit(seq, |instance| {
            instance.slots.remove(&index);
            if !instance.is_busy() {
                instance.idle_since = now.tick();
                instance.idle_since_wall = now.wall;
            }
        });
        self.retire_if_used_up(seq, now);
        self.assign(now);
    }

    /// Another manager has the group, or (with `None`) no longer has: until then nothing is made, removed or checked, no claims
    /// are taken, and those that wait get no slot. Jobs that run keep theirs.
    pub fn stand_by(&mut self, elsewhere: Option<Elsewhere>, now: Now) {
        self.elsewhere = elsewhere;
        self.assign(now);
    }

    /// Says why the group can hold fewer instances than it was made for, in its own words; `None` if it can hold them all. How many
    /// it can hold is `group_max_size` of the configuration.
    pub fn lacks(&mut self, why: Option<String>) {
        self.lacking = why;
    }

    /// Stops taking claims, making instances and checking them. With `delete_instances` every instance is removed as soon
    /// as it has no job; otherwise idle ones stay for the next manager.
    pub fn begin_shutdown(&mut self, delete_instances: bool, now: Now) {
        self.shutdown = Some(Shutdown { delete_instances });
        self.apply_rules();
        if delete_instances {
            let all: Vec<Seq> = self.fleet.iter().map(|(seq, _)| seq).collect();
            for seq in all {
                self.drain(seq, Reason::Shutdown, now);
            }
        }
    }

    /// What happened to claims since the last call, oldest first. Drain it after every call that changes the core.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Milestones in the life of instances, for logs and metrics, oldest first.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }
}

// === impl Core: parts ===

impl Core {
    pub(crate) fn policy_at(&mut self, now: Now) -> (crate::policy::Active, &Policy) {
        let active = self.schedule.active(&self.config.policies, now.wall);
        let policy = active.policy.and_then(|index| self.config.policies.get(index));
        (active, policy.unwrap_or(&self.default_policy))
    }

    pub(crate) fn admission(&mut self, now: Now) -> Admission {
        let preemptive = self.policy_at(now).1.preemptive();
        let tally = self.fleet.tally();
        Admission {
            idle: tally.usable,
            acquired: tally.acquired,
            unavailable: tally.unavailable,
            pending: self.claims.pending(),
            reserved: self.claims.reserved(),
            ceiling: self.config.ceiling(),
            capacity: self.config.capacity(),
            preemptive,
            throttling: self.config.reservation_throttling,
        }
    }

    /// What the group lacks, if that is what bounds the instances.
    pub(crate) fn lack(&self) -> Option<&str> {
        let binds =
            self.config.group_max_size.is_some() && self.config.ceiling() == self.config.group_max_size;
        self.lacking.as_deref().filter(|_| binds)
    }

    /// The back-off that holds up new instances longest.
    pub(crate) fn backoff(&self, now: Mono) -> Option<(Mono, u32, &Failure)> {
        [&self.increase_backoff, &self.ready_backoff]
            .into_iter()
            .filter_map(|backoff| backoff.wait(now).map(|(until, last)| (until, backoff.failures(), last)))
            .max_by_key(|(until, _, _)| *until)
    }

    /// A call to make instances failed.
    pub(crate) fn increase_failed(&mut self, failure: Failure, now: Now) {
        let counted = self.increase_backoff.fail(failure, now.tick());
        self.trip(counted, now);
    }

    /// An instance came and did not become usable.
    pub(crate) fn instance_failed(&mut self, failure: Failure, now: Now) {
        let counted = self.ready_backoff.fail(failure, now.tick());
        self.trip(counted, now);
    }

    /// An instance became ready.
    pub(crate) fn instance_succeeded(&mut self) {
        self.ready_backoff.succeed();
        if self.breaker.succeed() {
            self.notice(Notice::CircuitClosed);
        }
    }

    /// The last failure to get an instance, for people.
    pub(crate) fn last_failure(&self) -> &str {
        let last = self.ready_backoff.last().or(self.increase_backoff.last());
        last.map_or("", |failure| failure.message.as_str())
    }

    fn trip(&mut self, counted: bool, now: Now) {
        if let Some(until) = self.breaker.fail(counted, now.tick()) {
            let failures = self.breaker.failures();
            let last = self.last_failure().to_owned();
            self.notice(Notice::CircuitOpened { until: now.wall_at(until), failures, last });
        }
    }

    /// Instances that are on their way to being ready.
    pub(crate) fn coming(&self) -> u32 {
        let tally = self.fleet.tally();
        self.requested() + tally.restoring + tally.creating + tally.booting
    }

    pub(crate) fn requested(&self) -> u32 {
        u32::try_from(self.requests.len()).unwrap_or(u32::MAX)
    }

    /// Gives free slots to those who wait longest.
    pub(crate) fn assign(&mut self, now: Now) {
        while let Some(key) = self.claims.first_pending().cloned() {
            let Some(slot) = self.occupy(&key, now) else { return };
            self.events.push_back(Event::Granted { key, slot });
        }
    }

    pub(crate) fn notice(&mut self, notice: Notice) {
        if self.notices.len() >= NOTICES {
            self.notices.pop_front();
        }
        self.notices.push_back(notice);
    }

    /// Marks an instance for removal, unless it is on its way out already.
    pub(crate) fn drain(&mut self, seq: Seq, reason: Reason, now: Now) {
        let marked = self.fleet.edit(seq, |instance| {
            if instance.leaving().is_some() {
                return None;
            }
            instance.phase = Phase::Draining { reason: reason.clone(), delete: Ask::At(now.tick()) };
            Some(instance.id.clone())
        });
        if let Some(id) = marked.flatten() {
            self.notice(Notice::Marked { id, reason });
        }
    }

    pub(crate) fn retire_if_used_up(&mut self, seq: Seq, now: Now) {
        let over = self
            .fleet
            .get(seq)
            .is_some_and(|instance| !instance.is_busy() && instance.used_up(self.config.max_use_count));
        if over {
            self.drain(seq, Reason::UsedUp, now);
        }
    }

    /// Puts a claim on the best free slot.
    fn occupy(&mut self, key: &ClaimKey, now: Now) -> Option<Slot> {
        if self.elsewhere.is_some() {
            return None;
        }
        let seq = self.fleet.best_free()?;
        let slot = self.fleet.edit(seq, |instance| {
            let index = instance.free_index();
            instance.slots.insert(index, key.clone());
            instance.used = instance.used.saturating_add(1);
            Slot { instance: instance.id.clone(), index }
        })?;
        self.claims.grant(key, seq, slot.index);
        self.troubles.job(now.tick());
        Some(slot)
    }

    /// Refuses jobs that could only wait for instances that do not come.
    fn check_hope(&self, admission: &Admission, now: Now) -> Result<(), NoCapacity> {
        let coming = i64::from(self.coming()) * i64::from(admission.capacity);
        if admission.available() + coming > 0 {
            return Ok(());
        }
        match self.breaker.circuit(now.tick()) {
            Circuit::Closed => {}
            Circuit::Open { until } => {
                let last = self.last_failure().to_owned();
                return Err(NoCapacity::Backoff { until: now.wall_at(until), last });
            }
            // One job is worth the try; the others wait for what comes of it.
            Circuit::HalfOpen if admission.reserved + admission.pending > 0 => {
                let last = self.last_failure().to_owned();
                return Err(NoCapacity::Backoff { until: now.wall_at(now.tick()), last });
            }
            Circuit::HalfOpen => {}
        }
        match self.backoff(now.tick()) {
            Some((until, failures, last)) if failures >= HOPELESS => {
                Err(NoCapacity::Backoff { until: now.wall_at(until), last: last.message.clone() })
            }
            Some(_) | None => Ok(()),
        }
    }

    fn apply_rules(&mut self) {
        self.fleet.set_rules(rules(&self.config, self.shutdown));
    }
}

fn rules(config: &Config, shutdown: Option<Shutdown>) -> Rules {
    Rules { capacity: config.capacity(), max_use_count: config.max_use_count, paused: shutdown.is_some() }
}
