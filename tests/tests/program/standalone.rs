//! Both programs, each as a process of its own.

use std::time::Duration;

use drover_tests::{Drover, Entry, Program, Setup};
use nix::sys::signal::Signal;

#[tokio::test]
async fn a_standalone_gitlab_is_content_with_a_standalone_manager() {
    let folder = tempfile::tempdir().unwrap();
    let token = "glrt-fleet-0123456789abcdef";
    let arguments =
        ["serve", "--listen", "127.0.0.1:0", "--runner-token", token, "--jobs", "30", "--exit-when-done"];
    let mut gitlab = Program::start("gitlab-mock", &arguments, folder.path());
    gitlab.says(&["listening on"]).await;
    let said = gitlab.said();
    let url = said.lines().find_map(|line| line.split(" as ").nth(1)).unwrap().trim().to_owned();

    let entry = Entry::local("fleet").set("request_concurrency", 4);
    let mut drover = Drover::start(&Setup::new().runner(entry), &url);
    assert_eq!(gitlab.ends().await, Some(0), "{}", gitlab.said());
    // GitLab is gone for good now, which must not keep the manager from ending.
    drover.program.signal(Signal::SIGQUIT);
    let ended = tokio::time::timeout(Duration::from_secs(30), drover.program.ends()).await;
    assert_eq!(ended, Ok(Some(0)), "{}", drover.program.said());
    assert!(!drover.program.said().contains(token), "the token is in the log");
}
