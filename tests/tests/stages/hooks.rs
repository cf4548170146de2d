//! Scripts of the runner's settings and hooks of the job, around the job's own.

use drover_tests::Entry;
use gitlab_mock::JobBuilder;
use serde_json::json;

use crate::world::{in_order, repository, with, world};

/// An entry whose scripts say their names.
fn scripts(entry: Entry) -> Entry {
    ["pre_get_sources_script", "post_get_sources_script", "pre_build_script", "post_build_script"]
        .into_iter()
        .fold(entry, |entry, name| entry.set(name, format!("echo runner: {name}")))
}

#[tokio::test]
async fn scripts_of_runner_and_job_run_around_checkout_and_script_in_their_order() {
    let world = with(|entry| {
        entry
            .set("pre_get_sources_script", "echo runner before sources")
            .set("post_get_sources_script", "echo runner after sources: $(cat number)")
            .set("pre_build_script", "export FROM=runner; echo runner before script")
            .set("post_build_script", "echo runner after script")
    })
    .await;
    let repository = repository(&world, 1).await;
    let job = JobBuilder::new("all").repository(&repository).variable("GIT_STRATEGY", "clone");
    let job = job
        .hook("pre_get_sources_script", ["echo job before sources"])
        .hook("post_get_sources_script", ["echo job after sources: $(cat number)"])
        .script(["echo script from $FROM"])
        .after_script(["echo \"after [$FROM]\""]);
    let ended = world.run(job).await.succeeded();
    in_order(
        &ended,
        &[
            "runner before sources",
            "job before sources",
            "Fetching changes with git depth set to 20...",
            "job after sources: 1",
            "runner after sources: 1",
            "runner before script",
            "script from runner",
            "runner after script",
            "after []",
        ],
    );
    for once in ["runner before script", "runner after script"] {
        assert_eq!(ended.count(once), 1, "{once}");
    }
    world.stop().await;
}

#[tokio::test]
async fn hooks_of_the_checkout_do_not_run_where_there_is_none() {
    let world = with(scripts).await;
    let repository = repository(&world, 1).await;
    for strategy in ["none", "empty"] {
        let job = JobBuilder::new(strategy).repository(&repository).variable("GIT_STRATEGY", strategy);
        let job = job.hook("pre_get_sources_script", ["echo job hook"]).script(["echo script"]);
        let ended = world.run(job).await.succeeded().has_line("script").lacks_line("job hook");
        ended.lacks_line("runner: pre_get_sources_script").has_line("runner: pre_build_script");
    }
    world.stop().await;
}

#[tokio::test]
async fn a_hook_before_the_checkout_that_fails_ends_the_job_before_it() {
    let world = world().await;
    let repository = repository(&world, 1).await;
    let job = JobBuilder::new("fails").repository(&repository).hook("pre_get_sources_script", ["exit 6"]);
    let ended = world.run(job.script(["echo script"])).await.failed("script_failure", Some(6));
    ended.lacks_line("script").says_not("Fetching changes").ends_with("ERROR: Job failed: exit code 6");
    world.stop().await;
}

#[tokio::test]
async fn a_pre_build_script_that_fails_fails_the_step_and_after_script_runs() {
    let world = with(|entry| {
        entry.set("pre_build_script", "false").set("post_build_script", "echo runner after script")
    })
    .await;
    let job =
        JobBuilder::new("fails").script(["echo script"]).after_script(["echo \"it is $CI_JOB_STATUS\""]);
    let ended = world.run(job).await.failed("script_failure", Some(1)).has_line("it is failed");
    ended.lacks_line("script").lacks_line("runner after script");
    world.stop().await;
}

#[tokio::test]
async fn steps_run_in_order_until_one_fails_and_a_release_has_its_variables_filled_in() {
    let world = with(|entry| entry.set("pre_build_script", "echo before a step")).await;
    let step = |name: &str, script: &[&str]| json!({"name": name, "script": script, "timeout": 3600, "when": "on_success"});
    let job = |name: &str, steps: serde_json::Value| {
        JobBuilder::new(name).variable("VERSION", "1.2.3").with_member("/steps", steps)
    };
    let release = step("release", &["echo 'release $VERSION'"]);
    let good = json!([step("script", &["echo 'script $VERSION'"]), release]);
    let ended = world.run(job("good", good)).await.succeeded();
    in_order(&ended, &["before a step", "script $VERSION", "before a step", "release 1.2.3"]);
    ended.says("Executing \"step_release\" stage of the job script");

    let bad = json!([step("script", &["exit 3"]), release]);
    let ended = world.run(job("bad", bad)).await.failed("script_failure", Some(3));
    ended.says_not("release 1.2.3").says_not("step_release");
    world.stop().await;
}

#[tokio::test]
async fn a_job_of_a_policy_says_so_before_its_first_step() {
    let world = world().await;
    let options = |allowed: serde_json::Value| {
        json!({"execution_policy_job": true, "policy_name": "scan all",
               "policy_variables_override_allowed": allowed, "policy_variables_override_exceptions": ["DEPTH"]})
    };
    let job = |allowed| {
        JobBuilder::new("policy").script(["echo script"]).with_member("/policy_options", options(allowed))
    };
    let ended = world.run(job(json!(false))).await.succeeded();
    in_order(&ended, &["Job triggered by policy \"scan all\".", "script"]);
    ended.says("User-defined CI/CD variables are ignored in this job (except for DEPTH)");
    world.run(job(json!(null))).await.succeeded().says("Variables defined in the policy take precedence");
    let plain = JobBuilder::new("plain").script(["echo script"]);
    world.run(plain).await.succeeded().says_not("policy");
    world.stop().await;
}
