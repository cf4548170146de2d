//! Containers of an engine inside of the machine.

use drover_tests::{Engine, Setup, eventually};
use gitlab_mock::JobBuilder;

use crate::world::Hosts;

/// What stands in for a machine's own engine is that of the tests, reached through the machine's SSH server.
#[tokio::test]
async fn the_image_of_a_job_is_that_of_its_container_and_never_that_of_the_machine() {
    let hosts = Hosts::start(1);
    let engine = Engine::shared();
    let entry = hosts
        .entry()
        .set("executor", "docker-autoscaler")
        .set("builds_dir", "/builds")
        .set("autoscaler.vm_isolation.image", "linux-docker")
        .set("docker.host", engine.host())
        .set("docker.image", "box:1")
        .set("docker.network_mode", "host")
        .set("docker.pull_policy", "if-not-present")
        .set("docker.helper_image_archive", engine.helper_archive().display().to_string());
    let world = Setup::new().runner(entry).start().await;
    let job =
        JobBuilder::new("contained").image("box:1").variable("GIT_STRATEGY", "none").script(["echo hello"]);
    world
        .run(job)
        .await
        .succeeded()
        .has_line("hello")
        .says("Creating nesting VM linux-docker\n")
        .says("Using Docker executor with image box:1");
    let daemon = hosts.hosts[0].daemon();
    eventually("the machine is removed", || daemon.machines().is_empty()).await;
    world.stop().await;
}

#[tokio::test]
async fn a_machine_without_an_engine_fails_its_job_and_is_removed() {
    let hosts = Hosts::start(1);
    let entry = hosts
        .entry()
        .set("executor", "docker-autoscaler")
        .set("autoscaler.vm_isolation.image", "linux-docker")
        .set("autoscaler.vm_isolation.connector_config.timeout", "2s")
        .set("docker.host", "unix:///nowhere/docker.sock")
        .set("docker.image", "box:1");
    let world = Setup::new().runner(entry).start().await;
    let job = JobBuilder::new("contained").script(["echo hello"]);
    world
        .run(job)
        .await
        .failed("runner_system_failure", None)
        .says("the Docker engine of instance m1#1 (VM vm1) does not answer");
    hosts.empty().await;
    world.stop().await;
}
