//! Random lives of a scaler over a small cloud that delays, refuses, lies a little and takes instances away. After each
//! step the promises are checked; at the end the cloud behaves, and everything must settle.
//!
//! A failure names its seed. `SIM_SEEDS=<first>..<end>` runs other seeds, for example one that failed, or a night full.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a test may fail and say so")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use drover_taskscaler_core::{
    Acquire, ClaimKey, Config, Core, Event, Failure, FailureKind, Health, InstanceId, Ledger, NoCapacity,
    Notice, Now, Origin, PhaseName, Plan, Policy, Reason, Report, ScaleThrottle, Seen, SeenState, Slot,
};

const SEEDS: u64 = 10_000;
const STEPS: u32 = 500;

#[test]
fn promises_hold_at_every_step() {
    let seeds = seeds();
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let seeds = seeds.clone().skip(thread).step_by(threads);
            scope.spawn(move || seeds.for_each(run));
        }
    });
}

fn seeds() -> std::ops::Range<u64> {
    let Ok(range) = std::env::var("SIM_SEEDS") else { return 0..SEEDS };
    let (first, end) = range.split_once("..").expect("SIM_SEEDS is <first>..<end>");
    first.parse().expect("a number")..end.parse().expect("a number")
}

fn run(seed: u64) {
    let outcome = std::panic::catch_unwind(|| World::new(seed).live(STEPS));
    if let Err(panic) = outcome {
        println!("seed {seed} failed");
        std::panic::resume_unwind(panic);
    }
}

/// Steele, Lea and Flood's SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        (!of.is_empty()).then(|| of[self.below(of.len() as u64) as usize].clone())
    }
}

#[derive(Debug, Clone)]
struct Machine {
    state: SeenState,
    doomed: Option<String>,
    /// What ran here, over all managers.
    uses: u32,
    /// A manager took it into use without a record of what had run here, which isolation allows.
    adopted: bool,
}

