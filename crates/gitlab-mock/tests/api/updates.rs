//! `PUT jobs/{id}`: keep-alives, final updates, cancel.

use std::time::Duration;

use drover_gitlab_mock::{Config, JobBuilder, JobState, Rule};
use serde_json::json;

use crate::support::*;

#[tokio::test]
async fn job_ends_once_with_what_the_runner_reports() {
    let bench = Bench::new().await;
    let job = bench.take(JobBuilder::new("a")).await;
    bench.append(&job, 0, b"boom").await;
    let reply = bench.finish(&job, "failed", b"boom").await;
    assert_eq!((reply.status().as_u16(), text(reply.headers(), "job-status")), (200, "failed"));
    let view = job.finished(PATIENCE).await.unwrap();
    assert_eq!(view.failure_reason.as_deref(), Some("script_failure"));
    assert_eq!(view.exit_code, Some(3));
    assert!(view.checksum_verified && !view.ended_by_server);
    let states: Vec<JobState> = view.history.iter().map(|step| step.state).collect();
    assert_eq!(states, [JobState::Queued, JobState::Running, JobState::Failed]);
    assert!(view.history.is_sorted_by_key(|step| step.at));
    assert_eq!(bench.mock.unfinished(), 0);
    bench.mock.assert_no_violations();

    let again = bench.finish(&job, "success", b"boom").await;
    assert_eq!((again.status().as_u16(), text(again.headers(), "job-status")), (403, "failed"));
    bench.expect_violations(&[Rule::UpdateAfterFinal]);
    assert_eq!(job.state(), JobState::Failed);
}

#[tokio::test]
async fn keep_alives_are_taken_and_counted() {
    let bench = Bench::new().await;
    let job = bench.take(JobBuilder::new("a")).await;
    let reply = bench.update_with(&job, &final_body(&job, "running", b"not all sent yet")).await;
    assert_eq!((reply.status().as_u16(), text(reply.headers(), "job-status")), (200, "running"));
    assert_eq!(job.view().calls.keep_alives, 1);
    bench.mock.assert_no_violations();
}

#[tokio::test]
async fn keep_alive_with_less_than_the_server_has_is_recorded() {
    let bench = Bench::new().await;
    let job = bench.take(JobBuilder::new("a")).await;
    bench.append(&job, 0, b"hello").await;
    assert_eq!(bench.update_with(&job, &final_body(&job, "running", b"he")).await.status(), 200);
    bench.expect_violations(&[Rule::BadValue]);
}

#[tokio::test]
async fn wrong_size_or_checksum_asks_for_the_whole_log_again() {
    let bench = Bench::new().await;
    for (pointer, value) in [("/output/bytesize", json!(4)), ("/output/checksum", json!("crc32:00000000"))] {
        let job = bench.take(JobBuilder::new("a")).await;
        bench.append(&job, 0, b"hello").await;
        let mut body = final_body(&job, "success", b"hello");
        *body.pointer_mut(pointer).unwrap() = value;
        body.as_object_mut().unwrap().remove("checksum");
        assert_eq!(bench.update_with(&job, &body).await.status(), 412, "{pointer}");
        bench.expect_violations(&[Rule::TraceMismatch]);
        assert_eq!(job.state(), JobState::Running);
        assert_eq!(bench.append(&job, 0, b"hello").await.status(), 202);
        assert_eq!(bench.finish(&job, "success", b"hello").await.status(), 200);
        bench.mock.assert_no_violations();
    }
}

#[tokio::test]
async fn spoiled_log_is_asked_for_again_without_blame() {
    let bench = Bench::new().await;
    let job = bench.take(JobBuilder::new("a")).await;
    bench.append(&job, 0, b"hello").await;
    job.corrupt_log();
    assert_eq!(bench.finish(&job, "success", b"hello").await.status(), 412);
    assert_eq!(bench.append(&job, 0, b"hello").await.status(), 202);
    assert_eq!(bench.finish(&job, "success", b"hello").await.status(), 200);
    assert_eq!(job.view().log_resets, 1);
    bench.mock.assert_no_violations();
}

