//! Instances that go by themselves.

use test_case::test_case;

use super::*;

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
    rig.seen[0].doomed = Some(notice());
    rig.observe();
    assert_eq!(rig.core.poll_event(), Some(doomed("a", Some(notice()))));
    rig.wait_for(&["b"]);
    let (plan, _) = rig.core.decide(rig.now);
    assert_eq!((plan.launch, plan.delete.len()), (1, 0), "the running job keeps it");
    rig.say("i-1", None);
    let cause = LostCause::Doomed { why: "spot notice".to_owned() };
    assert_eq!(rig.core.poll_event(), Some(lost("a", "i-1", cause)));
}

#[test]
fn the_instance_itself_is_believed_before_and_beside_the_listing() {
    let mut rig = Rig::new(quiet());
    rig.acquire_now(&["a"]);
    let at = rig.now.wall + TimeDelta::seconds(120);
    let told = Doom::new(DoomKind::Interruption, "terminate").at(at);
    rig.core.told(&id("i-1"), Some(&told), rig.now);
    rig.core.told(&id("i-1"), Some(&told), rig.now);
    assert_eq!(rig.core.poll_event(), Some(doomed("a", Some(told.clone()))));
    rig.observe();
    assert_eq!(rig.core.poll_event(), None, "a listing that does not know it yet takes nothing back");
    rig.seen[0].doomed = Some(Doom::new(DoomKind::Rebalance, "advice"));
    rig.observe();
    assert_eq!((rig.core.poll_event(), rig.core.doom(&id("i-1"))), (None, Some(&told)));
    rig.wait_for(&["b"]);
    assert_eq!(rig.core.decide(rig.now).0.launch, 1);
    let announced = Notice::Announced { id: id("i-1"), doom: told.clone() };
    let notices: Vec<Notice> = std::iter::from_fn(|| rig.core.poll_notice()).collect();
    assert_eq!(notices.iter().filter(|notice| matches!(notice, Notice::Announced { .. })).count(), 1);
    assert!(notices.contains(&announced));
    rig.say("i-1", Some(SeenState::Deleting));
    let cause = LostCause::Doomed { why: told.to_string() };
    assert_eq!(rig.core.poll_event(), Some(lost("a", "i-1", cause)));
}

#[test]
fn an_end_that_is_called_off_reaches_the_job_and_brings_no_other_one() {
    let mut rig = Rig::new(quiet());
    rig.acquire_now(&["a"]);
    let at = rig.now.wall + TimeDelta::days(5);
    let retired = Doom::new(DoomKind::Maintenance, "instance-retirement").at(at);
    rig.seen[0].doomed = Some(retired.clone());
    rig.observe();
    assert_eq!(rig.core.poll_event(), Some(doomed("a", Some(retired))));
    rig.seen[0].doomed = None;
    rig.observe();
    assert_eq!(rig.core.poll_event(), Some(doomed("a", None)));
    rig.wait_for(&["b"]);
    assert_eq!(rig.core.decide(rig.now).0.launch, 1, "it has been replaced");
    rig.core.release(&key("a"), rig.now);
    assert_eq!(rig.core.decide(rig.now).0.delete.len(), 1);
}

#[test]
fn what_is_announced_for_an_instance_that_goes_anyway_is_said_to_its_job_and_to_people() {
    let mut rig = Rig::new(quiet());
    rig.acquire_now(&["a"]);
    rig.core.condemn(&id("i-1"), "dial timeout".to_owned(), rig.now);
    rig.core.told(&id("i-1"), Some(&notice()), rig.now);
    assert_eq!(rig.core.poll_event(), Some(doomed("a", Some(notice()))));
    let line = rig.core.instances(rig.now).next().unwrap();
    assert!(line.to_string().contains("will be taken away: spot notice"), "{line}");
    rig.say("i-1", None);
    let cause = LostCause::Doomed { why: "spot notice".to_owned() };
    assert_eq!(rig.core.poll_event(), Some(lost("a", "i-1", cause)));
}

fn notice() -> Doom {
    Doom::new(DoomKind::Interruption, "spot notice")
}

fn doomed(name: &str, doom: Option<Doom>) -> Event {
    Event::Doomed { key: key(name), doom }
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
