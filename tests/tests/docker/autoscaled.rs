//! Jobs in containers of engines on instances, reached over the kept SSH connection of each.

use drover_tests::{Drover, Engine, Entry, Setup, Sshd, World, eventually};
use gitlab_mock::{GitlabMock, JobBuilder};

use crate::nothing_is_left;

/// An entry with an instance whose engine is the one of the tests.
pub(crate) fn entry(sshd: &Sshd, host: &str) -> Entry {
    let engine = Engine::shared();
    Entry::machines("fleet", [sshd])
        .set("token", Engine::token())
        .set("executor", "docker-autoscaler")
        .set("autoscaler.capacity_per_instance", 5)
        .set("builds_dir", "/builds")
        .set("docker.host", host)
        .set("docker.image", "box:1")
        .set("docker.network_mode", "host")
        .set("docker.pull_policy", "if-not-present")
        .set("docker.helper_image_archive", engine.helper_archive().display().to_string())
}

async fn world(sshd: &Sshd, host: &str) -> World {
    Setup::new().runner(entry(sshd, host)).start().await
}

#[tokio::test]
async fn jobs_of_one_instance_share_its_connection() {
    let sshd = Sshd::start();
    let world = world(&sshd, &Engine::shared().host()).await;
    let repository = world.gitlab.create_repository("harbour/ferry").await.unwrap();
    repository.commit("main", [("number", "1\n")], "one").await.unwrap();
    let job = |name: &str| {
        JobBuilder::new(name).repository(&repository).variable("GIT_STRATEGY", "clone").script([
            "cat number",
            "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done",
            "exit 3",
        ])
    };
    let jobs: Vec<_> = (0..4).map(|number| world.enqueue(job(&number.to_string()))).collect();
    for job in &jobs {
        let finished = world.finished(job).await.failed("script_failure", Some(3));
        let id = finished.view.id;
        finished.says("Instance m1").has_line("1").has_line("line 1999");
        nothing_is_left(&world, id).await;
    }
    world.stop().await;
}

#[tokio::test]
async fn an_engine_that_does_not_run_is_named_with_its_instance() {
    let sshd = Sshd::start();
    let world = world(&sshd, "unix:///nowhere/engine.sock").await;
    let job = world.enqueue(JobBuilder::new("nowhere").variable("GIT_STRATEGY", "none").script(["true"]));
    let words = "the Docker engine of instance m1";
    eventually("the engine and its instance are named", || {
        world.log.has_line(&[words, "/nowhere/engine.sock"]) || job.log_text().contains(words)
    })
    .await;
    job.cancel();
    world.finished(&job).await.canceled();
    world.stop().await;
}

#[tokio::test]
async fn a_job_whose_instance_vanishes_says_which_one() {
    let mut sshd = Sshd::start();
    let world = world(&sshd, &Engine::shared().host()).await;
    let job = world.enqueue(
        JobBuilder::new("cut off").variable("GIT_STRATEGY", "none").script(["echo started", "sleep 1000"]),
    );
    world.says(&job, "started\n").await;
    sshd.stop();
    let finished = world.finished(&job).await;
    assert_eq!(finished.view.failure_reason.as_deref(), Some("runner_system_failure"), "{}", finished.log);
    assert!(finished.log.contains("m1"), "{}", finished.log);
    // The engine outlives its instance here, and with it what nobody could remove.
    for name in Engine::shared().belongings(&world.runners[0].token(), finished.view.id) {
        let _ = Engine::shared().try_docker(&["rm", "-f", &name]);
    }
}

#[tokio::test]
async fn cancelling_masking_and_files_are_the_same_through_the_connection() {
    let sshd = Sshd::start();
    let world = world(&sshd, &Engine::shared().host()).await;
    let plain =
        |script: &[&str]| JobBuilder::new("through").variable("GIT_STRATEGY", "none").script(script.to_vec());
    let canceled = world.enqueue(
        plain(&["trap 'echo asked to end' TERM", "echo started; sleep 1000 & wait $!", "echo not reached"])
            .after_script(["echo \"it is $CI_JOB_STATUS\""]),
    );
    let values = world.enqueue(
        plain(&[
            "cat \"$CONTENT\"; [ \"$REFERS\" = \"$CONTENT\" ] && echo the same path",
            "echo \"a $SECRET\"",
        ])
        .file_variable("CONTENT", "of the file\n")
        .variable("REFERS", "$CONTENT")
        .masked_variable("SECRET", "a-secret-of-mine"),
    );
    let long = world.enqueue(plain(&["sleep 1000"]).timeout(std::time::Duration::from_secs(3)));
    world.says(&canceled, "started\n").await;
    canceled.cancel();
    let finished =
        world.finished(&canceled).await.canceled().has_line("it is canceled").lacks_line("not reached");
    nothing_is_left(&world, finished.view.id).await;
    world
        .finished(&values)
        .await
        .succeeded()
        .has_line("of the file")
        .has_line("the same path")
        .has_line("a [MASKED]");
    let finished = world.finished(&long).await.failed("job_execution_timeout", None);
    nothing_is_left(&world, finished.view.id).await;
    world.stop().await;
}

#[tokio::test]
async fn what_a_killed_manager_left_on_an_instance_is_removed_by_the_next() {
    let engine = Engine::shared();
    let sshd = Sshd::start();
    let gitlab = GitlabMock::start(gitlab_mock::Config::default()).await.unwrap();
    // What belongs to an instance goes with it, but this one stays.
    let entry = entry(&sshd, &engine.host())
        .set("docker.network_mode", "")
        .set("feature_flags.FF_NETWORK_PER_BUILD", true);
    let runner = gitlab.add_runner(entry.token());
    let setup = Setup::new().runner(entry);
    let job = gitlab.enqueue(
        &runner,
        JobBuilder::new("left").variable("GIT_STRATEGY", "none").script(["echo started; sleep 1000"]),
    );
    let mut drover = Drover::start(&setup, gitlab.url());
    job.log_contains("started\n", drover_tests::PATIENCE).await.unwrap();
    let id = job.view().id;
    let left = engine.belongings(&runner.token(), id);
    assert!(left.len() >= 2, "a container and a network: {left:?}");
    drover.kill().await;
    drover.again(&setup, gitlab.url());
    // A job that came meanwhile keeps what it has.
    let next = gitlab.enqueue(
        &runner,
        JobBuilder::new("next").variable("GIT_STRATEGY", "none").script(["sleep 1; echo done"]),
    );
    eventually("the leftovers are removed", || engine.belongings(&runner.token(), id).is_empty()).await;
    next.finished(drover_tests::PATIENCE).await.unwrap();
    assert!(next.log_text().contains("Job succeeded"), "{}", next.log_text());
    drover.stop().await;
}
