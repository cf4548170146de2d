//! Submodules: of a project that is private, by relative and absolute URLs, and their own.

use std::path::Path;

use drover_tests::World;
use gitlab_mock::{JobBuilder, Repository};

use crate::world::{git, world};

/// Adds submodules (folder, URL, commit) to a work tree and commits.
fn with_submodules(folder: &Path, submodules: &[(&str, &str, &str)]) {
    git(folder, &["init", "--quiet", "--initial-branch=main"]);
    let mut gitmodules = String::new();
    for (name, url, commit) in submodules {
        gitmodules.push_str(&format!("[submodule \"{name}\"]\n  path = {name}\n  url = {url}\n"));
        git(folder, &["update-index", "--add", "--cacheinfo", &format!("160000,{commit},{name}")]);
    }
    std::fs::write(folder.join(".gitmodules"), gitmodules).unwrap();
    git(folder, &["add", ".gitmodules"]);
    git(folder, &["commit", "--quiet", "--message", "with submodules"]);
}

/// A ferry with a library, which has a shelf, and with a chart.
async fn fleet(world: &World) -> Repository {
    let shelf = world.gitlab.create_repository("harbour/shelf").await.unwrap();
    let shelf = shelf.commit("main", [("plank", "of oak\n")], "first").await.unwrap();
    let chart = world.gitlab.create_repository("harbour/chart").await.unwrap();
    let chart = chart.commit("main", [("coast", "of Frisia\n")], "first").await.unwrap();
    let work = tempfile::tempdir().unwrap();
    with_submodules(work.path(), &[("shelf", "../shelf.git", &shelf)]);
    world.gitlab.import_repository("harbour/library", work.path()).await.unwrap();
    let library = git(work.path(), &["rev-parse", "HEAD"]);
    let work = tempfile::tempdir().unwrap();
    let absolute = format!("{}/harbour/chart.git", world.gitlab.url());
    with_submodules(work.path(), &[("library", "../library.git", &library), ("chart", &absolute, &chart)]);
    world.gitlab.import_repository("harbour/ferry", work.path()).await.unwrap()
}

const SCRIPT: [&str; 3] = [
    "cat chart/coast || echo no chart",
    "ls library/.gitmodules || echo no library",
    "cat library/shelf/plank || echo no shelf",
];

fn job(strategy: &str, repository: &Repository) -> JobBuilder {
    let job = JobBuilder::new(strategy).repository(repository).script(SCRIPT);
    job.variable("GIT_SUBMODULE_STRATEGY", strategy).variable("GIT_STRATEGY", "clone")
}

#[tokio::test]
async fn submodules_come_as_deep_as_the_strategy_says() {
    let world = world().await;
    let repository = fleet(&world).await;
    let none = world.run(job("none", &repository)).await.succeeded();
    none.says("Skipping Git submodules setup").has_line("no chart").has_line("no shelf");
    let normal = world.run(job("normal", &repository)).await.succeeded();
    normal.has_line("of Frisia").has_line("library/.gitmodules").has_line("no shelf");
    let recursive = world.run(job("recursive", &repository)).await.succeeded();
    recursive.has_line("of Frisia").has_line("of oak").says("Updating/initializing submodules recursively");
    world.stop().await;
}

#[tokio::test]
async fn a_word_that_is_no_strategy_fails_the_job() {
    let world = world().await;
    let repository = fleet(&world).await;
    let ended = world.run(job("deep", &repository)).await.failed("script_failure", Some(1));
    ended.says("unknown GIT_SUBMODULE_STRATEGY").lacks_line("no chart");
    world.stop().await;
}

#[tokio::test]
async fn paths_choose_among_submodules() {
    let world = world().await;
    let repository = fleet(&world).await;
    let one = job("normal", &repository).variable("GIT_SUBMODULE_PATHS", "chart");
    world.run(one).await.succeeded().has_line("of Frisia").has_line("no library");
    let but = job("normal", &repository).variable("GIT_SUBMODULE_PATHS", ":(exclude)chart");
    world.run(but).await.succeeded().has_line("no chart").has_line("library/.gitmodules");
    let lone = job("normal", &repository).variable("GIT_SUBMODULE_PATHS", ":(exclude) chart");
    world.run(lone).await.failed("script_failure", Some(1)).says("a lone :(exclude)");
    world.stop().await;
}

#[tokio::test]
async fn git_commands_of_the_script_authenticate_in_submodules_and_no_token_stays_there() {
    let world = world().await;
    let repository = fleet(&world).await;
    let script = [
        "git -C library ls-remote origin main",
        "git -C library/shelf fetch --quiet origin main && echo fetched",
        "if grep -rq \"$CI_JOB_TOKEN\" .; then echo found it; else echo not here; fi",
    ];
    let ended = world.run(job("recursive", &repository).script(script)).await.succeeded();
    ended.says("refs/heads/main").has_line("fetched").has_line("not here");
    world.stop().await;
}

#[tokio::test]
async fn submodules_of_an_earlier_job_are_cleaned_and_follow_the_commit() {
    let world = world().await;
    let repository = fleet(&world).await;
    let fetch = |name: &str| job("recursive", &repository).variable("GIT_STRATEGY", "fetch").stage(name);
    let litter = ["touch chart/litter", "echo changed >chart/coast", "touch .git/modules/chart/index.lock"];
    world.run(fetch("first").script(litter)).await.succeeded();
    let ended = world.run(fetch("second").script(["ls chart", "cat chart/coast"])).await.succeeded();
    ended.has_line("of Frisia").lacks_line("litter").says_not("Created fresh repository.");
    world.stop().await;
}
