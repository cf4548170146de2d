//! The state of one scaler, and what events do to it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::breaker::Breaker;
use crate::claims::Claims;
use crate::config::Config;
use crate::fleet::{Fleet, Rules, Seq};
use crate::ids::{InstanceId, Mono, Now};
use crate::instance::{Ask, Phase, Reason};
use crate::ledger::{InstanceRecord, Ledger};
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

/// Notices kept for a reader that is behind.
pub(crate) const NOTICES: usize = 16_384;

// === impl Core: life ===

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

    fn apply_rules(&mut self) {
        self.fleet.set_rules(rules(&self.config, self.shutdown));
    }
}

fn rules(config: &Config, shutdown: Option<Shutdown>) -> Rules {
    Rules { capacity: config.capacity(), max_use_count: config.max_use_count, paused: shutdown.is_some() }
}
