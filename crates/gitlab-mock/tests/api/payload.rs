//! The job payload, read by the runner's decoder.

use std::time::Duration;

use drover_gitlab_mock::{ArtifactSpec, CacheSpec, Config, JobBuilder};
use job_payload::{ExposeSecret as _, Job};
use serde_json::json;

use crate::support::*;

async fn payload_of(bench: &Bench, job: JobBuilder) -> Job {
    bench.mock.enqueue(&bench.runner, job);
    let bytes = bench.request().await.bytes().await.unwrap();
    Job::from_json(&bytes).unwrap()
}

#[tokio::test]
async fn payload_decodes_without_oddities() {
    let bench = Bench::new().await;
    let spec = JobBuilder::new("unit tests")
        .stage("verify")
        .script(["make", "make test"])
        .after_script(["make clean"])
        .variable("PLAIN", "1")
        .masked_variable("SECRET", "hunter22")
        .file_variable("KEY_FILE", "-----")
        .timeout(Duration::from_secs(90))
        .image("alpine:3")
        .service(json!({ "name": "postgres:16", "alias": "db" }))
        .artifact(ArtifactSpec::archive("out", ["out/"]))
        .artifact(ArtifactSpec::report("junit", ["report.xml"]))
        .cache(CacheSpec::new("cargo", [".cargo/"]))
        .hook("pre_get_sources_script", ["echo before"])
        .token_mask_prefix("glpat-");
    let job = payload_of(&bench, spec).await;
    assert!(job.oddities.is_empty(), "{:?}", job.oddities);
    assert_eq!((job.job_info.name.as_str(), job.job_info.stage.as_str()), ("unit tests", "verify"));
    assert_eq!(job.steps[0].script, ["make", "make test"]);
    assert_eq!(job.steps[1].script, ["make clean"]);
    assert_eq!(job.runner_info.timeout, 90);
    assert_eq!(job.image.name, "alpine:3");
    assert_eq!(job.services[0].alias, "db");
    assert_eq!(job.artifacts.len(), 2);
    assert_eq!(job.cache[0].key, "cargo");
    assert!(job.features.trace_sections);
    let find = |key: &str| job.variables.iter().find(|variable| variable.key == key).unwrap();
    assert!(find("CI_JOB_TOKEN").masked && !find("CI_JOB_TOKEN").public);
    assert!(find("SECRET").masked && find("KEY_FILE").file && find("PLAIN").public);
    assert_eq!(find("GIT_STRATEGY").value, "none");
    assert_eq!(find("CI_SERVER_URL").value, bench.mock.url());
    assert_eq!(find("CI_JOB_NAME_SLUG").value, "unit-tests");
}

#[tokio::test]
async fn empty_job_decodes_without_oddities() {
    let bench = Bench::new().await;
    let job = payload_of(&bench, JobBuilder::new("nothing")).await;
    assert!(job.oddities.is_empty(), "{:?}", job.oddities);
    assert!(job.artifacts.is_empty() && job.image.name.is_empty());
}

#[tokio::test]
async fn checkout_is_described_by_what_the_repository_holds() {
    let bench = Bench::new().await;
    let repository = bench.mock.create_repository("harbour/sub/ferry").await.unwrap();
    let first = repository.commit("main", [("a", "1")], "first").await.unwrap();
    repository.tag("v1", "main").await.unwrap();
    let second = repository.commit("main", [("a", "2")], "second").await.unwrap();

    let job = payload_of(&bench, JobBuilder::new("a").repository(&repository)).await;
    assert_eq!((job.git_info.sha.as_str(), job.git_info.ref_name.as_str()), (second.as_str(), "main"));
    assert_eq!(job.git_info.depth, 20);
    let pipeline = job.job_info.pipeline_id;
    let refspecs = [
        format!("+refs/pipelines/{pipeline}:refs/pipelines/{pipeline}"),
        "+refs/heads/main:refs/remotes/origin/main".to_owned(),
    ];
    assert_eq!(job.git_info.refspecs, refspecs);
    let expected = format!(
        "http://gitlab-ci-token:{}@{}/harbour/sub/ferry.git",
        job.token.0.expose_secret(),
        bench.mock.address()
    );
    assert_eq!(job.git_info.repo_url, expected);

    let tag = payload_of(&bench, JobBuilder::new("a").repository(&repository).reference("v1").depth(0)).await;
    assert_eq!((tag.git_info.sha.as_str(), tag.git_info.ref_type.as_str()), (first.as_str(), "tag"));
    assert_eq!(tag.git_info.refspecs[0], "+refs/heads/*:refs/remotes/origin/*");
    assert_ne!(tag.job_info.pipeline_id, pipeline);
    let same = payload_of(&bench, JobBuilder::new("b").repository(&repository)).await;
    assert_eq!(same.job_info.pipeline_id, pipeline);
}

#[tokio::test]
async fn unknown_project_or_ref_is_an_error() {
    let bench = Bench::new().await;
    let repository = bench.mock.create_repository("harbour/ferry").await.unwrap();
    repository.commit("main", [("a", "1")], "first").await.unwrap();
    let job = JobBuilder::new("a").repository(&repository).reference("nowhere");
    let error = bench.mock.try_enqueue(&bench.runner, [job]).unwrap_err();
    assert_eq!(error.to_string(), "repository `harbour/ferry` has no ref `nowhere`");
    for project in ["ferry", "../../etc/x", "a//b", "a/.git"] {
        assert!(bench.mock.create_repository(project).await.is_err(), "{project}");
    }
}

#[tokio::test]
async fn members_can_be_overwritten_and_taken_out() {
    let bench = Bench::new().await;
    let odd = JobBuilder::new("a")
        .with_member("/git_info/depth", json!("many"))
        .with_member("/novelty", json!([1]))
        .without_member("/image");
    bench.mock.enqueue(&bench.runner, odd);
    let payload: serde_json::Value = bench.request().await.json().await.unwrap();
    assert_eq!((&payload["git_info"]["depth"], &payload["novelty"]), (&json!("many"), &json!([1])));
    assert!(payload.get("image").is_none());
}

#[tokio::test]
async fn external_url_is_what_jobs_see() {
    let config = Config { external_url: Some("http://gitlab.test:8929/".to_owned()), ..Config::default() };
    let bench = Bench::with(config).await;
    assert_eq!(bench.mock.url(), "http://gitlab.test:8929");
    let job = bench.mock.enqueue(&bench.runner, JobBuilder::new("a"));
    let url = format!("http://{}/api/v4/jobs/request", bench.mock.address());
    let reply = bench.http.post(url).json(&request_body(&[])).send().await.unwrap();
    let payload: serde_json::Value = reply.json().await.unwrap();
    let url = payload["git_info"]["repo_url"].as_str().unwrap();
    assert!(url.starts_with(&format!("http://gitlab-ci-token:{}@gitlab.test:8929/", job.token())), "{url}");
}
