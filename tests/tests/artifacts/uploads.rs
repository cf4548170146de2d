//! Uploads that GitLab, or what is before it, does not take at once or at all.

use gitlab_mock::{ArtifactSpec, Endpoint, Fault, Job, JobBuilder};
use reqwest::StatusCode;

use crate::world::{Bench, artifact, stored, zip_names};

fn job(name: &str) -> JobBuilder {
    let job = JobBuilder::new(name).script(["echo 1 >file"]);
    job.artifact(ArtifactSpec::archive("kept", ["file"]))
}

fn kept(job: &Job) {
    assert_eq!(zip_names(&artifact(job, "archive").data), ["file"]);
    assert_eq!(job.view().calls.uploads, 1);
}

#[tokio::test]
async fn an_upload_is_tried_again_until_gitlab_has_it_once() {
    let bench = Bench::start().await;
    for (name, fault) in [
        ("a proxy that is tired", Fault::status(502).times(7)),
        ("a GitLab in maintenance", Fault::status(503).times(12)),
        ("a connection that breaks", Fault::reset().times(2)),
        ("an answer that is lost", Fault::lose_answer().times(1)),
    ] {
        bench.world.gitlab.inject(fault.on([Endpoint::UploadArtifact]));
        let job = bench.world.enqueue(job(name));
        bench.world.finished(&job).await.succeeded().says("201 Created");
        kept(&job);
    }
    bench.world.stop().await;
}

#[tokio::test]
async fn an_upload_that_never_succeeds_fails_a_job_that_was_good() {
    let bench = Bench::start().await;
    bench.world.gitlab.inject(Fault::status(500).on([Endpoint::UploadArtifact]));
    let ended = bench.world.run(job("good").after_script(["echo \"it is $CI_JOB_STATUS\""])).await;
    ended
        .failed("script_failure", Some(1))
        .has_line("it is success")
        .says("500 Internal Server Error")
        .says("FATAL")
        .ends_with("ERROR: Job failed: exit code 1");
    // What the script said counts more.
    let always = ArtifactSpec { when: "always".into(), ..ArtifactSpec::archive("", ["file"]) };
    let bad = JobBuilder::new("bad").script(["echo 1 >file", "exit 42"]).artifact(always);
    bench.world.run(bad).await.failed("script_failure", Some(42)).says("FATAL");
    bench.world.stop().await;
}

#[tokio::test]
async fn an_artifact_that_is_too_large_is_explained_by_whose_limit_it_is() {
    let bench = Bench::with(|entry| entry, |gitlab| gitlab.max_artifact_bytes = 2000).await;
    let large = |name: &str| {
        let script = ["head -c 3000 /dev/urandom >large.bin", "echo 1 >small"];
        bench.world.enqueue(
            JobBuilder::new(name).script(script).artifact(ArtifactSpec::archive("", ["large.bin", "small"])),
        )
    };
    let job = large("GitLab's");
    let ended = bench.world.finished(&job).await.failed("script_failure", Some(1));
    ended
        .says("413")
        .says("larger than the maximum artifacts size of the project")
        .says("the largest is large.bin")
        .says("too large")
        .says_not("Retrying");
    assert_eq!(stored(&job), []);

    bench.world.gitlab.inject(Fault::status(413).on([Endpoint::UploadArtifact]).times(1));
    let job = large("a proxy's");
    let ended = bench.world.finished(&job).await.failed("script_failure", Some(1));
    ended.says("most likely from a proxy before it").says("client_max_body_size").says_not("Retrying");
    bench.world.stop().await;
}

#[tokio::test]
async fn an_upload_that_is_not_permitted_is_not_tried_again() {
    let bench = Bench::start().await;
    let forbidden = StatusCode::FORBIDDEN.as_u16();
    bench.world.gitlab.inject(Fault::status(forbidden).on([Endpoint::UploadArtifact]));
    let ended = bench.world.run(job("refused")).await.failed("script_failure", Some(1));
    ended.says("403 Forbidden").says("permission denied").says_not("Retrying");
    bench.world.stop().await;
}

#[tokio::test]
async fn an_archive_beyond_what_fits_into_memory_comes_whole() {
    let bench = Bench::start().await;
    let script = ["head -c 40000000 /dev/urandom >large.bin", "sha256sum large.bin | tee sum"];
    let make =
        JobBuilder::new("make").script(script).artifact(ArtifactSpec::archive("", ["large.bin", "sum"]));
    // The first try is cut off, and the archive is made anew.
    bench.world.gitlab.inject(Fault::reset().on([Endpoint::UploadArtifact]).times(1));
    let make = bench.world.enqueue(make);
    bench.world.finished(&make).await.succeeded();
    let look = JobBuilder::new("look").script(["sha256sum --check sum"]).needs(&make);
    let look = look.variable("GIT_STRATEGY", "empty");
    bench.world.run(look).await.succeeded().has_line("large.bin: OK");
    bench.world.stop().await;
}

#[tokio::test]
async fn the_token_of_an_upload_is_shown_in_part_and_debugging_shows_headers() {
    let bench = Bench::start().await;
    let job = bench.world.enqueue(job("loud").variable("CI_DEBUG_TRACE", "true"));
    let ended = bench.world.finished(&job).await.succeeded();
    ended.says("201 Created").says_not(job.token());
    bench.world.stop().await;
}
