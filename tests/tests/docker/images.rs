//! Which images jobs may use, and how they get onto the engine.

use std::process::{Child, Command, Stdio};

use drover_tests::{Engine, eventually};
use gitlab_mock::JobBuilder;
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
        .says("(attempt #2), retrying");
    world.stop().await;
}

#[tokio::test]
async fn a_registry_with_passwords_is_asked_with_the_right_one() {
    let registry = Registry::start().await;
    let image = format!("{}/harbour/box:1", registry.address);
    let engine = Engine::shared();
    engine.docker(&["tag", "box:1", &image]);
    let login = format!("{}/.docker", registry.folder.path().display());
    engine.docker(&["--config", &login, "login", "-u", "me", "-p", Registry::PASSWORD, &registry.address]);
    engine.docker(&["--config", &login, "push", &image]);
    engine.docker(&["rmi", &image]);

    let world = world(|entry| {
        entry
            .set("docker.pull_policy", "always")
            .set("docker.allowed_pull_policies", vec!["always", "if-not-present"])
    })
    .await;
    world.run(job(&image)).await.failed("runner_configuration_error", None).says("no basic auth credentials");
    let config = json!({"auths": {&registry.address: {"username": "me", "password": Registry::PASSWORD}}});
    world
        .run(job(&image).masked_variable("DOCKER_AUTH_CONFIG", config.to_string()))
        .await
        .succeeded()
        .says("Authenticating with credentials from $DOCKER_AUTH_CONFIG")
        .says(&format!("with digest {}/harbour/box@sha256:", registry.address));
    engine.docker(&["rmi", "-f", &image]);
    world
        .run(job(&image).with_member(
            "/credentials",
            json!([{"type": "registry", "url": registry.address, "username": "me", "password": Registry::PASSWORD}]),
        ))
        .await
        .succeeded()
        .says("Authenticating with credentials from job payload (GitLab Registry)");
    world.stop().await;
}

/// Debian's registry, with one user.
struct Registry {
    address: String,
    folder: tempfile::TempDir,
    server: Child,
}

impl Registry {
    /// Its encoded form has characters that engines do not read in the usual alphabet.
    const PASSWORD: &str = "o?>~o?>~o?>~";

    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let passwords = Command::new("htpasswd").args(["-Bbn", "me", Self::PASSWORD]).output();
        let passwords = passwords.expect("tests need htpasswd (Debian: apt-get install apache2-utils)");
        std::fs::write(folder.path().join("htpasswd"), passwords.stdout).unwrap();
        let at = folder.path().display();
        let config = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {at}/data\nhttp:\n  addr: {address}\n\
             auth:\n  htpasswd:\n    realm: harbour\n    path: {at}/htpasswd\n"
        );
        std::fs::write(folder.path().join("config.yml"), config).unwrap();
        let server = Command::new("docker-registry")
            .arg("serve")
            .arg(folder.path().join("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("tests need docker-registry (Debian: apt-get install docker-registry)");
        let registry = Self { address, folder, server };
        eventually("the registry listens", || std::net::TcpStream::connect(&registry.address).is_ok()).await;
        registry
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
