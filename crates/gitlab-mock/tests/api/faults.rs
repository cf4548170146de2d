//! Faults on demand.

use std::time::{Duration, Instant};

use drover_gitlab_mock::{Endpoint, Fault, JobBuilder, JobState, Rule};
use serde_json::json;

use crate::support::*;

#[tokio::test]
async fn status_fault_hits_so_many_calls_of_its_endpoints() {
    let bench = Bench::new().await;
    let fault =
        Fault::status(429).retry_after(Duration::from_secs(7)).on([Endpoint::RequestJob]).after(1).times(2);
    let id = bench.mock.inject(fault);
    let job = bench.take(JobBuilder::new("a")).await;
    bench.mock.enqueue(&bench.runner, JobBuilder::new("b"));
    for _ in 0..2 {
        let reply = bench.request().await;
        assert_eq!((reply.status().as_u16(), text(reply.headers(), "retry-after")), (429, "7"));
        assert_eq!(bench.append(&job, job.log().len(), b"x").await.status(), 202);
    }
    assert_eq!(bench.request().await.status(), 201);
    let report = bench.mock.faults();
    assert_eq!((report[0].id, report[0].hits, report[0].active), (id, 2, false));
    bench.mock.assert_no_violations();
}

#[tokio::test]
async fn rate_limit_reset_is_a_date_of_the_future() {
    let bench = Bench::new().await;
    bench.mock.inject(Fault::status(503).rate_limit_reset(Duration::from_secs(60)));
    let reply = bench.request().await;
    let date = text(reply.headers(), "ratelimit-resettime");
    assert!(date.ends_with(" GMT") && date.len() == "Sun, 06 Nov 1994 08:49:37 GMT".len(), "{date}");
}

#[tokio::test]
async fn fault_lasts_until_it_is_removed_or_its_time_is_over() {
    let bench = Bench::new().await;
    let id = bench.mock.inject(Fault::status(502));
    for _ in 0..3 {
        assert_eq!(bench.request().await.status(), 502);
    }
    assert!(bench.mock.remove_fault(id));
    assert!(!bench.mock.remove_fault(id));
    assert_eq!(bench.request().await.status(), 204);

    bench.mock.inject(Fault::status(500).lasting(Duration::from_millis(50)));
    let started = Instant::now();
    while bench.request().await.status() == 500 {
        assert!(started.elapsed() < PATIENCE);
    }
    assert!(started.elapsed() >= Duration::from_millis(50));
    bench.mock.inject(Fault::status(500));
    bench.mock.clear_faults();
    assert_eq!(bench.request().await.status(), 204);
}

#[tokio::test]
async fn fault_for_one_job_leaves_others_alone() {
    let bench = Bench::new().await;
    let (one, other) = (bench.take(JobBuilder::new("a")).await, bench.take(JobBuilder::new("b")).await);
    bench.mock.inject(Fault::status(500).for_job(one.id()));
    assert_eq!(bench.append(&one, 0, b"x").await.status(), 500);
    assert_eq!(bench.append(&other, 0, b"x").await.status(), 202);
}

#[tokio::test]
async fn reset_connection_leaves_no_trace() {
    let bench = Bench::new().await;
    let job = bench.take(JobBuilder::new("a")).await;
    bench.mock.inject(Fault::reset().on([Endpoint::PatchTrace]).times(1));
    let error = bench.patch(&job, "0-0", b"x").send().await.unwrap_err();
    assert!(error.is_request(), "{error:?}");
    assert!(job.log().is_empty());
    assert_eq!(bench.append(&job, 0, b"x").await.status(), 202);
    bench.mock.assert_no_violations();
}

#[tokio::test]
async fn patch_with_a_lost_answer_took_effect_and_its_repetition_is_forgiven_once() {
    let bench = Bench::new().await;
    let job = bench.take(JobBuilder::new("a")).await;
    bench.mock.inject(Fault::lose_answer().on([Endpoint::PatchTrace]).times(1));
    assert!(bench.patch(&job, "0-4", b"hello").send().await.is_err());
    assert_eq!(job.log(), b"hello");
    let reply = bench.append(&job, 0, b"hello").await;
    assert_eq!((reply.status().as_u16(), text(reply.headers(), "range")), (416, "0-5"));
    bench.mock.assert_no_violations();
    assert_eq!(bench.append(&job, 0, b"hello").await.status(), 416);
    bench.expect_violations(&[Rule::TraceOverlap]);
}

#[tokio::test]
async fn final_update_with_a_lost_answer_took_effect_and_its_repetition_is_forgiven_once() {
    let bench = Bench::new().await;
    let job = bench.take(JobBuilder::new("a")).await;
    bench.mock.inject(Fault::lose_answer().on([Endpoint::UpdateJob]).times(1));
    let path = format!("jobs/{}", job.id());
    let call = bench.call(reqwest::Method::PUT, &path).header("JOB-TOKEN", job.token());
    assert!(call.json(&final_body(&job, "success", b"")).send().await.is_err());
    assert_eq!(job.state(), JobState::Success);
    let reply = bench.finish(&job, "success", b"").await;
    assert_eq!((reply.status().as_u16(), text(reply.headers(), "job-status")), (403, "success"));
    bench.mock.assert_no_violations();
    bench.finish(&job, "success", b"").await;
    bench.expect_violations(&[Rule::UpdateAfterFinal]);
}

