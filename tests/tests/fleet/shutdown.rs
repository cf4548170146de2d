//! The end of a manager, and its configuration changing under it.

use drover_tests::{Entry, Setup, Sshd, World, eventually, processes_with};
use gitlab_mock::{Job, JobBuilder, JobState};

fn gated(world: &World, last: &str) -> JobBuilder {
    let wait = format!("until [ -e {} ]; do sleep 0.1; done", world.folder().join("gate").display());
    JobBuilder::new("gated").script(["echo begun", &wait, last])
}

fn open_gate(world: &World) {
    std::fs::write(world.folder().join("gate"), "").unwrap();
}

fn in_state(jobs: &[Job], state: JobState) -> usize {
    jobs.iter().filter(|job| job.state() == state).count()
}

#[tokio::test]
async fn a_graceful_shutdown_lets_jobs_end_and_takes_no_more() {
    let world = Setup::new().set("concurrent", 2).runner(Entry::local("fleet")).start().await;
    let jobs = world.gitlab.enqueue_many(&world.runners[0], gated(&world, "echo all of it"), 3).unwrap();
    eventually("two jobs run", || in_state(&jobs, JobState::Running) == 2).await;
    world.control.stop_gracefully();
    world.logs(&["Starting graceful shutdown, waiting for builds to finish"]).await;
    open_gate(&world);
    for job in jobs.iter().take(2) {
        world.finished(job).await.succeeded().has_line("all of it");
    }
    let gitlab = world.gitlab.clone();
    let ended = world.ends().await;
    assert!(!ended.forced);
    assert_eq!(in_state(&jobs, JobState::Queued), 1, "the third was not taken");
    gitlab.assert_no_violations();
}

#[tokio::test]
async fn a_forceful_shutdown_interrupts_jobs_and_says_so() {
    let sshd = Sshd::start();
    let world =
        Setup::new().runner(Entry::local("local")).runner(Entry::machines("ssh", [&sshd])).start().await;
    let lasting = format!("sleep 2{}.77", std::process::id());
    let job = JobBuilder::new("long").script(["echo begun", &lasting]).after_script(["echo after"]);
    let jobs: Vec<Job> =
        world.runners.iter().map(|runner| world.gitlab.enqueue(runner, job.clone())).collect();
    for job in &jobs {
        world.says(job, "begun").await;
    }
    world.control.stop_forcefully("terminated");
    for job in &jobs {
        let job = world.finished(job).await.failed("runner_interrupted", None);
        job.ends_with("ERROR: Job failed: aborted: terminated").lacks_line("after");
    }
    assert!(world.ends().await.forced);
    assert!(processes_with(&lasting).is_empty(), "the script still runs");
}

#[tokio::test]
async fn a_forceful_shutdown_overtakes_a_graceful_one() {
    let world = Setup::new().runner(Entry::local("fleet")).start().await;
    let job = world.enqueue(JobBuilder::new("long").script(["echo begun", "sleep 1000"]));
    world.says(&job, "begun").await;
    world.control.stop_gracefully();
    world.logs(&["Starting graceful shutdown"]).await;
    world.control.stop_forcefully("interrupt");
    world.finished(&job).await.failed("runner_interrupted", None).says("aborted: interrupt");
    assert!(world.ends().await.forced);
}

#[tokio::test]
async fn a_changed_configuration_takes_effect_while_jobs_run() {
    let mut world = Setup::new().set("concurrent", 1).runner(Entry::local("first")).start().await;
    let jobs = world.gitlab.enqueue_many(&world.runners[0], gated(&world, "echo all of it"), 3).unwrap();
    world.says(&jobs[0], "begun").await;
    assert_eq!(in_state(&jobs, JobState::Running), 1);

    world.reload(|setup| setup.set("concurrent", 4).runner(Entry::local("second")));
    let second = world.gitlab.enqueue(&world.runners[1], JobBuilder::new("second").script(["echo hello"]));
    world.finished(&second).await.succeeded().says("on second ").has_line("hello");
    for job in &jobs {
        world.says(job, "begun").await;
    }
    open_gate(&world);
    for job in &jobs {
        world.finished(job).await.succeeded().has_line("all of it");
    }
    world.stop().await;
}

#[tokio::test]
async fn a_job_that_comes_when_its_entry_was_removed_is_not_lost() {
    let mut world = Setup::new().runner(Entry::local("first")).runner(Entry::local("second")).start().await;
    eventually("a request waits", || world.runners[0].view().held == 1).await;
    world.reload(|_| Setup::new().runner(Entry::local("second")));
    world.logs(&["runner entry removed"]).await;
    let job = world.enqueue(JobBuilder::new("late").script(["echo hello"]));
    // Where the machine is slow, the request was given up before; the job is another runner's then.
    eventually("the job has ended, or was never given", || {
        job.state().is_final() || (job.state() == JobState::Queued && world.runners[0].view().held == 0)
    })
    .await;
    if job.state().is_final() {
        world.finished(&job).await.succeeded().says("on first ").has_line("hello");
    }
    world.stop().await;
}
