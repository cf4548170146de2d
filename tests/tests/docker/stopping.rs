//! Jobs that are stopped, killed, or cut off.

use std::time::Duration;

use drover_tests::{Drover, Engine, Setup, eventually};
use gitlab_mock::{GitlabMock, JobBuilder};

use crate::{nothing_is_left, world};

fn patient() -> JobBuilder {
    JobBuilder::new("patient")
        .variable("GIT_STRATEGY", "none")
        .script(["trap 'echo asked to end' TERM", "echo started; sleep 1000 & wait $!", "echo not reached"])
        .after_script(["echo \"it is $CI_JOB_STATUS\""])
}

#[tokio::test]
async fn a_cancelled_job_is_asked_to_end_and_runs_its_after_script() {
    let world = world(|entry| entry).await;
    let job = world.enqueue(patient());
    world.says(&job, "started\n").await;
    job.cancel();
    let job = world.finished(&job).await.canceled().has_line("it is canceled").lacks_line("not reached");
    nothing_is_left(&world, job.view.id).await;
    world.stop().await;
}

#[tokio::test]
async fn a_job_that_takes_too_long_leaves_nothing() {
    let world = world(|entry| entry.set("feature_flags.FF_NETWORK_PER_BUILD", true)).await;
    let job = world.run(
        JobBuilder::new("endless")
            .variable("GIT_STRATEGY", "none")
            .timeout(Duration::from_secs(3))
            .script(["trap '' TERM; while :; do sleep 1; done"]),
    );
    let job = job.await.failed("job_execution_timeout", None);
    nothing_is_left(&world, job.view.id).await;
    world.stop().await;
}

#[tokio::test]
async fn a_job_whose_memory_runs_out_is_told_so() {
    let world = world(|entry| entry.set("docker.memory", "32m").set("docker.memory_swap", "32m")).await;
    world
        .run(JobBuilder::new("greedy").variable("GIT_STRATEGY", "none").script(["exec tail /dev/zero"]))
        .await
        .failed("script_failure", Some(137))
        .says("limit of 32 MiB was reached");
    world.stop().await;
}

#[tokio::test]
async fn a_job_whose_container_is_removed_fails_and_says_why() {
    let world = world(|entry| entry).await;
    let job = world.enqueue(patient());
    world.says(&job, "started\n").await;
    let mine = Engine::shared().belongings(&world.runners[0].token(), job.view().id);
    Engine::shared().docker(&["rm", "-f", &mine[0]]);
    let job = world.finished(&job).await;
    assert!(job.log.contains("was removed") || job.log.contains("exit code 137"), "{}", job.log);
    nothing_is_left(&world, job.view.id).await;
    world.stop().await;
}

#[tokio::test]
async fn what_a_killed_manager_left_is_removed_by_the_next() {
    let engine = Engine::shared();
    let gitlab = GitlabMock::start(gitlab_mock::Config::default()).await.unwrap();
    let entry = engine.entry("left").set("feature_flags.FF_NETWORK_PER_BUILD", true);
    let token = entry.token().to_owned();
    let setup = Setup::new().runner(entry);
    let runner = gitlab.add_runner(&token);
    let job = gitlab.enqueue(&runner, patient());
    let mut drover = Drover::start(&setup, gitlab.url());
    job.log_contains("started\n", drover_tests::PATIENCE).await.unwrap();
    let id = job.view().id;
    assert!(
        engine.belongings(&runner.token(), id).len() >= 2,
        "{:?}",
        engine.belongings(&runner.token(), id)
    );
    drover.kill().await;
    drover.again(&setup, gitlab.url());
    eventually("the leftovers are removed", || engine.belongings(&runner.token(), id).is_empty()).await;
    drover.stop().await;
}
