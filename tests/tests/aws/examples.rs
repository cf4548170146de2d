//! The examples of GitLab's documentation run as they stand, but for names, tokens and addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use drover_tests::{Engine, Setup, eventually};
use gitlab_mock::JobBuilder;

use crate::cloud::Cloud;

const LINUX: &str = include_str!("../../../fixtures/config/instance-aws.toml");
const WINDOWS: &str = include_str!("../../../fixtures/config/instance-aws-windows.toml");
const MACOS: &str = include_str!("../../../fixtures/config/instance-aws-macos.toml");
const DOCKER: &str = include_str!("../../../fixtures/config/docker-autoscaler-aws.toml");

/// The keys of a table that say something, with what they say.
fn keys(value: &toml::Value, path: &str, found: &mut BTreeMap<String, String>) {
    if let Some(table) = value.as_table() {
        for (key, value) in table {
            keys(value, &format!("{path}.{key}"), found);
        }
    } else if let Some(values) = value.as_array().filter(|values| values.iter().all(toml::Value::is_table)) {
        for value in values {
            keys(value, path, found);
        }
    } else {
        found.insert(path.to_owned(), value.to_string());
    }
}

/// The username is the login of whoever runs the tests, the builds folder lies beside the rest of a test.
#[tokio::test]
async fn only_names_tokens_and_addresses_of_the_examples_are_changed() {
    const CHANGED: [&str; 9] = [
        ".runners.autoscaler.connector_config.username",
        ".runners.autoscaler.plugin_config.config_file",
        ".runners.autoscaler.plugin_config.credentials_file",
        ".runners.autoscaler.plugin_config.endpoint",
        ".runners.autoscaler.plugin_config.metadata_endpoint",
        ".runners.autoscaler.plugin_config.name",
        ".runners.builds_dir",
        ".runners.token",
        ".runners.url",
    ];
    let cloud = Cloud::start().await;
    for text in [LINUX, WINDOWS, MACOS, DOCKER] {
        let used =
            Setup::of_file(text, |entry| cloud.example(entry)).text("http://gitlab", Path::new("/folder"));
        let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
        keys(&text.parse::<toml::Table>().unwrap().into(), "", &mut before);
        keys(&used.parse::<toml::Table>().unwrap().into(), "", &mut after);
        let changed = |key: &&String| before.get(*key) != after.get(*key);
        let all: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        let changed: Vec<&str> = all.into_iter().filter(changed).map(String::as_str).collect();
        assert_eq!(changed, CHANGED);
    }
}

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
