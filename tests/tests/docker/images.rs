//! Which images jobs may use, and how they get onto the engine.

use drover_tests::Engine;
use gitlab_mock::{ArtifactSpec, CacheSpec, JobBuilder};
use serde_json::json;

use crate::world;

fn job(image: &str) -> JobBuilder {
    JobBuilder::new(image).variable("GIT_STRATEGY", "none").image(image).script(["echo it runs"])
}

#[tokio::test]
async fn only_images_on_the_list_are_used_and_the_configured_one_always_is() {
    let world = world(|entry| entry.set("docker.allowed_images", vec!["entry:*"])).await;
    world
        .run(job("other:1"))
        .await
        .failed("runner_configuration_error", None)
        .says("The \"other:1\" image is not present on list of allowed images:")
        .says("- entry:*");
    world.run(job("box:1")).await.succeeded();
    world.stop().await;
}

#[tokio::test]
async fn services_are_counted_and_their_images_are_listed() {
    let with = |name: &str| job("box:1").service(json!({"name": name, "alias": "s"}));
    let listed = world(|entry| entry.set("docker.allowed_services", vec!["good:*"])).await;
    listed
        .run(with("bad:1"))
        .await
        .failed("runner_configuration_error", None)
        .says("list of allowed services");
    listed.run(with(" ")).await.failed("runner_configuration_error", None).says("invalid service image name");
    listed.stop().await;
    let counted = world(|entry| entry.set("docker.services_limit", 0)).await;
    counted.run(with("good:1")).await.failed("runner_configuration_error", None).says("only 0 allowed");
    counted.stop().await;
}

#[tokio::test]
async fn policies_of_the_job_count_within_what_is_allowed() {
    let world = world(|entry| entry).await;
    let with =
        |policy: &str| job("box:1").with_member("/image", json!({"name": "box:1", "pull_policy": [policy]}));
    world.run(with("if-not-present")).await.succeeded();
    world.run(with("always")).await.failed("runner_configuration_error", None).says(
        "pull_policy ([always]) defined in GitLab pipeline config is not one of the allowed_pull_policies",
    );
    world.stop().await;
}

#[tokio::test]
async fn an_image_that_is_nowhere_is_the_users_mistake_and_a_registry_that_is_down_is_not() {
    let world = world(|entry| entry.set("docker.pull_policy", vec!["never", "if-not-present"])).await;
    world
        .run(
            job("no-such-image:1")
                .with_member("/image", json!({"name": "no-such-image:1", "pull_policy": ["never"]})),
        )
        .await
        .failed("runner_configuration_error", None)
        .says("failed to pull image \"no-such-image:1\" with specified policies [never]");
    world
        .run(job("127.0.0.1:1/x:1"))
        .await
        .failed("runner_external_dependency_failure", None)
        .says("(attempt #1), retrying")
        .says_not("(attempt #3)");
    world.stop().await;
}

#[tokio::test]
async fn a_helper_image_of_ones_own_does_all_that_is_needed_of_it() {
    // In the form of GitLab Runner's: its entrypoint prepares, and runs what it is given.
    let archive = Engine::shared().helper_archive().display().to_string();
    let entrypoint = "ENTRYPOINT [\"/bin/env\", \"PREPARED=yes\"]";
    Engine::shared().docker(&["import", "--change", entrypoint, &archive, "harbour/helper:1"]);
    let world = world(|entry| {
        entry
            .set("docker.network_mode", "host")
            .set("docker.volumes", vec!["/cache"])
            .set("docker.helper_image", "harbour/$HELPER:1")
            .set("environment", vec!["HELPER=helper"])
    })
    .await;
    let repository = world.gitlab.create_repository("harbour/ferry").await.unwrap();
    repository.commit("main", [("number", "1\n")], "one").await.unwrap();
    let makes = world.enqueue(
        JobBuilder::new("makes")
            .repository(&repository)
            .script(["cat number", "mkdir out store", "echo built >out/file", "echo kept >store/file"])
            .artifact(ArtifactSpec::archive("made", ["out/"]))
            .cache(CacheSpec::new("key", ["store/"])),
    );
    let overridden =
        "Using helper image: harbour/helper:1 (overridden, default would be drover-helper:0.1.0)";
    let id = Engine::shared().docker(&["inspect", "harbour/helper:1", "--format", "{{.Id}}"]);
    world
        .finished(&makes)
        .await
        .succeeded()
        .has_line("1")
        .says(overridden)
        .says(&format!("Using docker image {id} for harbour/helper:1"));
    let uses = JobBuilder::new("uses")
        .repository(&repository)
        .variable("GIT_STRATEGY", "clone")
        .script(["cat out/file", "cat store/file"])
        .cache(CacheSpec::new("key", ["store/"]))
        .needs(&makes);
    world.run(uses).await.succeeded().has_line("built").has_line("kept");
    world.stop().await;
}
