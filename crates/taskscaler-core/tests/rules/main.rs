//! The rules of a scaler's life, one test each, driven through the public interface.

#![expect(clippy::expect_used, reason = "a test may fail")]

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use drover_taskscaler_core::{
    Acquire, ClaimKey, Config, Core, Doom, DoomKind, Event, Failure, FailureKind, Fate, Health, InstanceId,
    Keep, Ledger, LostCause, NoCapacity, Notice, Now, Origin, PhaseName, Plan, Policy, Reason, Seen,
    SeenState, Slot, UnknownClaim, Why,
};

mod claims;
mod growth;
mod health;
mod lost;
mod removal;
mod reports;
mod restart;
mod shutdown;
mod standby;

const NAMES: [&str; 4] = ["i-1", "i-2", "i-3", "i-4"];

struct Rig {
    core: Core,
    config: Config,
    now: Now,
    seen: Vec<Seen>,
}

impl Rig {
    /// A Monday morning.
    fn new(config: Config) -> Self {
        let wall: DateTime<Utc> = "2026-08-03T08:00:00Z".parse().expect("a time");
        let now = Now { mono: Duration::from_secs(1_000), wall };
        Self { core: Core::new(config.clone(), Ledger::default(), now), config, now, seen: Vec::new() }
    }

    fn restart(&mut self) {
        self.now.mono = Duration::ZERO;
        self.core = Core::new(self.config.clone(), self.core.ledger(), self.now);
    }

    /// Moves to a moment of the monotonic clock, if it lies ahead.
    fn at(&mut self, mono: Duration) {
        if mono > self.now.mono {
            self.later(mono - self.now.mono);
        }
    }

    fn later(&mut self, by: Duration) {
        self.now.mono += by;
        self.now.wall += TimeDelta::from_std(by).expect("hours");
    }

    fn observe(&mut self) {
        self.core.observe(&self.seen, self.now);
    }

    /// Lists `name` in this state, or not.
    fn say(&mut self, name: &str, state: Option<SeenState>) {
        self.seen.retain(|seen| seen.id != id(name));
        self.seen.extend(state.map(|state| Seen::new(name, state)));
        self.observe();
    }

    /// Makes ready what a decision asks for, and ignores the rest of its plan.
    fn ready_up_only(&mut self) {
        for (id, _) in self.core.decide(self.now).0.ready_up {
            self.core.readied(&id, Ok(()), self.now);
        }
    }

    /// A ready instance that somebody asked for.
    fn add_ready(&mut self, name: &str) {
        self.core.configure(Config { vm_isolation: true, ..self.config.clone() }, self.now);
        self.say(name, Some(SeenState::Running));
        self.ready_up_only();
        self.core.configure(self.config.clone(), self.now);
    }

    /// Claims that find no slot.
    fn wait_for(&mut self, names: &[&str]) {
        for name in names {
            self.core.reserve(key(name), self.now).expect("room");
            assert_eq!(self.core.acquire(&key(name), self.now), Ok(Acquire::Pending));
        }
    }

    fn take(&mut self, name: &str) -> Slot {
        self.core.reserve(key(name), self.now).expect("room");
        match self.core.acquire(&key(name), self.now) {
            Ok(Acquire::Granted(slot)) => slot,
            other => panic!("{name}: {other:?}"),
        }
    }

    /// Claims on instances `i-1`, `i-2` ... that are made for them.
    fn acquire_now(&mut self, names: &[&str]) {
        self.observe();
        self.wait_for(names);
        let launch = self.core.decide(self.now).0.launch;
        self.core.increased(launch, launch, None, self.now);
        for name in &NAMES[..launch as usize] {
            self.seen.push(Seen::new(*name, SeenState::Running));
        }
        self.observe();
        self.ready_up_only();
        let granted: BTreeSet<ClaimKey> = std::iter::from_fn(|| self.core.poll_event())
            .map(|event| match event {
                Event::Granted { key, .. } => key,
                Event::Doomed { key, .. } | Event::Lost { key, .. } => panic!("{key} is lost"),
            })
            .collect();
        assert_eq!(granted, names.iter().copied().map(key).collect());
    }

    fn run_job(&mut self, name: &str) {
        self.acquire_now(&[name]);
        self.core.release(&key(name), self.now);
    }

    fn line(&self, name: &str) -> drover_taskscaler_core::InstanceLine {
        self.core.instances(self.now).find(|line| line.id == id(name)).expect("known")
    }
}

fn quiet() -> Config {
    Config { policies: vec![Policy::default()], ..Config::default() }
}

fn config(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = quiet();
    change(&mut config);
    config
}

fn idle(idle_count: u32) -> Policy {
    Policy { idle_count, ..Policy::default() }
}

fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(minutes * 60)
}

fn id(name: &str) -> InstanceId {
    InstanceId::from(name)
}

fn key(name: &str) -> ClaimKey {
    ClaimKey::from(name)
}

fn slot(instance: &str, index: u32) -> Slot {
    Slot { instance: id(instance), index }
}

fn granted(name: &str, instance: &str, index: u32) -> Event {
    Event::Granted { key: key(name), slot: slot(instance, index) }
}

fn lost(name: &str, instance: &str, cause: LostCause) -> Event {
    Event::Lost { key: key(name), slot: slot(instance, 0), cause }
}

fn reasons(plan: &Plan) -> Vec<(&str, Reason)> {
    plan.delete.iter().map(|deletion| (deletion.id.as_str(), deletion.reason.clone())).collect()
}
