//! The shell of the runner entry runs the scripts.

use drover_tests::{Entry, Setup, Sshd};
use gitlab_mock::JobBuilder;

use crate::world::{both, both_with, check, everywhere};

#[tokio::test]
async fn bash_is_the_default_and_sh_can_be_chosen() {
    let sshd = Sshd::start();
    let script = ["if [ -n \"$BASH_VERSION\" ]; then echo in bash; else echo elsewhere; fi", "exit 5"];
    let job = JobBuilder::new("which").script(script).after_script(["echo \"$CI_JOB_STATUS\""]);

    let bash = both(&sshd).await;
    check(&bash, &everywhere(&bash, &job), |job| {
        job.failed("script_failure", Some(5)).has_line("in bash").has_line("failed")
    })
    .await;
    bash.stop().await;

    let sh = both_with(&sshd, |entry| entry.set("shell", "sh")).await;
    // Where `sh` is bash, it does not say so.
    let dash = std::fs::canonicalize("/bin/sh").unwrap().ends_with("dash");
    let said = if dash { "elsewhere" } else { "in bash" };
    check(&sh, &everywhere(&sh, &job), |job| {
        job.failed("script_failure", Some(5)).has_line(said).has_line("failed")
    })
    .await;
    sh.stop().await;
}

#[tokio::test]
async fn a_command_that_reads_its_input_does_not_eat_the_rest_of_the_script() {
    let sshd = Sshd::start();
    let job = JobBuilder::new("reads").script(["cat", "read -r line || echo nothing to read", "echo later"]);
    for shell in ["bash", "sh"] {
        let world = both_with(&sshd, |entry| entry.set("shell", shell)).await;
        check(&world, &everywhere(&world, &job), |job| {
            job.succeeded().has_line("nothing to read").has_line("later")
        })
        .await;
        world.stop().await;
    }
}

#[tokio::test]
async fn a_shell_that_is_not_there_is_named() {
    // A machine with all programs but bash.
    let programs = tempfile::tempdir().unwrap();
    for folder in ["/usr/bin", "/bin"] {
        for program in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
            let link = programs.path().join(program.file_name());
            if program.file_name() != "bash" && !link.exists() {
                let _ = std::os::unix::fs::symlink(program.path(), link);
            }
        }
    }
    let command = format!("PATH={} /bin/sh -c \"$SSH_ORIGINAL_COMMAND\"", programs.path().display());
    let sshd = Sshd::configured(&format!("ForceCommand {command}"));
    let bash = Entry::machines("bash", [&sshd]);
    let sh = Entry::machines("sh", [&sshd]).set("shell", "sh");
    let world = Setup::new().runner(bash).runner(sh).start().await;
    let jobs = everywhere(&world, &JobBuilder::new("hello").script(["echo hello"]));

    world
        .finished(&jobs[0])
        .await
        .failed("runner_system_failure", None)
        .says("the shell `bash` was not found on instance m1")
        .says("install it there, or set `shell` to one that is there (`sh`)")
        .lacks_line("hello");
    world.finished(&jobs[1]).await.succeeded().has_line("hello");
    world.stop().await;
}