struct World {
    random: Random,
    now: Now,
    core: Core,
    /// Gets the same calls; must say the same.
    twin: Option<Core>,
    config: Config,
    stored: Ledger,
    cloud: BTreeMap<InstanceId, Machine>,
    dead: BTreeMap<InstanceId, Machine>,
    /// The last listings, newest first.
    listings: VecDeque<(Duration, Vec<Seen>)>,
    made: u32,
    keys: u32,
    reserved: Vec<ClaimKey>,
    pending: VecDeque<ClaimKey>,
    held: BTreeMap<ClaimKey, Slot>,
    launching: VecDeque<u32>,
    deleting: VecDeque<Vec<InstanceId>>,
    readying: Vec<InstanceId>,
    checking: Vec<InstanceId>,
    /// Instances that may take jobs, as told by answers and notices.
    open: BTreeSet<InstanceId>,
    /// Instances marked as idle too long by the last decision.
    marked_idle: u32,
    listed: bool,
    stopping: bool,
    /// The cloud and the people behave.
    calm: bool,
    last: Option<(Plan, Report)>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let config = random_config(&mut random);
        let now = Now { mono: Duration::from_secs(random.below(10_000)), wall: at("2026-08-03T07:30:00Z") };
        let core = Core::new(config.clone(), Ledger::default(), now);
        let twin = seed.is_multiple_of(5).then(|| Core::new(config.clone(), Ledger::default(), now));
        let mut world = Self {
            random,
            now,
            core,
            twin,
            config,
            stored: Ledger::default(),
            cloud: BTreeMap::new(),
            dead: BTreeMap::new(),
            listings: VecDeque::new(),
            made: 0,
            keys: 0,
            reserved: Vec::new(),
            pending: VecDeque::new(),
            held: BTreeMap::new(),
            launching: VecDeque::new(),
            deleting: VecDeque::new(),
            readying: Vec::new(),
            checking: Vec::new(),
            open: BTreeSet::new(),
            marked_idle: 0,
            listed: false,
            stopping: false,
            calm: false,
            last: None,
        };
        for _ in 0..world.random.below(3) {
            world.make_machine(SeenState::Running);
        }
        world
    }

    fn live(mut self, steps: u32) {
        for _ in 0..steps {
            self.step();
            self.settle();
        }
        self.calm_down();
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..20 => self.reserve(),
            20..38 => self.acquire(),
            38..52 => self.release(),
            52..66 => self.listing(),
            66..74 => self.answer_increase(),
            74..80 => self.answer_decrease(),
            80..86 => self.answer_ready_up(),
            86..89 => self.answer_check(),
            89..90 => self.complain(),
            90..95 => self.pass_time(),
            95..97 => self.cloud_acts(),
            97..98 => self.configure(),
            98 => {
                if self.random.chance(20) {
                    self.restart();
                }
            }
            _ => {
                if self.random.chance(3) {
                    self.stopping = true;
                    let delete = self.random.chance(50);
                    self.both(|core, now| core.begin_shutdown(delete, now));
                }
            }
        }
    }

    // --- what owners of claims do ---

    fn reserve(&mut self) {
        self.keys += 1;
        let key = ClaimKey::from(format!("job-{}", self.keys));
        let before = self.last.as_ref().map(|(_, report)| report.clone());
        let outcome = self.both(|core, now| core.reserve(key.clone(), now));
        match outcome {
            Ok(()) => {
                assert!(!self.stopping && self.listed);
                let report = before.expect("a listing came with a decision");
                assert!(report.available > 0 || !report.policy.preemptive, "no slot for a preemptive claim");
                assert!(report.available > 0 || report.potential.is_none_or(|p| p > 0));
                assert!(
                    self.both(|core, now| core.reserve(key.clone(), now)).is_err(),
                    "a key is reserved once"
                );
                self.reserved.push(key);
            }
            Err(NoCapacity::ShuttingDown) => assert!(self.stopping),
            Err(NoCapacity::NotListed) => assert!(!self.listed),
            Err(NoCapacity::KeyInUse { .. }) => panic!("keys are unique"),
            Err(NoCapacity::NoneReady { .. }) => assert!(before.expect("listed").policy.preemptive),
            Err(NoCapacity::AtMaximum { .. }) => {
                assert!(before.expect("listed").potential.is_some_and(|potential| potential <= 0));
            }
            Err(NoCapacity::Throttled { .. }) => assert!(before.expect("listed").idle > 0),
            Err(NoCapacity::Backoff { .. }) => assert!(before.expect("listed").available <= 0),
        }
    }

    fn acquire(&mut self) {
        let Some(key) = self.random.pick(&self.reserved) else { return };
        self.reserved.retain(|other| *other != key);
        match self.both(|core, now| core.acquire(&key, now)).expect("reserved") {
            Acquire::Granted(slot) => {
                assert!(self.pending.is_empty(), "nobody is overtaken");
                self.granted(key, slot);
            }
            Acquire::Pending => self.pending.push_back(key),
        }
    }

    fn release(&mut self) {
        let mut keys: Vec<ClaimKey> = self.held.keys().cloned().collect();
        if self.random.chance(30) {
            keys.extend(self.reserved.iter().cloned());
            keys.extend(self.pending.iter().cloned());
        }
        let Some(key) = self.random.pick(&keys) else { return };
        self.release_key(&key);
    }

    fn release_key(&mut self, key: &ClaimKey) {
        self.held.remove(key);
        self.reserved.retain(|other| other != key);
        self.pending.retain(|other| other != key);
        self.both(|core, now| core.release(key, now));
        self.both(|core, now| core.release(key, now));
    }

    fn granted(&mut self, key: ClaimKey, slot: Slot) {
        assert!(self.open.contains(&slot.instance), "{slot} is not on a ready instance");
        assert!(slot.index < self.config.capacity(), "{slot} does not exist");
        assert!(!self.held.values().any(|held| *held == slot), "{slot} is taken");
        let machine = self
            .cloud
            .get_mut(&slot.instance)
            .or_else(|| self.dead.get_mut(&slot.instance))
            .expect("instances come from the cloud");
        machine.uses += 1;
        let max = self.config.max_use_count;
        let known = !machine.adopted;
        assert!(max == 0 || machine.uses <= max || !known, "{slot} is used {} times of {max}", machine.uses);
        self.held.insert(key, slot);
    }

    // --- what the cloud says ---

    fn listing(&mut self) {
        let fresh: Vec<Seen> = self
            .cloud
            .iter()
            .map(|(id, machine)| Seen {
                id: id.clone(),
                state: machine.state,
                doomed: machine.doomed.clone(),
            })
            .collect();
        self.listings.push_front((self.now.mono, fresh));
        self.listings.truncate(4);
        // Clouds lag by minutes, not by hours.
        self.listings.retain(|(at, _)| *at + Duration::from_secs(600) > self.now.mono);
        let stale = if self.calm || self.random.chance(80) { 0 } else { self.random.below(4) as usize };
        let (_, listing) = self.listings.get(stale).or(self.listings.front()).cloned().unwrap_or_default();
        self.both(|core, now| core.observe(&listing, now));
        self.listed = true;
    }

    fn answer_increase(&mut self) {
        let Some(asked) = self.launching.pop_front() else { return };
        let granted = if self.calm || self.random.chance(70) {
            asked
        } else {
            self.random.below(u64::from(asked) + 1) as u32
        };
        for _ in 0..granted {
            self.make_machine(SeenState::Creating);
        }
        let failure = (granted < asked).then(|| Failure {
            kind: FailureKind::NoCapacity,
            message: "out of machines".to_owned(),
            retry_after: self.random.chance(20).then(|| Duration::from_secs(90)),
        });
        self.both(|core, now| core.increased(asked, granted, failure.clone(), now));
    }

    fn answer_decrease(&mut self) {
        let Some(asked) = self.deleting.pop_front() else { return };
        let mut accepted = asked.clone();
        if !self.calm && self.random.chance(25) {
            accepted.truncate(self.random.below(accepted.len() as u64) as usize);
        }
        for id in &accepted {
            if let Some(machine) = self.cloud.get_mut(id)
                && (self.calm || self.random.chance(90))
            {
                machine.state = SeenState::Deleting;
            }
        }
        let failure =
            (accepted.len() < asked.len()).then(|| Failure::new(FailureKind::Transient, "try again"));
        self.both(|core, now| core.decreased(&asked, &accepted, failure.clone(), now));
    }

    fn answer_ready_up(&mut self) {
        let Some(id) = self.random.pick(&self.readying) else { return };
        self.readying.retain(|other| *other != id);
        let outcome =
            if self.calm || self.random.chance(85) { Ok(()) } else { Err("exit status 1".to_owned()) };
        if outcome.is_ok() && self.phase(&id) == Some(PhaseName::Booting) {
            self.open.insert(id.clone());
        }
        self.both(|core, now| core.readied(&id, outcome.clone(), now));
    }

    fn answer_check(&mut self) {
        let Some(id) = self.random.pick(&self.checking) else { return };
        self.checking.retain(|other| *other != id);
        let health = match self.random.below(10) {
            _ if self.calm => Health::Healthy,
            0..5 => Health::Healthy,
            5..8 => Health::Unhealthy("status check failed".to_owned()),
            _ => Health::Unknown("timeout".to_owned()),
        };
        let phase = self.phase(&id);
        match (&health, phase) {
            (Health::Healthy, Some(PhaseName::Suspect)) => {
                self.open.insert(id.clone());
            }
            (Health::Unhealthy(_), _) => {
                self.open.remove(&id);
            }
            _ => {}
        }
        self.both(|core, now| core.health(&id, health.clone(), now));
    }

    fn complain(&mut self) {
        let busy: Vec<InstanceId> = self.held.values().map(|slot| slot.instance.clone()).collect();
        let Some(id) = self.random.pick(&busy) else { return };
        self.open.remove(&id);
        self.both(|core, now| core.suspect(&id, "dial timeout".to_owned(), now));
    }

    fn cloud_acts(&mut self) {
        let ids: Vec<InstanceId> = self.cloud.keys().cloned().collect();
        let id = self.random.pick(&ids);
        match (self.random.below(6), id) {
            (0, Some(id)) => self.kill(&id),
            (1, Some(id)) => self.set(&id, SeenState::Deleting),
            (2, Some(id)) => {
                if let Some(machine) = self.cloud.get_mut(&id) {
                    machine.doomed = Some("spot notice".to_owned());
                }
            }
            (3, Some(id)) if self.cloud[&id].state == SeenState::Creating => {
                self.set(&id, SeenState::Timeout);
            }
            (4, _) => self.make_machine(SeenState::Running),
            _ => {}
        }
    }

    fn set(&mut self, id: &InstanceId, state: SeenState) {
        if let Some(machine) = self.cloud.get_mut(id) {
            machine.state = state;
        }
    }

    fn kill(&mut self, id: &InstanceId) {
        if let Some(machine) = self.cloud.remove(id) {
            self.dead.insert(id.clone(), machine);
        }
    }

    fn make_machine(&mut self, state: SeenState) {
        self.made += 1;
        // Names in no particular order.
        let id = InstanceId::from(format!("i-{:03}-{}", (self.made * 7919) % 1000, self.made));
        self.cloud.insert(id, Machine { state, doomed: None, uses: 0, adopted: false });
    }

    fn pass_time(&mut self) {
        let wake = self.last.as_ref().and_then(|(plan, _)| plan.wake_at);
        let step = match (self.random.below(6), wake) {
            (0, _) => Duration::from_millis(self.random.below(2_000)),
            (1, _) => Duration::from_secs(self.random.below(120)),
            (2, _) => Duration::from_secs(self.random.below(3_600)),
            (_, Some(wake)) => wake.saturating_sub(self.now.mono),
            (_, None) => Duration::from_secs(30),
        };
        self.sleep(step);
        if !self.calm && self.random.chance(3) {
            // Somebody sets the clock.
            self.now.wall += TimeDelta::seconds(self.random.below(7_200) as i64 - 3_600);
        }
        let ids: Vec<InstanceId> = self.cloud.keys().cloned().collect();
        for id in ids {
            let progress = self.calm || self.random.chance(70);
            match self.cloud[&id].state {
                SeenState::Creating if progress => self.set(&id, SeenState::Running),
                SeenState::Deleting | SeenState::Timeout if progress => self.kill(&id),
                SeenState::Creating
                | SeenState::Running
                | SeenState::Deleting
                | SeenState::Deleted
                | SeenState::Timeout => {}
            }
        }
    }

    fn sleep(&mut self, step: Duration) {
        self.now.mono += step;
        self.now.wall += TimeDelta::from_std(step).expect("hours");
    }

    // --- what operators do ---

    fn configure(&mut self) {
        let new = random_config(&mut self.random);
        // The use count of an instance stays below the limit that applied to it, so keep that limit here.
        self.config.policies = new.policies;
        self.config.max_instances = new.max_instances;
        self.config.scale_throttle = new.scale_throttle;
        self.config.reservation_throttling = new.reservation_throttling;
        if self.random.chance(30) {
            self.config.capacity_per_instance = new.capacity_per_instance;
        }
        let config = self.config.clone();
        self.both(|core, now| core.configure(config.clone(), now));
    }

    fn restart(&mut self) {
        self.now.mono = Duration::from_secs(self.random.below(1_000));
        let down = Duration::from_secs(self.random.below(600));
        self.sleep(down);
        if self.random.chance(50) {
            // Calls that were under way when the manager died.
            self.calls_complete_unheard();
        }
        self.launching.clear();
        self.deleting.clear();
        self.readying.clear();
        self.checking.clear();
        self.reserved.clear();
        self.pending.clear();
        self.held.clear();
        self.open.clear();
        self.listings.clear();
        self.listed = false;
        self.stopping = false;
        if self.random.chance(10) {
            self.config.restores_state = !self.config.restores_state;
        }
        let ledger: Ledger = serde_json::from_str(&serde_json::to_string(&self.stored).expect("writes"))
            .expect("reads what it wrote");
        self.core = Core::new(self.config.clone(), ledger.clone(), self.now);
        if self.twin.is_some() {
            self.twin = Some(Core::new(self.config.clone(), ledger, self.now));
        }
        // A store that is told to forget starts empty.
        self.stored = self.core.ledger();
    }

    fn calls_complete_unheard(&mut self) {
        for asked in std::mem::take(&mut self.launching) {
            (0..asked).for_each(|_| self.make_machine(SeenState::Creating));
        }
        for id in std::mem::take(&mut self.deleting).into_iter().flatten() {
            self.set(&id, SeenState::Deleting);
        }
    }

    // --- after each step ---

    fn settle(&mut self) {
        self.hear();
        self.marked_idle = 0;
        let (plan, report) = self.decide();
        self.hear();
        self.check_plan(&plan, &report);
        if plan.launch > 0 {
            self.launching.push_back(plan.launch);
        }
        if !plan.delete.is_empty() {
            self.deleting.push_back(plan.delete.iter().map(|deletion| deletion.id.clone()).collect());
        }
        self.readying.extend(plan.ready_up.iter().map(|(id, _)| id.clone()));
        self.checking.extend(plan.check.iter().cloned());

        let (again, calm) = self.decide();
        let quiet = Plan { wake_at: again.wake_at, expecting: again.expecting, ..Plan::default() };
        assert_eq!(again, quiet, "deciding twice does nothing more");
        assert!(!calm.why.is_empty());
        let most = calm.inputs.max_instance_count;
        if plan.launch > 0 {
            let all = calm.inputs.instance_count + calm.inputs.deleting;
            assert!(most.is_none_or(|most| all <= most), "{all} instances of {most:?}");
        }
        self.check_counts(&calm);
        self.check_ledger();
        self.last = Some((again, calm));
    }

    fn decide(&mut self) -> (Plan, Report) {
        let decided = self.core.decide(self.now);
        if let Some(twin) = &mut self.twin {
            let other = twin.decide(self.now);
            assert_eq!(
                serde_json::to_string(&decided).expect("writes"),
                serde_json::to_string(&other).expect("writes"),
                "same input, same plan"
            );
        }
        decided
    }

    fn hear(&mut self) {
        while let Some(notice) = self.both(|core, _| core.poll_notice()) {
            match notice {
                Notice::Marked { id, reason } => {
                    self.marked_idle += u32::from(reason == Reason::Idle);
                    self.open.remove(&id);
                }
                Notice::UnexpectedlyRemoved { id, .. } | Notice::Deleted { id, .. } => {
                    self.open.remove(&id);
                }
                Notice::Appeared { id, origin: Origin::Preexisted, .. } => {
                    if let Some(machine) = self.cloud.get_mut(&id) {
                        machine.adopted |= machine.uses > 0;
                    }
                }
                Notice::Appeared { .. }
                | Notice::Running { .. }
                | Notice::Ready { .. }
                | Notice::RequestsLost { .. }
                | Notice::CircuitOpened { .. }
                | Notice::CircuitClosed
                | Notice::PolicySwitched { .. } => {}
            }
        }
        while let Some(event) = self.both(|core, _| core.poll_event()) {
            match event {
                Event::Granted { key, slot } => {
                    assert_eq!(self.pending.pop_front().as_ref(), Some(&key), "first come, first served");
                    self.granted(key, slot);
                }
                Event::Lost { key, slot, .. } => {
                    assert_eq!(self.held.remove(&key), Some(slot), "only what was held is lost");
                }
            }
        }
    }

    fn check_plan(&self, plan: &Plan, report: &Report) {
        assert!(plan.wake_at.is_none_or(|at| at > self.now.mono), "wakes at once: {plan:?} {report:?}");
        if plan.launch > 0 {
            assert!(i64::from(plan.launch) <= report.wanted.required);
            assert!(!self.stopping);
        }
        for deletion in &plan.delete {
            let busy = self.held.values().any(|slot| slot.instance == deletion.id);
            assert!(!busy, "{} is deleted while busy: {}", deletion.id, deletion.reason);
            assert!(self.cloud.contains_key(&deletion.id) || self.dead.contains_key(&deletion.id));
            assert!(!self.open.contains(&deletion.id), "{} may take jobs", deletion.id);
        }
        assert!(self.marked_idle <= report.wanted.excess, "{} removed: {report:?}", self.marked_idle);
    }

    fn check_counts(&self, report: &Report) {
        assert_eq!(report.inputs.acquired as usize, self.held.len());
        assert_eq!(report.inputs.pending as usize, self.pending.len());
        assert_eq!(report.inputs.reserved as usize, self.reserved.len());
        let mut by_phase: BTreeMap<PhaseName, u32> = BTreeMap::new();
        let mut used = 0;
        for line in self.core.instances(self.now) {
            *by_phase.entry(line.phase).or_default() += 1;
            used += line.slots_used;
            let leaving =
                matches!(line.phase, PhaseName::Deleting | PhaseName::Creating | PhaseName::Booting);
            assert!(!leaving || line.slots_used == 0, "{line} has jobs");
            if self.config.max_use_count > 0 {
                assert!(line.use_count <= self.config.max_use_count);
            }
            if let Some(machine) = self.cloud.get(&line.id)
                && !machine.adopted
            {
                assert_eq!(line.use_count, machine.uses, "{line}");
            }
        }
        let count = |phase| by_phase.get(&phase).copied().unwrap_or(0);
        assert_eq!(used, report.inputs.acquired);
        assert_eq!(report.counts.restoring, count(PhaseName::Restoring));
        assert_eq!(report.counts.creating, count(PhaseName::Creating));
        assert_eq!(report.counts.booting, count(PhaseName::Booting));
        assert_eq!(report.counts.ready, count(PhaseName::Ready));
        assert_eq!(report.counts.suspect, count(PhaseName::Suspect));
        assert_eq!(report.counts.draining, count(PhaseName::Draining));
        assert_eq!(report.counts.deleting, count(PhaseName::Deleting));
    }

    fn check_ledger(&mut self) {
        let changed = self.core.ledger_changed();
        let changes = self.core.take_ledger_changes();
        assert_eq!(changed, !changes.is_empty());
        self.stored.apply(changes);
        assert_eq!(self.stored, self.core.ledger(), "the changes make up the ledger");
        assert!(!self.core.ledger_changed());
    }

    // --- the end ---

    /// With a cloud that behaves, every waiting job gets its slot, and what nobody wants goes.
    fn calm_down(mut self) {
        self.calm = true;
        if self.stopping {
            return;
        }
        self.config.policies = vec![Policy { idle_count: 0, ..Policy::default() }];
        self.config.max_instances = self.config.max_instances.max(1);
        let config = self.config.clone();
        self.both(|core, now| core.configure(config.clone(), now));
        for machine in self.cloud.values_mut() {
            machine.doomed = None;
        }
        for key in self.held.keys().cloned().collect::<Vec<_>>() {
            self.release_key(&key);
        }
        for round in 0.. {
            assert!(round < 2_000, "jobs wait for ever: {:?}", self.last);
            self.turn();
            if self.pending.is_empty() && self.held.is_empty() && round > 3 {
                break;
            }
            for key in self.held.keys().cloned().collect::<Vec<_>>() {
                self.release_key(&key);
            }
        }
        for key in std::mem::take(&mut self.reserved) {
            self.release_key(&key);
        }
        for round in 0.. {
            assert!(round < 2_000, "instances stay for ever: {:?} {:?}", self.last, self.cloud);
            self.turn();
            if self.cloud.is_empty() && self.core.ledger().instances.is_empty() {
                break;
            }
        }
        let (plan, report) = self.last.clone().expect("decided");
        assert_eq!(report.inputs.instance_count, 0);
        assert!(!plan.expecting, "nothing is expected of an empty group");
        assert_eq!(self.core.instances(self.now).count(), 0);
    }

    fn turn(&mut self) {
        self.settle();
        while !self.launching.is_empty() {
            self.answer_increase();
        }
        while !self.deleting.is_empty() {
            self.answer_decrease();
        }
        while !self.readying.is_empty() {
            self.answer_ready_up();
        }
        while !self.checking.is_empty() {
            self.answer_check();
        }
        self.settle();
        self.pass_time();
        self.listing();
        self.settle();
    }

    fn phase(&self, id: &InstanceId) -> Option<PhaseName> {
        self.core.instances(self.now).find(|line| line.id == *id).map(|line| line.phase)
    }

    fn both<R: PartialEq + std::fmt::Debug>(&mut self, call: impl Fn(&mut Core, Now) -> R) -> R {
        let result = call(&mut self.core, self.now);
        if let Some(twin) = &mut self.twin {
            assert_eq!(result, call(twin, self.now), "same input, same answer");
        }
        result
    }
}

