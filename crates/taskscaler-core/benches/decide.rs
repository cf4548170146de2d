//! How long decisions and events take at 10,000 instances and 100,000 claims: `cargo bench -p drover-taskscaler-core`.
//! Fails if a decision takes 5 ms, an event with its decision 1 ms on average, or the removal of an instance, when they all
//! become idle at once, 100 µs.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use drover_taskscaler_core::{ClaimKey, Config, Core, Ledger, Now, Policy, Seen, SeenState};

const INSTANCES: u32 = 10_000;
const CAPACITY: u32 = 10;
const EVENTS: u32 = 20_000;

fn main() {
    let mut now = Now { mono: Duration::from_secs(1), wall: DateTime::<Utc>::UNIX_EPOCH };
    let listing: Vec<Seen> =
        (0..INSTANCES).map(|n| Seen::new(format!("i-{n:05}"), SeenState::Running)).collect();
    let mut core = Core::new(config(), Ledger::default(), now);

    let observed = timed(|| core.observe(&listing, now));
    println!("first listing of {INSTANCES} instances: {observed:?}");
    let (plan, _) = core.decide(now);
    let readied = timed(|| plan.ready_up.iter().for_each(|(id, _)| core.readied(id, Ok(()), now)));
    println!("readying {} instances: {readied:?}", plan.ready_up.len());

    let filled = timed(|| (0..INSTANCES * CAPACITY).for_each(|n| claim(&mut core, n, now)));
    println!("filling {} slots: {filled:?}", INSTANCES * CAPACITY);

    let waited = timed(|| (0..INSTANCES * CAPACITY).for_each(|n| claim(&mut core, 1_000_000 + n, now)));
    println!("queueing {} jobs: {waited:?}", INSTANCES * CAPACITY);
    let full = timed(|| drop(core.decide(now)));
    println!("one decision, all busy: {full:?}");

    let listed = timed(|| core.observe(&listing, now));
    println!("an unchanged listing: {listed:?}");

    let churn = timed(|| {
        for n in 0..EVENTS {
            advance(&mut now, Duration::from_millis(10));
            core.release(&key(n), now);
            drop(core.decide(now));
            while core.poll_event().is_some() {}
            core.take_ledger_changes();
        }
    });
    println!("{EVENTS} jobs end, the next begin, with a decision each: {:?} each", churn / EVENTS);

    let freed = timed(|| {
        (0..INSTANCES * CAPACITY).for_each(|n| core.release(&key(1_000_000 + n), now));
        (0..INSTANCES * CAPACITY).for_each(|n| core.release(&key(n), now));
    });
    println!("releasing everything: {freed:?}");
    let idle = timed(|| drop(core.decide(now)));
    println!("one decision, all idle: {idle:?}");
    advance(&mut now, Duration::from_secs(301));
    let mut count = 0;
    let removed = timed(|| count = core.decide(now).0.delete.len());
    let each = removed / u32::try_from(count).unwrap_or(u32::MAX).max(1);
    println!("one decision that removes {count} instances: {removed:?}, {each:?} each");

    assert!(full.max(idle) < Duration::from_millis(5), "a decision is too slow");
    assert!(churn / EVENTS < Duration::from_millis(1), "an event is too slow");
    // One decision in the life of an instance marks it, so this is what its end costs, however many end together.
    assert!(count > 9_000 && each < Duration::from_micros(100), "removing is too slow");
}

fn claim(core: &mut Core, n: u32, now: Now) {
    if core.reserve(key(n), now).is_ok() {
        let _ = core.acquire(&key(n), now);
    }
}

fn key(n: u32) -> ClaimKey {
    ClaimKey::from(format!("glrt-aBcDeF-{n:016x}"))
}

fn config() -> Config {
    Config {
        capacity_per_instance: CAPACITY,
        policies: vec![Policy { idle_count: 100, preemptive_mode: Some(false), ..Policy::default() }],
        reservation_throttling: false,
        vm_isolation: true,
        ..Config::default()
    }
}

fn advance(now: &mut Now, by: Duration) {
    now.mono += by;
    now.wall += TimeDelta::from_std(by).unwrap_or_default();
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}
