//! The demonstration from end to end: real git, real SSH servers, real processes.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use drover_demo::{DemoOptions, Summary, run_to};

/// Collects what is printed.
#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn play(options: DemoOptions) -> (Summary, String) {
    let page = Page::default();
    let options = DemoOptions {
        plain: true,
        program: Some(env!("CARGO_BIN_EXE_drover-demo-instance").into()),
        ..options
    };
    let outcome = run_to(options, Box::new(page.clone())).await;
    let text = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
    match outcome {
        Ok(summary) => (summary, text),
        Err(error) => panic!("{error}\n{text}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn six_jobs_arrive_run_on_instances_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (json, picture) = (dir.path().join("summary.json"), dir.path().join("busy.svg"));
    let options = DemoOptions {
        jobs: 6,
        json: Some(json.clone()),
        picture: Some(picture.clone()),
        ..DemoOptions::default()
    };
    let (summary, text) = play(options).await;

    assert_eq!((summary.jobs.total, summary.jobs.succeeded, summary.jobs.failed_as_intended), (6, 5, 1));
    assert_eq!(summary.violations, 0);
    assert!(summary.instances.started >= 1);
    assert_eq!(summary.instances.left, 0);
    assert!(summary.instances.seconds_used >= summary.instances.seconds_packed);
    assert!(summary.instances.seconds_packed >= summary.instances.seconds_least);
    for event in [
        "job 1 arrived: build",
        "requested",
        "ready after",
        "job 1 started on demo-",
        "job 1 succeeded: build",
        "job 3 failed: audit, script_failure",
        "removed: instances are deleted at shutdown",
        "jobs        6: 5 succeeded, 1 failed as intended, 0 otherwise",
    ] {
        assert!(text.contains(event), "no `{event}` in:\n{text}");
    }
    let started = text.matches(" started on ").count();
    assert_eq!((started, text.matches(" arrived: ").count()), (6, 6), "{text}");

    let written: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!(written, serde_json::to_value(&summary).unwrap());
    assert!(std::fs::read_to_string(&picture).unwrap().starts_with("<svg "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_instance_fails_its_job_with_a_reason_and_no_other() {
    let options = DemoOptions { jobs: 4, kill_instance: true, seed: 2, ..DemoOptions::default() };
    let (summary, text) = play(options).await;

    let killed = summary.killed.expect("an instance was killed");
    assert!(!killed.jobs.is_empty());
    assert!(killed.log_tail.contains(&killed.instance), "{}", killed.log_tail);
    assert!(killed.log_tail.contains("ERROR: Job failed (system failure)"), "{}", killed.log_tail);
    assert!(text.contains(&format!("instance {} killed under job", killed.instance)), "{text}");
    assert!(text.contains("failed: soak, runner_system_failure"), "{text}");
    assert!(text.contains(&format!("instance {} removed: killed", killed.instance)), "{text}");
    // The other four: whatever shared the instance, and those that were not disturbed.
    assert_eq!(summary.jobs.otherwise, 0);
    assert_eq!(summary.jobs.succeeded + summary.jobs.failed_as_intended, 5);
}

#[tokio::test]
async fn no_jobs_are_refused() {
    let options = DemoOptions { jobs: 0, ..DemoOptions::default() };
    let error = run_to(options, Box::new(io::sink())).await.unwrap_err();
    assert_eq!(error.to_string(), "the demo needs at least one job");
}
