//! `PATCH jobs/{id}/trace`.

use std::time::Duration;

use drover_gitlab_mock::{Config, JobBuilder, JobState, LogRetention, Rule};

use crate::support::*;

#[tokio::test]
async fn patches_are_appended_and_answered_with_the_size() {
    let bench = Bench::new().await;
    let job = bench.take(JobBuilder::new("a")).await;
    let reply = bench.append(&job, 0, b"hello ").await;
    assert_eq!(reply.status(), 202);
    assert_eq!(text(reply.headers(), "range"), "0-6");
    assert_eq!(text(reply.headers(), "job-status"), "running");
    assert_eq!(text(reply.headers(), "x-gitlab-trace-update-interval"), "3");
    bench.mock.set_trace_interval(Some(Duration::from_secs(60)));
    let reply = bench.append(&job, 6, b"world").await;
    assert_eq!(text(reply.headers(), "x-gitlab-trace-update-interval"), "60");
    bench.mock.set_trace_interval(None);
    let reply = bench.append(&job, 11, b"!").await;
    assert_eq!(text(reply.headers(), "x-gitlab-trace-update-interval"), "");
    assert_eq!(job.log(), b"hello world!");
    let view = job.view();
    assert_eq!((view.log_bytes, view.log_checksum.as_str()), (12, checksum(b"hello world!").as_str()));
    assert_eq!(view.calls.patches, 3);
    bench.mock.assert_no_violations();
}

#[tokio::test]
async fn missing_content_range_is_refused() {
    let bench = Bench::new().await;
    let job = bench.take(JobBuilder::new("a")).await;
    let reply = bench
        .call(reqwest::Method::PATCH, &format!("jobs/{}/trace?debug_trace=false", job.id()))
        .header("JOB-TOKEN", job.token())
        .header("Content-Type", "text/plain")
        .body("x")
        .send()
        .await
        .unwrap();
    assert_eq!(reply.status(), 400);
    bench.expect_violations(&[Rule::ContentRange]);
}

#[tokio::test]
async fn malformed_or_wrong_content_range_is_refused() {
    let bench = Bench::new().await;
    let job = bench.take(JobBuilder::new("a")).await;
    for range in ["bytes 0-4/5", "0-", "4-0", "+0-4", "0-5", "0-3"] {
        assert_eq!(bench.patch(&job, range, b"hello").send().await.unwrap().status(), 400, "{range}");
        bench.expect_violations(&[Rule::ContentRange]);
    }
    assert!(job.log().is_empty());
}

#[tokio::test]
async fn gap_and_overlap_are_answered_with_where_to_go_on() {
    let bench = Bench::new().await;
    let job = bench.take(JobBuilder::new("a")).await;
    bench.append(&job, 0, b"hello").await;
    for (offset, rule) in [(6, Rule::TraceGap), (4, Rule::TraceOverlap), (0, Rule::TraceOverlap)] {
        let reply = bench.append(&job, offset, b"x").await;
        assert_eq!((reply.status().as_u16(), text(reply.headers(), "range")), (416, "0-5"));
        assert_eq!(text(reply.headers(), "job-status"), "running");
        bench.expect_violations(&[rule]);
    }
    assert_eq!(job.log(), b"hello");
}

#[tokio::test]
async fn patch_with_the_wrong_token_is_forbidden() {
    let bench = Bench::new().await;
    let job = bench.take(JobBuilder::new("a")).await;
    let other = bench.take(JobBuilder::new("b")).await;
    let path = format!("jobs/{}/trace?debug_trace=false", job.id());
    let call = |token: &str| {
        let call = bench.call(reqwest::Method::PATCH, &path).header("Content-Range", "0-0").body("x");
        if token.is_empty() { call } else { call.header("JOB-TOKEN", token) }
    };
    assert_eq!(call(other.token()).send().await.unwrap().status(), 403);
    bench.expect_violations(&[Rule::WrongToken]);
    assert_eq!(call("").send().await.unwrap().status(), 403);
    bench.expect_violations(&[Rule::MissingHeader]);
}

#[tokio::test]
async fn patch_for_an_unknown_job_is_refused_as_configured() {
    for status in [reqwest::StatusCode::NOT_FOUND, reqwest::StatusCode::FORBIDDEN] {
        let config = Config { unknown_job: status, ..Config::default() };
        let bench = Bench::with(config).await;
        let call = bench.call(reqwest::Method::PATCH, "jobs/99/trace?debug_trace=false");
        let reply =
            call.header("JOB-TOKEN", "x").header("Content-Range", "0-0").body("x").send().await.unwrap();
        assert_eq!(reply.status(), status);
        bench.expect_violations(&[Rule::UnknownJob]);
    }
}

