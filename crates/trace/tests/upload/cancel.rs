//! Cancel and abort.

use drover_trace::{Delivery, JobResult, LineKind, RemoteJob, RemoteState};
use tokio::time::{sleep, timeout};

use crate::gitlab::{Fault, SECOND, start};

#[tokio::test(start_paused = true)]
async fn a_cancel_is_seen_in_the_answer_to_a_patch_and_streaming_goes_on() {
    let (gitlab, log, uploader) = start();
    gitlab.model().remote = RemoteJob::Canceling;
    let mut remote = uploader.remote();
    log.line(LineKind::Plain, "x");
    let seen = timeout(4 * SECOND, remote.wait_for(|&state| state != RemoteState::Running)).await;
    assert_eq!(*seen.unwrap().unwrap(), RemoteState::CancelRequested);
    log.line(LineKind::Plain, "cleaning up");
    sleep(4 * SECOND).await;
    assert_eq!(gitlab.calls(), ["3s patch 0+11", "6s patch 11+21"]);
    assert!(!remote.has_changed().unwrap(), "it is said once");
    assert_eq!(uploader.finish(JobResult::Success).await.unwrap(), Delivery::Accepted);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_is_seen_in_the_answer_to_a_keep_alive() {
    let (gitlab, _log, uploader) = start();
    gitlab.model().remote = RemoteJob::Canceling;
    let mut remote = uploader.remote();
    let seen = timeout(34 * SECOND, remote.wait_for(|&state| state != RemoteState::Running)).await;
    assert_eq!(*seen.unwrap().unwrap(), RemoteState::CancelRequested);
    assert_eq!(gitlab.calls(), ["30s running"]);
}

#[tokio::test(start_paused = true)]
async fn an_abort_ends_streaming_and_the_result_is_told_once() {
    for fault in [Fault::Forbidden, Fault::NotFound, Fault::Remote(RemoteJob::Canceled)] {
        let (gitlab, log, uploader) = start();
        gitlab.model().patches.push_back(fault);
        let mut remote = uploader.remote();
        log.line(LineKind::Plain, "x");
        let seen = timeout(4 * SECOND, remote.wait_for(|&state| state == RemoteState::Aborted)).await;
        assert_eq!(*seen.unwrap().unwrap(), RemoteState::Aborted);
        log.line(LineKind::Plain, "y");
        sleep(100 * SECOND).await;
        gitlab.model().updates.push_back(Fault::Forbidden);
        assert_eq!(uploader.finish(JobResult::system_failure()).await.unwrap(), Delivery::JobWasOver);
        assert_eq!(gitlab.calls(), ["3s patch 0+11", "103s failed"], "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_abort_is_seen_in_the_answer_to_a_keep_alive() {
    for fault in [Fault::Forbidden, Fault::NotFound, Fault::Remote(RemoteJob::Failed)] {
        let (gitlab, _log, uploader) = start();
        gitlab.model().updates.push_back(fault);
        let mut remote = uploader.remote();
        let seen = timeout(31 * SECOND, remote.wait_for(|&state| state == RemoteState::Aborted)).await;
        assert!(seen.is_ok(), "{fault:?}");
    }
}
