//! Who gets a slot.

use super::*;

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
