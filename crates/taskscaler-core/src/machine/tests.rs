//! The tables of docker+machine: those of GitLab Runner's own tests, and what its documentation promises.

use test_case::test_case;

use super::*;
use crate::math::Inputs;

/// Columns: limit, `IdleCount`, `IdleCountMin`, factor, `MaxGrowthRate`; creating, idle, used.
#[test_case([0, 0, 0, 0, 10], [10, 0, 0] => false; "row 1 growth is exceeded")]
#[test_case([0, 1, 0, 0, 10], [1, 0, 0] => false; "row 2 one is on its way")]
#[test_case([10, 0, 0, 0, 0], [5, 3, 2] => false; "row 3 the limit is reached")]
#[test_case([10, 10, 0, 0, 0], [0, 3, 2] => true; "row 4 idle count is not reached")]
#[test_case([0, 100, 10, 1, 0], [0, 0, 0] => true; "row 5 below the minimum, nothing used")]
#[test_case([0, 100, 10, 1, 0], [0, 0, 1] => true; "row 6 below the minimum, one used")]
#[test_case([0, 100, 10, 1, 0], [0, 5, 1] => true; "row 7 half of the minimum")]
#[test_case([0, 100, 10, 1, 0], [0, 10, 15] => true; "row 8 below the factor")]
#[test_case([0, 100, 10, 1, 0], [0, 10, 1] => false; "row 9 minimum and factor are met")]
#[test_case([0, 100, 0, 1, 0], [0, 0, 0] => true; "row 10 the minimum is forced to one")]
#[test_case([0, 10, 0, 1, 0], [0, 10, 100] => false; "row 11 idle count caps the factor")]
#[test_case([0, 10, 0, 0, 0], [0, 10, 0] => false; "row 12 idle count is reached")]
#[test_case([0, 10, 0, 0, 0], [0, 1, 0] => true; "row 13 idle count is not reached yet")]
#[test_case([0, 5, 10, 0, 0], [0, 8, 0] => false; "row 14 the minimum is nothing without a factor")]
#[test_case([0, 5, 10, 1, 0], [0, 8, 9] => false; "row 15 idle count below the minimum")]
#[test_case([0, 0, 10, 1, 0], [0, 0, 10] => false; "row 16 on demand with a factor")]
#[test_case([10, 0, 10, 1, 0], [0, 3, 2] => false; "row 17 on demand below the limit")]
#[test_case([10, 0, 10, 1, 0], [0, 0, 10] => false; "row 18 on demand at the limit")]
fn creation_ahead(rules: [u32; 5], counts: [u32; 3]) -> bool {
    rules_of(rules, 0, 0).can_create(&counts_of(counts), false)
}

/// What GitLab Runner's own tests say of a machine that is created on demand. `IdleCount` is 1 where they have it so.
#[test_case([0, 1, 0, 0, 10], [10, 0, 0] => false; "row 1")]
#[test_case([0, 1, 0, 0, 10], [1, 0, 0] => false; "row 2")]
#[test_case([10, 1, 0, 0, 0], [5, 3, 2] => false; "row 3")]
#[test_case([10, 10, 0, 0, 0], [0, 3, 2] => true; "row 4")]
#[test_case([0, 100, 10, 1, 0], [0, 0, 0] => true; "row 5")]
#[test_case([0, 100, 10, 1, 0], [0, 0, 1] => true; "row 6")]
#[test_case([0, 100, 10, 1, 0], [0, 5, 1] => true; "row 7")]
#[test_case([0, 100, 10, 1, 0], [0, 10, 15] => true; "row 8")]
#[test_case([0, 100, 10, 1, 0], [0, 10, 1] => false; "row 9")]
#[test_case([0, 100, 0, 1, 0], [0, 0, 0] => true; "row 10")]
#[test_case([0, 10, 0, 1, 0], [0, 10, 100] => false; "row 11")]
#[test_case([0, 10, 0, 0, 0], [0, 10, 0] => false; "row 12")]
#[test_case([0, 10, 0, 0, 0], [0, 1, 0] => true; "row 13")]
#[test_case([0, 5, 10, 0, 0], [0, 8, 0] => false; "row 14")]
#[test_case([0, 5, 10, 1, 0], [0, 8, 9] => false; "row 15")]
#[test_case([0, 0, 10, 1, 0], [0, 0, 10] => true; "row 16")]
#[test_case([10, 0, 10, 1, 0], [0, 3, 2] => true; "row 17")]
#[test_case([10, 0, 10, 1, 0], [0, 0, 10] => false; "row 18")]
fn creation_on_demand(rules: [u32; 5], counts: [u32; 3]) -> bool {
    rules_of(rules, 0, 0).can_create(&counts_of(counts), true)
}

