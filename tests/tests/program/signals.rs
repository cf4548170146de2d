//! Signals, and changes of the file.

use std::time::Duration;

use drover_tests::{Drover, Entry, PATIENCE, Setup, Sshd, eventually, processes_in, processes_with};
use gitlab_mock::{Config, GitlabMock, Job, JobBuilder, JobState};
use nix::sys::signal::Signal;

const TOKENS: [&str; 2] = ["glrt-first-0123456789abcdef", "glrt-second-0123456789abcdef"];

fn running(jobs: &[Job]) -> usize {
    jobs.iter().filter(|job| job.state() == JobState::Running).count()
}

#[tokio::test]
async fn sighup_puts_a_good_file_in_force_and_a_broken_one_not() {
    let setup = Setup::new().set("concurrent", 1).runner(Entry::local("first"));
    let gitlab = GitlabMock::start(Config::default()).await.unwrap();
    let [first, second] = TOKENS.map(|token| gitlab.add_runner(token));
    let mut drover = Drover::start(&setup, gitlab.url());
    let gate = drover.folder().join("gate");
    let wait = format!("until [ -e {} ]; do sleep 0.1; done", gate.display());
    let jobs =
        gitlab.enqueue_many(&first, JobBuilder::new("gated").script(["echo begun", &wait]), 3).unwrap();
    jobs[0].log_contains("begun", PATIENCE).await.unwrap();

    drover.write("concurrent = \"many\"\n");
    drover.program.signal(Signal::SIGHUP);
    drover.program.says(&["The configuration in force stays until the file is good again"]).await;
    assert_eq!(running(&jobs), 1);

    let setup = setup.set("concurrent", 4).runner(Entry::local("second"));
    drover.write(&setup.text(gitlab.url(), drover.folder()));
    drover.program.signal(Signal::SIGHUP);
    let other = gitlab.enqueue(&second, JobBuilder::new("hello").script(["echo hello"]));
    assert_eq!(other.finished(PATIENCE).await.unwrap().state, JobState::Success);
    eventually("all jobs run", || running(&jobs) == 3).await;

    std::fs::write(gate, "").unwrap();
    assert!(gitlab.all_finished(PATIENCE).await);
    drover.program.signal(Signal::SIGQUIT);
    assert_eq!(drover.program.ends().await, Some(0));
    assert!(jobs.iter().all(|job| job.state() == JobState::Success));
    gitlab.assert_no_violations();
}

#[tokio::test]
async fn sigterm_leaves_no_script_running_anywhere() {
    let sshd = Sshd::start();
    let setup = Setup::new().runner(Entry::local("first")).runner(Entry::machines("second", [&sshd]));
    let gitlab = GitlabMock::start(Config::default()).await.unwrap();
    let lasting = format!("sleep 4{}.55", std::process::id());
    let job = JobBuilder::new("long").script(["echo begun", &lasting]);
    let jobs = TOKENS.map(|token| gitlab.enqueue(&gitlab.add_runner(token), job.clone()));
    let mut drover = Drover::start(&setup, gitlab.url());
    for job in &jobs {
        job.log_contains("begun", PATIENCE).await.unwrap();
    }
    drover.stop().await;
    for job in &jobs {
        let view = job.view();
        assert_eq!(
            (view.state, view.failure_reason.as_deref()),
            (JobState::Failed, Some("runner_interrupted"))
        );
        assert!(
            view.checksum_verified && job.log_text().contains("aborted: terminated"),
            "{}",
            job.log_text()
        );
    }
    eventually("the scripts are gone", || processes_with(&lasting).is_empty()).await;
    eventually("the instances are gone", || processes_in(drover.folder()).is_empty()).await;
    eventually("the sessions are gone", || sshd.children().is_empty()).await;
    gitlab.assert_no_violations();
}

/// Processor time that a process has used, in hundredths of a second.
fn processor_time(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum()
}

#[tokio::test]
async fn a_manager_with_nothing_to_do_but_wait_does_not_spin() {
    // One has no room, one no work, one no GitLab, and the rest of a shutdown waits for a job.
    let full =
        Entry::local("first").set("autoscaler.max_instances", 1).set("autoscaler.capacity_per_instance", 1);
    let away = Entry::local("away").set("url", "http://127.0.0.1:1");
    let setup = Setup::new().runner(full).runner(Entry::local("second")).runner(away);
    let gitlab = GitlabMock::start(Config::default()).await.unwrap();
    let [first, _] = TOKENS.map(|token| gitlab.add_runner(token));
    let mut drover = Drover::start(&setup, gitlab.url());
    let wait = format!("until [ -e {} ]; do sleep 0.1; done", drover.folder().join("gate").display());
    let jobs =
        gitlab.enqueue_many(&first, JobBuilder::new("gated").script(["echo begun", &wait]), 2).unwrap();
    jobs[0].log_contains("begun", PATIENCE).await.unwrap();
    let pid = drover.program.pid();

    let before = processor_time(pid);
    tokio::time::sleep(Duration::from_secs(4)).await;
    let waiting = processor_time(pid) - before;
    drover.program.signal(Signal::SIGQUIT);
    drover.program.says(&["Starting graceful shutdown"]).await;
    let before = processor_time(pid);
    tokio::time::sleep(Duration::from_secs(4)).await;
    let stopping = processor_time(pid) - before;

    // Looking at a local group and sending a log every second, in an unoptimised build, is some of it.
    assert!(
        waiting < 60 && stopping < 60,
        "{waiting} and {stopping} hundredths of a second in four seconds each"
    );
    std::fs::write(drover.folder().join("gate"), "").unwrap();
    assert_eq!(drover.program.ends().await, Some(0));
    assert_eq!(jobs[0].state(), JobState::Success);
}
