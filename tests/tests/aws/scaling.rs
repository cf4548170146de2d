//! From nothing to many and back.

use drover_tests::{Setup, eventually};
use gitlab_mock::JobBuilder;

use crate::cloud::Cloud;

#[tokio::test]
async fn a_group_grows_from_none_to_five_for_its_jobs_and_shrinks_to_none_without_them() {
    let cloud = Cloud::start().await;
    let entry = cloud.entry().policy([("idle_count", 0.into()), ("idle_time", "1s".into())]);
    let world = Setup::new().runner(entry).start().await;
    let gate = world.folder().join("gate");
    let script = format!("until [ -e {} ]; do sleep 0.1; done; echo done", gate.display());
    let jobs =
        world.gitlab.enqueue_many(&world.runners[0], JobBuilder::new("wait").script([script]), 12).unwrap();
    eventually("five instances serve", || cloud.serving().len() == 5).await;
    std::fs::write(&gate, "").unwrap();
    for job in &jobs {
        world.finished(job).await.succeeded().has_line("done");
    }
    eventually("no instance is left", || cloud.members().is_empty()).await;
    assert_eq!(cloud.aws.desired("fleet"), 0);
    // Each login had its key let in, each end was asked for by name.
    let calls = cloud.aws.calls();
    assert!(calls["SendSSHPublicKey"] >= 5, "{calls:?}");
    assert_eq!(calls["TerminateInstanceInAutoScalingGroup"], cloud.aws.launched() as u64, "{calls:?}");
    println!("calls for 12 jobs on {} instances: {calls:?}", cloud.aws.launched());
    world.stop().await;
}

#[tokio::test]
async fn an_instance_serves_one_job_and_goes_when_that_is_its_use() {
    let cloud = Cloud::start().await;
    let world = Setup::new().runner(cloud.entry().set("autoscaler.max_use_count", 1)).start().await;
    for _ in 0..3 {
        world.run(JobBuilder::new("once").script(["echo hello"])).await.succeeded();
    }
    eventually("used ones are gone", || cloud.members().is_empty()).await;
    assert_eq!(cloud.aws.launched(), 3);
    world.stop().await;
}

#[tokio::test]
async fn a_hundred_jobs_cost_a_bounded_number_of_calls() {
    let cloud = Cloud::start().await;
    let world = Setup::new()
        .runner(cloud.entry().set("autoscaler.capacity_per_instance", 4))
        .set("concurrent", 20)
        .start()
        .await;
    let quick = JobBuilder::new("quick").script(["true"]);
    world.gitlab.enqueue_many(&world.runners[0], quick, 100).unwrap();
    for job in world.all_finished().await {
        job.succeeded();
    }
    let calls = cloud.aws.calls();
    let total: u64 = calls.values().sum();
    println!("calls for 100 jobs on {} instances: {total}: {calls:?}", cloud.aws.launched());
    assert!(cloud.aws.launched() <= 5);
    // Listings go by time, not by job; everything else goes by instance.
    let others = total - calls["DescribeAutoScalingGroups"];
    assert!(others <= 60, "{calls:?}");
    world.stop().await;
    assert!(cloud.members().is_empty());
}