/// Columns: limit, `IdleCount`, `IdleCountMin`, factor; `IdleTime`, `MaxBuilds`; creating, idle, used; jobs run, age.
/// Row 1 of the table, a machine in creation, is none of [`Rules::should_remove`]: only idle machines are asked about.
#[test_case([0, 10, 0, 0], [0, 1], [0, 1, 0], [1, 0] => Some(Removal::TooManyBuilds); "row 2 all its builds")]
#[test_case([0, 10, 0, 0], [0, 10], [0, 1, 0], [1, 0] => None; "row 3 builds are left")]
#[test_case([15, 10, 0, 0], [0, 0], [5, 5, 5], [0, 0] => Some(Removal::TooManyMachines); "row 4 the limit is reached")]
#[test_case([0, 10, 0, 0], [3600, 0], [0, 5, 0], [0, 60] => None; "row 5 young and needed")]
#[test_case([0, 10, 0, 0], [3600, 0], [0, 10, 0], [0, 60] => None; "row 6 young")]
#[test_case([0, 10, 0, 0], [10, 0], [0, 5, 0], [0, 60] => None; "row 7 needed")]
#[test_case([0, 10, 0, 0], [10, 0], [0, 10, 0], [0, 60] => Some(Removal::TooManyIdle); "row 8 old and not needed")]
#[test_case([0, 100, 10, 1], [10, 0], [0, 0, 0], [0, 60] => None; "row 9 below the minimum")]
#[test_case([0, 100, 10, 1], [10, 0], [0, 0, 1], [0, 60] => None; "row 10 below the minimum, one used")]
#[test_case([0, 100, 10, 1], [10, 0], [0, 5, 1], [0, 60] => None; "row 11 half of the minimum")]
#[test_case([0, 100, 10, 1], [10, 0], [0, 10, 15], [0, 60] => None; "row 12 below the factor")]
#[test_case([0, 100, 10, 1], [10, 0], [0, 10, 1], [0, 60] => Some(Removal::TooManyIdle); "row 13 minimum and factor are met")]
#[test_case([0, 100, 0, 1], [10, 0], [0, 0, 0], [0, 60] => None; "row 14 the minimum is forced to one")]
#[test_case([0, 10, 0, 1], [10, 0], [0, 10, 100], [0, 60] => Some(Removal::TooManyIdle); "row 15 idle count caps the factor")]
#[test_case([0, 5, 10, 0], [10, 0], [0, 8, 0], [0, 60] => Some(Removal::TooManyIdle); "row 16 the minimum is nothing without a factor")]
#[test_case([0, 5, 10, 1], [10, 0], [0, 8, 9], [0, 60] => Some(Removal::TooManyIdle); "row 17 idle count below the minimum")]
fn removal(
    rules: [u32; 4],
    time_and_builds: [u32; 2],
    counts: [u32; 3],
    machine: [u32; 2],
) -> Option<Removal> {
    let [limit, count, min, factor] = rules;
    let [time, builds] = time_and_builds;
    let rules = rules_of([limit, count, min, factor, 0], time, builds);
    let [run, age] = machine;
    rules.should_remove(&counts_of(counts), run, Duration::from_secs(age.into()))
}

#[test]
fn the_wanted_number_is_where_creation_stops_and_removal_ends() {
    for [count, min, tenths, used] in grid() {
        let factor = ScaleFactor::try_from(f64::from(tenths) / 10.0).unwrap();
        let idle = Idle { count, count_min: min, scale_factor: factor, time: Duration::ZERO };
        let rules = Rules { idle, ..Rules::default() };
        let wanted = rules.wanted_idle(used);
        for idle in 0..=wanted + 3 {
            let counts = Counts { idle, used, ..Counts::default() };
            let case = format!("{rules:?} {counts:?}");
            assert_eq!(rules.can_create(&counts, false), idle < wanted, "{case}");
            let removed = rules.should_remove(&counts, 0, Duration::from_secs(1)).is_some();
            assert_eq!(removed, idle >= wanted, "{case}");
        }
    }
}

