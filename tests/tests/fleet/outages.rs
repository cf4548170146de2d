//! GitLab is away, confused or forgetful; no job and no line of a log is lost.

use std::time::Duration;

use drover_tests::{Entry, Finished, PATIENCE, Setup, World, eventually};
use gitlab_mock::{Config, Endpoint, Fault, Job, JobBuilder};

/// Variable with the length of the long outage in seconds, for those who want to see an hour of it.
const LENGTH: &str = "DROVER_TESTS_OUTAGE_SECONDS";

async fn world() -> World {
    world_with(|_| ()).await
}

async fn world_with(change: impl FnOnce(&mut Config)) -> World {
    Setup::new().runner(Entry::local("fleet")).gitlab(change).start().await
}

/// A job that prints numbered lines until its gate is open, and twenty more.
fn counting(world: &World, gate: &str) -> JobBuilder {
    let gate = world.folder().join(gate);
    let script = [
        "i=0".to_owned(),
        format!("until [ -e {} ]; do i=$((i+1)); echo \"line $i\"; sleep 0.2; done", gate.display()),
        "for j in $(seq 1 20); do i=$((i+1)); echo \"line $i\"; done; echo \"$i lines\"".to_owned(),
    ];
    JobBuilder::new("counting").script(script)
}

fn open(world: &World, gate: &str) {
    std::fs::write(world.folder().join(gate), "").unwrap();
}

/// All lines are there, once, in their order.
fn complete(job: Finished) -> Finished {
    let lines: Vec<&str> = job.log.lines().filter(|line| line.starts_with("line ")).collect();
    let expected: Vec<String> = (1..=lines.len()).map(|number| format!("line {number}")).collect();
    assert_eq!(lines, expected);
    let said = format!("{} lines", lines.len());
    job.succeeded().has_line(&said)
}

async fn started(world: &World, jobs: &[Job]) {
    for job in jobs {
        world.says(job, "line 1").await;
    }
}

#[tokio::test]
async fn no_job_is_lost_while_gitlab_cannot_be_reached() {
    let length = std::env::var(LENGTH).map_or(15, |text| text.parse().expect("a number of seconds"));
    let world = world().await;
    let during = world.gitlab.enqueue_many(&world.runners[0], counting(&world, "during"), 3).unwrap();
    let after = world.gitlab.enqueue_many(&world.runners[0], counting(&world, "after"), 2).unwrap();
    started(&world, &during).await;
    started(&world, &after).await;

    world.gitlab.refuse_connections().await;
    let queued = world.enqueue(JobBuilder::new("queued meanwhile").script(["echo hello"]));
    open(&world, "during");
    tokio::time::sleep(Duration::from_secs(length)).await;
    world.gitlab.accept_connections().await;

    for job in &during {
        complete(world.finished(job).await);
    }
    open(&world, "after");
    for job in &after {
        complete(world.finished(job).await);
    }
    world.finished(&queued).await.succeeded().has_line("hello");
    world.stop().await;
}

#[tokio::test]
async fn server_errors_are_outlived() {
    let world = world().await;
    let jobs = world.gitlab.enqueue_many(&world.runners[0], counting(&world, "gate"), 3).unwrap();
    started(&world, &jobs).await;
    for (status, endpoint) in [(500, Endpoint::PatchTrace), (503, Endpoint::RequestJob)] {
        world.gitlab.inject(Fault::status(status).on([endpoint]).lasting(Duration::from_secs(3)));
    }
    world.gitlab.inject(Fault::status(502).on([Endpoint::UpdateJob]).times(4));
    world.gitlab.inject(Fault::reset().on([Endpoint::PatchTrace]).times(3));
    let meanwhile = world.enqueue(JobBuilder::new("queued meanwhile").script(["echo hello"]));
    open(&world, "gate");
    for job in &jobs {
        complete(world.finished(job).await);
    }
    world.finished(&meanwhile).await.succeeded().has_line("hello");
    let hits: Vec<u64> = world.gitlab.faults().iter().map(|report| report.hits).collect();
    assert!(hits.iter().all(|&hits| hits > 0), "calls that were hit by each fault: {hits:?}");
    world.stop().await;
}

#[tokio::test]
async fn a_job_whose_offer_was_lost_on_its_way_comes_back() {
    let world = world_with(|config| config.commit_timeout = Duration::from_secs(2)).await;
    // A request waits; the one that follows it gets the job, and its answer is lost.
    eventually("a request waits", || world.runners[0].view().held == 1).await;
    world.gitlab.inject(Fault::lose_answer().on([Endpoint::RequestJob]).times(1));
    let ended = world.run(JobBuilder::new("offered twice").script(["echo hello"])).await.succeeded();
    assert_eq!(ended.view.times_given, 2);
    ended.has_line("hello");
    world.stop().await;
}

#[tokio::test]
async fn a_final_update_whose_answer_was_lost_is_repeated_without_harm() {
    let world = world().await;
    let job = world.enqueue(counting(&world, "gate"));
    // It was confirmed, and while its log grows no other sign of life is due.
    world.says(&job, "line 1").await;
    world.gitlab.inject(Fault::lose_answer().on([Endpoint::UpdateJob]).for_job(job.id()).times(1));
    open(&world, "gate");
    complete(world.finished(&job).await);
    eventually("the manager has let go of the job", || world.view.jobs.list().is_empty()).await;
    let calls = job.view().calls;
    assert_eq!((world.gitlab.faults()[0].hits, calls.updates_refused), (1, 1), "{calls:?}");
    world.stop().await;
}

#[tokio::test]
async fn a_gitlab_that_needs_time_for_the_log_is_waited_for() {
    let world = world().await;
    let job = JobBuilder::new("slow").script(["echo hello", "exit 4"]).delay_final_updates(2);
    let ended = world.run(job).await.failed("script_failure", Some(4));
    assert_eq!(ended.view.calls.final_updates, 3, "two were answered with 202");
    world.stop().await;
}

#[tokio::test]
async fn a_log_that_gitlab_has_lost_or_spoiled_is_sent_again() {
    let world = world().await;
    let jobs = world.gitlab.enqueue_many(&world.runners[0], counting(&world, "gate"), 2).unwrap();
    started(&world, &jobs).await;
    jobs[0].corrupt_log();
    assert!(jobs[1].truncate_log(100));
    open(&world, "gate");
    for job in &jobs {
        job.finished(PATIENCE).await.unwrap();
        let ended = complete(world.finished(job).await);
        assert_eq!(ended.view.log_resets, 1, "the log was thrown away once");
    }
    world.stop().await;
}
