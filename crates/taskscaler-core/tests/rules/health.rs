//! Becoming ready, and staying so.

use super::*;

#[test]
fn new_ids_are_bound_to_requests_and_surplus_ones_are_removed_for_safety() {
    let mut rig = Rig::new(quiet());
    rig.observe();
    rig.wait_for(&["a"]);
    rig.core.decide(rig.now);
    rig.core.increased(1, 1, None, rig.now);
    rig.seen = vec![Seen::new("i-2", SeenState::Running), Seen::new("i-1", SeenState::Running)];
    rig.observe();
    let (plan, _) = rig.core.decide(rig.now);
    assert_eq!(plan.ready_up, [(id("i-1"), Origin::Requested)]);
    assert_eq!(reasons(&plan), [("i-2", Reason::NoRecord)]);
    let text = "no data on pre-existing instance so removing for safety";
    assert_eq!(plan.delete[0].reason.to_string(), text);
}

#[test]
fn with_isolation_an_unknown_instance_is_used() {
    let mut rig = Rig::new(config(|config| config.vm_isolation = true));
    rig.say("i-1", Some(SeenState::Running));
    let (plan, _) = rig.core.decide(rig.now);
    assert_eq!(plan.ready_up, [(id("i-1"), Origin::Preexisted)]);
}

#[test]
fn an_instance_that_cannot_be_made_ready_is_removed_and_the_next_one_waits() {
    let mut rig = Rig::new(quiet());
    rig.observe();
    rig.wait_for(&["a"]);
    rig.core.decide(rig.now);
    rig.core.increased(1, 1, None, rig.now);
    rig.say("i-1", Some(SeenState::Running));
    rig.core.decide(rig.now);
    rig.core.readied(&id("i-1"), Err("ready command: exit status 1".to_owned()), rig.now);
    let (plan, report) = rig.core.decide(rig.now);
    let why = "ready command: exit status 1".to_owned();
    assert_eq!(reasons(&plan), [("i-1", Reason::ReadyUpFailed { why })]);
    assert!(matches!(report.why[0], Why::BackoffUntil { failures: 1, .. }), "{report}");
    rig.later(Duration::from_secs(1));
    assert_eq!(rig.core.decide(rig.now).0.launch, 1);
}

#[test]
fn an_instance_that_never_runs_is_removed_after_the_creation_timeout() {
    let mut rig = Rig::new(quiet());
    rig.observe();
    rig.wait_for(&["a"]);
    rig.core.decide(rig.now);
    rig.core.increased(1, 1, None, rig.now);
    rig.say("i-1", Some(SeenState::Creating));
    rig.later(minutes(15));
    assert_eq!(reasons(&rig.core.decide(rig.now).0), [("i-1", Reason::CreationTimeout)]);
}

#[test]
fn only_failures_in_a_row_replace_an_instance() {
    let mut rig = Rig::new(quiet());
    rig.add_ready("i-1");
    let sick = || Health::Unhealthy("status check failed".to_owned());
    for health in [sick(), sick(), Health::Healthy, sick(), Health::Unknown("timeout".to_owned()), sick()] {
        rig.core.health(&id("i-1"), health, rig.now);
    }
    assert_eq!(rig.line("i-1").phase, PhaseName::Suspect);
    rig.wait_for(&["a"]);
    assert_eq!(rig.core.poll_event(), None, "a suspect takes no job");
    rig.core.health(&id("i-1"), sick(), rig.now);
    let why = "status check failed".to_owned();
    assert_eq!(reasons(&rig.core.decide(rig.now).0), [("i-1", Reason::Unhealthy { why })]);
}

#[test]
fn a_suspect_that_proves_healthy_takes_jobs_again() {
    let mut rig = Rig::new(quiet());
    rig.add_ready("i-1");
    rig.core.suspect(&id("i-1"), "dial timeout".to_owned(), rig.now);
    rig.wait_for(&["a"]);
    let (plan, _) = rig.core.decide(rig.now);
    assert_eq!(plan.check, [id("i-1")], "it is checked at once");
    rig.core.health(&id("i-1"), Health::Healthy, rig.now);
    assert_eq!(rig.core.poll_event(), Some(granted("a", "i-1", 0)));
}

#[test]
fn without_health_checks_a_suspect_is_replaced() {
    let mut rig = Rig::new(config(|config| config.heartbeat_interval = Duration::ZERO));
    rig.add_ready("i-1");
    rig.core.suspect(&id("i-1"), "dial timeout".to_owned(), rig.now);
    let why = "dial timeout".to_owned();
    assert_eq!(reasons(&rig.core.decide(rig.now).0), [("i-1", Reason::Unhealthy { why })]);
}

#[test]
fn health_is_checked_every_interval_and_an_unanswered_check_is_not_repeated() {
    let mut rig = Rig::new(Config { policies: vec![idle(1)], ..quiet() });
    rig.add_ready("i-1");
    let wake = rig.core.decide(rig.now).0.wake_at.unwrap();
    assert_eq!(wake, rig.now.mono + minutes(5));
    rig.at(wake);
    assert_eq!(rig.core.decide(rig.now).0.check, [id("i-1")]);
    rig.later(minutes(10));
    assert_eq!(rig.core.decide(rig.now).0.check, []);
}
