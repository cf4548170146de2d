//! Others who change the group, instances that are taken away, and managers that end.

use std::path::{Path, PathBuf};

use drover_tests::{Setup, World, eventually};
use gitlab_mock::{Job, JobBuilder};

use crate::cloud::Cloud;

/// A job that runs until its gate is open.
fn held(world: &World, name: &str) -> (Job, PathBuf) {
    let gate = world.folder().join(name);
    let script = format!("echo it runs; until [ -e {} ]; do sleep 0.1; done; echo done", gate.display());
    (world.enqueue(JobBuilder::new(name).script([script])), gate)
}

fn open(gate: &Path) {
    std::fs::write(gate, "").unwrap();
}

#[tokio::test]
async fn a_job_whose_instance_is_taken_for_a_rebalance_is_told_so_and_the_next_one_runs() {
    let cloud = Cloud::start().await;
    let world = Setup::new().runner(cloud.entry()).start().await;
    let (job, _) = held(&world, "lost");
    world.says(&job, "it runs").await;
    let victim = cloud.serving().remove(0);
    cloud.aws.rebalance(&victim);
    let lost = world.finished(&job).await;
    lost.failed("runner_system_failure", None).says(&victim).says("AZRebalance");
    world.run(JobBuilder::new("next").script(["echo hello"])).await.succeeded();
    world.stop().await;
    assert!(cloud.members().is_empty());
}

#[tokio::test]
async fn a_doomed_instance_ends_its_job_takes_no_other_and_is_replaced() {
    let cloud = Cloud::with(|group| group.spot = true).await;
    let world = Setup::new().runner(cloud.entry()).start().await;
    let (job, gate) = held(&world, "long");
    world.says(&job, "it runs").await;
    let doomed = cloud.serving().remove(0);
    cloud.aws.schedule_event(&doomed, "instance-retirement");
    cloud.aws.interrupt(&doomed);
    world.logs(&["spot interruption notice"]).await;
    let next = world.run(JobBuilder::new("next").script(["echo hello"])).await;
    assert!(!next.succeeded().log.contains(&doomed));
    open(&gate);
    world.finished(&job).await.succeeded().says(&doomed);
    eventually("the doomed one is gone", || !cloud.serving().contains(&doomed)).await;
    world.stop().await;
    assert!(cloud.members().is_empty());
}

#[tokio::test]
async fn jobs_run_while_somebody_else_changes_the_size_of_the_group() {
    let cloud = Cloud::start().await;
    let world = Setup::new().runner(cloud.entry()).start().await;
    let (job, gate) = held(&world, "first");
    world.says(&job, "it runs").await;
    let desired = cloud.aws.desired("fleet");
    cloud.aws.set_desired("fleet", desired + 2);
    world.logs(&["out-of-sync capacity"]).await;
    world.run(JobBuilder::new("second").script(["echo hello"])).await.succeeded();
    open(&gate);
    world.finished(&job).await.succeeded();
    world.stop().await;
    assert!(cloud.members().is_empty());
    assert_eq!(cloud.aws.desired("fleet"), 0);
}

#[tokio::test]
async fn a_manager_that_starts_again_leaves_no_instance_behind() {
    let cloud = Cloud::start().await;
    let keep = || cloud.entry().set("autoscaler.delete_instances_on_shutdown", false);
    let world = Setup::new().runner(keep()).start().await;
    world.run(JobBuilder::new("before").script(["echo hello"])).await.succeeded();
    world.stop().await;
    let left = cloud.serving();
    assert!(!left.is_empty());
    let world = Setup::new().runner(cloud.entry()).start().await;
    world.run(JobBuilder::new("after").script(["echo hello"])).await.succeeded();
    world.stop().await;
    assert!(cloud.members().is_empty(), "{left:?}");
    assert_eq!(cloud.aws.desired("fleet"), 0);
}