#[tokio::test]
async fn delayed_final_updates_are_accepted_until_one_is_taken() {
    let bench = Bench::new().await;
    let job = bench.take(JobBuilder::new("a").delay_final_updates(2)).await;
    for _ in 0..2 {
        let reply = bench.finish(&job, "success", b"").await;
        assert_eq!((reply.status().as_u16(), text(reply.headers(), "job-status")), (202, "running"));
    }
    assert_eq!(bench.finish(&job, "success", b"").await.status(), 200);
    assert_eq!(job.view().calls.final_updates, 3);
    bench.mock.assert_no_violations();
}

#[tokio::test]
async fn announced_final_state_cannot_change() {
    let bench = Bench::new().await;
    let job = bench.take(JobBuilder::new("a").delay_final_updates(1)).await;
    assert_eq!(bench.finish(&job, "success", b"").await.status(), 202);
    assert_eq!(bench.finish(&job, "failed", b"").await.status(), 200);
    bench.expect_violations(&[Rule::BadValue]);
}

#[tokio::test]
async fn incomplete_updates_are_refused() {
    let bench = Bench::new().await;
    let job = bench.take(JobBuilder::new("a")).await;
    for member in ["token", "info", "state", "output"] {
        let mut body = final_body(&job, "success", b"");
        body.as_object_mut().unwrap().remove(member);
        assert_eq!(bench.update_with(&job, &body).await.status(), 400, "{member}");
        bench.expect_violations(&[Rule::MissingField]);
    }
    for (member, value) in [("exit_code", json!("3")), ("output", json!([])), ("state", json!(1))] {
        let mut body = final_body(&job, "success", b"");
        body[member] = value;
        assert_eq!(bench.update_with(&job, &body).await.status(), 400, "{member}");
        bench.expect_violations(&[Rule::WrongType]);
    }
    assert_eq!(bench.update_with(&job, &update_body(&job, "done")).await.status(), 400);
    bench.expect_violations(&[Rule::BadValue]);
    assert_eq!(job.state(), JobState::Running);
}

#[tokio::test]
async fn odd_final_updates_are_taken_and_recorded() {
    let bench = Bench::new().await;
    type Change = fn(&mut serde_json::Value);
    let cases: [(&str, Change, &[Rule]); 6] = [
        (
            "failed",
            |body| drop(body.as_object_mut().unwrap().remove("failure_reason")),
            &[Rule::MissingField],
        ),
        ("failed", |body| body["failure_reason"] = json!("bad_weather"), &[Rule::BadValue]),
        ("failed", |body| body["exit_code"] = json!(0), &[Rule::BadValue]),
        ("success", |body| body["failure_reason"] = json!("script_failure"), &[Rule::BadValue]),
        (
            "success",
            |body| body["output"] = json!({}),
            &[Rule::BadValue, Rule::MissingField, Rule::MissingField],
        ),
        ("success", |body| body["colour"] = json!("green"), &[Rule::UnknownField]),
    ];
    for (state, change, rules) in cases {
        let job = bench.take(JobBuilder::new("a")).await;
        let mut body = final_body(&job, state, b"");
        change(&mut body);
        assert_eq!(bench.update_with(&job, &body).await.status(), 200, "{body}");
        bench.expect_violations(rules);
    }
}

#[tokio::test]
async fn updates_with_wrong_tokens_are_forbidden() {
    let bench = Bench::new().await;
    let job = bench.take(JobBuilder::new("a")).await;
    let mut body = update_body(&job, "running");
    body["token"] = json!("glcbt-64_other");
    assert_eq!(bench.update_with(&job, &body).await.status(), 403);
    bench.expect_violations(&[Rule::TokenMismatch]);
    let call = bench.call(reqwest::Method::PUT, &format!("jobs/{}", job.id()));
    let reply = call.header("JOB-TOKEN", "glcbt-64_other").json(&body).send().await.unwrap();
    assert_eq!(reply.status(), 403);
    bench.expect_violations(&[Rule::WrongToken]);
    let call = bench.call(reqwest::Method::PUT, "jobs/4711").header("JOB-TOKEN", job.token());
    assert_eq!(call.json(&update_body(&job, "running")).send().await.unwrap().status(), 404);
    bench.expect_violations(&[Rule::UnknownJob]);
}

