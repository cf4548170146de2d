//! The result, and what GitLab may say to it.

use std::sync::Arc;
use std::time::Duration;

use drover_trace::{Delivery, JobResult, LineKind, Observer, State, Undelivered, UploadOptions, Uploader};
use tokio::time::{Instant, sleep, timeout};

use crate::gitlab::{Fault, GitLab, Recorder, SECOND, log, start, start_with};

#[tokio::test(start_paused = true)]
async fn a_short_job_costs_one_patch_and_one_update_and_no_waiting() {
    let (gitlab, log, uploader) = start();
    log.line(LineKind::Plain, "hello");
    sleep(SECOND).await;
    let ended = Instant::now();
    assert_eq!(uploader.finish(JobResult::Success).await.unwrap(), Delivery::Accepted);
    assert_eq!(ended.elapsed(), Duration::ZERO);
    assert_eq!(gitlab.calls(), ["1s patch 0+15", "1s success"]);
    gitlab.assert_complete("\x1b[0Khello\x1b[0;m\n");
}

#[tokio::test(start_paused = true)]
async fn an_empty_log_costs_no_patch() {
    let (gitlab, _log, uploader) = start();
    uploader.finish(JobResult::Success).await.unwrap();
    assert_eq!(gitlab.calls(), ["0s success"]);
    gitlab.assert_complete("");
}

#[tokio::test(start_paused = true)]
async fn a_failure_carries_reason_and_exit_code_and_is_counted() {
    let observer = Arc::new(Recorder::default());
    let gitlab = GitLab::default();
    let options =
        UploadOptions { observer: Arc::clone(&observer) as Arc<dyn Observer>, ..UploadOptions::default() };
    let uploader = Uploader::start(log(), gitlab.clone(), options);
    let result = JobResult::Failed {
        reason: "job_canceled".into(),
        sent_reason: "unknown_failure".into(),
        exit_code: 3,
    };
    uploader.finish(result).await.unwrap();
    let update = gitlab.model().result.clone().unwrap();
    assert_eq!((update.failure_reason.as_deref(), update.exit_code), (Some("unknown_failure"), Some(3)));
    assert_eq!(*observer.0.lock().unwrap(), ["failed: job_canceled"]);
}

#[tokio::test(start_paused = true)]
async fn an_uploader_without_a_result_reports_a_system_failure() {
    let (gitlab, log, uploader) = start();
    log.line(LineKind::Plain, "x");
    drop(uploader);
    gitlab.wait_for_result().await;
    let update = gitlab.model().result.clone().unwrap();
    assert_eq!(
        (update.state, update.failure_reason.as_deref()),
        (State::Failed, Some("runner_system_failure"))
    );
    gitlab.assert_complete("\x1b[0Kx\x1b[0;m\n");
}

#[tokio::test(start_paused = true)]
async fn not_yet_is_asked_again_after_an_interval_for_as_long_as_it_takes() {
    let (gitlab, log, uploader) = start();
    gitlab.model().updates.extend([Fault::NotYet; 25]);
    log.line(LineKind::Plain, "x");
    assert_eq!(uploader.finish(JobResult::Success).await.unwrap(), Delivery::Accepted);
    let calls = gitlab.calls();
    assert_eq!(calls.len(), 27);
    assert_eq!(calls[26], "75s success");
    gitlab.assert_complete("\x1b[0Kx\x1b[0;m\n");
}

#[tokio::test(start_paused = true)]
async fn a_mismatch_of_the_log_sends_all_of_it_again() {
    let (gitlab, log, uploader) = start();
    log.stdout().write(b"0123456789\n");
    sleep(4 * SECOND).await;
    gitlab.model().log[3] = b'!';
    assert_eq!(uploader.finish(JobResult::Success).await.unwrap(), Delivery::Accepted);
    assert_eq!(gitlab.calls(), ["3s patch 0+11", "4s success", "7s patch 0+11", "7s success"]);
    gitlab.assert_complete("0123456789\n");
}

#[tokio::test(start_paused = true)]
async fn an_endless_mismatch_ends() {
    let (gitlab, log, uploader) = start();
    gitlab.model().updates.extend([Fault::Mismatch; 100]);
    log.stdout().write(b"x\n");
    let error = uploader.finish(JobResult::Success).await.unwrap_err();
    assert!(matches!(error, Undelivered::Rejected { attempts: 10, .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_range_mismatch_at_the_end_moves_the_offset() {
    let (gitlab, log, uploader) = start();
    log.stdout().write(b"0123456789\n");
    sleep(4 * SECOND).await;
    log.stdout().write(b"more\n");
    gitlab.model().log.truncate(4);
    uploader.finish(JobResult::Success).await.unwrap();
    assert_eq!(gitlab.calls(), ["3s patch 0+11", "4s patch 11+5", "7s patch 4+12", "7s success"]);
    gitlab.assert_complete("0123456789\nmore\n");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_claims_more_than_there_is_does_not_stall_the_end() {
    let (gitlab, log, uploader) = start();
    log.stdout().write(b"0123456789\n");
    gitlab.model().log = vec![b'?'; 100];
    gitlab.model().keep_log = true;
    let error = uploader.finish(JobResult::Success).await.unwrap_err();
    assert!(matches!(error, Undelivered::Rejected { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn verdicts_are_retried_as_often_as_configured() {
    let options = UploadOptions { final_update_retry_limit: 4, ..UploadOptions::default() };
    let (gitlab, _log, uploader) = start_with(options);
    gitlab.model().updates.extend([Fault::Reject; 100]);
    let error = uploader.finish(JobResult::Success).await.unwrap_err();
    assert!(matches!(error, Undelivered::Rejected { attempts: 4, .. }), "{error:?}");
    assert_eq!(gitlab.calls().len(), 4);
    let elapsed = gitlab.model().calls.last().unwrap().0;
    assert!((5 * SECOND..=7 * SECOND).contains(&elapsed), "1 s, 2 s, 4 s less a quarter: {elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_log_that_is_refused_for_good_does_not_keep_the_job_running() {
    let (gitlab, log, uploader) = start();
    log.stdout().write(b"x\n");
    gitlab.model().patches.extend([Fault::Reject; 100]);
    gitlab.model().lenient = true;
    assert_eq!(uploader.finish(JobResult::Success).await.unwrap(), Delivery::AcceptedWithoutLog);
    assert_eq!(gitlab.calls().len(), 11);

    let (gitlab, log, uploader) = start();
    log.stdout().write(b"x\n");
    gitlab.model().patches.extend([Fault::Reject; 100]);
    let error = uploader.finish(JobResult::Success).await.unwrap_err();
    assert!(matches!(error, Undelivered::Rejected { attempts: 10, .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn dropping_the_wait_does_not_stop_the_delivery() {
    let (gitlab, log, uploader) = start();
    log.stdout().write(b"x\n");
    gitlab.model().updates.extend([Fault::NotYet; 3]);
    assert!(timeout(SECOND, uploader.finish(JobResult::Success)).await.is_err());
    gitlab.wait_for_result().await;
    gitlab.assert_complete("x\n");
}
