//! Random lives of a scaler over a small cloud that delays, refuses, lies a little and takes instances away. After each
//! step the promises are checked; at the end the cloud behaves, and everything must settle.
//!
//! One life in four is fair: its cloud behaves from the beginning, and then no error may be reported.
//!
//! A failure names its seed. `SIM_SEEDS=<first>..<end>` runs other seeds, for example one that failed, or a night full.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a test may fail and say so")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use drover_taskscaler_core::{
    Acquire, ClaimKey, Config, Core, Doom, DoomKind, Event, Failure, FailureKind, Health, InstanceId, Ledger,
    LedgerChanges, NoCapacity, Notice, Now, Origin, PhaseName, Plan, Policy, Reason, Report, ScaleThrottle,
    Seen, SeenState, Slot, Why,
};

mod cloud;
mod end;
mod operators;
mod owners;
mod promises;

const SEEDS: u64 = 10_000;
const STEPS: u32 = 500;
/// Seeds outside of the range above that showed a defect when they were run; replayed first.
const PAST: &[u64] = &[];

#[test]
fn promises_hold_at_every_step() {
    PAST.iter().copied().for_each(run);
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
    doomed: Option<Doom>,
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
    /// What the owners of slots were told of the end of their instances.
    heard: BTreeMap<ClaimKey, Option<Doom>>,
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
    /// They did from the beginning: whatever goes wrong is the scaler's fault.
    fair: bool,
    /// Until when nothing may be launched, while the circuit is open.
    open_until: Option<Duration>,
    /// Failures that instances or their cloud were made to have.
    failures: u32,
    /// What was stored since the last restart, as the ledger's journal has it.
    journal: Vec<Vec<u8>>,
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
            heard: BTreeMap::new(),
            launching: VecDeque::new(),
            deleting: VecDeque::new(),
            readying: Vec::new(),
            checking: Vec::new(),
            open: BTreeSet::new(),
            marked_idle: 0,
            listed: false,
            stopping: false,
            calm: seed % 4 == 3,
            fair: seed % 4 == 3,
            open_until: None,
            failures: 0,
            journal: Vec::new(),
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
            52..97 if self.fair => self.turn(),
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
