//! When instances are asked for.

use super::*;

#[test]
fn what_was_refused_is_asked_for_again_after_the_back_off() {
    let mut rig = Rig::new(quiet());
    rig.observe();
    rig.wait_for(&["a", "b", "c"]);
    let (plan, _) = rig.core.decide(rig.now);
    assert_eq!(plan.launch, 3);
    assert!(plan.expecting);
    rig.core.increased(3, 1, Some(Failure::new(FailureKind::NoCapacity, "none left")), rig.now);
    let (plan, report) = rig.core.decide(rig.now);
    assert_eq!(plan.launch, 0);
    let until = rig.now.wall + TimeDelta::seconds(1);
    let last = "none left".to_owned();
    assert_eq!(report.why[0], Why::BackoffUntil { until, failures: 1, last });
    assert_eq!(plan.wake_at, Some(rig.now.mono + Duration::from_secs(1)));
    rig.later(Duration::from_secs(1));
    assert_eq!(rig.core.decide(rig.now).0.launch, 2);
}

#[test]
fn the_scale_throttle_hands_out_instances_over_time() {
    let mut rig = Rig::new(config(|config| {
        config.scale_throttle.limit = 1;
        config.scale_throttle.burst = 2;
    }));
    rig.observe();
    rig.wait_for(&["a", "b", "c", "d"]);
    let (plan, report) = rig.core.decide(rig.now);
    assert_eq!(plan.launch, 2);
    assert!(matches!(report.why[1], Why::ThrottledUntil { waiting: 2, .. }), "{report}");
    rig.at(plan.wake_at.unwrap());
    assert_eq!(rig.core.decide(rig.now).0.launch, 1);
}

#[test]
fn the_ceiling_counts_instances_that_are_being_deleted() {
    let mut rig = Rig::new(Config { max_instances: 2, max_use_count: 1, ..quiet() });
    rig.acquire_now(&["a", "b"]);
    rig.core.release(&key("a"), rig.now);
    rig.core.decide(rig.now);
    rig.core.decreased(&[id("i-1")], &[id("i-1")], None, rig.now);
    rig.core.reserve(key("c"), rig.now).unwrap();
    rig.core.acquire(&key("c"), rig.now).unwrap();
    let (plan, report) = rig.core.decide(rig.now);
    assert_eq!(plan.launch, 0);
    assert_eq!(report.why[0], Why::AtMaxInstances { max: 2, wanted: 2 });
    rig.say("i-1", None);
    rig.later(Duration::from_secs(1));
    assert_eq!(rig.core.decide(rig.now).0.launch, 1);
}

#[test]
fn what_the_group_lacks_is_said_where_that_bounds_the_instances() {
    let mut rig = Rig::new(Config { max_instances: 10, group_max_size: Some(2), ..quiet() });
    rig.observe();
    for job in ["a", "b"] {
        rig.core.reserve(key(job), rig.now).unwrap();
        assert_eq!(rig.core.acquire(&key(job), rig.now), Ok(Acquire::Pending));
    }
    let lack = || "none of 2 machines can be used: machine `m1` does not answer".to_owned();
    rig.core.lacks(Some(lack()));
    rig.core.configure(Config { group_max_size: Some(0), ..rig.core.config().clone() }, rig.now);
    let (_, report) = rig.core.decide(rig.now);
    assert_eq!(report.why[0], Why::Lacking { max: 0, wanted: 2, lack: lack() });
    assert_eq!(report.why[0].to_string(), format!("the group can give 0, would want 2: {}", lack()));
    let refused = rig.core.reserve(key("c"), rig.now).unwrap_err();
    assert_eq!(refused.to_string(), format!("no capacity: {}", lack()));

    // The operator's own bound is what it is.
    let lower = Config { max_instances: 1, group_max_size: Some(2), ..rig.core.config().clone() };
    rig.core.configure(lower, rig.now);
    let (_, report) = rig.core.decide(rig.now);
    assert!(report.why.contains(&Why::AtMaxInstances { max: 1, wanted: 2 }), "{:?}", report.why);

    // When the group has all again, there is nothing to say.
    rig.core.lacks(None);
    rig.core.configure(
        Config { max_instances: 10, group_max_size: Some(1), ..rig.core.config().clone() },
        rig.now,
    );
    let (_, report) = rig.core.decide(rig.now);
    assert!(!report.why.iter().any(|why| matches!(why, Why::Lacking { .. })), "{:?}", report.why);
}

