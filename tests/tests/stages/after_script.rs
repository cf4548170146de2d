//! `after_script` in every ending, and its bounds. Endings by cancel and timeout are in the tests of jobs.

use drover_tests::Finished;
use gitlab_mock::JobBuilder;

use crate::world::{repository, world};

#[tokio::test]
async fn after_script_has_a_shell_of_its_own_and_what_was_left_for_later_stages() {
    let world = world().await;
    let repository = repository(&world, 1).await;
    let script =
        ["export LOST=lost", "cd /", "echo 'KEPT=kept for later' >>\"$GITLAB_ENV\"", "set -f; alias x=y"];
    let after = ["echo \"<$LOST> <$KEPT>\"", "[ \"$PWD\" -ef \"$CI_PROJECT_DIR\" ] && echo in the project"];
    let job = JobBuilder::new("own").repository(&repository).script(script).after_script(after);
    world.run(job).await.succeeded().has_line("<> <kept for later>").has_line("in the project");
    // The next job of the place starts with nothing.
    let next = JobBuilder::new("next").repository(&repository).script(["echo \"<$KEPT>\""]);
    world.run(next).await.succeeded().has_line("<>");
    world.stop().await;
}

#[tokio::test]
async fn after_script_runs_after_a_failed_script_and_not_after_a_failed_checkout() {
    let world = world().await;
    let repository = repository(&world, 1).await;
    let job = |name: &str| {
        let job = JobBuilder::new(name).repository(&repository).script(["exit 7"]);
        job.after_script(["echo \"it is $CI_JOB_STATUS\""])
    };
    world.run(job("script")).await.failed("script_failure", Some(7)).has_line("it is failed");
    let checkout = job("checkout").hook("post_get_sources_script", ["exit 4"]);
    let ended = world.run(checkout).await.failed("script_failure", Some(4));
    ended.says_not("it is ").says_not("Running after_script").says("Cleaning up project directory");
    world.stop().await;
}

#[tokio::test]
async fn a_job_without_an_after_script_has_no_such_stage() {
    let world = world().await;
    let job = JobBuilder::new("plain").script(["true"]);
    world.run(job).await.succeeded().says_not("after_script").says_not("after script");
    world.stop().await;
}

#[tokio::test]
async fn an_after_script_that_lasts_too_long_fails_the_job_only_if_it_counts() {
    let world = world().await;
    let job = |name: &str| {
        let job = JobBuilder::new(name).script(["true"]).after_script(["echo after", "sleep 1000"]);
        job.variable("RUNNER_AFTER_SCRIPT_TIMEOUT", "1s")
    };
    let hint = "after_script could not run to completion because the timeout was exceeded.";
    let ended = world.run(job("does not count")).await.succeeded();
    ended.has_line("after").says(hint).says("but job will continue unaffected");
    let counts = job("counts").variable("AFTER_SCRIPT_IGNORE_ERRORS", "false");
    let ended = world.run(counts).await.failed("job_execution_timeout", None).says(hint);
    ended.ends_with("ERROR: Job failed: after_script timeout: exceeded timeout of 1s");
    world.stop().await;
}

#[tokio::test]
async fn bounds_that_cannot_hold_are_named_and_the_job_runs() {
    let world = world().await;
    let run = |value: &'static str| {
        let job = JobBuilder::new(value).script(["echo hello"]).variable("RUNNER_SCRIPT_TIMEOUT", value);
        world.run(job)
    };
    let good = |job: Finished| job.succeeded().has_line("hello");
    let longer = "RUNNER_SCRIPT_TIMEOUT timeout: 5h0m0s is longer than job timeout. Setting to job timeout";
    good(run("5h").await).says(longer);
    good(run("soon").await).says("Ignoring malformed RUNNER_SCRIPT_TIMEOUT timeout: \"soon\"");
    good(run("-1m").await).says("Ignoring relative RUNNER_SCRIPT_TIMEOUT timeout: \"-1m\"");
    good(run("30m").await).says_not("RUNNER_SCRIPT_TIMEOUT");
    world.stop().await;
}
