//! What the project folder holds, by the variables of the job.

use std::process::Command;

use gitlab_mock::{JobBuilder, Repository};
use serde_json::json;

use crate::world::{git, repository, world};

fn job(name: &str, repository: &Repository) -> JobBuilder {
    JobBuilder::new(name).repository(repository).variable("GIT_STRATEGY", "fetch")
}

#[tokio::test]
async fn without_a_checkout_the_commit_is_fetched_and_the_files_stay() {
    let world = world().await;
    let repository = repository(&world, 1).await;
    world.run(job("first", &repository).script(["cat number"])).await.succeeded().has_line("1");
    repository.commit("main", [("number", "2\n")], "number 2").await.unwrap();
    let skipped = job("skipped", &repository).variable("GIT_CHECKOUT", "false");
    let ended =
        world.run(skipped.script(["cat number", "git show \"$CI_COMMIT_SHA:number\""])).await.succeeded();
    ended.says("Skipping Git checkout").has_line("1").has_line("2");
    world.stop().await;
}

#[tokio::test]
async fn clean_flags_say_what_stays_between_jobs() {
    let world = world().await;
    let repository = repository(&world, 1).await;
    let left = ["mkdir -p keep drop", "touch keep/it drop/it", "ls -A"];
    world.run(job("leaves", &repository).script(left)).await.succeeded();
    let keeps = job("keeps", &repository).variable("GIT_CLEAN_FLAGS", "-ffdx -e keep/");
    let ended = world.run(keeps.script(["ls -A"])).await.succeeded();
    ended.has_line("keep").lacks_line("drop");
    let none = job("keeps all", &repository).variable("GIT_CLEAN_FLAGS", "none");
    world.run(none.script(["ls -A"])).await.succeeded().has_line("keep").says_not("Removing");
    let default = job("default", &repository).script(["ls -A"]);
    world.run(default).await.succeeded().lacks_line("keep").says("Removing keep/");
    world.stop().await;
}

#[tokio::test]
async fn fetch_flags_replace_the_quiet_default() {
    let world = world().await;
    let repository = repository(&world, 1).await;
    let quiet = job("quiet", &repository).variable("GIT_STRATEGY", "clone").script(["true"]);
    world.run(quiet).await.succeeded().says_not("[new ");
    let loud = job("loud", &repository).variable("GIT_STRATEGY", "clone");
    let loud = loud.variable("GIT_FETCH_EXTRA_FLAGS", "none").script(["true"]);
    world.run(loud).await.succeeded().says("[new ");
    let wrong = job("wrong", &repository).variable("GIT_FETCH_EXTRA_FLAGS", "--no-such-flag");
    world.run(wrong.script(["echo script"])).await.failed("script_failure", Some(129)).lacks_line("script");
    world.stop().await;
}

#[tokio::test]
async fn a_shallow_repository_is_deepened_when_a_job_wants_everything() {
    let world = world().await;
    let repository = repository(&world, 5).await;
    let count = ["echo \"commits: $(git rev-list --count HEAD)\""];
    world.run(job("one", &repository).depth(1).script(count)).await.succeeded().has_line("commits: 1");
    let ended = world.run(job("all", &repository).depth(0).script(count)).await.succeeded();
    ended.has_line("commits: 5").has_line("Fetching changes...");
    world.run(job("again", &repository).depth(0).script(count)).await.succeeded().has_line("commits: 5");
    world.stop().await;
}

#[tokio::test]
async fn what_a_job_leaves_in_git_s_folder_does_not_reach_the_next() {
    let world = world().await;
    let repository = repository(&world, 1).await;
    let hostile = [
        "touch .git/index.lock .git/shallow.lock .git/HEAD.lock .git/config.lock",
        "touch .git/refs/heads/main.lock",
        "printf '#!/bin/sh\\necho hooked\\n' >.git/hooks/post-checkout; chmod +x .git/hooks/post-checkout",
        "printf '[core]\\n\\tsshCommand = evil\\n[filter \"x\"]\\n\\tsmudge = echo filtered\\n' >.git/config",
    ];
    // The folder has no hooks where git has no template for them.
    let hostile = ["mkdir -p .git/hooks"].into_iter().chain(hostile);
    world.run(job("hostile", &repository).script(hostile)).await.succeeded();
    let ended =
        world.run(job("next", &repository).script(["cat number", "git config --list"])).await.succeeded();
    ended.has_line("1").says_not("hooked").says_not("evil").says_not("Created fresh repository.");
    world.stop().await;
}

#[tokio::test]
async fn a_repository_with_sha_256_is_checked_out() {
    let world = world().await;
    let work = tempfile::tempdir().unwrap();
    git(work.path(), &["init", "--quiet", "--initial-branch=main", "--object-format=sha256"]);
    std::fs::write(work.path().join("number"), "256\n").unwrap();
    git(work.path(), &["add", "number"]);
    git(work.path(), &["commit", "--quiet", "--message", "first"]);
    let repository = world.gitlab.import_repository("harbour/ferry", work.path()).await.unwrap();
    let script = ["cat number", "git rev-parse --show-object-format"];
    let job = job("sha256", &repository).with_member("/git_info/repo_object_format", json!("sha256"));
    world.run(job.script(script)).await.succeeded().has_line("256").has_line("sha256");
    world.stop().await;
}

#[tokio::test]
async fn files_of_lfs_are_pulled_unless_the_job_wants_pointers() {
    let version = Command::new("git").args(["lfs", "version"]).output().expect("tests need git");
    assert!(version.status.success(), "tests need git-lfs");
    let world = world().await;
    let work = tempfile::tempdir().unwrap();
    let store = work.path().join("store");
    let tree = work.path().join("tree");
    for folder in [&store, &tree] {
        std::fs::create_dir(folder).unwrap();
    }
    git(&store, &["init", "--quiet", "--bare"]);
    git(&tree, &["init", "--quiet", "--initial-branch=main"]);
    let url = format!("file://{}", store.display());
    std::fs::write(tree.join(".lfsconfig"), format!("[lfs]\n\turl = {url}\n")).unwrap();
    std::fs::write(tree.join(".gitattributes"), "*.bin filter=lfs diff=lfs merge=lfs -text\n").unwrap();
    std::fs::write(tree.join("large.bin"), "a large thing\n").unwrap();
    let clean = ["-c", "filter.lfs.clean=git-lfs clean -- %f", "-c", "filter.lfs.required=true", "add", "."];
    git(&tree, &clean);
    git(&tree, &["commit", "--quiet", "--message", "with a large thing"]);
    git(&tree, &["remote", "add", "origin", &url]);
    git(&tree, &["lfs", "push", "--all", "origin"]);
    let repository = world.gitlab.import_repository("harbour/ferry", &tree).await.unwrap();

    let pulled = world.run(job("pulled", &repository).script(["cat large.bin"])).await.succeeded();
    pulled.has_line("a large thing");
    let pointers = job("pointers", &repository).variable("GIT_LFS_SKIP_SMUDGE", "true");
    let pointers = pointers.variable("GIT_STRATEGY", "clone").script(["cat large.bin"]);
    let ended = world.run(pointers).await.succeeded().lacks_line("a large thing");
    ended.has_line("version https://git-lfs.github.com/spec/v1");
    world.stop().await;
}
