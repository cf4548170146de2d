//! Projects with a history, and one place where their jobs run one after the other.

use std::path::Path;
use std::process::Command;

use gitlab_mock::Repository;

use crate::entry::{Entry, Setup};
use crate::world::World;

/// One place for one job at a time, so that each job finds what the one before it has left; the entry may be changed.
pub async fn one_place(change: impl Fn(Entry) -> Entry) -> World {
    let entry =
        Entry::local("local").set("autoscaler.max_instances", 1).set("autoscaler.capacity_per_instance", 1);
    Setup::new().runner(change(entry)).start().await
}

/// Runs git on a repository of GitLab, or in a work tree; gives what it says.
///
/// # Panics
/// When git is not there, or fails.
pub fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(folder)
        .args(["-c", "user.name=Harbour Master", "-c", "user.email=harbour-master@example.test"])
        .args(arguments)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .expect("tests need git");
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("git says text").trim().to_owned()
}

/// A repository with so many commits on `main`.
///
/// # Panics
/// When GitLab cannot make it.
pub async fn repository(world: &World, commits: usize) -> Repository {
    let repository = world.gitlab.create_repository("harbour/ferry").await.expect("a new repository");
    for number in 1..=commits {
        let content = format!("{number}\n");
        repository
            .commit("main", [("number", content)], &format!("number {number}"))
            .await
            .expect("a commit");
    }
    repository
}