#[test]
fn the_group_bounds_the_ceiling_also_at_zero() {
    let mut rig = Rig::new(Config { max_instances: 10, group_max_size: Some(0), ..quiet() });
    rig.observe();
    let refused = rig.core.reserve(key("a"), rig.now);
    assert_eq!(refused, Err(NoCapacity::AtMaximum { max: 0 }));
}

#[test]
fn nothing_is_decided_before_the_first_listing() {
    let mut rig = Rig::new(config(|config| config.policies = vec![idle(5)]));
    assert_eq!(rig.core.reserve(key("a"), rig.now), Err(NoCapacity::NotListed));
    let (plan, report) = rig.core.decide(rig.now);
    assert_eq!(plan, Plan::default());
    assert_eq!(report.to_string(), "waiting for the first listing of the group");
    rig.observe();
    assert_eq!(rig.core.decide(rig.now).0.launch, 5);
}

#[test]
fn requests_that_never_appear_are_dropped_and_asked_for_again() {
    let mut rig = Rig::new(quiet());
    rig.observe();
    rig.wait_for(&["a"]);
    rig.core.decide(rig.now);
    rig.core.increased(1, 1, None, rig.now);
    rig.later(minutes(14));
    rig.observe();
    let (plan, report) = rig.core.decide(rig.now);
    assert_eq!((plan.launch, report.counts.requested), (0, 1));
    assert_eq!(report.why, [Why::WaitingForInstances { count: 1 }]);
    rig.later(minutes(1));
    let (_, report) = rig.core.decide(rig.now);
    assert!(matches!(report.why[0], Why::BackoffUntil { .. }), "{report}");
    rig.later(Duration::from_secs(1));
    assert_eq!(rig.core.decide(rig.now).0.launch, 1);
}

#[test]
fn jobs_are_not_taken_on_the_hope_for_instances_that_keep_failing() {
    let mut rig = Rig::new(quiet());
    rig.observe();
    rig.wait_for(&["a"]);
    for _ in 0..3 {
        rig.core.decide(rig.now);
        rig.core.increased(1, 0, Some(Failure::new(FailureKind::NeedsOperator, "quota")), rig.now);
        let wake = rig.core.decide(rig.now).0.wake_at.unwrap();
        if rig.core.reserve(key("b"), rig.now).is_ok() {
            rig.core.release(&key("b"), rig.now);
            rig.at(wake);
        }
    }
    let refused = rig.core.reserve(key("b"), rig.now).unwrap_err();
    assert!(matches!(refused, NoCapacity::Backoff { ref last, .. } if last == "quota"), "{refused}");
    rig.later(minutes(2));
    rig.core.reserve(key("b"), rig.now).unwrap();
}

#[test]
fn after_five_failures_nothing_is_launched_for_a_minute_and_then_one_instance() {
    let mut rig = Rig::new(quiet());
    rig.observe();
    rig.wait_for(&["a", "b", "c"]);
    for _ in 0..5 {
        let launch = rig.core.decide(rig.now).0.launch;
        assert_eq!(launch, 3);
        rig.core.increased(launch, 0, Some(Failure::new(FailureKind::NoCapacity, "none left")), rig.now);
        if rig.core.decide(rig.now).1.why.iter().any(|why| matches!(why, Why::CircuitOpen { .. })) {
            break;
        }
        rig.later(Duration::from_secs(16));
    }
    rig.later(Duration::from_secs(59));
    let (plan, report) = rig.core.decide(rig.now);
    assert_eq!(plan.launch, 0, "the back-off of 16 s is over, the open circuit is not");
    let last = "none left".to_owned();
    assert!(
        matches!(&report.why[0], Why::CircuitOpen { failures: 5, last: said, .. } if *said == last),
        "{report}"
    );
    assert_eq!(plan.wake_at, Some(rig.now.mono + Duration::from_secs(1)));

    rig.later(Duration::from_secs(1));
    let (plan, report) = rig.core.decide(rig.now);
    assert_eq!(plan.launch, 1);
    assert!(report.why.contains(&Why::Probing { failures: 5, last }), "{report}");
    rig.core.increased(1, 1, None, rig.now);
    assert_eq!(rig.core.decide(rig.now).0.launch, 0, "one at a time");

    rig.say("i-1", Some(SeenState::Running));
    rig.ready_up_only();
    assert_eq!(rig.core.decide(rig.now).0.launch, 2, "the circuit is closed");
}
