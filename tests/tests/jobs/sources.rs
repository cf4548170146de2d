//! Checkouts, from real repositories over smart HTTP, by real git.

use std::path::Path;

use drover_tests::{Entry, Setup, Sshd, World, git, one_place, repository};
use gitlab_mock::{Endpoint, Fault, GitSource, JobBuilder, JobVariable};
use serde_json::json;

/// One place for one job at a time, so that each job finds what the one before it has left.
async fn world() -> World {
    one_place(|entry| entry).await
}

#[tokio::test]
async fn fetch_goes_on_with_the_last_checkout_and_clone_starts_anew() {
    let world = world().await;
    let repository = repository(&world, 2).await;
    let job = |strategy: &str| {
        let script = ["cat number", "ls -A", "touch litter"];
        let job = JobBuilder::new(strategy).repository(&repository).script(script);
        world.run(job.variable("GIT_STRATEGY", strategy))
    };

    job("fetch").await.succeeded().says("Created fresh repository.").has_line("2").lacks_line("litter");
    let again = job("fetch").await.succeeded();
    again.says_not("Created fresh repository.").says("Removing litter").has_line("2").lacks_line("litter");
    repository.commit("main", [("number", "3\n")], "number 3").await.unwrap();
    job("fetch").await.succeeded().says_not("Created fresh repository.").has_line("3");
    job("clone")
        .await
        .succeeded()
        .says("Created fresh repository.")
        .says_not("Removing litter")
        .has_line("3");
    job("none").await.succeeded().says("Skipping Git repository setup").has_line("3").has_line("litter");
    let empty = JobBuilder::new("empty").repository(&repository).variable("GIT_STRATEGY", "empty");
    world
        .run(empty.script(["echo \"has $(ls -A | wc -l) files\""]))
        .await
        .succeeded()
        .has_line("has 0 files");
    world.stop().await;
}

#[tokio::test]
async fn depth_tag_and_merge_request_are_checked_out_as_asked_for() {
    let world = world().await;
    let repository = repository(&world, 25).await;
    repository.tag("v1", &git(repository.path(), &["rev-parse", "main~3"])).await.unwrap();
    let count = ["echo \"commits: $(git rev-list --count HEAD)\"", "echo \"number $(cat number)\""];
    let job = |name: &str| JobBuilder::new(name).repository(&repository).script(count);

    world.run(job("default depth")).await.succeeded().has_line("commits: 20").has_line("number 25");
    world.run(job("depth 3").depth(3)).await.succeeded().says("git depth set to 3").has_line("commits: 3");
    world.run(job("everything").depth(0)).await.succeeded().has_line("commits: 25");
    let tag = job("tag").reference("v1").variable("GIT_STRATEGY", "clone");
    let tag =
        world.run(tag.script([count[1], "echo \"tag $CI_COMMIT_TAG\"", "git describe --exact-match --tags"]));
    tag.await.succeeded().has_line("number 22").has_line("tag v1").has_line("v1");

    // The head of a merge request is on no branch.
    let work = tempfile::tempdir().unwrap();
    git(work.path(), &["clone", "--quiet", &repository.path().display().to_string(), "."]);
    std::fs::write(work.path().join("number"), "26\n").unwrap();
    git(work.path(), &["commit", "--quiet", "--all", "--message", "number 26"]);
    let head = "refs/merge-requests/7/head";
    git(work.path(), &["push", "--quiet", "origin", &format!("HEAD:{head}")]);
    let request = job("merge request")
        .with_member("/git_info/ref", json!(head))
        .with_member("/git_info/sha", json!(git(work.path(), &["rev-parse", "HEAD"])))
        .with_member("/git_info/refspecs", json!([format!("+{head}:{head}")]));
    world.run(request).await.succeeded().has_line("number 26").says(&format!("(ref is {head})"));
    world.stop().await;
}

#[tokio::test]
async fn submodules_with_relative_urls_are_fetched_with_the_token_of_the_job() {
    let world = world().await;
    let library = world.gitlab.create_repository("harbour/library").await.unwrap();
    let commit = library.commit("main", [("book", "of tides\n")], "first").await.unwrap();
    let work = tempfile::tempdir().unwrap();
    let gitmodules = "[submodule \"library\"]\n  path = library\n  url = ../library.git\n";
    git(work.path(), &["init", "--quiet", "--initial-branch=main"]);
    std::fs::write(work.path().join(".gitmodules"), gitmodules).unwrap();
    git(work.path(), &["add", ".gitmodules"]);
    git(work.path(), &["update-index", "--add", "--cacheinfo", &format!("160000,{commit},library")]);
    git(work.path(), &["commit", "--quiet", "--message", "with a library"]);
    let repository = world.gitlab.import_repository("harbour/ferry", work.path()).await.unwrap();

    let job = |strategy: &str| {
        let job =
            JobBuilder::new(strategy).repository(&repository).script(["cat library/book || echo no book"]);
        world.run(job.variable("GIT_SUBMODULE_STRATEGY", strategy))
    };
    job("none").await.succeeded().says("Skipping Git submodules setup").has_line("no book");
    job("normal").await.succeeded().has_line("of tides");
    job("recursive").await.succeeded().has_line("of tides");
    world.stop().await;
}

