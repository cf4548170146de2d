//! All that the cloud remembers, and the effects of calls on it. No clock: every method takes the time.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use fleeting::{Changed, ConnectInfo, ConnectorSettings, GroupError, InstanceId, InstanceState, Os, Seen};

use crate::builder::Builder;
use crate::draw::{self, Purpose};
use crate::faults::{Creation, Fault, Lag};
use crate::machine::{Health, Machine};
use crate::record::{Answer, Call, Operation, Request};

pub(crate) struct State {
    pub(crate) setup: Builder,
    pub(crate) settings: ConnectorSettings,
    /// By number, which is the order of creation.
    pub(crate) live: BTreeMap<u64, Machine>,
    numbers: BTreeMap<InstanceId, u64>,
    pub(crate) gone: Vec<Machine>,
    next_number: u64,
    next_call: u64,
    pub(crate) calls: Vec<Call>,
    /// Arrival of the calls that were let through, for the rate limit.
    admitted: VecDeque<Duration>,
    pub(crate) faults: BTreeMap<Operation, VecDeque<Fault>>,
    pub(crate) denied: BTreeMap<Operation, String>,
    pub(crate) throttled_until: Duration,
    pub(crate) dry_until: Duration,
    pub(crate) stock: Option<u32>,
    pub(crate) creations: VecDeque<Creation>,
    pub(crate) lag: Lag,
    /// The last listings, newest last, as far back as [`Lag::Calls`] needs.
    snapshots: VecDeque<Vec<Seen>>,
    pub(crate) peak: usize,
    /// Counts changes that have no place on a timeline.
    pub(crate) touched: u64,
    /// What the last hint or listing knew: its time and the value of `touched`.
    pub(crate) known: (Duration, u64),
}

/// What an injected fault does after the effect of the call.
pub(crate) enum Aftermath {
    Answer,
    Fail(GroupError),
    Hang,
}

/// What comes before the effect.
pub(crate) enum Admission {
    Enter(Aftermath),
    Refuse(GroupError),
    Hang,
}

// === impl State ===

impl State {
    pub(crate) fn new(setup: Builder) -> Self {
        let mut state = Self {
            settings: ConnectorSettings::default(),
            live: BTreeMap::new(),
            numbers: BTreeMap::new(),
            gone: Vec::new(),
            next_number: 1,
            next_call: 0,
            calls: Vec::new(),
            admitted: VecDeque::new(),
            faults: BTreeMap::new(),
            denied: BTreeMap::new(),
            throttled_until: Duration::ZERO,
            dry_until: Duration::ZERO,
            stock: None,
            creations: VecDeque::new(),
            lag: Lag::None,
            snapshots: VecDeque::new(),
            peak: 0,
            touched: 0,
            known: (Duration::ZERO, 0),
            setup,
        };
        for _ in 0..state.setup.running {
            state.place(InstanceState::Running, Duration::ZERO);
        }
        state
    }

    // Calls.

    /// Notes the call; gives its place in the record and how long it takes.
    pub(crate) fn arrive(&mut self, request: Request, now: Duration) -> (usize, Duration) {
        let latency =
            self.setup.latency.get(&request.operation()).map_or(Duration::ZERO, |delay| {
                delay.draw(self.setup.seed, Purpose::Latency, self.next_call)
            });
        self.next_call += 1;
        self.calls.push(Call { at: now, request, answer: None });
        (self.calls.len() - 1, latency)
    }

    pub(crate) fn answered(&mut self, call: usize, now: Duration, done: usize, error: Option<String>) {
        // The record may have been cleared since the call arrived.
        if let Some(call) = self.calls.get_mut(call) {
            call.answer = Some(Answer { at: now, done: u32::try_from(done).unwrap_or(u32::MAX), error });
        }
    }

    pub(crate) fn admit(&mut self, operation: Operation, now: Duration) -> Admission {
        self.settle(now);
        match self.faults.get_mut(&operation).and_then(VecDeque::pop_front) {
            Some(Fault::Fail(error)) => return Admission::Refuse(error),
            Some(Fault::Hang) => return Admission::Hang,
            Some(Fault::FailAfterEffect(error)) => return Admission::Enter(Aftermath::Fail(error)),
            Some(Fault::HangAfterEffect) => return Admission::Enter(Aftermath::Hang),
            None => {}
        }
        if let Some(message) = self.denied.get(&operation) {
            return Admission::Refuse(GroupError::Denied { message: message.clone() });
        }
        if now < self.throttled_until {
            return Admission::Refuse(throttled(self.throttled_until - now));
        }
        if let Some((calls, per)) = self.setup.rate_limit {
            while self.admitted.front().is_some_and(|at| *at + per <= now) {
                self.admitted.pop_front();
            }
            if self.admitted.len() >= calls {
                let wait = self.admitted.front().map_or(per, |oldest| *oldest + per - now);
                return Admission::Refuse(throttled(wait));
            }
            self.admitted.push_back(now);
        }
        Admission::Enter(Aftermath::Answer)
    }

