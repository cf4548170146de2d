//! The rules of a scaler's life, one test each, driven through the public interface.

#![expect(clippy::expect_used, reason = "a test may fail")]

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use drover_taskscaler_core::{
    Acquire, ClaimKey, Config, Core, Event, Failure, FailureKind, Fate, Health, InstanceId, Keep, Ledger,
    LostCause, NoCapacity, Notice, Now, Origin, PhaseName, Plan, Policy, Reason, Seen, SeenState, Slot,
    UnknownClaim, Why,
};
use test_case::test_case;

// --- removal ---

#[test_case(&[25, 24, 23, 5] => vec!["i-1", "i-2"]; "the two oldest of those beyond idle time")]
#[test_case(&[25, 10, 5] => vec!["i-1"]; "one too many and one too old")]
#[test_case(&[25, 25] => Vec::<&str>::new(); "none that idle count wants")]
#[test_case(&[19, 18, 17] => Vec::<&str>::new(); "none that is too young")]
fn idle_removal(ages: &[u64]) -> Vec<&'static str> {
    let mut rig = Rig::new(config(|config| {
        config.policies = vec![Policy { idle_time: minutes(20), ..idle(2) }];
        config.vm_isolation = true;
    }));
    let start = rig.now.mono;
    let oldest = ages.iter().copied().max().unwrap_or(0);
    for (index, age) in ages.iter().enumerate() {
        rig.at(start + minutes(oldest - age));
        rig.seen.push(Seen::new(NAMES[index], SeenState::Running));
        rig.observe();
        rig.ready_up_only();
    }
    rig.at(start + minutes(oldest));
    let (plan, _) = rig.core.decide(rig.now);
    plan.delete
        .iter()
        .map(|deletion| {
            assert_eq!(deletion.reason.to_string(), "instance exceeded max idle time");
            NAMES.iter().copied().find(|name| *name == deletion.id.as_str()).expect("one of ours")
        })
        .collect()
}

#[test]
fn an_instance_goes_one_moment_after_its_idle_time_and_the_plan_wakes_for_it() {
    let mut rig = Rig::new(Config { heartbeat_interval: Duration::ZERO, ..quiet() });
    rig.run_job("a");
    let (plan, report) = rig.core.decide(rig.now);
    let until = rig.now.wall + TimeDelta::seconds(300);
    assert_eq!(report.why, [Why::TooYoungToRemove { instance: id("i-1"), until }]);
    assert_eq!(plan.wake_at, Some(rig.now.mono + Duration::from_secs(300) + Duration::from_nanos(1)));
    rig.later(Duration::from_secs(300));
    assert_eq!(rig.core.decide(rig.now).0.delete, []);
    rig.later(Duration::from_nanos(1));
    assert_eq!(rig.core.decide(rig.now).0.delete.len(), 1);
}

#[test]
fn a_used_up_instance_goes_with_its_last_job_and_takes_no_other() {
    let mut rig = Rig::new(Config { capacity_per_instance: 2, max_use_count: 2, ..quiet() });
    rig.acquire_now(&["a", "b"]);
    rig.core.release(&key("a"), rig.now);
    assert_eq!(rig.line("i-1").fate, Fate::LastJobs);
    rig.core.reserve(key("c"), rig.now).unwrap();
    assert_eq!(rig.core.acquire(&key("c"), rig.now), Ok(Acquire::Pending));
    assert_eq!(rig.core.decide(rig.now).0.delete, []);
    rig.core.release(&key("b"), rig.now);
    let (plan, _) = rig.core.decide(rig.now);
    assert_eq!(reasons(&plan), [("i-1", Reason::UsedUp)]);
}

#[test]
fn deletions_are_one_batch_and_are_asked_for_again_when_they_have_no_effect() {
    let mut rig = Rig::new(quiet());
    rig.acquire_now(&["a", "b", "c"]);
    for name in ["a", "b", "c"] {
        rig.core.release(&key(name), rig.now);
    }
    rig.later(minutes(6));
    let (plan, _) = rig.core.decide(rig.now);
    assert_eq!(plan.delete.len(), 3);
    let all = ["i-1", "i-2", "i-3"].map(id);
    let refused = Failure::new(FailureKind::Throttled, "slow down");
    rig.core.decreased(&all, &all[..2], Some(refused), rig.now);
    let (plan, report) = rig.core.decide(rig.now);
    assert_eq!(plan.delete, []);
    assert!(report.why.contains(&Why::DeletionFailing { last: "slow down".to_owned() }));
    assert_eq!((report.counts.draining, report.counts.deleting), (1, 2));
    assert_eq!(plan.wake_at, Some(rig.now.mono + minutes(1)));

    rig.later(minutes(1));
    rig.observe();
    assert_eq!(rig.core.decide(rig.now).0.delete.len(), 3, "still listed, so asked for again");
    rig.core.decreased(&all, &all, None, rig.now);
    rig.seen.clear();
    rig.observe();
    assert_eq!(rig.core.instances(rig.now).count(), 0);
}