#[tokio::test]
async fn a_checkout_that_cannot_succeed_fails_the_job_and_says_why() {
    let world = world().await;
    let repository = repository(&world, 1).await;
    let job = |name: &str, url: String| {
        let job = JobBuilder::new(name)
            .repository(&repository)
            .script(["echo script"])
            .after_script(["echo after"]);
        world.run(job.with_member("/git_info/repo_url", json!(url)).variable("GIT_STRATEGY", "clone"))
    };
    let address = world.gitlab.address();

    // Git gets the token of the job for the host of the repository, and another GitLab does not know it.
    let other = gitlab_mock::GitlabMock::start(gitlab_mock::Config::default()).await.unwrap();
    let wrong = job("wrong password", format!("{}/harbour/ferry.git", other.url()));
    let wrong = wrong.await.failed("script_failure", Some(128)).lacks_line("script");
    wrong.says("Authentication failed").says_not("Running after_script");
    let missing = JobBuilder::new("missing").repository(&repository).script(["echo script"]);
    let missing =
        missing.with_member("/git_info/repo_url", json!(format!("http://{address}/harbour/absent.git")));
    let missing = world.run(missing.variable("GIT_STRATEGY", "clone")).await;
    missing.failed("script_failure", Some(128)).lacks_line("script").says("not found");
    let sha = "0123456789012345678901234567890123456789";
    let absent = JobBuilder::new("no such commit").repository(&repository).script(["echo script"]);
    let absent = world.run(absent.with_member("/git_info/sha", json!(sha))).await;
    absent.failed("script_failure", Some(128)).lacks_line("script").says(sha);
    world.stop().await;
}

#[tokio::test]
async fn a_checkout_is_tried_again_as_often_as_the_job_says() {
    let world = world().await;
    let repository = repository(&world, 1).await;
    let job = JobBuilder::new("flaky").repository(&repository).script(["cat number"]);
    world.gitlab.inject(Fault::status(502).on([Endpoint::Git]).times(1));
    let ended = world.run(job.variable("GET_SOURCES_ATTEMPTS", "2")).await.succeeded();
    assert_eq!(ended.count("WARNING: Retrying..."), 1);
    ended.says("502").has_line("1");
    world.stop().await;
}

#[tokio::test]
async fn file_variables_are_files_as_long_as_the_job_runs() {
    let world = world().await;
    let job = JobBuilder::new("file").file_variable("LETTER", "two\nlines\n").push_variable(JobVariable {
        file: true,
        masked: true,
        ..JobVariable::new("KEY", "ahoy-ahoy-ahoy")
    });
    let job = job.script(["cat \"$LETTER\"", "echo \"key <$(cat \"$KEY\")>\"", "echo \"at $LETTER\""]);
    let ended = world.run(job.after_script(["echo \"after $(head -1 \"$LETTER\")\""])).await.succeeded();
    assert!(ended.log.contains("two\nlines\n"), "{}", ended.log);
    let path = ended.log.lines().find_map(|line| line.strip_prefix("at ")).unwrap().to_owned();
    ended.has_line("key <[MASKED]>").has_line("after two");
    assert!(Path::new(&path).starts_with(world.instances()), "{path}");
    assert!(!Path::new(&path).exists(), "`{path}` is left");
    world.stop().await;
}

#[tokio::test]
async fn the_token_is_in_no_log_and_in_no_file_of_the_project() {
    let world = world().await;
    let repository = repository(&world, 1).await;
    let script = [
        "echo \"$CI_JOB_TOKEN\"",
        "echo \"$CI_REPOSITORY_URL\"",
        "git config --list --show-origin",
        "git remote --verbose",
        "if grep -rq \"$CI_JOB_TOKEN\" .; then echo found it; else echo not here; fi",
        // What the script does with git works as well.
        "git ls-remote origin main",
    ];
    let ended = world.run(JobBuilder::new("token").repository(&repository).script(script)).await;
    ended.succeeded().has_line("[MASKED]").has_line("not here").says("refs/heads/main");
    world.stop().await;
}

#[tokio::test]
async fn a_tree_of_fifty_thousand_files_is_checked_out() {
    // A machine that stays: an instance would be removed with all of its files when the manager ends.
    let machine = Sshd::start();
    let world = Setup::new().runner(Entry::machines("ssh", [&machine])).start().await;
    let repository = world.gitlab.create_repository("harbour/fleet").await.unwrap();
    let files = (0..50_000).map(|n| (format!("ships/{:02}/{n}.txt", n % 50), format!("berth {}\n", n % 50)));
    repository.commit("main", files, "all ships").await.unwrap();
    let job = JobBuilder {
        git: Some(GitSource { project: "harbour/fleet".to_owned(), reference: None, depth: 1 }),
        ..JobBuilder::new("large")
    };
    let ended = world.run(job.script(["find ships -type f | wc -l", "cat ships/49/49999.txt"])).await;
    ended.succeeded().has_line("50000").has_line("berth 49");
    world.stop().await;
}
