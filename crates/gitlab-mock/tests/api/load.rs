//! Many jobs at once.

use std::sync::Arc;
use std::time::Instant;

use drover_gitlab_mock::{Config, JobBuilder, JobState, LogRetention};
use serde_json::{Value, json};

use crate::support::*;

const JOBS: usize = 1_000;
const WORKERS: usize = 16;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_one_of_many_jobs_ends_exactly_once() {
    let bench =
        Arc::new(Bench::with(Config { log_retention: LogRetention::Tail(64), ..Config::default() }).await);
    bench.mock.enqueue_many(&bench.runner, JobBuilder::new("load").script(["true"]), JOBS).unwrap();
    let started = Instant::now();
    let workers: Vec<_> = (0..WORKERS).map(|_| tokio::spawn(work(Arc::clone(&bench)))).collect();
    let mut done = 0;
    for worker in workers {
        done += worker.await.unwrap();
    }
    assert_eq!((done, bench.mock.unfinished()), (JOBS, 0));
    eprintln!("{JOBS} jobs in {:?}", started.elapsed());
    for job in bench.mock.jobs() {
        let view = job.view();
        let states: Vec<JobState> = view.history.iter().map(|step| step.state).collect();
        assert_eq!(states, [JobState::Queued, JobState::Running, JobState::Success]);
        assert!(view.checksum_verified && view.times_given == 1);
    }
    let summary = bench.mock.summary();
    assert_eq!((summary.queue_wait.count, summary.lost.len()), (JOBS, 0));
    assert!(summary.jobs_per_second > 0.0);
    bench.mock.assert_no_violations();
}

/// Takes jobs, logs a line, ends them; until there are no more.
async fn work(bench: Arc<Bench>) -> usize {
    let mut done = 0;
    loop {
        let reply = bench.request().await;
        if reply.status() != 201 {
            return done;
        }
        let payload: Value = reply.json().await.unwrap();
        let job = bench.mock.job(payload["id"].as_u64().unwrap()).unwrap();
        let log = format!("job {}\n", payload["id"]);
        assert_eq!(bench.append(&job, 0, log.as_bytes()).await.status(), 202);
        let mut body = final_body(&job, "success", log.as_bytes());
        body["runtime_environment_key"] = json!("");
        assert_eq!(bench.update_with(&job, &body).await.status(), 200);
        done += 1;
    }
}