#[test]
fn the_scaler_wants_as_many_instances_as_docker_machine_machines() {
    for [count, min, tenths, used] in grid() {
        let factor = ScaleFactor::try_from(f64::from(tenths) / 10.0).unwrap();
        let idle = Idle { count, count_min: min, scale_factor: factor, time: Duration::ZERO };
        let policy = Settings { root: idle, ..Settings::default() }.scaler().policies.remove(0);
        let inputs = Inputs {
            instance_count: used,
            max_instance_count: None,
            deleting: 0,
            draining: 0,
            acquired: used,
            unavailable_capacity: 0,
            idle_unavailable: 0,
            pending: 0,
            reserved: 0,
            idle_count: policy.idle_count,
            scale_factor: policy.scale_factor,
            scale_factor_limit: policy.scale_factor_limit,
            capacity_per_instance: 1,
        };
        let rules = Rules { idle, ..Rules::default() };
        assert_eq!(inputs.wanted().idle, rules.wanted_idle(used), "{idle:?}, {used} used");
        assert_eq!(policy.preemptive(), count > 0);
    }
}

// The scenarios of the documentation: `IdleCount`, `IdleCountMin`, factor in tenths, used.
#[test_case([100, 10, 11, 10] => 11; "ten used want eleven")]
#[test_case([100, 10, 11, 100] => 100; "110 stops at the idle count")]
#[test_case([100, 10, 11, 20] => 22; "no float noise")]
#[test_case([100, 10, 11, 0] => 10; "down to the minimum")]
#[test_case([10, 2, 5, 8] => 4; "half of eight")]
#[test_case([10, 2, 5, 9] => 4; "rounded down")]
fn documented([count, count_min, tenths, used]: [u32; 4]) -> u32 {
    let scale_factor = ScaleFactor::try_from(f64::from(tenths) / 10.0).unwrap();
    let idle = Idle { count, count_min, scale_factor, time: Duration::ZERO };
    Rules { idle, ..Rules::default() }.wanted_idle(used)
}

#[test]
fn the_last_entry_in_period_replaces_the_root_values_wholly() {
    let office = Idle { count: 50, time: Duration::from_secs(3_600), ..Idle::default() };
    let weekend = Idle { count: 5, time: Duration::from_secs(60), ..Idle::default() };
    let root = Idle { count: 10, time: Duration::from_secs(1_800), ..Idle::default() };
    let entry = |period: &str, idle| Autoscaling {
        periods: vec![machine_period(period).unwrap()],
        zone: Zone::default(),
        idle,
    };
    let settings = Settings {
        root,
        autoscaling: vec![entry("* * 9-17 * * mon-fri *", office), entry("* * * * * sat,sun *", weekend)],
        ..Settings::default()
    };
    let policies = settings.scaler().policies;
    let idle_at = |at: &str| {
        let policy = &policies[crate::policy::active_policy(&policies, at.parse().unwrap()).unwrap()];
        (policy.idle_count, policy.idle_time.as_secs())
    };
    assert_eq!(idle_at("2026-08-03T09:00:00Z"), (50, 3_600));
    assert_eq!(idle_at("2026-08-03T17:59:59Z"), (50, 3_600));
    assert_eq!(idle_at("2026-08-03T18:00:00Z"), (10, 1_800));
    assert_eq!(idle_at("2026-08-08T12:00:00Z"), (5, 60));
}

fn grid() -> impl Iterator<Item = [u32; 4]> {
    let counts = [0, 1, 5, 10, 100];
    let factors = [0, 3, 5, 10, 11, 15];
    let used = [0, 1, 3, 9, 10, 20, 101];
    counts.into_iter().flat_map(move |count| {
        [0, 1, 7, 20].into_iter().flat_map(move |min| {
            factors
                .into_iter()
                .flat_map(move |factor| used.into_iter().map(move |used| [count, min, factor, used]))
        })
    })
}

fn rules_of([limit, count, count_min, factor, growth]: [u32; 5], time: u32, builds: u32) -> Rules {
    let idle = Idle {
        count,
        count_min,
        scale_factor: ScaleFactor::try_from(f64::from(factor)).unwrap(),
        time: Duration::from_secs(time.into()),
    };
    Rules { limit, max_growth_rate: growth, max_builds: builds, idle }
}

fn counts_of([creating, idle, used]: [u32; 3]) -> Counts {
    Counts { creating, idle, used, ..Counts::default() }
}
