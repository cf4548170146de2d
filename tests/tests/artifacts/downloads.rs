//! Artifacts of earlier jobs.

use gitlab_mock::{ArtifactSpec, Endpoint, Fault, Job, JobBuilder};
use reqwest::StatusCode;
use serde_json::json;

use crate::world::Bench;

async fn made(bench: &Bench, name: &str) -> Job {
    let script = [format!("mkdir -p out && echo of {name} >out/{name}; echo of {name} >out/last")];
    let job = JobBuilder::new(name).script(script).artifact(ArtifactSpec::archive("", ["out"]));
    let job = bench.world.enqueue(job);
    bench.world.finished(&job).await.succeeded();
    job
}

fn look(name: &str) -> JobBuilder {
    let job = JobBuilder::new(name).variable("GIT_STRATEGY", "empty");
    job.script(["ls -R out || echo nothing came", "cat out/last || :"])
}

#[tokio::test]
async fn a_job_gets_the_artifacts_of_those_it_needs_in_their_order_and_of_no_other() {
    let bench = Bench::start().await;
    let (ferry, tug) = (made(&bench, "ferry").await, made(&bench, "tug").await);
    let none = bench.world.enqueue(JobBuilder::new("without artifacts").script(["true"]));
    bench.world.finished(&none).await.succeeded();

    let both = bench.world.run(look("both").needs(&ferry).needs(&none).needs(&tug)).await.succeeded();
    both.has_line(&format!("Downloading artifacts for ferry ({})...", ferry.id()))
        .has_line(&format!("Downloading artifacts for tug ({})...", tug.id()))
        .says_not("Downloading artifacts for without artifacts")
        .has_line("ferry")
        .has_line("of tug");
    let one = bench.world.run(look("one").needs(&ferry)).await.succeeded();
    one.has_line("of ferry").lacks_line("tug");
    let nothing = bench.world.run(look("nothing")).await.succeeded();
    nothing.has_line("nothing came").says_not("Downloading artifacts");
    bench.world.stop().await;
}

#[tokio::test]
async fn an_archive_comes_from_object_storage_or_through_gitlab() {
    for (redirect, flag, direct) in [
        (Some(StatusCode::FOUND), "true", true),
        (Some(StatusCode::TEMPORARY_REDIRECT), "true", true),
        (Some(StatusCode::FOUND), "false", false),
        (None, "true", false),
    ] {
        let bench = Bench::with(|entry| entry, |gitlab| gitlab.direct_download = redirect).await;
        let ferry = made(&bench, "ferry").await;
        let job = look("look").needs(&ferry).variable("FF_USE_DIRECT_DOWNLOAD", flag);
        bench.world.run(job).await.succeeded().has_line("of ferry");
        let requests = bench.world.gitlab.storage_requests();
        assert_eq!(!requests.is_empty(), direct, "{redirect:?} {flag}: {requests:?}");
        assert!(requests.iter().all(|request| !request.token_leaked), "{requests:?}");
        bench.world.stop().await;
    }
}

#[tokio::test]
async fn a_storage_that_fails_is_gone_around_and_a_gitlab_that_fails_is_asked_again() {
    let bench = Bench::start().await;
    let ferry = made(&bench, "ferry").await;
    for (name, fault) in [
        ("storage", Fault::status(503).on([Endpoint::Storage])),
        ("GitLab", Fault::status(500).on([Endpoint::DownloadArtifact]).times(6)),
        ("connection", Fault::reset().on([Endpoint::DownloadArtifact]).times(1)),
    ] {
        let fault = bench.world.gitlab.inject(fault);
        bench.world.run(look(name).needs(&ferry)).await.succeeded().has_line("of ferry");
        bench.world.gitlab.remove_fault(fault);
    }
    bench.world.stop().await;
}

#[tokio::test]
async fn artifacts_that_cannot_be_had_fail_the_job_before_its_script() {
    let bench = Bench::start().await;
    let ferry = made(&bench, "ferry").await;
    for (name, status, says) in [
        ("expired", 404, "404 Not Found"),
        ("private", 403, "403 Forbidden"),
        ("unknown", 401, "401 Unauthorized"),
    ] {
        let fault = bench.world.gitlab.inject(Fault::status(status).on([Endpoint::DownloadArtifact]));
        let job = look(name).needs(&ferry).after_script(["echo after"]);
        let ended = bench.world.run(job).await.failed("script_failure", Some(1));
        ended.says(says).lacks_line("nothing came").lacks_line("after").says_not("Retrying");
        bench.world.gitlab.remove_fault(fault);
    }
    bench.world.stop().await;
}

#[tokio::test]
async fn a_dependency_has_a_token_of_its_own() {
    let bench = Bench::start().await;
    let ferry = made(&bench, "ferry").await;
    let wrong = look("wrong").needs(&ferry).with_member("/dependencies/0/token", json!("glcbt-64_wrong"));
    let ended = bench.world.run(wrong).await.failed("script_failure", Some(1));
    ended.says("403 Forbidden").lacks_line("nothing came");
    // The wrong token was the point.
    assert_eq!(bench.world.gitlab.take_violations().len(), 1);
    bench.world.stop().await;
}

#[tokio::test]
async fn a_download_is_tried_as_often_as_the_job_says() {
    let bench = Bench::start().await;
    let ferry = made(&bench, "ferry").await;
    let attempts = |attempts: &str| {
        let job = look(attempts).needs(&ferry).variable("ARTIFACT_DOWNLOAD_ATTEMPTS", attempts);
        job.variable("FF_USE_EXPONENTIAL_BACKOFF_STAGE_RETRY", "false")
    };
    let gone = || bench.world.gitlab.inject(Fault::status(404).on([Endpoint::DownloadArtifact]).times(1));
    gone();
    let once = bench.world.run(attempts("1")).await.failed("script_failure", Some(1));
    once.says_not("WARNING: Retrying...");
    gone();
    let twice = bench.world.run(attempts("2")).await.succeeded().has_line("of ferry");
    assert_eq!(twice.count("WARNING: Retrying..."), 1);
    bench.world.stop().await;
}

#[tokio::test]
async fn an_archive_that_is_damaged_or_hostile_writes_nothing_outside_and_fails_the_job() {
    let bench = Bench::start().await;
    let program = "import sys, zipfile\nz = zipfile.ZipFile(sys.argv[1], 'w')\nz.writestr('../../escaped', 'x')\nz.close()";
    let file = tempfile::NamedTempFile::new().unwrap();
    let made = std::process::Command::new("python3").args(["-c", program]).arg(file.path()).status();
    assert!(made.expect("tests need python3").success());
    let hostile = std::fs::read(file.path()).unwrap();
    for (name, data, says) in [
        ("damaged", b"PK\x03\x04 and then nothing".to_vec(), "FATAL"),
        ("hostile", hostile, "leads outside of the directory"),
    ] {
        let job = bench.world.enqueue(JobBuilder::new(name).script(["true"]));
        bench.world.finished(&job).await.succeeded();
        let view = gitlab_mock::ArtifactView {
            artifact_type: "archive".into(),
            artifact_format: "zip".into(),
            filename: "artifacts.zip".into(),
            expire_in: None,
            size: data.len() as u64,
        };
        job.store_artifact(view, data);
        let ended = bench.world.run(look("look").needs(&job)).await.failed("script_failure", Some(1));
        ended.says(says).lacks_line("nothing came");
    }
    let found =
        std::process::Command::new("find").arg(bench.world.folder()).args(["-name", "escaped"]).output();
    assert_eq!(String::from_utf8(found.unwrap().stdout).unwrap(), "");
    bench.world.stop().await;
}