    pub(crate) fn listing(&mut self, now: Duration) -> Vec<Seen> {
        self.known = (now, self.touched);
        match self.lag {
            Lag::None => self.listing_of(now),
            Lag::Time(lag) => self.listing_of(now.saturating_sub(lag)),
            Lag::Calls(calls) => {
                self.snapshots.push_back(self.listing_of(now));
                while self.snapshots.len() > calls + 1 {
                    self.snapshots.pop_front();
                }
                self.snapshots.front().cloned().unwrap_or_default()
            }
        }
    }

    pub(crate) fn set_lag(&mut self, lag: Lag, now: Duration) {
        self.lag = lag;
        self.snapshots.clear();
        if let Lag::Calls(_) = lag {
            self.snapshots.push_back(self.listing_of(now));
        }
    }

    pub(crate) fn increase(&mut self, n: u32, now: Duration) -> Changed<u32> {
        let mut granted = 0;
        while granted < n {
            if self.existing(now) >= self.setup.max_size as usize {
                let message = format!("the group holds at most {} instances", self.setup.max_size);
                return Changed::partly(granted, GroupError::LimitReached { message });
            }
            if now < self.dry_until || self.stock == Some(0) {
                let message = "the pool has no machine of this kind left".to_owned();
                return Changed::partly(granted, GroupError::NoCapacity { message });
            }
            self.stock = self.stock.map(|stock| stock - 1);
            self.create(now);
            granted += 1;
        }
        self.peak = self.peak.max(self.existing(now));
        Changed::all(granted)
    }

    pub(crate) fn decrease(&mut self, ids: &[InstanceId], now: Duration) -> Changed<Vec<InstanceId>> {
        let mut accepted = Vec::with_capacity(ids.len());
        let mut unknown = Vec::new();
        for id in ids {
            let (seed, delay) = (self.setup.seed, self.setup.delete);
            let Some(machine) = self.machine_mut(id).filter(|machine| machine.owned) else {
                if self.gone.iter().any(|machine| machine.owned && machine.id == *id) {
                    accepted.push(id.clone());
                } else {
                    unknown.push(format!("`{id}`"));
                }
                continue;
            };
            accepted.push(id.clone());
            machine.deletions += 1;
            if machine.stubborn > 0 {
                machine.stubborn -= 1;
            } else if machine.deleting.is_none() {
                machine.deleting = Some(now);
                machine.deleted = Some(now + delay.draw(seed, Purpose::Delete, machine.number));
            }
        }
        self.touched += 1;
        self.settle(now);
        if unknown.is_empty() {
            Changed::all(accepted)
        } else {
            Changed::partly(
                accepted,
                GroupError::NotFound { what: format!("instance {}", unknown.join(", ")) },
            )
        }
    }

    pub(crate) fn connect_info(&self, id: &InstanceId, now: Duration) -> Result<ConnectInfo, GroupError> {
        let not_found = || GroupError::NotFound { what: format!("instance `{id}`") };
        let machine = self.machine(id).filter(|machine| machine.owned).ok_or_else(not_found)?;
        match machine.state(now, Duration::ZERO).ok_or_else(not_found)? {
            InstanceState::Running => {}
            InstanceState::Deleting | InstanceState::Deleted => return Err(not_found()),
            InstanceState::Creating | InstanceState::Timeout => {
                return Err(GroupError::Transient { message: format!("instance `{id}` is not running") });
            }
        }
        if let Some(connect) = &self.setup.connect {
            return connect(id);
        }
        let mut settings = self.settings.clone();
        settings.os.get_or_insert(Os::Linux);
        settings.arch.get_or_insert_with(|| "amd64".to_owned());
        settings.username.get_or_insert_with(|| "fake".to_owned());
        let [.., a, b, c] = machine.number.to_be_bytes();
        let mut info = ConnectInfo::new(id.as_str(), settings);
        info.internal_addr = Some(format!("10.{a}.{b}.{c}"));
        Ok(info)
    }

    // The world.

    /// Moves what is gone, and no listing can show any more, out of the way.
    pub(crate) fn settle(&mut self, now: Duration) {
        let lag = match self.lag {
            Lag::None | Lag::Calls(_) => Duration::ZERO,
            Lag::Time(lag) => lag,
        };
        let keep = self.setup.keep_deleted + lag;
        let over = |machine: &Machine| machine.gone_at().is_some_and(|gone| gone + keep <= now);
        let numbers: Vec<u64> = self.live.iter().filter(|(_, m)| over(m)).map(|(n, _)| *n).collect();
        for number in numbers {
            if let Some(machine) = self.live.remove(&number) {
                self.numbers.remove(&machine.id);
                self.gone.push(machine);
            }
        }
    }

