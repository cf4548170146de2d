//! What `[runners.docker]` gives to containers and keeps from them.

use drover_tests::Engine;
use gitlab_mock::JobBuilder;
use serde_json::json;

use crate::world;

fn job(script: &[&str]) -> JobBuilder {
    JobBuilder::new("limits").variable("GIT_STRATEGY", "none").script(script.to_vec())
}

#[tokio::test]
async fn limits_and_mounts_reach_the_container() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "of the host\n").unwrap();
    let bind = format!("{}:/host:ro", folder.path().display());
    let world = world(|entry| {
        entry
            .set("docker.volumes", vec![bind])
            .set("docker.hostname", "harbour")
            .set("docker.shm_size", 8 << 20)
            .set("docker.ulimit.nofile", "100:200")
            .set("docker.tmpfs./ram", "rw,size=1m")
            .set("docker.extra_hosts", vec!["quay:10.9.8.7"])
            .set("docker.dns", vec!["10.1.2.3"])
            .set("docker.cap_drop", vec!["CHOWN"])
            .set("docker.container_labels.of", "$CI_JOB_NAME")
    })
    .await;
    let job = world
        .run(job(&[
            "cat /host/file",
            "hostname",
            "df -k /dev/shm | tail -1",
            "ulimit -n; ulimit -Hn",
            "grep ' /ram ' /proc/mounts",
            "grep quay /etc/hosts",
            "cat /etc/resolv.conf",
            "chown 1 /tmp || echo may not",
            "touch /host/x || echo read-only",
        ]))
        .await
        .succeeded();
    job.has_line("of the host")
        .has_line("harbour")
        .says("8192")
        .has_line("100")
        .has_line("200")
        .says("size=1024k")
        .says("10.9.8.7")
        .says("nameserver 10.1.2.3")
        .has_line("may not")
        .has_line("read-only");
    world.stop().await;
}

#[tokio::test]
async fn the_user_of_the_file_wins_and_other_users_must_be_allowed() {
    let image = |user: &str| {
        job(&["id -un"])
            .with_member("/image", json!({"name": "box:1", "executor_opts": {"docker": {"user": user}}}))
    };
    let allowing = world(|entry| entry.set("docker.allowed_users", vec!["user"])).await;
    allowing.run(image("user")).await.succeeded().has_line("user");
    allowing
        .run(image("root"))
        .await
        .failed("runner_configuration_error", None)
        .says("user \"root\" is not an allowed user: [user]");
    allowing.stop().await;
    let fixed = world(|entry| entry.set("docker.user", "user")).await;
    fixed.run(image("root")).await.succeeded().has_line("user");
    fixed.stop().await;
}

#[tokio::test]
async fn an_image_without_a_shell_fails_with_the_reason() {
    let engine = Engine::shared();
    engine.docker(&["import", "--change", "CMD [\"/x\"]", "/dev/null", "bare:1"]);
    let world = world(|entry| entry).await;
    let bare = JobBuilder::new("bare").variable("GIT_STRATEGY", "none").image("bare:1").script(["true"]);
    world.run(bare).await.failed("runner_system_failure", None).says("\"sh\": executable file not found");
    world.stop().await;
}

#[tokio::test]
async fn an_engine_that_is_not_there_is_named() {
    let world = world(|entry| entry.set("docker.host", "unix:///nowhere/engine.sock")).await;
    world
        .run(job(&["true"]))
        .await
        .failed("runner_system_failure", None)
        .says("the Docker engine at unix:///nowhere/engine.sock cannot be reached")
        .says("Will be retried in 3 seconds");
    world.stop().await;
}
