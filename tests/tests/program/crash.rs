//! The manager is killed without warning.

use drover_tests::{Drover, Entry, PATIENCE, Setup, eventually, processes_in, processes_with};
use gitlab_mock::{Config, GitlabMock, JobBuilder};

#[tokio::test]
async fn nothing_of_a_killed_manager_is_left_on_the_machine() {
    let setup = Setup::new().runner(Entry::local("fleet"));
    let gitlab = GitlabMock::start(Config::default()).await.unwrap();
    let runner = gitlab.add_runner("glrt-fleet-0123456789abcdef");
    let lasting = format!("sleep 3{}.99", std::process::id());
    let script = ["trap '' TERM HUP", &format!("setsid {lasting} &"), "echo begun", &lasting];
    let jobs = gitlab.enqueue_many(&runner, JobBuilder::new("long").script(script), 3).unwrap();
    let mut drover = Drover::start(&setup, gitlab.url());
    for job in &jobs {
        job.log_contains("begun", PATIENCE).await.unwrap();
    }
    assert_eq!(processes_with(&lasting).len(), 6);

    drover.kill().await;

    eventually("the scripts are gone", || processes_with(&lasting).is_empty()).await;
    eventually("the instances are gone", || processes_in(drover.folder()).is_empty()).await;
    let left = || std::fs::read_dir(drover.instances()).into_iter().flatten().flatten().count();
    eventually("their folders are gone", || left() == 0).await;
}
