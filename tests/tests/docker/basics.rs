//! The life of a job without a repository.

use drover_tests::Engine;
use gitlab_mock::JobBuilder;

use crate::{nothing_is_left, world};

#[tokio::test]
async fn a_job_runs_in_its_image_and_leaves_nothing_behind() {
    let world = world(|entry| entry).await;
    let job = world
        .run(
            JobBuilder::new("hello")
                .variable("GIT_STRATEGY", "none")
                .script(["echo \"in $(pwd)\"", "echo oops >&2"]),
        )
        .await
        .succeeded()
        .says("Using Docker executor with image box:1 ...")
        .says("Skipping Git repository setup")
        .says("in /builds/")
        .has_line("oops");
    nothing_is_left(&world, job.view.id).await;
    world.stop().await;
}

#[tokio::test]
async fn a_job_ends_as_its_script_ends_and_after_script_knows_how() {
    let world = world(|entry| entry).await;
    let job = |script: &str| {
        JobBuilder::new(script)
            .variable("GIT_STRATEGY", "none")
            .script(["echo kept >kept", script, "echo later"])
            .after_script(["echo \"it is $CI_JOB_STATUS\"", "cat kept"])
    };
    let good = world.enqueue(job("true"));
    let bad = world.enqueue(job("exit 42"));
    world.finished(&good).await.succeeded().has_line("later").has_line("it is success").has_line("kept");
    world
        .finished(&bad)
        .await
        .failed("script_failure", Some(42))
        .lacks_line("later")
        .has_line("it is failed")
        .has_line("kept");
    world.stop().await;
}

#[tokio::test]
async fn the_entrypoint_prepares_every_script_unless_it_is_replaced() {
    Engine::shared().import(&["ENTRYPOINT [\"/bin/entry\"]"], "entry:1");
    let world = world(|entry| entry).await;
    let script = || {
        JobBuilder::new("entrypoint")
            .variable("GIT_STRATEGY", "none")
            .script(["echo \"entrypoint: ${FROM_ENTRYPOINT:-no}\""])
            .after_script(["echo \"again: ${FROM_ENTRYPOINT:-no}\""])
    };
    let own = world.enqueue(script().image("entry:1"));
    let replaced = world
        .enqueue(script().with_member("/image", serde_json::json!({"name": "entry:1", "entrypoint": [""]})));
    world.finished(&own).await.succeeded().has_line("entrypoint: yes").has_line("again: yes");
    world.finished(&replaced).await.succeeded().has_line("entrypoint: no").has_line("again: no");
    world.stop().await;
}

#[tokio::test]
async fn no_entrypoint_is_replaced_where_the_file_forbids_it() {
    Engine::shared().import(&["ENTRYPOINT [\"/bin/entry\"]"], "entry:2");
    let world = world(|entry| {
        entry.set("docker.disable_entrypoint_overwrite", true).set("docker.wait_for_services_timeout", -1)
    })
    .await;
    let said = "echo \"service: ${FROM_ENTRYPOINT:-no}\"; sleep 1000";
    let job = world
        .run(
            JobBuilder::new("entrypoint")
                .variable("GIT_STRATEGY", "none")
                .variable("CI_DEBUG_SERVICES", "true")
                .with_member("/image", serde_json::json!({"name": "entry:2", "entrypoint": [""]}))
                .service(serde_json::json!({"name": "entry:2", "alias": "s", "entrypoint": ["/bin/false"],
                    "command": ["sh", "-c", said]}))
                .script(["echo \"entrypoint: ${FROM_ENTRYPOINT:-no}\"", "sleep 1"]),
        )
        .await
        .succeeded()
        .has_line("entrypoint: yes")
        .says("service: yes");
    assert_eq!(job.log.matches("Entrypoint override disabled").count(), 2, "{}", job.log);
    world.stop().await;
}

#[tokio::test]
async fn a_user_who_is_not_root_may_write_to_the_project_and_to_volumes() {
    Engine::shared().import(&["USER user"], "user:1");
    let world = world(|entry| entry.set("docker.volumes", vec!["/cache"])).await;
    let job = |git: &str| {
        JobBuilder::new("write")
            .image("user:1")
            .variable("GIT_STRATEGY", git)
            .file_variable("SECRET_FILE", "content of the file")
            .script(["id -un", "echo a >here", "echo b >/cache/there", "cat \"$SECRET_FILE\""])
    };
    for git in ["none", "empty"] {
        world.run(job(git)).await.succeeded().has_line("user").has_line("content of the file");
    }
    world.stop().await;
}

#[tokio::test]
async fn variables_reach_the_containers_as_they_are() {
    let world = world(|entry| entry).await;
    world
        .run(
            JobBuilder::new("variables")
                .variable("GIT_STRATEGY", "none")
                .variable("DIFFICULT", "a 'b' \"c\" \\ $$d")
                .script(["echo \"<$DIFFICULT>\"", "tr '\\0' '\\n' </proc/1/environ | grep ^CI_PROJECT_DIR="]),
        )
        .await
        .succeeded()
        .says("CI_PROJECT_DIR=/builds/");
    world.stop().await;
}
