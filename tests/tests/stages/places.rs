//! Where the project is, and what stays of it.

use gitlab_mock::JobBuilder;

use crate::world::{repository, with, world};

#[tokio::test]
async fn a_clone_path_of_the_job_s_own_needs_leave_and_stays_within_the_builds() {
    let refusing = world().await;
    let own = |path: &str| {
        JobBuilder::new("own").variable("GIT_CLONE_PATH", path).script(["echo \"at ${PWD##*/}\""])
    };
    let ended = refusing.run(own("$CI_BUILDS_DIR/own")).await.failed("runner_configuration_error", None);
    ended
        .says("setting GIT_CLONE_PATH is not allowed, enable `custom_build_dir` feature")
        .lacks_line("at own");
    refusing.stop().await;

    let world = with(|entry| entry.set("custom_build_dir.enabled", true)).await;
    let repository = repository(&world, 1).await;
    let ended = world.run(own("$CI_BUILDS_DIR/own").repository(&repository)).await.succeeded();
    ended.has_line("at own");
    for outside in ["/elsewhere", "$CI_BUILDS_DIR/../outside"] {
        let ended = world.run(own(outside)).await.failed("runner_configuration_error", None);
        ended.says("the GIT_CLONE_PATH has to be within");
    }
    world.stop().await;
}

#[tokio::test]
async fn the_project_is_cleaned_at_the_end_where_the_flag_says_so() {
    let world = world().await;
    let repository = repository(&world, 1).await;
    let job = |name: &str, cleanup: &str| {
        let job = JobBuilder::new(name).repository(&repository).variable("FF_ENABLE_JOB_CLEANUP", cleanup);
        job.variable("GIT_STRATEGY", "fetch").script(["touch litter", "echo changed >number"])
    };
    let look = || {
        let job = JobBuilder::new("looks").repository(&repository).variable("GIT_STRATEGY", "none");
        world.run(job.script(["ls -A", "cat number"]))
    };
    world.run(job("stays", "false")).await.succeeded();
    look().await.succeeded().has_line("litter").has_line("changed");
    world.run(job("goes", "true")).await.succeeded();
    look().await.succeeded().lacks_line("litter").has_line("1");
    world.stop().await;
}
