//! What is said.

use super::*;

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
