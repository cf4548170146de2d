//! How a script ends is how the job ends.

use drover_tests::{Finished, Sshd};
use gitlab_mock::JobBuilder;

use crate::world::{both, check, everywhere};

/// Ends with this status.
fn fails_with(code: i64) -> impl Fn(Finished) -> Finished {
    move |job| {
        job.failed("script_failure", Some(code)).ends_with(&format!("ERROR: Job failed: exit code {code}"))
    }
}

#[tokio::test]
async fn a_job_ends_as_its_script_ends() {
    let sshd = Sshd::start();
    let world = both(&sshd).await;
    let job =
        |name: &str, script: &[&str]| everywhere(&world, &JobBuilder::new(name).script(script.to_vec()));

    let good = job("good", &["echo one", "echo two"]);
    let exits_137 = job("exits with 137", &["exit 137"]);
    let child_killed = job("a child is killed", &["bash -c 'kill -KILL $$'", "echo later"]);
    let shell_killed = job("the shell is killed", &["echo before", "kill -KILL $$", "echo later"]);
    let exits_0 = job("exits with 0 half-way", &["echo before", "exit 0", "echo later"]);
    let exits_1 = job("fails half-way", &["echo before", "exit 1", "echo later"]);
    let fails = job("a command fails half-way", &["echo before", "test a = b", "echo later"]);
    let pipe = job("a pipe fails at its start", &["false | true", "echo later"]);
    let missing = job("a command is missing", &["no-such-command --help", "echo later"]);
    let last = job("only the last command fails", &["echo before", "(exit 42)"]);

    check(&world, &good, |job| job.succeeded().has_line("one").has_line("two")).await;
    check(&world, &exits_137, fails_with(137)).await;
    check(&world, &child_killed, |job| fails_with(137)(job).lacks_line("later")).await;
    check(&world, &shell_killed, |job| fails_with(137)(job).has_line("before").lacks_line("later")).await;
    check(&world, &exits_0, |job| job.succeeded().has_line("before").lacks_line("later")).await;
    check(&world, &exits_1, |job| fails_with(1)(job).has_line("before").lacks_line("later")).await;
    check(&world, &fails, |job| fails_with(1)(job).has_line("before").lacks_line("later")).await;
    check(&world, &pipe, |job| fails_with(1)(job).lacks_line("later")).await;
    check(&world, &missing, |job| fails_with(127)(job).says("no-such-command: command not found")).await;
    check(&world, &last, fails_with(42)).await;
    world.stop().await;
}

#[tokio::test]
async fn after_script_knows_the_result_and_does_not_change_it() {
    let sshd = Sshd::start();
    let world = both(&sshd).await;
    let job = |name: &str, script: &str, after: &str| {
        JobBuilder::new(name).script([script]).after_script(["echo \"it is $CI_JOB_STATUS\"", after])
    };

    let good = everywhere(&world, &job("all is well", "echo \"first $CI_JOB_STATUS\"", "true"));
    let after_fails = everywhere(&world, &job("after_script fails", "true", "exit 9"));
    let both_fail = everywhere(&world, &job("both fail", "exit 3", "exit 9"));
    let strict = job("after_script counts", "true", "exit 9").variable("AFTER_SCRIPT_IGNORE_ERRORS", "false");
    let strict = everywhere(&world, &strict);
    let strict_too = job("the script counts more", "exit 3", "exit 9");
    let strict_too = everywhere(&world, &strict_too.variable("AFTER_SCRIPT_IGNORE_ERRORS", "false"));

    let unaffected = "WARNING: after_script failed, but job will continue unaffected: exit code 9";
    check(&world, &good, |job| job.succeeded().has_line("first running").has_line("it is success")).await;
    check(&world, &after_fails, |job| job.succeeded().has_line("it is success").says(unaffected)).await;
    check(&world, &both_fail, |job| fails_with(3)(job).has_line("it is failed").says(unaffected)).await;
    check(&world, &strict, |job| fails_with(9)(job).has_line("it is success").says_not(unaffected)).await;
    check(&world, &strict_too, |job| fails_with(3)(job).has_line("it is failed").says_not(unaffected)).await;
    world.stop().await;
}