#[test]
fn in_preemptive_mode_a_fresh_reservation_keeps_a_slot_for_ten_seconds_and_no_longer() {
    let policy = Policy { preemptive_mode: Some(true), ..Policy::default() };
    let mut rig = Rig::new(config(|config| config.policies = vec![policy]));
    rig.add_ready("i-1");
    rig.later(minutes(6));
    rig.core.reserve(key("a"), rig.now).unwrap();
    let (plan, report) = rig.core.decide(rig.now);
    assert_eq!(plan.delete, []);
    let kept = Why::KeptIdle { count: 1, instance: id("i-1"), because: Keep::Reserved };
    assert_eq!(report.why, [kept]);
    assert_eq!(plan.wake_at, Some(rig.now.mono + Duration::from_secs(10)));
    rig.at(plan.wake_at.unwrap());
    assert_eq!(rig.core.decide(rig.now).0.delete.len(), 1);
}

#[test]
fn a_policy_without_idle_capacity_never_touches_running_or_waiting_jobs() {
    let periods = vec!["* 8-15 * * mon-fri".parse().unwrap()];
    let office = Policy { periods, preemptive_mode: Some(false), ..idle(1) };
    let mut rig = Rig::new(config(|config| config.policies = vec![office]));
    rig.acquire_now(&["a"]);
    assert_eq!(rig.take("b"), slot("i-2", 0), "the idle one");
    rig.later(Duration::from_secs(12 * 3_600));
    rig.wait_for(&["c"]);
    let (plan, report) = rig.core.decide(rig.now);
    assert_eq!(report.policy.index, None);
    assert!(report.why.contains(&Why::NoPolicyMatches));
    assert_eq!((plan.launch, plan.delete.len()), (1, 0), "the waiting job gets its instance");
}

// --- growth ---

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

// --- claims ---

#[test]
fn waiting_jobs_are_served_in_order_and_leave_no_trace_when_cancelled() {
    let mut rig = Rig::new(quiet());
    rig.acquire_now(&["a"]);
    rig.wait_for(&["b", "c", "d"]);
    rig.core.release(&key("b"), rig.now);
    rig.core.release(&key("a"), rig.now);
    assert_eq!(rig.core.poll_event(), Some(granted("c", "i-1", 0)));
    assert_eq!(rig.core.poll_event(), None);
    assert_eq!(rig.core.decide(rig.now).1.inputs.pending, 1);
}

#[test]
fn keys_are_unique_and_unknown_ones_harm_nothing() {
    let mut rig = Rig::new(quiet());
    rig.observe();
    rig.core.reserve(key("a"), rig.now).unwrap();
    assert_eq!(rig.core.reserve(key("a"), rig.now), Err(NoCapacity::KeyInUse { key: key("a") }));
    rig.core.release(&key("x"), rig.now);
    assert_eq!(rig.core.acquire(&key("x"), rig.now), Err(UnknownClaim { key: key("x") }));
    assert_eq!(rig.core.decide(rig.now).1.inputs.reserved, 1);
}

#[test]
fn jobs_are_packed_on_the_lowest_free_slots() {
    let mut rig = Rig::new(Config { capacity_per_instance: 3, reservation_throttling: false, ..quiet() });
    rig.add_ready("i-1");
    rig.add_ready("i-2");
    let slots = ["a", "b", "c", "d"].map(|name| rig.take(name));
    assert_eq!(slots, [slot("i-1", 0), slot("i-1", 1), slot("i-1", 2), slot("i-2", 0)]);
    rig.core.release(&key("b"), rig.now);
    assert_eq!(rig.take("e"), slot("i-1", 1), "the instance with most jobs, its lowest free slot");
}

