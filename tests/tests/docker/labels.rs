//! Names and labels of what jobs make on an engine. Users select by them, so they are exactly GitLab Runner's.

use std::collections::BTreeMap;

use drover_tests::{Engine, Setup};
use gitlab_mock::CacheSpec;
use serde_json::{Value, json};

use crate::options::{container, patient, release};

const PREFIX: &str = "com.gitlab.gitlab-runner";
/// Which run of a manager made it; Drover's own.
const RUN: &str = "com.gitlab.gitlab-runner.manager.run";

/// The labels of something, without what is new in every run.
fn labels(inspected: &Value, pointer: &str) -> BTreeMap<String, String> {
    let labels = inspected.pointer(pointer).unwrap_or_else(|| panic!("no labels: {inspected}"));
    let mut labels: BTreeMap<String, String> = serde_json::from_value(labels.clone()).unwrap();
    assert_eq!(labels.remove(RUN).map(|run| run.len()), Some(32));
    labels
}

#[tokio::test]
async fn everything_of_a_job_is_named_and_labelled_as_users_know_it() {
    let engine = Engine::shared();
    engine.docker(&["tag", "box:1", "127.0.0.1:5000/harbour/web:1.2"]);
    let entry = engine
        .entry("docker")
        .set("feature_flags.FF_NETWORK_PER_BUILD", true)
        .set("docker.network_mtu", 1400)
        .set("docker.volumes", vec!["/cache"])
        .set("docker.container_labels.of", "job $CI_JOB_NAME")
        .set("docker.wait_for_services_timeout", -1);
    let token = entry.token().to_owned();
    let short = token.trim_start_matches("glrt-").get(..9).unwrap().to_owned();
    let world = Setup::new().runner(entry).start().await;
    let job = world.enqueue(
        patient(&["echo \"<$CI_BUILD_NETWORK_NAME>\""])
            // For the helper.
            .cache(CacheSpec::new("key", ["nothing"]))
            .service(json!({"name": "127.0.0.1:5000/harbour/web:1.2", "command": ["sleep", "1000"]}))
            .variable("CI_JOB_URL", "https://me:secret-of-me@gitlab.test/harbour/-/jobs/1")
            .with_member("/git_info/sha", json!("1ecfd275763eff1d6b4844ea3168962458c9f27a"))
            .with_member("/git_info/before_sha", json!("0000000000000000000000000000000000000000"))
            .with_member("/git_info/ref", json!("main"))
            .with_member("/git_info/protected", json!(true))
            .with_member("/job_info/project_id", json!(7))
            .with_member("/job_info/pipeline_id", json!(77)),
    );
    let build = container(&world, &job, "build").await;
    let id = job.view().id;

    // Names.
    let unique = build.strip_suffix("-build").unwrap();
    let hex = unique.strip_prefix(&format!("runner-{short}-project-7-concurrent-0-")).unwrap();
    assert!(hex.len() == 16 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()), "{build}");
    let network = format!("runner-{short}-7-0-{id}");
    let helper = format!("{unique}-predefined");
    let service = format!("{unique}-127.0.0.1__harbour__web-0");

    // Labels.
    let common: BTreeMap<String, String> = [
        ("job.id", id.to_string().as_str()),
        ("job.url", "https://gitlab.test/harbour/-/jobs/1"),
        ("job.sha", "1ecfd275763eff1d6b4844ea3168962458c9f27a"),
        ("job.before_sha", "0000000000000000000000000000000000000000"),
        ("job.ref", "main"),
        ("job.timeout", "1h0m0s"),
        ("project.id", "7"),
        ("project.runner_id", "0"),
        ("pipeline.id", "77"),
        ("runner.id", &short),
        ("runner.local_id", "0"),
        ("runner.system_id", "s_0123456789ab"),
        ("managed", "true"),
    ]
    .into_iter()
    .map(|(name, value)| (format!("{PREFIX}.{name}"), value.to_owned()))
    .collect();
    let with = |more: &[(&str, &str)]| {
        let mut labels = common.clone();
        labels.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        labels
    };
    let of = |name: &str| labels(&engine.inspect("container", name), "/Config/Labels");
    let kind = "com.gitlab.gitlab-runner.type";
    assert_eq!(of(&build), with(&[(kind, "build"), ("of", "job patient")]));
    assert_eq!(of(&helper), with(&[(kind, "predefined"), ("of", "job patient")]));
    assert_eq!(
        of(&service),
        with(&[
            (kind, "service"),
            ("com.gitlab.gitlab-runner.service", "127.0.0.1/harbour/web"),
            ("com.gitlab.gitlab-runner.service.version", "1.2"),
            ("of", "job patient"),
            ("com.gitlab.gitlab-runner.of", "job patient"),
        ])
    );
    let found = engine.inspect("network", &network);
    assert_eq!(labels(&found, "/Labels"), common);
    assert_eq!(found.pointer("/Driver"), Some(&json!("bridge")));
    assert_eq!(found.pointer("/EnableIPv6"), Some(&json!(false)));
    assert_eq!(found.pointer("/Options"), Some(&json!({"com.docker.network.driver.mtu": "1400"})));
    let aliases = engine.inspect("container", &build);
    let aliases = aliases.pointer(&format!("/NetworkSettings/Networks/{network}/Aliases")).unwrap();
    let has = |alias: &str| aliases.as_array().unwrap().iter().any(|found| found == alias);
    assert!(has("build") && has(&build), "{aliases}");

    // The cache volume: `echo -n /cache | md5sum`.
    let mounts = engine.inspect("container", &build);
    let mounts = mounts.pointer("/Mounts").and_then(Value::as_array).unwrap();
    let volume = mounts.iter().find(|mount| mount["Destination"] == "/cache").unwrap();
    let volume = volume["Name"].as_str().unwrap();
    let owner = volume.strip_suffix("-cache-3c3f060a0374fc8bc39395164f415a70-protected").unwrap();
    let hash = owner.strip_prefix("runner-").unwrap();
    assert!(hash.len() == 32 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{volume}");
    assert_eq!(
        labels(&engine.inspect("volume", volume), "/Labels"),
        with(&[
            (kind, "cache"),
            ("com.gitlab.gitlab-runner.destination", "/cache"),
            ("com.gitlab.gitlab-runner.protected", "true"),
            ("com.gitlab.gitlab-runner.reusable", "true"),
        ])
    );

    release(&build);
    world.finished(&job).await.succeeded().has_line(&format!("<{network}>"));
    drover_tests::eventually("the network is removed", || {
        !engine.try_docker(&["network", "inspect", &network])
    })
    .await;
    world.stop().await;
    engine.docker(&["volume", "rm", volume]);
}
