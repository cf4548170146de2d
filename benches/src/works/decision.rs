//! One scaling decision over a fleet that no single manager has yet. `cargo bench -p drover-taskscaler-core` has more of
//! them, and fails when one is too slow.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use taskscaler_core::{ClaimKey, Config, Core, Ledger, Now, Policy, Seen, SeenState};

use crate::statistics::{median, millis};
use crate::table::{Goal, Row};

const INSTANCES: u32 = 10_000;
const CAPACITY: u32 = 10;
const DECISIONS: u32 = 21;

pub(crate) fn measure() -> Vec<Row> {
    let mut now = Now { mono: Duration::from_secs(1), wall: DateTime::<Utc>::UNIX_EPOCH };
    let mut core = busy_fleet(now);
    let mut times = Vec::new();
    for number in 0..DECISIONS {
        now.mono += Duration::from_millis(10);
        // A job ends, so that there is something to decide.
        let ended = claim(number);
        let start = Instant::now();
        core.release(&ended, now);
        drop(core.decide(now));
        times.push(millis(start.elapsed()) * 1000.0);
    }
    let name = format!(
        "a job ends, and the decision after it, over {INSTANCES} instances and {} claims",
        INSTANCES * CAPACITY
    );
    vec![Row::new(name, median(times), "µs", Goal::AtMost(5000.0), "")]
}

/// Every instance is ready and every slot taken.
fn busy_fleet(now: Now) -> Core {
    let config = Config {
        capacity_per_instance: CAPACITY,
        policies: vec![Policy { idle_count: 100, preemptive_mode: Some(false), ..Policy::default() }],
        reservation_throttling: false,
        vm_isolation: true,
        ..Config::default()
    };
    let mut core = Core::new(config, Ledger::default(), now);
    let listing: Vec<Seen> =
        (0..INSTANCES).map(|number| Seen::new(format!("i-{number:05}"), SeenState::Running)).collect();
    core.observe(&listing, now);
    let (plan, _) = core.decide(now);
    for (id, _) in &plan.ready_up {
        core.readied(id, Ok(()), now);
    }
    for number in 0..INSTANCES * CAPACITY {
        let key = claim(number);
        if core.reserve(key.clone(), now).is_ok() {
            // Granted or pending: both are claims.
            let _ = core.acquire(&key, now);
        }
    }
    core
}

fn claim(number: u32) -> ClaimKey {
    ClaimKey::from(format!("glrt-bench-{number:08x}"))
}

#[cfg(test)]
mod tests {
    use taskscaler_core::Acquire;

    use super::*;

    #[test]
    fn the_fleet_is_as_large_and_as_busy_as_its_name_says() {
        let now = Now { mono: Duration::from_secs(1), wall: DateTime::<Utc>::UNIX_EPOCH };
        let mut core = busy_fleet(now);
        for number in 0..INSTANCES * CAPACITY {
            assert!(matches!(core.acquire(&claim(number), now), Ok(Acquire::Granted(_))), "claim {number}");
        }
        let late = ClaimKey::from("one-more".to_owned());
        core.reserve(late.clone(), now).unwrap();
        assert_eq!(core.acquire(&late, now), Ok(Acquire::Pending), "every slot is taken");
    }
}
