//! Git of a job gets at what the job's token opens, however it is called, and no URL holds the token.

use std::path::Path;
use std::process::Command;

use drover_tests::{Entry, Setup, World};
use gitlab_mock::{JobBuilder, Repository};

/// One place for one job at a time, so that each job finds what the one before it has left.
async fn world() -> World {
    let entry =
        Entry::local("local").set("autoscaler.max_instances", 1).set("autoscaler.capacity_per_instance", 1);
    Setup::new().runner(entry).start().await
}

/// A ferry with a library as a submodule at this URL.
async fn ferry(world: &World, url: &str) -> Repository {
    let library = world.gitlab.create_repository("harbour/library").await.unwrap();
    library.commit("main", [("book", "of tides, first edition\n")], "first").await.unwrap();
    let commit = library.commit("main", [("book", "of tides\n")], "second").await.unwrap();
    let work = tempfile::tempdir().unwrap();
    let script = "git init --quiet --initial-branch=main && \
                  printf '[submodule \"library\"]\\n\\tpath = library\\n\\turl = %s\\n' \"$2\" >.gitmodules && \
                  git add . && git update-index --add --cacheinfo \"160000,$1,library\" && \
                  git -c user.name=H -c user.email=h@example.test commit --quiet --message first";
    run(work.path(), &["-ec", script, "sh", &commit, url]);
    world.gitlab.import_repository("harbour/ferry", work.path()).await.unwrap()
}

fn run(folder: &Path, arguments: &[&str]) {
    let done = Command::new("sh").args(arguments).current_dir(folder).status().expect("tests need sh");
    assert!(done.success(), "tests need git");
}

fn job(name: &str, repository: &Repository) -> JobBuilder {
    let job = JobBuilder::new(name).repository(repository).variable("GIT_STRATEGY", "clone");
    job.variable("GIT_SUBMODULE_STRATEGY", "recursive")
}

#[tokio::test]
async fn commands_of_a_script_authenticate_with_and_without_the_job_s_environment() {
    let world = world().await;
    let repository = ferry(&world, "../library.git").await;
    for flag in ["false", "true"] {
        let script = [
            "git fetch --quiet origin main && echo fetched",
            "git -C library fetch --quiet origin main && echo fetched a submodule",
            // As when something is run with `sudo`: nothing of the environment is left.
            "env -i PATH=\"$PATH\" git fetch --quiet origin main 2>/dev/null && echo fetched bare || echo refused bare",
            "git config --list | grep -c \"$CI_JOB_TOKEN@\" || :",
        ];
        let job = job(flag, &repository).variable("FF_GIT_URLS_WITHOUT_TOKENS", flag).script(script);
        let ended = world.run(job).await.succeeded();
        let bare = if flag == "true" { "refused bare" } else { "fetched bare" };
        ended.has_line("fetched").has_line("fetched a submodule").has_line(bare).has_line("0");
    }
    world.stop().await;
}

#[tokio::test]
async fn a_token_that_the_job_has_made_something_else_is_not_what_git_uses() {
    let world = world().await;
    let repository = ferry(&world, "../library.git").await;
    let script = ["export CI_JOB_TOKEN=glpat-of-somebody", "git fetch --quiet origin main && echo fetched"];
    world.run(job("other", &repository).script(script)).await.succeeded().has_line("fetched");
    world.stop().await;
}

#[tokio::test]
async fn submodules_by_ssh_come_by_http_where_the_job_says_so() {
    let world = world().await;
    let repository = ferry(&world, "git@gitlab.example.test:harbour/library.git").await;
    let by_http = job("http", &repository)
        .variable("GIT_SUBMODULE_FORCE_HTTPS", "true")
        .variable("CI_SERVER_SHELL_SSH_HOST", "gitlab.example.test")
        .script(["cat library/book"]);
    world.run(by_http).await.succeeded().has_line("of tides");
    let by_ssh = job("ssh", &repository).script(["echo script"]);
    let by_ssh = by_ssh.variable("GIT_SSH_COMMAND", "false");
    let ended = world.run(by_ssh).await.failed("script_failure", Some(1)).lacks_line("script");
    ended.says("Updating submodules failed. Retrying...");
    world.stop().await;
}

#[tokio::test]
async fn submodules_are_as_deep_as_the_job_says_and_take_its_flags() {
    let world = world().await;
    let repository = ferry(&world, "../library.git").await;
    let count = ["echo \"commits: $(git -C library rev-list --count HEAD)\""];
    let shallow = job("shallow", &repository).variable("GIT_SUBMODULE_DEPTH", "1").script(count);
    world.run(shallow).await.succeeded().has_line("commits: 1").says("with git depth set to 1");
    let deep = job("deep", &repository).variable("GIT_SUBMODULE_DEPTH", "0").script(count);
    world.run(deep).await.succeeded().has_line("commits: 2");
    let flags = job("flags", &repository).variable("GIT_SUBMODULE_UPDATE_FLAGS", "--no-such-flag");
    world.run(flags.script(["echo script"])).await.failed("script_failure", Some(1)).lacks_line("script");
    world.stop().await;
}

#[tokio::test]
async fn branches_with_odd_names_and_a_native_clone_are_checked_out() {
    let world = world().await;
    let repository = world.gitlab.create_repository("harbour/ferry").await.unwrap();
    repository.commit("main", [("file", "of main\n")], "first").await.unwrap();
    for branch in ["feature/two--dashes", "it's-$HOME", "ünïcode"] {
        repository.commit(branch, [("file", format!("of {branch}\n"))], "second").await.unwrap();
        for native in ["false", "true"] {
            let job = JobBuilder::new(native).repository(&repository).reference(branch);
            let job = job.variable("FF_USE_GIT_NATIVE_CLONE", native).variable("GIT_STRATEGY", "clone");
            let ended = world.run(job.script(["cat file"])).await.succeeded();
            ended.has_line(&format!("of {branch}")).says(&format!("(ref is {branch})"));
        }
    }
    world.stop().await;
}
