//! Every bound on time, in every stage that it can be reached in.

use std::time::Duration;

use drover_tests::{Entry, Setup, Sshd, eventually, processes_with};
use gitlab_mock::JobBuilder;

use crate::world::{both_with, check, endless, everywhere};

const REASON: &str = "job_execution_timeout";

#[tokio::test]
async fn the_time_of_a_job_that_waits_for_an_instance_is_bounded() {
    let never = |name| Entry::local(name).set("autoscaler.plugin_config.boot_delay", "1h");
    let world = Setup::new()
        .runner(never("job"))
        .runner(never("prepare").set("prepare_timeout", "1s"))
        .runner(never("acquire").set("autoscaler.instance_acquire_timeout", "1s"))
        .start()
        .await;
    let job = JobBuilder::new("waits").script(["echo hello"]).timeout(Duration::from_secs(2));
    let jobs = everywhere(&world, &job);
    let [by_job, by_prepare, by_acquire] = &jobs[..] else { unreachable!("there are three runners") };
    let ended = world.finished(by_job).await.failed(REASON, None);
    ended.ends_with("ERROR: Job failed: execution took longer than 2s seconds");
    let ended = world.finished(by_prepare).await.failed(REASON, None);
    ended.ends_with("ERROR: Job failed: prepare timeout: exceeded timeout of 1s");
    world
        .finished(by_acquire)
        .await
        .failed("runner_system_failure", None)
        .says("unable to acquire instance within the configured timeout of 1s: ");
    world.stop().await;
}

#[tokio::test]
async fn the_time_of_every_stage_is_bounded() {
    let sshd = Sshd::start();
    let world = both_with(&sshd, |entry| entry.set("get_sources_timeout", "2s")).await;
    let repository = world.gitlab.create_repository("harbour/ferry").await.unwrap();
    repository.commit("main", [("README.md", "hello")], "first").await.unwrap();
    let lasting = endless();
    let after = "echo \"it is $CI_JOB_STATUS\"";
    // As long as a busy machine may need up to the stage that is to be cut off.
    let short = |job: JobBuilder| everywhere(&world, &job.timeout(Duration::from_secs(6)));

    let job =
        JobBuilder::new("sources").repository(&repository).script(["echo script"]).after_script([after]);
    let sources = everywhere(&world, &job.clone().hook("pre_get_sources_script", [&lasting]));
    let sources_job = job.hook("pre_get_sources_script", [&lasting]);
    let sources_job = everywhere(&world, &sources_job.timeout(Duration::from_secs(1)));
    let script = short(JobBuilder::new("script").script([&lasting]).after_script([after]));
    let after_script =
        short(JobBuilder::new("after_script").script(["true"]).after_script(["echo after", &lasting]));
    let own = JobBuilder::new("script's own").script([&lasting]).after_script([after]);
    let own = everywhere(&world, &own.variable("RUNNER_SCRIPT_TIMEOUT", "1s"));
    let own_after =
        JobBuilder::new("after_script's own").script(["true"]).after_script(["echo after", &lasting]);
    let own_after = everywhere(&world, &own_after.variable("RUNNER_AFTER_SCRIPT_TIMEOUT", "3s"));

    check(&world, &sources, |job| {
        let job = job.failed(REASON, None).lacks_line("script").says_not("it is ");
        job.ends_with("ERROR: Job failed: get sources timeout: exceeded timeout of 2s")
    })
    .await;
    check(&world, &sources_job, |job| {
        let job = job.failed(REASON, None).lacks_line("script").says_not("it is ");
        job.ends_with("ERROR: Job failed: execution took longer than 1s seconds")
    })
    .await;
    check(&world, &script, |job| {
        let job = job.failed(REASON, None).says_not("it is ");
        job.ends_with("ERROR: Job failed: execution took longer than 6s seconds")
    })
    .await;
    check(&world, &after_script, |job| job.failed(REASON, None).has_line("after")).await;
    check(&world, &own, |job| {
        let job = job.failed(REASON, None).has_line("it is timedout");
        job.ends_with("ERROR: Job failed: script timeout: exceeded timeout of 1s")
    })
    .await;
    check(&world, &own_after, |job| job.succeeded().has_line("after").says("after_script timeout")).await;
    eventually("what was stopped is gone", || processes_with(&lasting).is_empty()).await;
    world.stop().await;
}
