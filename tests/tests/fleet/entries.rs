//! Several runner entries in one file: what is wrong with one is no matter of the others.

use std::time::Duration;

use drover_tests::{Entry, Setup, World, eventually};
use gitlab_mock::{Endpoint, Job, JobBuilder};

/// A job that runs until a file is there.
fn gated(world: &World) -> JobBuilder {
    let wait = format!("until [ -e {} ]; do sleep 0.1; done", world.folder().join("gate").display());
    JobBuilder::new("gated").script(["echo begun", &wait])
}

fn open_gate(world: &World) {
    std::fs::write(world.folder().join("gate"), "").unwrap();
}

fn running(jobs: &[Job]) -> usize {
    jobs.iter().filter(|job| job.state().is_processing()).count()
}

#[tokio::test]
async fn entries_that_cannot_work_are_named_and_the_others_work() {
    let world = Setup::new()
        .runner(Entry::local("good"))
        .runner(Entry::local("removed"))
        .runner(Entry::local("unreachable").unknown().set("url", "http://127.0.0.1:1"))
        .runner(Entry::local("docker").unknown().set("executor", "docker-autoscaler"))
        .runner(Entry::bare("no-plugin").unknown().set("autoscaler.plugin", "no-such-plugin"))
        .start()
        .await;
    world.gitlab.remove_runner(&world.runners[1]);

    for _ in 0..3 {
        world.run(JobBuilder::new("hello").script(["echo hello"])).await.succeeded();
    }
    world.logs(&["ERROR", "docker", "takes no jobs"]).await;
    world.logs(&["ERROR", "no-plugin", "takes no jobs"]).await;
    world.logs(&["ERROR", "removed", "forbidden: GitLab refuses this runner's token"]).await;
    world.logs(&["WARN", "unreachable", "Checking for jobs... failed"]).await;
    world.stop().await;
}

#[tokio::test]
async fn a_runner_that_gitlab_refuses_is_left_alone_after_a_few_tries() {
    let entry = Entry::local("removed").set("unhealthy_requests_limit", 2);
    let world = Setup::new().runner(entry).runner(Entry::local("good")).start().await;
    world.gitlab.remove_runner(&world.runners[0]);
    let refusals = || world.log.text().matches("GitLab refuses this runner's token").count();
    eventually("it was refused twice", || refusals() == 2).await;
    // With an interval of one second there would be several more by the time that these are done.
    for _ in 0..3 {
        let job = JobBuilder::new("good").script(["sleep 1"]);
        let job = world.gitlab.enqueue(&world.runners[1], job);
        world.finished(&job).await.succeeded();
    }
    assert_eq!(refusals(), 2);
    world.stop().await;
}

#[tokio::test]
async fn limit_and_concurrent_bound_the_jobs() {
    let bounded = Entry::local("bounded").set("limit", 1);
    let world = Setup::new().set("concurrent", 3).runner(bounded).runner(Entry::local("free")).start().await;
    let few = world.gitlab.enqueue_many(&world.runners[0], gated(&world), 3).unwrap();
    let many = world.gitlab.enqueue_many(&world.runners[1], gated(&world), 4).unwrap();
    eventually("all places are taken", || running(&few) + running(&many) == 3).await;
    for job in few.iter().chain(&many).filter(|job| job.state().is_processing()) {
        world.says(job, "begun").await;
    }
    assert_eq!((running(&few), running(&many)), (1, 2));
    open_gate(&world);
    for job in world.all_finished().await {
        job.succeeded();
    }
    world.stop().await;
}

#[tokio::test]
async fn request_concurrency_bounds_the_requests() {
    let entry = Entry::local("fleet").set("request_concurrency", 3);
    let adaptive = "feature_flags.FF_USE_ADAPTIVE_REQUEST_CONCURRENCY";
    let world = Setup::new().runner(entry.set(adaptive, false)).start().await;
    let held = || world.runners[0].view().held;
    eventually("three requests wait", || held() == 3).await;
    let jobs = world.gitlab.enqueue_many(&world.runners[0], gated(&world), 4).unwrap();
    eventually("the jobs run", || running(&jobs) == 4).await;
    eventually("three requests wait again", || {
        assert!(held() <= 3);
        held() == 3
    })
    .await;
    open_gate(&world);
    for job in world.all_finished().await {
        job.succeeded();
    }
    world.stop().await;
}

#[tokio::test]
async fn places_go_round_between_runners_with_work() {
    let world =
        Setup::new().set("concurrent", 2).runner(Entry::local("a")).runner(Entry::local("b")).start().await;
    let job = JobBuilder::new("short").script(["sleep 0.2"]);
    let a = world.gitlab.enqueue_many(&world.runners[0], job.clone(), 10).unwrap();
    world.gitlab.enqueue_many(&world.runners[1], job, 10).unwrap();
    let mut ended = world.all_finished().await;
    ended.sort_by_key(|job| job.view.finished_at);
    let of_a = |job: &drover_tests::Finished| a.iter().any(|other| other.id() == job.view.id);
    let first = ended.iter().take(8).filter(|job| of_a(job)).count();
    assert!((2..=6).contains(&first), "of the first eight jobs, {first} are of one runner");
    world.stop().await;
}

#[tokio::test]
async fn a_manager_without_work_is_quiet() {
    // Longer than the time of this test, so that one request per runner is all there is to do.
    let world = Setup::new().runner(Entry::local("a")).runner(Entry::local("b")).start().await;
    eventually("requests wait", || world.runners.iter().all(|runner| runner.view().held == 1)).await;
    let requests = || world.gitlab.summary().calls.get(&Endpoint::RequestJob).copied().unwrap_or(0);
    let (before, lines) = (requests(), world.log.text().lines().count());
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(requests(), before, "requests that wait are not repeated");
    assert!(world.log.text().lines().count() <= lines + 10, "nothing to say: {}", world.log.text());
    world.stop().await;
}
