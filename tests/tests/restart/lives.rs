//! What the second life knows of the first.

use aws_mock::{GroupOptions, InstanceView};
use drover_tests::{Program, eventually};
use gitlab_mock::JobBuilder;

use crate::world::{World, kill, stop};

#[tokio::test]
async fn use_counts_go_on_orphaned_places_are_not_used_and_nothing_foreign_is_touched() {
    let world = World::start().await;
    world.cloud.aws.add_group(GroupOptions::new("foreign"));
    world.cloud.aws.set_desired("foreign", 2);
    let others = || world.cloud.aws.members("foreign");
    let serves = |all: &[InstanceView]| all.iter().filter(|one| one.lifecycle == "InService").count() == 2;
    eventually("the others' instances serve", || serves(&others())).await;
    let foreign = others();
    let entry = || world.entry().set("autoscaler.max_use_count", 3).set("autoscaler.max_instances", 3);
    let mut drover = world.manager(entry()).await;
    // Three instances, each used once; then one of them a second time.
    let (a, b, c) = tokio::join!(world.hold("a"), world.hold("b"), world.hold("c"));
    tokio::join!(world.release(a), world.release(b), world.release(c));
    let first: Vec<String> = world.cloud.serving();
    assert_eq!(first.len(), 3);
    let orphan = world.hold("orphan").await;

    kill(&mut drover).await;
    assert_eq!(world.cloud.serving(), first, "instances outlive their manager");
    world.again(&mut drover, entry()).await;

    // The two that are adopted have two uses left each; the one whose job was orphaned has none.
    for number in 0..6 {
        world.run(&format!("second life {number}")).await;
    }
    let uses = world.uses();
    assert!(uses.values().all(|jobs| jobs.len() <= 3), "used more than three times: {uses:?}");
    let orphaned = world.uses_where("orphan");
    assert_eq!(orphaned.len(), 1);
    assert_eq!(orphaned[0].len(), 2, "a job met what the orphan had left: {uses:?}");
    let adopted = ["a", "b", "c"].iter().flat_map(|job| world.uses_where(job));
    assert_eq!(adopted.filter(|jobs| jobs.len() == 3).count(), 2, "two go on where they were: {uses:?}");
    eventually("the used ones are gone", || world.cloud.serving().iter().all(|id| !first.contains(id))).await;
    drop(orphan);

    stop(&mut drover).await;
    world.again(&mut drover, entry().set("autoscaler.delete_instances_on_shutdown", true)).await;
    stop(&mut drover).await;
    assert_eq!(world.cloud.members(), [], "nothing leaks");
    assert_eq!(world.cloud.aws.desired("fleet"), 0);
    assert_eq!(others(), foreign);
    world.gitlab.assert_no_violations();
}

#[tokio::test]
async fn an_instance_that_was_asked_for_before_the_end_is_used_after_it() {
    let world = World::start().await;
    let mut drover = world.manager(world.entry()).await;
    let lost = world.gitlab.enqueue(&world.runner, JobBuilder::new("lost").script(["true"]));
    eventually("an instance comes", || world.cloud.members().len() == 1).await;
    kill(&mut drover).await;
    assert!(!lost.state().is_final());
    world.again(&mut drover, world.entry()).await;
    world.run("next").await;
    assert_eq!(world.cloud.aws.launched(), 1);
    stop(&mut drover).await;
}

#[tokio::test]
async fn a_rotated_token_leaves_the_instances_and_their_uses_known() {
    let mut world = World::start().await;
    let entry = || world.entry().set("autoscaler.max_use_count", 2);
    let mut drover = world.manager(entry()).await;
    world.run("before").await;
    kill(&mut drover).await;
    let entry = entry().set("token", "glrt-rotated-0123456789abcdef");
    world.runner = world.gitlab.add_runner("glrt-rotated-0123456789abcdef");
    world.again(&mut drover, entry).await;
    world.run("after").await;
    assert_eq!(world.uses_where("before"), [["before", "after"]]);
    world.run("too many").await;
    assert_eq!(world.uses_where("too many"), [["too many"]]);
    assert_eq!(world.cloud.aws.launched(), 2);
    stop(&mut drover).await;
}

#[tokio::test]
async fn a_dry_run_leaves_the_ledger_to_the_manager_that_comes_after_it() {
    let world = World::start().await;
    let mut drover = world.manager(world.entry()).await;
    world.run("before").await;
    kill(&mut drover).await;
    let before = world.cloud.serving();
    let config = drover.folder().join("config.toml").display().to_string();
    let dry = Program::start("drover", &["run", "--dry-run", "--config", &config], drover.folder());
    dry.says(&["dry run: would delete instances"]).await;
    drop(dry);
    world.again(&mut drover, world.entry()).await;
    world.run("after").await;
    assert_eq!(world.uses_where("before"), [["before", "after"]]);
    assert_eq!(world.cloud.serving(), before);
    stop(&mut drover).await;
}
