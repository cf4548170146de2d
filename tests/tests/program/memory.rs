//! A job may print as much as it likes; the manager's memory does not grow with it.

use drover_tests::{Drover, Entry, PATIENCE, Setup, Sshd, memory_peak};
use gitlab_mock::{Config, GitlabMock, Job, JobBuilder, JobState, LogRetention};
use nix::sys::signal::Signal;

const MIB: u64 = 1 << 20;
/// Far less than one of the logs.
const MOST: u64 = 48 * MIB;

#[tokio::test]
async fn large_logs_and_endless_lines_go_through_a_small_process() {
    let sshd = Sshd::start();
    let entry = Entry::machines("fleet", [&sshd]).set("output_limit", 200 * 1024);
    let config = Config { log_retention: LogRetention::Tail(4096), ..Config::default() };
    let gitlab = GitlabMock::start(config).await.unwrap();
    let runner = gitlab.add_runner("glrt-fleet-0123456789abcdef");
    let mut drover = Drover::start(&Setup::new().runner(entry), gitlab.url());
    let run = |name: &str, script: &str| {
        let job = JobBuilder::new(name).script([script]).variable("FF_TIMESTAMPS", "false");
        gitlab.enqueue(&runner, job.masked_variable("SECRET", "corvette-9-lighthouse"))
    };
    let ended = async |job: &Job, least: u64| {
        let view = job.finished(PATIENCE).await.unwrap();
        assert_eq!(view.state, JobState::Success, "{}", job.log_text());
        assert!(view.checksum_verified && view.log_bytes >= least, "{view:?}");
        assert!(job.log_text().contains("Job succeeded"), "{}", job.log_text());
    };
    let small = run("small", "echo hello");
    ended(&small, 1).await;
    let before = memory_peak(drover.program.pid()).unwrap();

    let line = "0123456789abcdefghijklmnopqrstuvwxyz";
    let many_lines = run("100 MiB in lines", &format!("head -c {} <(yes {line}); echo", 100 * MIB));
    ended(&many_lines, 100 * MIB).await;
    let one_line = run("50 MiB in one line", &format!("head -c {} /dev/zero | tr '\\0' x; echo", 50 * MIB));
    ended(&one_line, 50 * MIB).await;

    let peak = memory_peak(drover.program.pid()).unwrap();
    println!("resident at most: {} MiB, {} MiB of it before the large logs", peak / MIB, before / MIB);
    assert!(peak - before < MOST, "the manager grew by {} MiB", (peak - before) / MIB);
    drover.program.signal(Signal::SIGQUIT);
    assert_eq!(drover.program.ends().await, Some(0));
    gitlab.assert_no_violations();
}
