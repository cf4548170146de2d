//! `drover run`, with a GitLab at the other end and instances on this machine.

use gitlab_mock::{Config, GitlabMock, JobBuilder, JobState};
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

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

#[tokio::test]
async fn a_second_sigterm_ends_the_process_at_once() {
    let gitlab = GitlabMock::start(Config::default()).await.unwrap();
    let runner = gitlab.add_runner(TOKEN);
    // The job does not hear the first signal for a while.
    let job = gitlab
        .enqueue(&runner, JobBuilder::new("deaf").script(["trap '' TERM INT HUP; echo begun; sleep 600"]));
    let home = Home::with(&config(gitlab.url()));

    let mut drover = home.run(&[]);
    job.log_contains("begun", PATIENCE).await.unwrap();
    gitlab.refuse_connections().await;
    drover.signal(Signal::SIGTERM);
    drover.says("Starting forceful shutdown").await;
    drover.signal(Signal::SIGINT);
    assert_eq!(drover.ends().await, 3, "{}", drover.said);
}

#[tokio::test]
async fn without_a_file_it_waits_for_one_and_takes_it_up() {
    let gitlab = GitlabMock::start(Config::default()).await.unwrap();
    let runner = gitlab.add_runner(TOKEN);
    let job = gitlab.enqueue(&runner, JobBuilder::new("hello").script(["echo hello"]));
    let home = Home::empty();

    let mut drover = home.run(&[]);
    drover.says("There is no configuration file; waiting for one").await;
    home.write("config.toml", &config(gitlab.url()));
    drover.signal(Signal::SIGHUP);
    let view = job.finished(PATIENCE).await.unwrap();
    drover.signal(Signal::SIGQUIT);

    assert_eq!(drover.ends().await, 0, "{}", drover.said);
    assert_eq!(view.state, JobState::Success);
}

#[tokio::test]
async fn a_bad_file_is_said_once_and_what_is_in_force_stays() {
    let gitlab = GitlabMock::start(Config::default()).await.unwrap();
    let runner = gitlab.add_runner(TOKEN);
    let home = Home::with(&config(gitlab.url()));

    let mut drover = home.run(&["--log-format", "json"]);
    drover.says("takes jobs").await;
    home.write("config.toml", "concurrent = 0\n");
    // Noticed by itself.
    drover.says("The configuration in force stays").await;
    let job = gitlab.enqueue(&runner, JobBuilder::new("hello").script(["echo hello"]));
    let view = job.finished(PATIENCE).await.unwrap();
    drover.signal(Signal::SIGQUIT);

    assert_eq!(drover.ends().await, 0, "{}", drover.said);
    assert_eq!(view.state, JobState::Success);
    assert_eq!(drover.said.matches("The configuration in force stays").count(), 1, "{}", drover.said);
    for line in drover.said.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(line["msg"].is_string() && line["level"].is_string() && line["time"].is_string());
    }
}

#[tokio::test]
async fn flags_of_existing_service_units_are_taken() {
    let home = Home::with("concurrent = 1\n");
    let folder = home.path().to_str().unwrap();
    let mut drover = home.run(&[
        "--working-directory",
        folder,
        "--service",
        "gitlab-runner",
        "--user",
        "gitlab-runner",
        "--syslog=false",
    ]);
    drover.says("No runner entry can take jobs; waiting for the file to change").await;
    drover.signal(Signal::SIGTERM);
    assert_eq!(drover.ends().await, 0, "{}", drover.said);
}

#[tokio::test]
async fn metrics_health_and_running_jobs_are_shown_where_the_file_says() {
    let gitlab = GitlabMock::start(Config::default()).await.unwrap();
    let runner = gitlab.add_runner(TOKEN);
    let job = gitlab.enqueue(&runner, JobBuilder::new("long").script(["echo begun", "sleep 600"]));
    let listen = "listen_address = \"127.0.0.1:0\"\n";
    let home = Home::with(&format!("{listen}{}", config(gitlab.url())));

    let mut drover = home.run(&["--log-format", "json"]);
    drover.says("Metrics server listening").await;
    let line: serde_json::Value = serde_json::from_str(drover.said.lines().last().unwrap()).unwrap();
    let address = line["address"].as_str().unwrap().to_owned();
    job.log_contains("begun", PATIENCE).await.unwrap();

    let list = get(&address, "/debug/jobs/list").await;
    assert!(list.contains(" state=running stage=step_script executor_stage=prepare duration="), "{list}");
    assert!(list.contains(&format!("/-/jobs/{} ", job.id())), "{list}");
    assert!(get(&address, "/health/ready").await.contains("ready"));
    let metrics = get(&address, "/metrics").await;
    for row in [
        r#",state="running",stage="step_script",executor_stage="prepare"} 1"#,
        r#"gitlab_runner_job_execution_mode_total{mode="traditional",executor="instance"} 1"#,
        "\ngitlab_runner_concurrent 2\n",
        "fleeting_taskscaler_tasks{",
        r#"endpoint="request_job",status="201",method="POST"} 1"#,
    ] {
        assert!(metrics.contains(row), "{row} is not in:\n{metrics}");
    }
    assert!(!metrics.contains(TOKEN), "the token is in the metrics");

    drover.signal(Signal::SIGTERM);
    assert_eq!(drover.ends().await, 0, "{}", drover.said);
}

#[tokio::test]
async fn an_address_that_is_taken_ends_the_start() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let home = Home::with("concurrent = 1\n");
    let mut drover = home.run(&["--listen-address", &address]);
    assert_eq!(drover.ends().await, 1, "{}", drover.said);
    assert!(drover.said.contains(&format!("failed to listen on `{address}` for metrics")), "{}", drover.said);
}

#[tokio::test]
async fn a_file_that_is_no_good_ends_the_start() {
    let home = Home::with("concurrent = 0\n");
    let mut drover = home.run(&[]);
    assert_eq!(drover.ends().await, 2);
    assert!(
        drover.said.contains("config.toml:1:14: error: `concurrent` must be at least 1"),
        "{}",
        drover.said
    );
}

/// Head and body of an answer.
async fn get(address: &str, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
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
