//! Web terminals into running jobs, opened as GitLab opens them.

#![expect(clippy::expect_used, reason = "helpers of tests may panic")]

use drover_tests::{Entry, Setup, Sshd, Visitor, World, eventually};
use gitlab_mock::{Job, JobBuilder, Session};

async fn world(sshd: &Sshd, timeout: i64) -> World {
    Setup::new()
        .set("session_server.listen_address", "127.0.0.1:0")
        .set("session_server.advertise_address", "127.0.0.1")
        .set("session_server.session_timeout", timeout)
        .runner(Entry::machines("ssh", [sshd]))
        .start()
        .await
}

/// A job that goes on until the file is there.
fn until(path: &std::path::Path) -> JobBuilder {
    let wait = format!("until test -e {}; do sleep 0.1; done", path.display());
    JobBuilder::new("looked into").script(["echo working".to_owned(), wait, "echo seen".to_owned()])
}

async fn session(world: &World, job: &Job) -> Session {
    world.says(job, "working").await;
    job.session().expect("the job request named a session")
}

#[tokio::test]
async fn a_user_looks_into_a_running_job_and_ends_its_wait() {
    let sshd = Sshd::start();
    let world = world(&sshd, 60).await;
    let signal = world.folder().join("signal");
    let job = world.enqueue(until(&signal));
    let mut visitor = Visitor::visit(&session(&world, &job).await).await;
    visitor.types("echo in:$(pwd)\n").await;
    visitor.sees(&format!("in:{}", world.folder().join("builds").display())).await;
    visitor.types(&format!("touch {}\n", signal.display())).await;
    // The script is done, but the visitor has not left.
    world.says(&job, "Terminal is connected, will time out in 1m0s...").await;
    visitor.types("exit\n").await;
    let finished = world.finished(&job).await.succeeded();
    finished.says("Terminal disconnected").says("seen");
    world.stop().await;
}

#[tokio::test]
async fn a_visitor_who_stays_is_shown_out() {
    let sshd = Sshd::start();
    let world = world(&sshd, 1).await;
    let signal = world.folder().join("signal");
    let job = world.enqueue(until(&signal));
    let mut visitor = Visitor::visit(&session(&world, &job).await).await;
    visitor.types(&format!("touch {}\n", signal.display())).await;
    let finished = world.finished(&job).await.succeeded();
    finished.says("Terminal session timed out (maximum time allowed - 1s)");
    eventually("the shell of the visitor is gone", || drover_tests::processes_in(world.folder()).is_empty())
        .await;
    world.stop().await;
}

#[tokio::test]
async fn a_cancel_does_not_wait_for_visitors() {
    let sshd = Sshd::start();
    let world = world(&sshd, 3600).await;
    let never = world.folder().join("never");
    let job = world.enqueue(until(&never));
    let mut visitor = Visitor::visit(&session(&world, &job).await).await;
    visitor.types("echo here\n").await;
    visitor.sees("here").await;
    job.force_cancel();
    eventually("the visitor is cut off", || drover_tests::processes_in(world.folder()).is_empty()).await;
    world.stop().await;
}

#[tokio::test]
async fn without_a_server_no_session_is_offered() {
    let sshd = Sshd::start();
    let world = Setup::new().runner(Entry::machines("ssh", [&sshd])).start().await;
    let job = world.enqueue(JobBuilder::new("private").script(["true"]));
    world.finished(&job).await.succeeded();
    assert!(job.session().is_none());
    let announced = world.runners[0].view().managers.into_values().next().unwrap().features;
    assert!(!announced.contains("terminal") && !announced.contains("session"), "{announced:?}");
    world.stop().await;
}