fn random_config(random: &mut Random) -> Config {
    let capacity = [1, 1, 2, 5];
    Config {
        capacity_per_instance: capacity[random.below(4) as usize],
        max_use_count: [0, 0, 1, 3][random.below(4) as usize],
        max_instances: [0, 1, 3, 10][random.below(4) as usize],
        group_max_size: random.chance(30).then_some(6),
        policies: (0..random.below(3)).map(|_| random_policy(random)).collect(),
        scale_throttle: ScaleThrottle {
            limit: [-1, 0, 1][random.below(3) as usize],
            burst: random.below(4) as u32,
        },
        reservation_throttling: random.chance(50),
        failure_threshold: random.below(4) as u32,
        creation_timeout: Duration::from_secs(300),
        heartbeat_interval: Duration::from_secs([0, 300][random.below(2) as usize]),
        keep_instance_with_acquisitions: random.chance(50),
        vm_isolation: random.chance(20),
        restores_state: random.chance(70),
        ..Config::default()
    }
}

fn random_policy(random: &mut Random) -> Policy {
    let periods = ["* * * * *", "* 8-15 * * mon-fri", "0-30 * * * *"];
    Policy {
        periods: vec![periods[random.below(3) as usize].parse().expect("valid")],
        zone: ["UTC", "Europe/Berlin", "Asia/Kathmandu"][random.below(3) as usize].parse().expect("known"),
        idle_count: random.below(4) as u32,
        idle_time: Duration::from_secs([0, 60, 1200][random.below(3) as usize]),
        scale_factor: ["0", "0.5", "1.1"][random.below(3) as usize].parse().expect("valid"),
        scale_factor_limit: random.below(4) as u32,
        preemptive_mode: [None, Some(true), Some(false)][random.below(3) as usize],
    }
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().expect("a time")
}
