//! `drover demo`, with the program itself as every instance.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::support::{Home, PATIENCE, finish};

#[tokio::test]
async fn jobs_come_and_go_and_the_figures_are_alone_on_standard_output() {
    let home = Home::empty();
    let shown = home.drover(&["demo", "--jobs", "3", "--json", "-"]).await.code(0);
    let figures: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
    let expected = serde_json::json!({ "total": 3, "succeeded": 2, "failed_as_intended": 1, "otherwise": 0 });
    assert_eq!(figures["jobs"], expected);
    assert_eq!(figures["violations"], 0);
    assert!(shown.stderr.contains("job 3 failed: audit, script_failure"), "{}", shown.stderr);
}

#[tokio::test]
async fn an_interrupt_ends_it_early_and_leaves_nothing() {
    let home = Home::empty();
    let mut command = home.command(&["demo"]);
    let scratch = home.path().join("scratch");
    std::fs::create_dir(&scratch).unwrap();
    let mut child = command.env("TMPDIR", &scratch).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let started = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains(" started on ") {
                return;
            }
        }
        panic!("no job was started");
    };
    tokio::time::timeout(PATIENCE, started).await.expect("a job is started");
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap());
    kill(pid, Signal::SIGINT).unwrap();
    // What is printed until the end must have somewhere to go.
    let rest = async { while lines.next_line().await.unwrap().is_some() {} };
    let (status, ()) = tokio::time::timeout(PATIENCE, async { tokio::join!(child.wait(), rest) })
        .await
        .expect("an interrupt ends the demo");
    assert_eq!(status.unwrap().code(), Some(1));
    assert_eq!(std::fs::read_dir(&scratch).unwrap().count(), 0);
}

#[tokio::test]
async fn without_git_it_says_what_is_missing() {
    let home = Home::empty();
    let mut command = home.command(&["demo", "--plain"]);
    command.env("PATH", home.path());
    let refused = finish(command).await.code(1);
    assert!(refused.stderr.contains("needs `git`"), "{}", refused.stderr);
    assert!(refused.stderr.contains("hint: install git"), "{}", refused.stderr);
}

#[tokio::test]
async fn no_jobs_are_a_wrong_command_line() {
    let refused = Home::empty().drover(&["demo", "--jobs", "0"]).await.code(2);
    assert!(refused.stderr.contains("at least one job"), "{}", refused.stderr);
}
