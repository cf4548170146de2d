//! Managers that are killed while machines run.

use drover_tests::{Drover, NESTED_USER, PATIENCE, Setup, eventually};
use gitlab_mock::{Config, GitlabMock, JobBuilder, JobState};
use nix::sys::signal::Signal;

use crate::world::{Hosts, job};

#[tokio::test]
async fn machines_of_a_manager_that_was_killed_are_removed_by_its_next_life() {
    let hosts = Hosts::start(1);
    let daemon = hosts.hosts[0].daemon();
    let gitlab = GitlabMock::start(Config::default()).await.unwrap();
    let runner = gitlab.add_runner("glrt-mac-0123456789abcdef");
    let setup = Setup::new().runner(hosts.entry());
    let mut drover = Drover::start(&setup, gitlab.url());
    drover.program.says(&["runner entry takes jobs"]).await;
    let endless = JobBuilder::new("endless").image("macos").script(["echo begun", "sleep 1000"]);
    let orphan = gitlab.enqueue(&runner, endless);
    orphan.log_contains("begun\n", PATIENCE).await.unwrap();
    assert_eq!(daemon.machines().len(), 1);

    drover.kill().await;
    assert_eq!(daemon.machines().len(), 1, "nobody removes it yet");
    drover.again(&setup, gitlab.url());
    drover.program.says(&["runner entry takes jobs"]).await;
    let next = gitlab.enqueue(&runner, job("macos"));
    assert_eq!(next.finished(PATIENCE).await.unwrap().state, JobState::Success, "{}", next.log_text());
    assert!(
        next.log_text().contains(NESTED_USER) && !next.log_text().contains("Stomped"),
        "{}",
        next.log_text()
    );
    eventually("no machine is left", || daemon.machines().is_empty()).await;
    drover.program.signal(Signal::SIGQUIT);
    assert_eq!(drover.program.ends().await, Some(0));
    gitlab.assert_no_violations();
}
