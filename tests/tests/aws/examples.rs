//! The examples of GitLab's documentation run as they stand, but for names, tokens and addresses.

use drover_tests::{Engine, Setup, eventually};
use gitlab_mock::JobBuilder;

use crate::cloud::Cloud;

const LINUX: &str = include_str!("../../../fixtures/config/instance-aws.toml");
const WINDOWS: &str = include_str!("../../../fixtures/config/instance-aws-windows.toml");
const MACOS: &str = include_str!("../../../fixtures/config/instance-aws-macos.toml");
const DOCKER: &str = include_str!("../../../fixtures/config/docker-autoscaler-aws.toml");

#[tokio::test]
async fn one_job_per_instance_with_five_kept_ready() {
    let cloud = Cloud::start().await;
    let world = Setup::of_file(LINUX, |entry| cloud.example(entry)).start().await;
    eventually("five instances are kept ready", || cloud.serving().len() == 5).await;
    for _ in 0..2 {
        world.run(JobBuilder::new("once").script(["echo hello"])).await.succeeded().has_line("hello");
    }
    // Each was for one job, and was replaced.
    eventually("used ones are replaced", || cloud.aws.launched() >= 7 && cloud.serving().len() == 5).await;
    assert!(cloud.aws.desired("fleet") <= 10);
    world.stop().await;
}

/// Its instances run Windows; what is examined here is its way of scaling: five jobs per instance, used without end.
#[tokio::test]
async fn five_jobs_per_instance_without_end() {
    let cloud = Cloud::start().await;
    let world = Setup::of_file(WINDOWS, |entry| cloud.example(entry)).start().await;
    // Five idle places are one instance.
    eventually("an instance is kept ready", || cloud.serving().len() == 1).await;
    for _ in 0..3 {
        world.run(JobBuilder::new("again").script(["echo hello"])).await.succeeded().has_line("hello");
    }
    assert!(cloud.aws.launched() <= 2, "{}", cloud.aws.launched());
    world.stop().await;
}

/// `vm_isolation` is not built in, and jobs that ask for a virtual machine must not run outside of one.
#[tokio::test]
async fn nested_machines_are_refused_before_a_job_is_taken() {
    let cloud = Cloud::start().await;
    let entry = |entry| cloud.example(entry).set("autoscaler.plugin_config.profile", "default");
    let world = Setup::of_file(MACOS, entry).start().await;
    world.logs(&["vm_isolation is not available in this build"]).await;
    assert_eq!(cloud.aws.launched(), 0);
    world.stop().await;
}

/// What stands in for a registry, and for an engine of each instance's own, is set too.
#[tokio::test]
async fn a_job_per_instance_in_a_container() {
    let cloud = Cloud::start().await;
    let engine = Engine::shared();
    engine.import(&[], "busybox:latest");
    let entry = |entry| {
        cloud
            .example(entry)
            .set("builds_dir", "/builds")
            .set("docker.host", engine.host())
            .set("docker.network_mode", "host")
            .set("docker.pull_policy", "if-not-present")
            .set("docker.helper_image_archive", engine.helper_archive().display().to_string())
    };
    let world = Setup::of_file(DOCKER, entry).start().await;
    let job = JobBuilder::new("contained").variable("GIT_STRATEGY", "none").script(["echo hello", "busybox"]);
    world.run(job).await.succeeded().has_line("hello").says("BusyBox");
    eventually("the used instance is replaced", || cloud.aws.launched() >= 6).await;
    world.stop().await;
}
