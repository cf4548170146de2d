//! Credentials for registries, and what a registry has for which platform.

use std::path::Path;

use drover_tests::{Drover, Engine, PATIENCE, Setup};
use gitlab_mock::{GitlabMock, Job, JobBuilder};
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use serde_json::{Value, json};

use crate::registry::Registry;
use crate::world;

fn job(image: &str) -> JobBuilder {
    JobBuilder::new(image).variable("GIT_STRATEGY", "none").image(image).script(["echo it runs"])
}

fn auths(path: &str, password: &str) -> String {
    json!({"auths": {path: {"username": Registry::USER, "password": password}}}).to_string()
}

#[tokio::test]
async fn a_registry_with_passwords_is_asked_with_the_right_one() {
    let registry = Registry::start().await;
    let address = registry.address.as_str();
    // An image that no other registry has.
    Engine::shared().import(&["ENV OF=passwords"], "of-passwords:1");
    let image = registry.take("of-passwords:1", "harbour/box:1");
    let payload = |job: JobBuilder, password: &str| {
        let credential =
            json!({"type": "registry", "url": address, "username": Registry::USER, "password": password});
        job.with_member("/credentials", json!([credential]))
    };
    let world = world(|entry| {
        entry
            .set("docker.pull_policy", "always")
            .set("docker.allowed_pull_policies", vec!["always", "if-not-present"])
    })
    .await;
    let nobody = world.enqueue(job(&image));
    let from_payload = world.enqueue(payload(job(&image), Registry::PASSWORD));
    let variable = |text: &str| job(&image).masked_variable("DOCKER_AUTH_CONFIG", text);
    let from_variable = world.enqueue(variable(&auths(address, Registry::PASSWORD)));
    // The first source counts, even where a later one would do; and the longest path of one source.
    let first = world.enqueue(payload(variable(&auths(address, "wrong")), Registry::PASSWORD));
    let deeper = format!("{address}/harbour/box");
    let longest = json!({"auths": {
        address: {"username": Registry::USER, "password": "wrong"},
        &deeper: {"username": Registry::USER, "password": Registry::PASSWORD}}});
    let longest = world.enqueue(variable(&longest.to_string()));
    let spoilt = world.enqueue(payload(variable("{no json"), Registry::PASSWORD));

    let unauthorized = "failed to pull image";
    world
        .finished(&nobody)
        .await
        .failed("runner_configuration_error", None)
        .says("no basic auth credentials");
    world
        .finished(&from_payload)
        .await
        .succeeded()
        .says("Authenticating with credentials from job payload (GitLab Registry)");
    world
        .finished(&from_variable)
        .await
        .succeeded()
        .says("Authenticating with credentials from $DOCKER_AUTH_CONFIG")
        .says(&format!("with digest {deeper}@sha256:"));
    world
        .finished(&first)
        .await
        .failed("runner_configuration_error", None)
        .says("Authenticating with credentials from $DOCKER_AUTH_CONFIG")
        .says(unauthorized);
    world.finished(&longest).await.succeeded();
    world
        .finished(&spoilt)
        .await
        .succeeded()
        .says("Failed to resolve credentials from $DOCKER_AUTH_CONFIG: it is not valid")
        .says("Credentials from this source will not be used.");

    // A reference by digest: the entry for the very repository counts for it.
    let digest = Engine::shared().docker(&["inspect", &image, "--format", "{{index .RepoDigests 0}}"]);
    Engine::shared().docker(&["rmi", "-f", &image, &digest]);
    let by_digest = job(&digest).masked_variable("DOCKER_AUTH_CONFIG", auths(&deeper, Registry::PASSWORD));
    world.run(by_digest).await.succeeded().says(&format!("for {digest} with digest {digest}"));
    world.stop().await;
}

