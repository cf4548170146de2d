//! How the processes of a job are asked to end.

use std::time::Duration;

use gitlab_mock::JobBuilder;

use crate::{nothing_is_left, world};

/// What stops a job.
const TRIGGERS: [&str; 3] = ["cancel", "script timeout", "job timeout"];

/// Stops a job in each way; says what its log has to have, each line once.
async fn stopped(flags: &[&str], script: &[&str], lines: &[&str]) {
    let world = world(|entry| {
        flags.iter().fold(entry, |entry, flag| entry.set(&format!("feature_flags.{flag}"), true))
    })
    .await;
    let jobs: Vec<_> = TRIGGERS
        .iter()
        .map(|trigger| {
            let job = JobBuilder::new(*trigger)
                .variable("GIT_STRATEGY", "none")
                .script(["echo \"first is $(cat /proc/1/comm)\""].into_iter().chain(script.iter().copied()))
                .after_script(["echo \"then it is $CI_JOB_STATUS\""]);
            world.enqueue(match *trigger {
                // Long enough for a busy machine to have the script listen.
                "script timeout" => job.variable("RUNNER_SCRIPT_TIMEOUT", "10s"),
                "job timeout" => job.timeout(Duration::from_secs(16)),
                _ => job,
            })
        })
        .collect();
    world.says(&jobs[0], "started\n").await;
    jobs[0].cancel();
    let init = flags.contains(&"FF_USE_INIT_WITH_DOCKER_EXECUTOR");
    for (trigger, job) in TRIGGERS.iter().zip(&jobs) {
        let finished = world.finished(job).await;
        let finished = match *trigger {
            "cancel" => finished.canceled().has_line("then it is canceled"),
            "script timeout" => {
                finished.failed("job_execution_timeout", None).has_line("then it is timedout")
            }
            _ => finished.failed("job_execution_timeout", None).says_not("then it is"),
        };
        for line in lines {
            assert_eq!(finished.count(line), 1, "{trigger}, {line}: {}", finished.log);
        }
        assert_eq!(finished.log.contains("first is docker-init"), init, "{trigger}: {}", finished.log);
        nothing_is_left(&world, finished.lacks_line("not reached").view.id).await;
    }
    world.stop().await;
}

/// A shell whose child cleans up; then it does so itself.
const CHILD: [&str; 3] = [
    "trap 'echo shell cleaned up; exit 1' TERM",
    "sh -c 'trap \"echo child cleaned up; exit 0\" TERM; echo started; while :; do sleep 0.1; done'",
    "echo not reached",
];
/// A shell that listens, because it waits for nothing but a child in the background.
const SHELL: [&str; 3] =
    ["trap 'echo shell cleaned up; exit 1' TERM", "sleep 1000 & echo started; wait $!", "echo not reached"];

#[tokio::test]
async fn every_process_of_a_job_is_asked_to_end_and_heard() {
    stopped(&[], &CHILD, &["child cleaned up", "shell cleaned up"]).await;
}

#[tokio::test]
async fn with_an_init_every_process_is_asked_once() {
    stopped(&["FF_USE_INIT_WITH_DOCKER_EXECUTOR"], &CHILD, &["child cleaned up", "shell cleaned up"]).await;
}

#[tokio::test]
async fn the_engines_own_stop_reaches_the_shell() {
    stopped(&["FF_USE_NATIVE_CONTAINER_STOP"], &SHELL, &["shell cleaned up"]).await;
}

#[tokio::test]
async fn the_engines_own_stop_reaches_the_shell_through_an_init() {
    let flags = ["FF_USE_NATIVE_CONTAINER_STOP", "FF_USE_INIT_WITH_DOCKER_EXECUTOR"];
    stopped(&flags, &SHELL, &["shell cleaned up"]).await;
}