#[test]
fn among_idle_instances_the_most_used_takes_the_job() {
    let mut rig = Rig::new(Config { reservation_throttling: false, ..quiet() });
    rig.add_ready("i-1");
    rig.add_ready("i-2");
    rig.take("a");
    rig.take("b");
    rig.core.release(&key("b"), rig.now);
    assert_eq!(rig.take("c"), slot("i-2", 0));
    rig.core.release(&key("c"), rig.now);
    rig.core.release(&key("a"), rig.now);
    assert_eq!(rig.take("d"), slot("i-2", 0), "used twice, the other once");
}

#[test]
fn a_requeued_claim_waits_again_whatever_became_of_its_slot() {
    let mut rig = Rig::new(quiet());
    rig.acquire_now(&["a"]);
    rig.core.suspect(&id("i-1"), "dial timeout".to_owned(), rig.now);
    rig.core.requeue(&key("a"), rig.now);
    assert_eq!(rig.core.acquire(&key("a"), rig.now), Ok(Acquire::Pending));
    let (plan, report) = rig.core.decide(rig.now);
    assert_eq!((report.inputs.acquired, report.inputs.pending), (0, 1));
    assert_eq!((plan.launch, plan.check), (1, vec![id("i-1")]), "a suspect is no capacity");
}

// --- lost instances ---

#[test_case(None; "missing")]
#[test_case(Some(SeenState::Deleting); "being deleted")]
#[test_case(Some(SeenState::Deleted); "deleted")]
fn jobs_learn_that_their_instance_went_unasked(said: Option<SeenState>) {
    let mut rig = Rig::new(quiet());
    rig.acquire_now(&["a"]);
    rig.say("i-1", said);
    let cause = LostCause::UnexpectedlyRemoved;
    assert_eq!(cause.to_string(), "instance unexpectedly removed");
    assert_eq!(rig.core.poll_event(), Some(lost("a", "i-1", cause)));
    assert_eq!(rig.core.acquire(&key("a"), rig.now), Err(UnknownClaim { key: key("a") }));
    let (plan, report) = rig.core.decide(rig.now);
    assert_eq!((plan.delete.len(), report.inputs.acquired), (0, 0));
    let removed = Notice::UnexpectedlyRemoved { id: id("i-1"), used: 1, slots: vec![(0, key("a"))] };
    assert!(std::iter::from_fn(|| rig.core.poll_notice()).any(|notice| notice == removed));
}

#[test]
fn a_timeout_of_the_provider_ends_the_jobs_and_removes_the_instance() {
    let mut rig = Rig::new(quiet());
    rig.acquire_now(&["a"]);
    rig.say("i-1", Some(SeenState::Timeout));
    assert_eq!(rig.core.poll_event(), Some(lost("a", "i-1", LostCause::TimedOut)));
    assert_eq!(reasons(&rig.core.decide(rig.now).0), [("i-1", Reason::CreationTimeout)]);
}

#[test]
fn a_doomed_instance_takes_no_job_and_is_replaced_before_it_goes() {
    let mut rig = Rig::new(quiet());
    rig.acquire_now(&["a"]);
    rig.seen[0].doomed = Some("spot notice".to_owned());
    rig.observe();
    rig.wait_for(&["b"]);
    let (plan, _) = rig.core.decide(rig.now);
    assert_eq!((plan.launch, plan.delete.len()), (1, 0), "the running job keeps it");
    rig.say("i-1", None);
    let cause = LostCause::Doomed { why: "spot notice".to_owned() };
    assert_eq!(rig.core.poll_event(), Some(lost("a", "i-1", cause)));
}

#[test]
fn an_instance_deleted_under_its_job_says_by_whom() {
    let mut rig = Rig::new(quiet());
    rig.acquire_now(&["a"]);
    rig.core.begin_shutdown(true, rig.now);
    rig.core.decreased(&[id("i-1")], &[id("i-1")], None, rig.now);
    let cause = LostCause::Deleted { reason: Reason::Shutdown };
    assert_eq!(cause.to_string(), "instance deleted: instances are deleted at shutdown");
    assert_eq!(rig.core.poll_event(), Some(lost("a", "i-1", cause)));
}

