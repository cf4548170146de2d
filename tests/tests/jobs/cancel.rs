//! A user cancels a job, in every stage that it can be in.

use drover_tests::{Entry, Setup, Sshd, eventually, processes_with};
use gitlab_mock::{JobBuilder, JobState};

use crate::world::{both, check, endless, everywhere};

/// Says something now and then, because GitLab's wish to cancel comes with the answer to a piece of log, and lasts.
fn talk_and(last: &str) -> [String; 2] {
    ["(while true; do echo tick; sleep 0.3; done) &".to_owned(), last.to_owned()]
}

async fn gone(command: &str) {
    eventually(&format!("`{command}` is gone"), || processes_with(command).is_empty()).await;
}

#[tokio::test]
async fn a_job_that_waits_for_an_instance_is_given_up() {
    let never = Entry::local("never").set("autoscaler.plugin_config.boot_delay", "1h");
    let unready = Entry::local("unready").set("autoscaler.instance_ready_command", endless());
    let world = Setup::new().runner(never).runner(unready).start().await;
    let jobs = everywhere(&world, &JobBuilder::new("waits").script(["echo hello"]));
    for job in &jobs {
        world.says(job, "Preparing instance...").await;
        assert_eq!(job.cancel(), JobState::Canceling);
    }
    // Nothing is logged, so that the cancel is learned of with a sign of life.
    check(&world, &jobs, |job| job.canceled().lacks_line("hello").says_not("Preparing environment")).await;
    world.stop().await;
}

#[tokio::test]
async fn a_job_that_fetches_its_sources_ends_at_once() {
    let sshd = Sshd::start();
    let world = both(&sshd).await;
    let repository = world.gitlab.create_repository("harbour/ferry").await.unwrap();
    repository.commit("main", [("README.md", "hello")], "first").await.unwrap();
    let lasting = endless();
    let job = JobBuilder::new("fetches").repository(&repository).script(["echo script"]);
    let job = job.after_script(["echo after"]).hook("pre_get_sources_script", talk_and(&lasting));
    let jobs = everywhere(&world, &job);
    for job in &jobs {
        world.says(job, "tick").await;
        job.cancel();
    }
    check(&world, &jobs, |job| job.canceled().lacks_line("script").lacks_line("after")).await;
    gone(&lasting).await;
    world.stop().await;
}

#[tokio::test]
async fn a_running_script_is_stopped_and_after_script_runs() {
    let sshd = Sshd::start();
    let world = both(&sshd).await;
    let lasting = endless();
    let job = JobBuilder::new("runs").script(talk_and(&lasting));
    let jobs = everywhere(&world, &job.after_script(["echo \"it is $CI_JOB_STATUS\""]));
    for job in &jobs {
        world.says(job, "tick").await;
        job.cancel();
    }
    check(&world, &jobs, |job| {
        job.canceled().has_line("it is canceled").has_line("WARNING: script canceled externally (UI, API)")
    })
    .await;
    gone(&lasting).await;
    world.stop().await;
}

#[tokio::test]
async fn a_cancel_during_after_script_comes_too_late() {
    let sshd = Sshd::start();
    let world = both(&sshd).await;
    let gate = world.folder().join("gate");
    let wait = format!("until [ -e {} ]; do echo tick; sleep 0.3; done", gate.display());
    let jobs =
        everywhere(&world, &JobBuilder::new("ends").script(["true"]).after_script([&wait, "echo all of it"]));
    for job in &jobs {
        world.says(job, "tick").await;
        job.cancel();
        // The runner has heard of it when it has sent another piece of its log.
        let heard = job.view().calls.patches + 2;
        job.wait_until(drover_tests::PATIENCE, |view| view.calls.patches >= heard).await.unwrap();
    }
    std::fs::write(gate, "").unwrap();
    check(&world, &jobs, |job| {
        assert_eq!(job.view.state, JobState::Canceled);
        job.ends_with("Job succeeded").has_line("all of it")
    })
    .await;
    world.stop().await;
}

#[tokio::test]
async fn a_forced_cancel_stops_everything() {
    let sshd = Sshd::start();
    let world = both(&sshd).await;
    let (lasting, trace) = (endless(), world.folder().join("trace"));
    let job = JobBuilder::new("runs").script(talk_and(&lasting));
    let jobs = everywhere(&world, &job.after_script([format!("touch {}", trace.display())]));
    for job in &jobs {
        world.says(job, "tick").await;
        job.force_cancel();
    }
    gone(&lasting).await;
    check(&world, &jobs, |job| {
        assert!(job.view.ended_by_server);
        job
    })
    .await;
    eventually("the manager has let go of the jobs", || world.view.jobs.list().is_empty()).await;
    assert!(!trace.exists(), "after_script ran");
    world.stop().await;
}

#[tokio::test]
async fn what_ignores_the_wish_to_end_is_killed() {
    let sshd = Sshd::start();
    let world = both(&sshd).await;
    let lasting = endless();
    let script = ["trap '' TERM", "(while true; do echo tick; sleep 0.3; done) &", &lasting, &lasting];
    let jobs = everywhere(&world, &JobBuilder::new("deaf").script(script));
    for job in &jobs {
        world.says(job, "tick").await;
        job.cancel();
    }
    check(&world, &jobs, |job| job.canceled()).await;
    gone(&lasting).await;
    world.stop().await;
}
