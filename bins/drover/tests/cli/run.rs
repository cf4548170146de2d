//! `drover run`, with a GitLab at the other end and instances on this machine.

use gitlab_mock::{Config, GitlabMock, JobBuilder, JobState};
use nix::sys::signal::Signal;

use crate::support::{Home, PATIENCE};

const TOKEN: &str = "glrt-aBcDeFgHiJkLmNoPqRsT";

#[tokio::test]
async fn a_job_runs_and_sigquit_ends_the_process_in_peace() {
    let gitlab = GitlabMock::start(Config::default()).await.unwrap();
    let runner = gitlab.add_runner(TOKEN);
    let job = gitlab.enqueue(&runner, JobBuilder::new("hello").script(["echo hello"]));
    let home = Home::with(&config(gitlab.url()));

    let mut drover = home.run(&[]);
    let view = job.finished(PATIENCE).await.unwrap();
    drover.signal(Signal::SIGQUIT);
    let code = drover.ends().await;

    assert_eq!(code, 0, "{}", drover.said);
    assert_eq!(view.state, JobState::Success, "{}", job.log_text());
    assert!(job.log_text().contains("hello"), "{}", job.log_text());
    assert!(!drover.said.contains(TOKEN), "{}", drover.said);
    gitlab.assert_no_violations();
    let left: Vec<_> = std::fs::read_dir(home.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("drover-spool-"))
        .collect();
    assert_eq!(left, Vec::<String>::new(), "the spool goes with the process");
}

#[tokio::test]
async fn sigterm_interrupts_jobs_and_says_so_to_gitlab() {
    let gitlab = GitlabMock::start(Config::default()).await.unwrap();
    let runner = gitlab.add_runner(TOKEN);
    let job = gitlab.enqueue(&runner, JobBuilder::new("long").script(["echo begun", "sleep 600"]));
    let home = Home::with(&config(gitlab.url()));

    let mut drover = home.run(&[]);
    job.log_contains("begun", PATIENCE).await.unwrap();
    drover.signal(Signal::SIGTERM);
    let code = drover.ends().await;

    assert_eq!(code, 0, "{}", drover.said);
    let view = job.finished(PATIENCE).await.unwrap();
    assert_eq!((view.state, view.failure_reason.as_deref()), (JobState::Failed, Some("runner_interrupted")));
}

fn config(url: &str) -> String {
    format!(
        r#"
concurrent = 2
check_interval = 1

[[runners]]
  name = "local"
  url = "{url}"
  token = "{TOKEN}"
  executor = "instance"

  [runners.autoscaler]
    plugin = "local"
    capacity_per_instance = 1
    max_use_count = 10
    max_instances = 2

    [runners.autoscaler.plugin_config]
      name = "test"

    [[runners.autoscaler.policy]]
      idle_count = 1
      idle_time = "10m"
"#
    )
}