#[tokio::test]
async fn update_of_a_job_that_nobody_took_is_forbidden() {
    let bench = Bench::new().await;
    let job = bench.mock.enqueue(&bench.runner, JobBuilder::new("a"));
    assert_eq!(bench.finish(&job, "success", b"").await.status(), 403);
    bench.expect_violations(&[Rule::NotRunning]);
}

#[tokio::test]
async fn graceful_cancel_is_announced_and_ends_with_the_runners_update() {
    let bench = Bench::new().await;
    let job = bench.take(JobBuilder::new("a")).await;
    assert_eq!(job.cancel(), JobState::Canceling);
    let reply = bench.append(&job, 0, b"stopping").await;
    assert_eq!((reply.status().as_u16(), text(reply.headers(), "job-status")), (202, "canceling"));
    let reply = bench.update_with(&job, &update_body(&job, "running")).await;
    assert_eq!(text(reply.headers(), "job-status"), "canceling");
    let mut body = final_body(&job, "failed", b"stopping");
    body["failure_reason"] = json!("job_canceled");
    let reply = bench.update_with(&job, &body).await;
    assert_eq!((reply.status().as_u16(), text(reply.headers(), "job-status")), (200, "canceled"));
    let view = job.view();
    assert_eq!((view.state, view.ended_by_server), (JobState::Canceled, false));
    bench.mock.assert_no_violations();
}

#[tokio::test]
async fn cancel_is_immediate_for_a_runner_that_cannot_be_graceful() {
    let bench = Bench::new().await;
    let job = bench.mock.enqueue(&bench.runner, JobBuilder::new("a"));
    bench.request_with(&request_body(&["cancelable"])).await;
    assert_eq!(job.cancel(), JobState::Canceled);
}

#[tokio::test]
async fn forced_cancel_refuses_what_follows_and_forgives_it_for_a_while() {
    let bench = Bench::new().await;
    let job = bench.take(JobBuilder::new("a")).await;
    job.cancel();
    assert_eq!(job.force_cancel(), JobState::Canceled);
    for _ in 0..4 {
        let reply = bench.append(&job, 0, b"x").await;
        assert_eq!((reply.status().as_u16(), text(reply.headers(), "job-status")), (403, "canceled"));
    }
    bench.mock.assert_no_violations();
    assert_eq!(bench.finish(&job, "failed", b"x").await.status(), 403);
    bench.expect_violations(&[Rule::NotRunning]);
    let states: Vec<JobState> = job.view().history.iter().map(|step| step.state).collect();
    assert_eq!(states, [JobState::Queued, JobState::Running, JobState::Canceling, JobState::Canceled]);
}

#[tokio::test]
async fn silent_job_is_dropped_as_stuck() {
    let bench =
        Bench::with(Config { stale_after: Some(Duration::from_millis(60)), ..Config::default() }).await;
    let job = bench.take(JobBuilder::new("a")).await;
    let view = job.finished(PATIENCE).await.unwrap();
    assert_eq!(
        (view.state, view.failure_reason.as_deref()),
        (JobState::Failed, Some("stuck_or_timeout_failure"))
    );
    assert_eq!(bench.mock.summary().lost, [job.id()]);
}

#[tokio::test]
async fn job_that_outlives_its_timeout_is_dropped() {
    let config = Config { timeout_grace: Some(Duration::from_millis(20)), ..Config::default() };
    let bench = Bench::with(config).await;
    let job = bench.take(JobBuilder::new("a").timeout(Duration::ZERO)).await;
    let view = job.finished(PATIENCE).await.unwrap();
    assert_eq!(view.failure_reason.as_deref(), Some("job_execution_timeout"));
    let reply = bench.update_with(&job, &update_body(&job, "running")).await;
    assert_eq!((reply.status().as_u16(), text(reply.headers(), "job-status")), (403, "failed"));
    bench.mock.assert_no_violations();
}