#[tokio::test]
async fn programs_of_the_manager_are_asked_for_credentials() {
    let registry = Registry::start().await;
    let address = registry.address.as_str();
    let image = registry.take("box:1", "harbour/box:1");
    let programs = tempfile::tempdir().unwrap();
    let answer = json!({"ServerURL": address, "Username": Registry::USER, "Secret": Registry::PASSWORD});
    let listed = json!({address: Registry::USER});
    let asked = programs.path().join("asked").display().to_string();
    let script = format!(
        "#!/bin/sh\ncase $1 in list) echo '{listed}' ;; get) server=$(cat); echo \"$server\" >>{asked}; echo '{answer}' ;; esac\n"
    );
    program(programs.path(), "docker-credential-good", &script);
    program(
        programs.path(),
        "docker-credential-bad",
        "#!/bin/sh\necho credentials not found in native keychain\nexit 1\n",
    );
    let path = format!("{}:{}", programs.path().display(), std::env::var("PATH").unwrap());

    let gitlab = GitlabMock::start(gitlab_mock::Config::default()).await.unwrap();
    let entry = Engine::shared().entry("programs").set("docker.pull_policy", "always");
    let runner = gitlab.add_runner(entry.token());
    let setup = Setup::new().set("concurrent", 1).runner(entry);
    let mut drover = Drover::start_with(&setup, gitlab.url(), &[("PATH", &path)]);
    let with = |config: Value| job(&image).masked_variable("DOCKER_AUTH_CONFIG", config.to_string());
    let run = async |job: JobBuilder| -> (Job, String) {
        let job = gitlab.enqueue(&runner, job);
        job.finished(PATIENCE).await.unwrap();
        let log = job.log_text();
        assert_eq!(job.leaked_secrets(), Vec::<String>::new());
        (job, log)
    };

    let (_, log) = run(with(json!({"credHelpers": {address: "good"}}))).await;
    assert!(log.contains("it runs") && log.contains("credentials from $DOCKER_AUTH_CONFIG"), "{log}");
    assert_eq!(std::fs::read_to_string(&asked).unwrap().trim(), address);
    // Helpers of one registry override the store, which overrides what is written there.
    let (_, log) = run(with(json!({
        "auths": {address: {"username": Registry::USER, "password": "wrong"}}, "credsStore": "good"})))
    .await;
    assert!(log.contains("it runs"), "{log}");
    let (_, log) = run(with(json!({"credsStore": "good", "credHelpers": {address: "bad"}}))).await;
    assert!(log.contains("Failed to resolve credentials from $DOCKER_AUTH_CONFIG"), "{log}");
    assert!(log.contains("credentials not found in native keychain"), "{log}");
    assert!(log.contains("credential helpers run on the manager"), "{log}");
    assert!(log.contains("no basic auth credentials"), "{log}");
    for (name, why) in [("missing", "installed there"), ("../good", "path traversal is not allowed")] {
        let (_, log) = run(with(json!({"credHelpers": {address: name}}))).await;
        assert!(log.contains(why) && log.contains("Job failed"), "{log}");
    }
    // The configuration of the manager's user, where the variable says nothing of the registry.
    let home = drover.folder().join(".docker");
    std::fs::create_dir(&home).unwrap();
    std::fs::write(home.join("config.json"), json!({"credsStore": "good"}).to_string()).unwrap();
    let (_, log) = run(with(json!({"auths": {"other.test": {"username": "x", "password": "y"}}}))).await;
    assert!(log.contains("it runs"), "{log}");
    assert!(log.contains(&format!("credentials from {}/config.json", home.display())), "{log}");
    drover.stop().await;
}

#[tokio::test]
async fn a_registry_that_comes_back_in_time_does_not_fail_the_job() {
    let mut registry = Registry::start().await;
    Engine::shared().import(&["ENV OF=patience"], "of-patience:1");
    let image = registry.take("of-patience:1", "harbour/patience:1");
    registry.close();
    let world = world(|entry| entry.set("docker.pull_policy", "always")).await;
    let config = auths(&registry.address, Registry::PASSWORD);
    let job = world.enqueue(job(&image).masked_variable("DOCKER_AUTH_CONFIG", config));
    world.says(&job, "(attempt #1), retrying").await;
    registry.open();
    world.finished(&job).await.succeeded().has_line("it runs");
    world.stop().await;
}

