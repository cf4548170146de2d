//! Another manager has the group.

use drover_taskscaler_core::Elsewhere;

use super::*;

fn other() -> Option<Elsewhere> {
    Some(Elsewhere { holder: "entry `b`".to_owned(), until: None })
}

#[test]
fn who_stands_by_from_the_start_decides_nothing_and_takes_no_claims() {
    let mut rig = Rig::new(quiet());
    rig.core.stand_by(other(), rig.now);
    let refused = NoCapacity::HeldElsewhere { holder: "entry `b`".to_owned() };
    assert_eq!(rig.core.reserve(key("a"), rig.now), Err(refused));
    let (plan, report) = rig.core.decide(rig.now);
    assert_eq!(plan, Plan::default());
    assert_eq!(report.why, [Why::HeldElsewhere { holder: "entry `b`".to_owned(), until: None }]);
}

#[test]
fn who_loses_the_group_leaves_it_alone_and_goes_on_where_it_was() {
    let mut rig = Rig::new(Config { reservation_throttling: false, ..quiet() });
    rig.add_ready("i-1");
    rig.add_ready("i-2");
    rig.take("running");
    rig.core.reserve(key("waiting"), rig.now).unwrap();
    rig.core.stand_by(other(), rig.now);
    // A free slot is there, and a job that was taken before: it waits. What is idle for long stays.
    assert_eq!(rig.core.acquire(&key("waiting"), rig.now), Ok(Acquire::Pending));
    rig.seen.push(Seen::new("i-9", SeenState::Running));
    rig.observe();
    rig.later(minutes(60));
    assert_eq!(rig.core.decide(rig.now).0, Plan::default());
    assert!(rig.core.poll_event().is_none(), "the running job keeps its slot");

    rig.core.stand_by(None, rig.now);
    let Some(Event::Granted { key: granted, .. }) = rig.core.poll_event() else { panic!("no slot") };
    assert_eq!(granted, key("waiting"));
    let (plan, _) = rig.core.decide(rig.now);
    assert_eq!(reasons(&plan).len(), 1, "the instance of the other one is removed: {plan:?}");
    assert_eq!(plan.delete[0].id, id("i-9"));
}