#[tokio::test]
async fn job_whose_answer_was_lost_is_counted_as_lost() {
    let bench = Bench::new().await;
    let job = bench.mock.enqueue(&bench.runner, JobBuilder::new("a"));
    bench.mock.inject(Fault::lose_answer().on([Endpoint::RequestJob]).times(1));
    let call = bench.call(reqwest::Method::POST, "jobs/request").header("RUNNER-TOKEN", TOKEN);
    assert!(call.json(&request_body(&FEATURES)).send().await.is_err());
    assert_eq!(job.state(), JobState::Running);
    assert_eq!(bench.mock.summary().lost, [job.id()]);
}

#[tokio::test]
async fn slow_answer_comes_after_the_effect() {
    let bench = Bench::new().await;
    let job = bench.take(JobBuilder::new("a")).await;
    let slow = Duration::from_secs(3);
    bench.mock.inject(Fault::slow_answer(slow).on([Endpoint::PatchTrace]));
    let started = Instant::now();
    let (reply, ()) = tokio::join!(bench.append(&job, 0, b"x"), async {
        job.wait_until(PATIENCE, |view| view.log_bytes == 1).await.unwrap();
        assert!(started.elapsed() < slow);
    });
    assert!(started.elapsed() >= slow);
    assert_eq!(reply.status(), 202);
}

#[tokio::test]
async fn caller_that_does_not_wait_for_a_slow_answer_may_repeat_itself() {
    let bench = Bench::new().await;
    let job = bench.take(JobBuilder::new("a")).await;
    let id = bench.mock.inject(Fault::slow_answer(PATIENCE).on([Endpoint::PatchTrace]).times(1));
    let impatient = bench.patch(&job, "0-0", b"x").timeout(Duration::from_millis(100)).send().await;
    assert!(impatient.unwrap_err().is_timeout());
    bench.mock.remove_fault(id);
    // The server sees a moment later that the caller is gone.
    let deadline = Instant::now() + PATIENCE;
    while bench.append(&job, 0, b"x").await.status() != 416 || !bench.mock.take_violations().is_empty() {
        assert!(Instant::now() < deadline);
    }
}

#[tokio::test]
async fn delay_comes_before_the_effect() {
    let bench = Bench::new().await;
    let job = bench.take(JobBuilder::new("a")).await;
    bench.mock.inject(Fault::delay(Duration::from_millis(80)).times(1));
    let started = Instant::now();
    assert_eq!(bench.append(&job, 0, b"x").await.status(), 202);
    assert!(job.view().first_log_at.is_some() && started.elapsed() >= Duration::from_millis(80));
}

#[tokio::test]
async fn closed_port_refuses_and_opens_again_on_the_same_address() {
    let bench = Bench::new().await;
    assert_eq!(bench.request().await.status(), 204);
    bench.mock.refuse_connections().await;
    let call = bench.call(reqwest::Method::POST, "jobs/request");
    assert!(call.json(&request_body(&FEATURES)).send().await.unwrap_err().is_connect());
    bench.mock.accept_connections().await;
    assert_eq!(bench.request().await.status(), 204);
}

#[tokio::test]
async fn admin_calls_drive_a_standalone_server() {
    let bench = Bench::new().await;
    let url = |path: &str| format!("{}/mock/{path}", bench.mock.url());
    let order = json!({ "count": 2, "job": { "name": "remote", "script": ["true"] } });
    let reply = bench.http.post(url("jobs")).json(&order).send().await.unwrap();
    assert_eq!(reply.status(), 201);
    assert_eq!(reply.json::<serde_json::Value>().await.unwrap(), json!({ "ids": [1, 2] }));

    let fault = json!({ "action": { "status": { "code": 503 } }, "endpoints": ["request_job"], "times": 1 });
    assert_eq!(bench.http.post(url("faults")).json(&fault).send().await.unwrap().status(), 201);
    assert_eq!(bench.request().await.status(), 503);
    assert_eq!(bench.request().await.status(), 201);

    let reply = bench.http.post(url("jobs/1/cancel?force=true")).send().await.unwrap();
    assert_eq!(reply.json::<serde_json::Value>().await.unwrap(), json!({ "state": "canceled" }));
    let jobs: serde_json::Value =
        bench.http.get(url("jobs?after=1")).send().await.unwrap().json().await.unwrap();
    assert_eq!((jobs[0]["id"].as_u64(), jobs[0]["state"].as_str()), (Some(2), Some("queued")));
    let pause = url(&format!("runners/{}/pause", bench.runner.id()));
    assert_eq!(bench.http.post(pause).send().await.unwrap().status(), 204);
    assert!(bench.runner.view().paused);
    let summary: serde_json::Value =
        bench.http.get(url("summary")).send().await.unwrap().json().await.unwrap();
    assert_eq!(summary["jobs"], json!({ "queued": 1, "canceled": 1 }));
    let violations: serde_json::Value =
        bench.http.get(url("violations")).send().await.unwrap().json().await.unwrap();
    assert_eq!(violations, json!([]));
    let outage = json!({ "seconds": 0.2 });
    assert_eq!(bench.http.post(url("outage")).json(&outage).send().await.unwrap().status(), 202);
    let deadline = Instant::now() + PATIENCE;
    while bench.http.get(url("health")).send().await.is_ok() {
        assert!(Instant::now() < deadline, "the port never closed");
    }
    while bench.http.get(url("health")).send().await.is_err() {
        assert!(Instant::now() < deadline, "the port never opened again");
    }
}