#[test]
fn an_instance_that_was_never_ready_may_be_missing_from_one_listing() {
    let mut rig = Rig::new(quiet());
    rig.observe();
    rig.wait_for(&["a"]);
    rig.core.decide(rig.now);
    rig.core.increased(1, 1, None, rig.now);
    rig.observe();
    assert_eq!(rig.core.decide(rig.now).1.counts.requested, 1, "not listed yet");
    rig.say("i-1", Some(SeenState::Creating));
    assert_eq!(rig.core.decide(rig.now).1.counts.creating, 1);
    rig.say("i-1", None);
    assert_eq!(rig.core.decide(rig.now).1.counts.creating, 1, "forgiven once");
    rig.say("i-1", Some(SeenState::Creating));
    rig.say("i-1", None);
    assert_eq!(rig.core.decide(rig.now).1.counts.creating, 1, "seen again, so forgiven again");
    rig.observe();
    assert_eq!(rig.core.decide(rig.now).1.counts.creating, 0, "missing twice in a row");
}

#[test]
fn an_instance_that_comes_back_from_a_delayed_listing_never_takes_a_job() {
    let mut rig = Rig::new(quiet());
    rig.acquire_now(&["a"]);
    rig.say("i-1", None);
    rig.wait_for(&["b"]);
    rig.core.decide(rig.now);
    rig.core.increased(1, 1, None, rig.now);
    rig.say("i-1", Some(SeenState::Running));
    let (plan, report) = rig.core.decide(rig.now);
    assert_eq!(reasons(&plan), [("i-1", Reason::Reappeared)]);
    assert_eq!(report.counts.requested, 1, "it is not taken for the one that was asked for");
}

#[test]
fn a_pause_between_listings_brings_no_gone_instance_back() {
    let mut rig = Rig::new(quiet());
    rig.acquire_now(&["a"]);
    rig.say("i-1", None);
    rig.later(minutes(60));
    rig.say("i-1", Some(SeenState::Running));
    assert_eq!(reasons(&rig.core.decide(rig.now).0), [("i-1", Reason::Reappeared)]);
}

// --- becoming ready, health ---

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

// --- restart ---

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

// --- shutdown ---

#[test]
fn shutdown_deletes_idle_instances_at_once_and_busy_ones_after_their_jobs() {
    let mut rig = Rig::new(Config { reservation_throttling: false, ..quiet() });
    rig.add_ready("i-1");
    rig.add_ready("i-2");
    rig.take("a");
    rig.core.begin_shutdown(true, rig.now);
    assert_eq!(rig.core.reserve(key("b"), rig.now), Err(NoCapacity::ShuttingDown));
    assert_eq!(reasons(&rig.core.decide(rig.now).0), [("i-2", Reason::Shutdown)]);
    rig.core.release(&key("a"), rig.now);
    assert_eq!(reasons(&rig.core.decide(rig.now).0), [("i-1", Reason::Shutdown)]);
    rig.seen.push(Seen::new("i-3", SeenState::Creating));
    rig.observe();
    assert_eq!(rig.core.decide(rig.now).0.delete.len(), 1, "late comers go too");
}

#[test]
fn shutdown_without_deletion_leaves_idle_instances_for_the_next_manager() {
    let mut rig = Rig::new(quiet());
    rig.add_ready("i-1");
    rig.core.begin_shutdown(false, rig.now);
    rig.later(minutes(60));
    let (plan, report) = rig.core.decide(rig.now);
    assert_eq!(plan, Plan::default());
    let kept = Why::KeptIdle { count: 1, instance: id("i-1"), because: Keep::ShuttingDown };
    assert_eq!(report.why, [Why::ShuttingDown, kept]);
}

// --- reports ---

#[test]
fn reports_are_short_lines_and_serialise() {
    let mut rig = Rig::new(Config { max_instances: 1, ..quiet() });
    rig.observe();
    rig.wait_for(&["a"]);
    let (_, report) = rig.core.decide(rig.now);
    assert_eq!(report.to_string(), "launching 1 for waiting jobs");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["inputs"]["pending"], 1);
    assert_eq!(json["why"][0]["why"], "launching");
    rig.core.increased(1, 1, None, rig.now);
    rig.say("i-1", Some(SeenState::Running));
    rig.ready_up_only();
    assert_eq!(rig.line("i-1").to_string(), "i-1 ready (requested) 1/1 used 1: runs jobs");
}

// --- helpers ---

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
                Event::Lost { key, .. } => panic!("{key} is lost"),
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
