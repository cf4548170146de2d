//! What the tests of this program share.

use std::path::Path;
use std::process::Command;

use drover_tests::{Entry, Finished, Setup, World};
use gitlab_mock::Repository;

/// One place for one job at a time, so that each job finds what the one before it has left.
pub(crate) async fn world() -> World {
    with(|entry| entry).await
}

/// The same with a changed entry.
pub(crate) async fn with(change: impl Fn(Entry) -> Entry) -> World {
    let entry =
        Entry::local("local").set("autoscaler.max_instances", 1).set("autoscaler.capacity_per_instance", 1);
    Setup::new().runner(change(entry)).start().await
}

/// Runs git on a repository of GitLab, or in a work tree; gives what it says.
pub(crate) fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(folder)
        .args(["-c", "user.name=Harbour Master", "-c", "user.email=harbour-master@example.test"])
        .args(arguments)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .expect("tests need git");
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A repository with so many commits on `main`.
pub(crate) async fn repository(world: &World, commits: usize) -> Repository {
    let repository = world.gitlab.create_repository("harbour/ferry").await.unwrap();
    for number in 1..=commits {
        let content = format!("{number}\n");
        repository.commit("main", [("number", content)], &format!("number {number}")).await.unwrap();
    }
    repository
}

/// Fails unless these lines are in the log in this order.
#[track_caller]
pub(crate) fn in_order(job: &Finished, lines: &[&str]) {
    let mut rest = job.log.lines();
    for line in lines {
        assert!(rest.any(|found| found == *line), "`{line}` is not where it should be in:\n{}", job.log);
    }
}
