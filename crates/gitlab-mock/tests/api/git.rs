//! Real git against the repositories of the mock.

use std::path::Path;
use std::process::Output;

use drover_gitlab_mock::{Job, JobBuilder, Repository, Rule};
use tokio::process::Command;

use crate::support::*;

async fn git(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new("git");
    command
        .current_dir(directory)
        .args(arguments)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("NO_PROXY", "*");
    tokio::time::timeout(PATIENCE, command.output()).await.expect("git hangs").expect("git is installed")
}

fn url(bench: &Bench, job: &Job, project: &str) -> String {
    format!("http://gitlab-ci-token:{}@{}/{project}.git", job.token(), bench.mock.address())
}

async fn with_repository() -> (Bench, Repository, tempfile::TempDir) {
    let bench = Bench::new().await;
    let repository = bench.mock.create_repository("harbour/ferry").await.unwrap();
    let big: String = (0..200_000).map(|n| format!("{n}\n")).collect();
    let files = [("README.md", "hello\n"), ("ci/run.sh", "echo run\n"), ("data.txt", &big)];
    repository.commit("main", files, "first").await.unwrap();
    repository.commit("main", [("README.md", "hello again\n")], "second").await.unwrap();
    (bench, repository, tempfile::tempdir().unwrap())
}

#[tokio::test]
async fn running_job_clones() {
    let (bench, repository, directory) = with_repository().await;
    let job = bench.take(JobBuilder::new("a").repository(&repository)).await;
    let output = git(directory.path(), &["clone", "-q", &url(&bench, &job, "harbour/ferry"), "work"]).await;
    assert!(output.status.success(), "{output:?}");
    let work = directory.path().join("work");
    assert_eq!(std::fs::read_to_string(work.join("README.md")).unwrap(), "hello again\n");
    assert!(std::fs::metadata(work.join("data.txt")).unwrap().len() > 1_000_000);
    let head = git(&work, &["rev-parse", "HEAD"]).await;
    assert_eq!(String::from_utf8(head.stdout).unwrap().trim(), repository.resolve("main").unwrap());
    assert!(job.view().calls.git_requests >= 2);
    bench.mock.assert_no_violations();
}

#[tokio::test]
async fn refspecs_of_the_payload_can_be_fetched() {
    let (bench, repository, directory) = with_repository().await;
    bench.mock.enqueue(&bench.runner, JobBuilder::new("a").repository(&repository).depth(1));
    let payload: serde_json::Value = bench.request().await.json().await.unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let mut arguments: Vec<String> = ["fetch", "-q", "--depth", "1"].map(str::to_owned).to_vec();
    arguments.push(text(&payload["git_info"]["repo_url"]));
    arguments.extend(payload["git_info"]["refspecs"].as_array().unwrap().iter().map(text));
    git(directory.path(), &["init", "-q", "."]).await;
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = git(directory.path(), &arguments).await;
    assert!(output.status.success(), "{output:?}");
    let log = git(directory.path(), &["log", "--format=%H", "refs/remotes/origin/main"]).await;
    assert_eq!(String::from_utf8(log.stdout).unwrap().trim(), text(&payload["git_info"]["sha"]));
}

#[tokio::test]
async fn wrong_token_is_denied() {
    let (bench, ..) = with_repository().await;
    let directory = tempfile::tempdir().unwrap();
    let url = format!("http://gitlab-ci-token:glcbt-64_wrong@{}/harbour/ferry.git", bench.mock.address());
    let output = git(directory.path(), &["ls-remote", &url]).await;
    assert!(!output.status.success());
    bench.expect_violations(&[Rule::WrongToken]);
    let url = format!("http://{}/harbour/ferry.git", bench.mock.address());
    assert!(!git(directory.path(), &["ls-remote", &url]).await.status.success());
    bench.mock.assert_no_violations();
}

#[tokio::test]
async fn token_ends_with_the_job() {
    let (bench, repository, directory) = with_repository().await;
    let job = bench.mock.enqueue(&bench.runner, JobBuilder::new("a").repository(&repository));
    let url = url(&bench, &job, "harbour/ferry");
    assert!(!git(directory.path(), &["ls-remote", &url]).await.status.success(), "the job is only queued");
    bench.request().await;
    assert!(git(directory.path(), &["ls-remote", &url]).await.status.success());
    assert_eq!(bench.finish(&job, "success", b"").await.status(), 200);
    assert!(!git(directory.path(), &["ls-remote", &url]).await.status.success(), "the job has ended");
}

#[tokio::test]
async fn job_cannot_push_and_sees_no_other_paths() {
    let (bench, repository, directory) = with_repository().await;
    let job = bench.take(JobBuilder::new("a").repository(&repository)).await;
    let remote = url(&bench, &job, "harbour/ferry");
    git(directory.path(), &["clone", "-q", &remote, "work"]).await;
    let push = git(&directory.path().join("work"), &["push", &remote, "HEAD:refs/heads/new"]).await;
    assert!(!push.status.success());
    assert!(repository.resolve("new").is_err());
    for path in
        ["harbour/ferry.git/config", "harbour/ferry.git/objects/info/packs", "harbour/boat.git/info/refs"]
    {
        let reply = bench
            .http
            .get(format!("http://{}/{path}?service=git-upload-pack", bench.mock.address()))
            .basic_auth("gitlab-ci-token", Some(job.token()))
            .send()
            .await
            .unwrap();
        assert!(matches!(reply.status().as_u16(), 403 | 404), "{path}: {}", reply.status());
    }
}

#[tokio::test]
async fn existing_repository_is_imported() {
    let (bench, ..) = with_repository().await;
    let source = tempfile::tempdir().unwrap();
    git(source.path(), &["init", "-q", "-b", "trunk", "."]).await;
    std::fs::write(source.path().join("file"), "content").unwrap();
    git(source.path(), &["add", "."]).await;
    let author = ["-c", "user.name=a", "-c", "user.email=a@example.test"];
    assert!(git(source.path(), &[&author[..], &["commit", "-qm", "x"]].concat()).await.status.success());
    let repository = bench.mock.import_repository("harbour/boat", source.path()).await.unwrap();
    let job = bench.take(JobBuilder::new("a").repository(&repository)).await;
    let directory = tempfile::tempdir().unwrap();
    let output = git(directory.path(), &["clone", "-q", &url(&bench, &job, "harbour/boat"), "work"]).await;
    assert!(output.status.success(), "{output:?}");
    assert!(directory.path().join("work/file").exists());
}
