//! The end of a manager.

use super::*;

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