    /// An instance that nobody asked this group for, but that is in it.
    pub(crate) fn place(&mut self, state: InstanceState, now: Duration) -> InstanceId {
        let mut machine = self.blank(now);
        match state {
            InstanceState::Running => machine.running = Some(now),
            InstanceState::Creating => {}
            InstanceState::Timeout => machine.failed = Some(now),
            InstanceState::Deleting => machine.deleting = Some(now),
            InstanceState::Deleted => machine.deleted = Some(now),
        }
        self.insert(machine, now)
    }

    pub(crate) fn place_foreign(&mut self, now: Duration) -> InstanceId {
        let mut machine = self.blank(now);
        machine.owned = false;
        machine.running = Some(now);
        self.insert(machine, now)
    }

    pub(crate) fn machine(&self, id: &InstanceId) -> Option<&Machine> {
        self.live.get(self.numbers.get(id)?)
    }

    pub(crate) fn machine_mut(&mut self, id: &InstanceId) -> Option<&mut Machine> {
        self.live.get_mut(self.numbers.get(id)?)
    }

    /// Own instances that exist, visible or not.
    pub(crate) fn existing(&self, now: Duration) -> usize {
        self.live.values().filter(|machine| machine.owned && !machine.is_gone(now)).count()
    }

    pub(crate) fn next_event(&self, now: Duration) -> Option<Duration> {
        self.live.values().flat_map(Machine::transitions).filter(|at| *at > now).min()
    }

    /// Whether anything happened since the last hint or listing; marks it as known.
    pub(crate) fn take_hint(&mut self, now: Duration) -> bool {
        let (since, touched) = self.known;
        let passed = |at: Duration| at > since && at <= now;
        let changed =
            touched != self.touched || self.live.values().flat_map(Machine::transitions).any(passed);
        if changed {
            self.known = (now, self.touched);
        }
        changed
    }

    fn listing_of(&self, time: Duration) -> Vec<Seen> {
        let owned = self.live.values().filter(|machine| machine.owned);
        owned.filter_map(|machine| machine.seen(time, self.setup.keep_deleted)).collect()
    }

    fn create(&mut self, now: Duration) {
        let creation = self.creations.pop_front().unwrap_or(Creation::Normal);
        let mut machine = self.blank(now);
        let (seed, number) = (self.setup.seed, machine.number);
        machine.visible = now + self.setup.appear.draw(seed, Purpose::Appear, number);
        let running = machine.visible + self.setup.boot.draw(seed, Purpose::Boot, number);
        match creation {
            Creation::Normal
                if draw::unit(seed, Purpose::BootFailure, number) < self.setup.boot_failure_rate =>
            {
                machine.failed = Some(running);
            }
            Creation::Normal => {
                machine.running = Some(running);
                if let Some(life) = self.setup.life {
                    let end = running + life.draw(seed, Purpose::Life, number);
                    machine.death = Some((end, "taken back by the cloud".to_owned()));
                    machine.notice = self.setup.notice.map(|notice| {
                        (end.saturating_sub(notice).max(running), "to be taken back by the cloud".to_owned())
                    });
                }
            }
            Creation::Takes(time) => machine.running = Some(now + time),
            Creation::NeverFinishes => {}
            Creation::FailsAfter(time) => machine.failed = Some(now + time),
            Creation::VanishesAfter(time) => {
                machine.death = Some((now + time, "failed to start".to_owned()));
            }
            // Accepted and forgotten: the number is spent, no machine comes of it.
            Creation::Lost => return,
        }
        self.insert(machine, now);
    }

    fn blank(&mut self, now: Duration) -> Machine {
        let number = self.next_number;
        self.next_number += 1;
        Machine {
            id: format!("i-{number}").into(),
            number,
            owned: true,
            requested: now,
            visible: now,
            running: None,
            failed: None,
            notice: None,
            death: None,
            deleting: None,
            deleted: None,
            stubborn: self.setup.stubborn,
            deletions: 0,
            health: Health::Healthy,
        }
    }

    fn insert(&mut self, machine: Machine, now: Duration) -> InstanceId {
        let id = machine.id.clone();
        self.numbers.insert(id.clone(), machine.number);
        self.live.insert(machine.number, machine);
        self.touched += 1;
        self.peak = self.peak.max(self.existing(now));
        id
    }
}

fn throttled(wait: Duration) -> GroupError {
    GroupError::Throttled { message: "request rate exceeded".to_owned(), retry_after: Some(wait) }
}
