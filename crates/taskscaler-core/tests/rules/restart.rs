//! What a successor does with a ledger.

use test_case::test_case;

use super::*;

#[test]
fn a_restored_instance_keeps_its_uses_and_its_idle_age() {
    let config = Config { max_use_count: 5, restores_state: true, ..quiet() };
    let mut rig = Rig::new(config);
    rig.run_job("a");
    rig.later(minutes(4));
    rig.restart();
    rig.observe();
    let (plan, _) = rig.core.decide(rig.now);
    assert_eq!(plan.ready_up, [(id("i-1"), Origin::Restored { had_claims: false })]);
    rig.core.readied(&id("i-1"), Ok(()), rig.now);
    assert_eq!(rig.line("i-1").use_count, 1);
    rig.later(minutes(1) + Duration::from_secs(1));
    assert_eq!(reasons(&rig.core.decide(rig.now).0), [("i-1", Reason::Idle)]);
}

#[test_case(false => Some(Reason::RestoredWithAcquisitions); "by default it goes")]
#[test_case(true => None; "it stays where that is allowed")]
fn a_restored_instance_that_was_running_a_job(keep: bool) -> Option<Reason> {
    let mut rig = Rig::new(Config { restores_state: true, keep_instance_with_acquisitions: keep, ..quiet() });
    rig.acquire_now(&["a"]);
    rig.restart();
    assert_eq!(rig.core.ledger().instances[&id("i-1")].claims, [key("a")], "remembered until it is ready");
    rig.observe();
    let (plan, report) = rig.core.decide(rig.now);
    assert_eq!(report.inputs.acquired, 0, "the job is over");
    if keep {
        assert_eq!(plan.ready_up, [(id("i-1"), Origin::Restored { had_claims: true })]);
        rig.core.readied(&id("i-1"), Ok(()), rig.now);
        assert_eq!(rig.core.ledger().instances[&id("i-1")].claims, []);
    }
    plan.delete.into_iter().next().map(|deletion| deletion.reason)
}

#[test]
fn without_state_storage_every_instance_found_is_removed() {
    let mut rig = Rig::new(quiet());
    rig.run_job("a");
    rig.restart();
    rig.observe();
    assert_eq!(reasons(&rig.core.decide(rig.now).0), [("i-1", Reason::NoRecord)]);
}

#[test]
fn what_was_marked_before_a_restart_goes_after_it() {
    let mut rig = Rig::new(Config { max_use_count: 1, restores_state: true, ..quiet() });
    rig.run_job("a");
    rig.restart();
    rig.observe();
    assert_eq!(reasons(&rig.core.decide(rig.now).0), [("i-1", Reason::UsedUp)]);
}

#[test]
fn open_requests_survive_a_restart() {
    let mut rig = Rig::new(Config { restores_state: true, ..quiet() });
    rig.observe();
    rig.wait_for(&["a"]);
    rig.core.decide(rig.now);
    rig.restart();
    rig.say("i-1", Some(SeenState::Running));
    assert_eq!(rig.core.decide(rig.now).0.ready_up, [(id("i-1"), Origin::Requested)]);
}

#[test]
fn a_gone_instance_is_not_taken_for_a_new_one_after_a_restart() {
    let mut rig = Rig::new(Config { restores_state: true, ..quiet() });
    rig.acquire_now(&["a"]);
    rig.say("i-1", None);
    rig.wait_for(&["b"]);
    rig.core.decide(rig.now);
    rig.restart();
    rig.say("i-1", Some(SeenState::Running));
    assert_eq!(reasons(&rig.core.decide(rig.now).0), [("i-1", Reason::Reappeared)]);
}

#[test]
fn the_record_of_a_gone_instance_is_dropped_in_time() {
    let mut rig = Rig::new(quiet());
    rig.acquire_now(&["a"]);
    rig.say("i-1", None);
    assert!(rig.core.ledger().instances[&id("i-1")].gone.is_some());
    rig.core.take_ledger_changes();
    rig.later(minutes(15));
    rig.observe();
    assert_eq!(rig.core.take_ledger_changes().removals, [id("i-1")]);
    assert_eq!(rig.core.ledger(), Ledger::default());
}

#[test]
fn the_stored_format_is_read_with_what_it_lacks() {
    let text = r#"{"version": 1, "instances": {"i-1": {"use_count": 3, "claims": ["a"], "cause": "requested",
        "created": "2026-08-03T07:00:00Z", "idle_since": "2026-08-03T07:30:00Z"}}}"#;
    let ledger: Ledger = serde_json::from_str(text).unwrap();
    assert_eq!(ledger.instances[&id("i-1")].use_count, 3);
    assert_eq!(serde_json::from_str::<Ledger>(&serde_json::to_string(&ledger).unwrap()).unwrap(), ledger);
}