fn program(folder: &Path, name: &str, script: &str) {
    drover_tests::make_program(&folder.join(name), script);
}

#[tokio::test]
async fn a_job_and_its_services_may_be_of_several_platforms_of_one_tag() {
    let registry = Registry::start().await;
    let engine = Engine::shared();
    // Not what they say that they are, so that they run on any machine.
    engine.import_for("linux/arm64", &["ENV WHICH=arm"], "which:arm");
    engine.import(&["ENV WHICH=own"], "which:own");
    let own = engine.docker(&["version", "--format", "{{.Server.Arch}}"]);
    let client = reqwest::Client::new();
    let url = |tag: &str| format!("http://{}/v2/harbour/which/manifests/{tag}", registry.address);
    let mut manifests = Vec::new();
    for (tag, arch) in [("own", own.as_str()), ("arm", "arm64")] {
        registry.take(&format!("which:{tag}"), &format!("harbour/which:{tag}"));
        // Engines with the image store of containerd make the second.
        let kinds = [
            "application/vnd.docker.distribution.manifest.v2+json",
            "application/vnd.oci.image.manifest.v1+json",
        ];
        let asked = client.get(url(tag)).header(ACCEPT, kinds.join(", "));
        let reply = asked.basic_auth(Registry::USER, Some(Registry::PASSWORD)).send().await.unwrap();
        let header = |name: &str| reply.headers()[name].to_str().unwrap().to_owned();
        let (kind, digest) = (header("content-type"), header("docker-content-digest"));
        let size = reply.bytes().await.unwrap().len();
        let platform = json!({"os": "linux", "architecture": arch});
        manifests.push(json!({"mediaType": kind, "size": size, "digest": digest, "platform": platform}));
    }
    let kind = "application/vnd.docker.distribution.manifest.list.v2+json";
    let list = json!({"schemaVersion": 2, "mediaType": kind, "manifests": manifests}).to_string();
    let put = client.put(url("both")).header(CONTENT_TYPE, kind).body(list);
    let put = put.basic_auth(Registry::USER, Some(Registry::PASSWORD)).send().await.unwrap();
    assert!(put.status().is_success(), "{put:?}");

    let image = format!("{}/harbour/which:both", registry.address);
    let world =
        world(|entry| entry.set("docker.pull_policy", "always").set("docker.wait_for_services_timeout", -1))
            .await;
    let say = ["sh", "-c", "echo \"this is $WHICH\"; sleep 1000"];
    let on = |platform: &str, alias: &str| {
        let mut service = json!({"name": &image, "alias": alias, "command": say});
        if !platform.is_empty() {
            service["executor_opts"] = json!({"docker": {"platform": platform}});
        }
        service
    };
    let job = |platform: &str| {
        JobBuilder::new("platforms")
            .variable("GIT_STRATEGY", "none")
            .variable("CI_DEBUG_SERVICES", "true")
            .variable("ARCH", "arm64")
            .masked_variable("DOCKER_AUTH_CONFIG", auths(&registry.address, Registry::PASSWORD))
            .script(["echo \"the job's is $WHICH\"; sleep 1"])
            .with_member(
                "/image",
                json!({"name": &image, "executor_opts": {"docker": {"platform": platform}}}),
            )
    };
    let several = job("linux/$ARCH")
        .service(on("linux/arm64", "one"))
        .service(on("", "two"))
        .service(on(&format!("linux/{own}"), "three"));
    let several = world.run(several).await.succeeded();
    let several = several.says("for platform linux/arm64 ...").has_line("the job's is arm");
    assert_eq!(several.log.matches("] this is own").count(), 2, "{}", several.log);
    assert_eq!(several.log.matches("] this is arm").count(), 1, "{}", several.log);
    world.run(job("")).await.succeeded().has_line("the job's is own");
    world.stop().await;
}
