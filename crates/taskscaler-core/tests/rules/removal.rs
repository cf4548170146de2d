//! Which instances go, and when.

use test_case::test_case;

use super::*;

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
