//! `POST jobs/request`.

use std::time::{Duration, Instant};

use drover_gitlab_mock::{Config, JobBuilder, JobState, OnChange, Rule};
use serde_json::{Value, json};

use crate::support::*;

/// A body with the cursor of an earlier answer.
fn body_at(cursor: &str) -> Value {
    let mut body = request_body(&FEATURES);
    body["last_update"] = json!(cursor);
    body
}

async fn cursor(bench: &Bench) -> String {
    let reply = bench.request().await;
    assert_eq!(reply.status(), 204);
    text(reply.headers(), "x-gitlab-last-update").to_owned()
}

/// Waits until so many requests are held.
async fn held(bench: &Bench, count: u64) {
    let deadline = Instant::now() + PATIENCE;
    while bench.runner.view().held != count {
        assert!(Instant::now() < deadline, "no request is held");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn jobs_are_given_in_the_order_in_which_they_were_queued() {
    let bench = Bench::new().await;
    let jobs = bench.mock.enqueue_many(&bench.runner, JobBuilder::new("a"), 3).unwrap();
    for job in &jobs {
        let payload: Value = bench.request().await.json().await.unwrap();
        assert_eq!((payload["id"].as_u64(), payload["token"].as_str()), (Some(job.id()), Some(job.token())));
        assert_eq!(job.state(), JobState::Running);
    }
    assert_eq!(bench.request().await.status(), 204);
    let calls = bench.runner.view().calls;
    assert_eq!((calls.requests, calls.jobs, calls.empty), (4, 3, 1));
    bench.mock.assert_no_violations();
}

#[tokio::test]
async fn current_cursor_is_held_until_a_job_comes_and_the_runner_has_to_ask_again() {
    let bench = Bench::new().await;
    let cursor = cursor(&bench).await;
    let body = body_at(&cursor);
    let (reply, queued_at) = tokio::join!(bench.request_with(&body), async {
        held(&bench, 1).await;
        let at = Instant::now();
        bench.mock.enqueue(&bench.runner, JobBuilder::new("a"));
        at
    });
    // Far from the end of the time that a request is held.
    assert!(queued_at.elapsed() < PATIENCE, "{:?}", queued_at.elapsed());
    assert_eq!(reply.status(), 204);
    assert_eq!(text(reply.headers(), "x-gitlab-last-update"), "");
    assert_eq!(bench.request_with(&body_at(&cursor)).await.status(), 201);
    bench.mock.assert_no_violations();
}

#[tokio::test]
async fn held_request_carries_the_job_when_so_configured() {
    let bench = Bench::with(Config { on_change: OnChange::Dispatch, ..Config::default() }).await;
    let body = body_at(&cursor(&bench).await);
    let (reply, ()) = tokio::join!(bench.request_with(&body), async {
        held(&bench, 1).await;
        bench.mock.enqueue(&bench.runner, JobBuilder::new("a"));
    });
    assert_eq!(reply.status(), 201);
}

#[tokio::test]
async fn hold_ends_after_the_configured_time() {
    let long_poll = Duration::from_millis(100);
    let bench = Bench::with(Config { long_poll, ..Config::default() }).await;
    let body = body_at(&cursor(&bench).await);
    let started = Instant::now();
    assert_eq!(bench.request_with(&body).await.status(), 204);
    assert!(started.elapsed() >= long_poll);
}

#[tokio::test]
async fn without_long_polling_a_current_cursor_is_echoed() {
    let bench = Bench::with(Config { long_poll: Duration::ZERO, ..Config::default() }).await;
    let current = cursor(&bench).await;
    let reply = bench.request_with(&body_at(&current)).await;
    assert_eq!(reply.status(), 204);
    assert_eq!(text(reply.headers(), "x-gitlab-last-update"), current);
}

#[tokio::test]
async fn outdated_cursor_is_answered_at_once() {
    let bench = Bench::new().await;
    let old = cursor(&bench).await;
    bench.runner.tick();
    let reply = bench.request_with(&body_at(&old)).await;
    assert_eq!(reply.status(), 204);
    assert_ne!(text(reply.headers(), "x-gitlab-last-update"), old);
}

#[tokio::test]
async fn hold_of_a_caller_that_went_away_ends_and_takes_no_job() {
    let bench = Bench::with(Config { on_change: OnChange::Dispatch, ..Config::default() }).await;
    let body = body_at(&cursor(&bench).await);
    tokio::select! {
        _ = bench.request_with(&body) => panic!("nothing was queued"),
        () = held(&bench, 1) => {}
    }
    held(&bench, 0).await;
    let job = bench.mock.enqueue(&bench.runner, JobBuilder::new("a"));
    assert_eq!(job.state(), JobState::Queued);
    assert_eq!(bench.request().await.status(), 201);
}

#[tokio::test]
async fn paused_runner_gets_nothing_until_it_is_resumed() {
    let bench = Bench::new().await;
    bench.runner.pause();
    bench.mock.enqueue(&bench.runner, JobBuilder::new("a"));
    let reply = bench.request().await;
    assert_eq!(reply.status(), 204);
    assert_ne!(text(reply.headers(), "x-gitlab-last-update"), "");
    bench.runner.resume();
    assert_eq!(bench.request().await.status(), 201);
}

#[tokio::test]
async fn job_cancelled_in_the_queue_is_passed_over() {
    let bench = Bench::new().await;
    let cancelled = bench.mock.enqueue(&bench.runner, JobBuilder::new("a"));
    let wanted = bench.mock.enqueue(&bench.runner, JobBuilder::new("b"));
    assert_eq!(cancelled.cancel(), JobState::Canceled);
    let payload: Value = bench.request().await.json().await.unwrap();
    assert_eq!(payload["id"], wanted.id());
}

#[tokio::test]
async fn queues_of_runners_are_apart() {
    let bench = Bench::new().await;
    let other = bench.mock.add_runner("glrt-other");
    bench.mock.enqueue(&other, JobBuilder::new("a"));
    assert_eq!(bench.request().await.status(), 204);
}

#[tokio::test]
async fn two_phase_job_runs_once_it_is_confirmed() {
    let bench = Bench::new().await;
    let job = bench.mock.enqueue(&bench.runner, JobBuilder::new("a"));
    let mut features = FEATURES.to_vec();
    features.push("two_phase_job_commit");
    assert_eq!(bench.request_with(&request_body(&features)).await.status(), 201);
    assert_eq!(job.state(), JobState::Given);

    let reply = bench.append(&job, 0, b"too early").await;
    assert_eq!((reply.status().as_u16(), text(reply.headers(), "job-status")), (403, "pending"));
    bench.expect_violations(&[Rule::NotRunning]);
    assert_eq!(bench.finish(&job, "success", b"").await.status(), 400);
    bench.expect_violations(&[Rule::NotRunning]);

    assert_eq!(bench.update_with(&job, &update_body(&job, "pending")).await.status(), 200);
    assert_eq!(job.state(), JobState::Given);
    let reply = bench.update_with(&job, &update_body(&job, "running")).await;
    assert_eq!((reply.status().as_u16(), text(reply.headers(), "job-status")), (200, "running"));
    let view = job.view();
    assert_eq!(view.state, JobState::Running);
    assert!(view.started_at > view.given_at);
    bench.mock.assert_no_violations();
}

#[tokio::test]
async fn two_phase_job_that_nobody_confirms_goes_back_to_the_queue() {
    let bench = Bench::with(Config { commit_timeout: Duration::from_millis(50), ..Config::default() }).await;
    let job = bench.mock.enqueue(&bench.runner, JobBuilder::new("a"));
    let body = request_body(&["two_phase_job_commit"]);
    assert_eq!(bench.request_with(&body).await.status(), 201);
    job.in_state(JobState::Queued, PATIENCE).await.unwrap();

    let late = bench.update_with(&job, &update_body(&job, "running")).await;
    assert_eq!((late.status().as_u16(), text(late.headers(), "job-status")), (403, "pending"));
    assert_eq!(bench.request_with(&body).await.status(), 201);
    assert_eq!(job.view().times_given, 2);
    bench.mock.assert_no_violations();
}

#[tokio::test]
async fn wrong_runner_token_is_forbidden() {
    let bench = Bench::new().await;
    let mut body = request_body(&FEATURES);
    body["token"] = json!("glrt-stranger");
    let call = bench.call(reqwest::Method::POST, "jobs/request").header("RUNNER-TOKEN", "glrt-stranger");
    assert_eq!(call.json(&body).send().await.unwrap().status(), 403);
    bench.expect_violations(&[Rule::WrongToken]);
}

#[tokio::test]
async fn token_of_a_removed_runner_is_forbidden_without_blame() {
    let bench = Bench::new().await;
    bench.mock.remove_runner(&bench.runner);
    assert_eq!(bench.request().await.status(), 403);
    bench.mock.assert_no_violations();
}

#[tokio::test]
async fn different_tokens_in_header_and_body_are_forbidden() {
    let bench = Bench::new().await;
    let mut body = request_body(&FEATURES);
    body["token"] = json!("glrt-other");
    assert_eq!(bench.request_with(&body).await.status(), 403);
    bench.expect_violations(&[Rule::TokenMismatch]);
}

#[tokio::test]
async fn request_without_token_info_or_features_is_refused() {
    let bench = Bench::new().await;
    for (pointer, count) in [("token", 1), ("info", 1)] {
        let mut body = request_body(&FEATURES);
        body.as_object_mut().unwrap().remove(pointer);
        assert_eq!(bench.request_with(&body).await.status(), 400, "{pointer}");
        bench.expect_violations(&vec![Rule::MissingField; count]);
    }
    let mut body = request_body(&FEATURES);
    body["info"].as_object_mut().unwrap().remove("features");
    assert_eq!(bench.request_with(&body).await.status(), 400);
    bench.expect_violations(&[Rule::MissingField]);
}

#[tokio::test]
async fn members_of_a_wrong_type_are_refused() {
    let bench = Bench::new().await;
    let cases = [
        ("/system_id", json!(7)),
        ("/last_update", json!({})),
        ("/info/name", json!(1)),
        ("/info/features/cache", json!("yes")),
        ("/info/config/gpus", json!(0)),
    ];
    for (pointer, value) in cases {
        let mut body = request_body(&FEATURES);
        body["last_update"] = json!("");
        *body.pointer_mut(pointer).unwrap() = value;
        assert_eq!(bench.request_with(&body).await.status(), 400, "{pointer}");
        bench.expect_violations(&[Rule::WrongType]);
    }
}

#[tokio::test]
async fn odd_but_harmless_requests_are_served_and_recorded() {
    let bench = Bench::new().await;
    let mut unknown = request_body(&FEATURES);
    unknown["info"]["features"]["teleport"] = json!(true);
    assert_eq!(bench.request_with(&unknown).await.status(), 204);
    bench.expect_violations(&[Rule::UnknownField]);

    let mut incomplete = request_body(&FEATURES);
    incomplete["info"]["features"].as_object_mut().unwrap().remove("vault_secrets");
    assert_eq!(bench.request_with(&incomplete).await.status(), 204);
    bench.expect_violations(&[Rule::MissingField]);

    let mut odd_id = request_body(&FEATURES);
    odd_id["system_id"] = json!("my-machine");
    assert_eq!(bench.request_with(&odd_id).await.status(), 204);
    bench.expect_violations(&[Rule::BadValue]);
}

#[tokio::test]
async fn headers_that_every_runner_sends_are_missed() {
    let bench = Bench::new().await;
    let url = format!("{}/api/v4/jobs/request", bench.mock.url());
    let bare = reqwest::Client::builder().no_proxy().build().unwrap();
    let reply = bare.post(url).json(&request_body(&FEATURES)).send().await.unwrap();
    assert_eq!(reply.status(), 204);
    bench.expect_violations(&[
        Rule::MissingHeader, // User-Agent
        Rule::MissingHeader, // X-Request-Id
        Rule::BadHeader,     // Accept
        Rule::MissingHeader, // RUNNER-TOKEN
    ]);
}

#[tokio::test]
async fn body_that_is_not_json_is_refused() {
    let bench = Bench::new().await;
    let call = || bench.call(reqwest::Method::POST, "jobs/request").header("RUNNER-TOKEN", TOKEN);
    let reply = call().header("Content-Type", "application/json").body("{").send().await.unwrap();
    assert_eq!(reply.status(), 400);
    bench.expect_violations(&[Rule::MalformedBody]);
    assert_eq!(call().body("{}").send().await.unwrap().status(), 415);
    bench.expect_violations(&[Rule::BadHeader]);
    let mut long = request_body(&FEATURES);
    long["system_id"] = json!("x".repeat(40_000));
    assert_eq!(bench.request_with(&long).await.status(), 413);
    bench.expect_violations(&[Rule::MalformedBody]);
}

#[tokio::test]
async fn unknown_paths_are_recorded() {
    let bench = Bench::new().await;
    let reply = bench.call(reqwest::Method::GET, "jobs/request").send().await.unwrap();
    assert_eq!(reply.status(), 404);
    bench.expect_violations(&[Rule::UnknownRoute]);
}
