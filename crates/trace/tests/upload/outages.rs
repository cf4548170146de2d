//! A GitLab that is away, or forgets its answers.

use drover_trace::{Delivery, JobResult, Undelivered, UploadOptions};
use tokio::time::sleep;

use crate::gitlab::{Fault, SECOND, start, start_with};

#[tokio::test(start_paused = true)]
async fn a_gitlab_that_is_down_for_two_minutes_loses_neither_log_nor_result() {
    let (gitlab, log, uploader) = start();
    log.stdout().write(b"all of it\n");
    gitlab.model().down = true;
    let finishing = tokio::spawn(uploader.finish(JobResult::Success));
    sleep(120 * SECOND).await;
    assert!(!finishing.is_finished());
    gitlab.model().down = false;
    assert_eq!(finishing.await.unwrap().unwrap(), Delivery::Accepted);
    gitlab.assert_complete("all of it\n");
    assert!(gitlab.model().calls.len() < 12, "{:?}", gitlab.calls());
}

#[tokio::test(start_paused = true)]
async fn a_gitlab_that_is_down_for_an_hour_loses_nothing_and_one_that_is_gone_is_given_up() {
    let (gitlab, log, uploader) = start();
    log.stdout().write(b"all of it\n");
    gitlab.model().down = true;
    let finishing = tokio::spawn(uploader.finish(JobResult::Success));
    sleep(3600 * SECOND).await;
    gitlab.model().down = false;
    assert_eq!(finishing.await.unwrap().unwrap(), Delivery::Accepted);
    gitlab.assert_complete("all of it\n");

    let options = UploadOptions { outage_patience: 1800 * SECOND, ..UploadOptions::default() };
    let (gitlab, _log, uploader) = start_with(options);
    gitlab.model().down = true;
    let error = uploader.finish(JobResult::Success).await.unwrap_err();
    assert!(
        matches!(error, Undelivered::Outage { after, last: Some(_) } if after >= 1800 * SECOND),
        "{error:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_to_the_result_is_not_a_lost_result() {
    let (gitlab, log, uploader) = start();
    log.stdout().write(b"x\n");
    gitlab.model().updates.push_back(Fault::LostReply);
    assert_eq!(uploader.finish(JobResult::Success).await.unwrap(), Delivery::AcceptedUnheard);
    gitlab.assert_complete("x\n");
    assert_eq!(gitlab.model().results, 1, "exactly one final state is taken");
}

#[tokio::test(start_paused = true)]
async fn the_state_failed_in_the_answer_to_a_failure_is_no_abort() {
    let (gitlab, _log, uploader) = start();
    gitlab.model().echo_failed = true;
    assert_eq!(uploader.finish(JobResult::system_failure()).await.unwrap(), Delivery::Accepted);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_was_over_before_its_end_is_left_alone() {
    for fault in [Fault::Forbidden, Fault::NotFound] {
        let (gitlab, _log, uploader) = start();
        gitlab.model().updates.push_back(fault);
        assert_eq!(uploader.finish(JobResult::Success).await.unwrap(), Delivery::JobWasOver);
        assert_eq!(gitlab.calls().len(), 1);
    }
}
