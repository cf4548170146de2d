//! Stages that are tried again.

use drover_tests::World;
use gitlab_mock::{Endpoint, Fault, JobBuilder};

use crate::world::{repository, world};

const CLEARED: &str = "Deleting all tracked and untracked files due to source fetch failure";

/// A job whose pauses between attempts are short.
fn job(name: &str, attempts: &str) -> JobBuilder {
    JobBuilder::new(name)
        .variable("GET_SOURCES_ATTEMPTS", attempts)
        .variable("FF_USE_EXPONENTIAL_BACKOFF_STAGE_RETRY", "false")
        .script(["cat number", "ls -A"])
}

fn git_is_away(world: &World, times: u64) {
    world.gitlab.inject(Fault::status(502).on([Endpoint::Git]).times(times));
}

#[tokio::test]
async fn before_the_second_attempt_of_a_checkout_the_project_is_emptied_once() {
    let world = world().await;
    let repository = repository(&world, 1).await;
    let litter = job("litter", "1").repository(&repository).script(["touch litter"]);
    world.run(litter).await.succeeded();
    git_is_away(&world, 2);
    let again = job("again", "3").repository(&repository).variable("GIT_STRATEGY", "fetch");
    let again = again.variable("GIT_CLEAN_FLAGS", "none");
    let ended = world.run(again).await.succeeded().has_line("1").lacks_line("litter");
    assert_eq!(ended.count("WARNING: Retrying..."), 2);
    assert_eq!(ended.count(CLEARED), 1);
    world.stop().await;
}

#[tokio::test]
async fn a_checkout_that_fails_every_time_fails_the_job_after_as_many_attempts() {
    let world = world().await;
    let repository = repository(&world, 1).await;
    git_is_away(&world, 1000);
    let ended =
        world.run(job("never", "2").repository(&repository)).await.failed("script_failure", Some(128));
    assert_eq!(ended.count("WARNING: Retrying..."), 1);
    let once = world.run(job("once", "1").repository(&repository)).await.failed("script_failure", Some(128));
    once.says_not("Retrying").says_not(CLEARED);
    world.stop().await;
}

#[tokio::test]
async fn numbers_of_attempts_out_of_range_are_named_and_brought_into_it() {
    let world = world().await;
    let repository = repository(&world, 1).await;
    git_is_away(&world, 1);
    let ended = world.run(job("many", "99").repository(&repository)).await.succeeded();
    ended.says("GET_SOURCES_ATTEMPTS: 99 is outside of the range 1 to 10, using 10").has_line("1");
    git_is_away(&world, 1);
    let words = job("words", "often").repository(&repository);
    let ended = world.run(words).await.failed("script_failure", Some(128)).says_not("Retrying");
    ended.says("GET_SOURCES_ATTEMPTS: expected int got \"often\", using default value: 1");
    world.stop().await;
}

#[tokio::test]
async fn a_cancel_ends_the_pause_between_two_attempts() {
    let world = world().await;
    let repository = repository(&world, 1).await;
    git_is_away(&world, 1000);
    // The pauses of this job add up to more than any test waits.
    let job = job("waits", "10").variable("FF_USE_EXPONENTIAL_BACKOFF_STAGE_RETRY", "true");
    let job = world.enqueue(job.repository(&repository));
    world.says(&job, "Retrying...").await;
    job.cancel();
    world.finished(&job).await.canceled().lacks_line("1");
    world.stop().await;
}