#[tokio::test]
async fn patch_after_the_final_update_is_forbidden() {
    let bench = Bench::new().await;
    let job = bench.take(JobBuilder::new("a")).await;
    bench.append(&job, 0, b"hello").await;
    assert_eq!(bench.finish(&job, "success", b"hello").await.status(), 200);
    let reply = bench.append(&job, 5, b"late").await;
    assert_eq!((reply.status().as_u16(), text(reply.headers(), "job-status")), (403, "success"));
    bench.expect_violations(&[Rule::NotRunning]);
}

#[tokio::test]
async fn debug_trace_has_to_say_what_the_job_says() {
    let bench = Bench::new().await;
    let job = bench.take(JobBuilder::new("a").variable("CI_DEBUG_TRACE", "true")).await;
    assert_eq!(bench.append(&job, 0, b"hello").await.status(), 202);
    bench.expect_violations(&[Rule::BadValue]);
}

#[tokio::test]
async fn truncated_log_rewinds_the_runner() {
    let bench = Bench::new().await;
    let job = bench.take(JobBuilder::new("a")).await;
    bench.append(&job, 0, b"hello world").await;
    assert!(job.truncate_log(5));
    let reply = bench.append(&job, 11, b"!").await;
    assert_eq!((reply.status().as_u16(), text(reply.headers(), "range")), (416, "0-5"));
    assert_eq!(bench.append(&job, 5, b" world!").await.status(), 202);
    assert_eq!(bench.finish(&job, "success", b"hello world!").await.status(), 200);
    assert!(job.view().checksum_verified);
    bench.mock.assert_no_violations();
}

#[tokio::test]
async fn log_above_the_limit_drops_the_job() {
    let bench = Bench::with(Config { max_log_bytes: Some(8), ..Config::default() }).await;
    let job = bench.take(JobBuilder::new("a")).await;
    assert_eq!(bench.append(&job, 0, b"12345678").await.status(), 202);
    let reply = bench.append(&job, 8, b"9").await;
    assert_eq!((reply.status().as_u16(), text(reply.headers(), "job-status")), (403, "failed"));
    assert_eq!(job.view().failure_reason.as_deref(), Some("trace_size_exceeded"));
}

#[tokio::test]
async fn hundred_mebibytes_are_checked_without_being_kept() {
    let bench = Bench::with(Config { log_retention: LogRetention::Tail(1024), ..Config::default() }).await;
    let job = bench.take(JobBuilder::new("a")).await;
    let chunk: Vec<u8> = (0..1_u32 << 20).map(|n| (n * 31 % 251) as u8).collect();
    let mut crc = crc32fast::Hasher::new();
    for number in 0..100 {
        assert_eq!(bench.append(&job, number * chunk.len(), &chunk).await.status(), 202);
        crc.update(&chunk);
    }
    let view = job.view();
    assert_eq!(view.log_bytes, 100 << 20);
    assert_eq!(view.log_checksum, format!("crc32:{:08x}", crc.finalize()));
    assert!(job.log().len() <= 4096);
}

#[tokio::test]
async fn waiting_for_a_text_ends_when_it_is_logged() {
    let bench = Bench::new().await;
    let job = bench.take(JobBuilder::new("a")).await;
    let (found, _) = tokio::join!(job.log_contains("world", PATIENCE), async {
        bench.append(&job, 0, b"hello wo").await;
        bench.append(&job, 8, b"rld").await
    });
    assert_eq!(found.unwrap().log_bytes, 11);
    let error = job.in_state(JobState::Success, Duration::from_millis(1)).await.unwrap_err();
    assert!(error.to_string().contains("hello world"), "{error}");
}

#[tokio::test]
async fn secrets_in_the_log_are_named() {
    let bench = Bench::new().await;
    let job =
        bench.take(JobBuilder::new("a").masked_variable("KEY", "hunter22").variable("OPEN", "world")).await;
    bench.append(&job, 0, b"world").await;
    assert!(job.leaked_secrets().is_empty());
    bench.append(&job, 5, format!("hunter22 {}", job.token()).as_bytes()).await;
    assert_eq!(job.leaked_secrets(), ["CI_JOB_TOKEN", "KEY"]);
}
