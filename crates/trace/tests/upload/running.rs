//! While a job runs.

use drover_trace::{JobResult, LineKind, UploadOptions, Uploader};
use tokio::time::{Instant, sleep};

use crate::gitlab::{Fault, GitLab, SECOND, crc, log, start, start_with, wait_until};

#[tokio::test(start_paused = true)]
async fn patches_follow_the_interval_of_the_server() {
    let (gitlab, log, uploader) = start();
    let mut out = log.stdout();
    gitlab.model().interval = Some(10 * SECOND);
    sleep(SECOND / 2).await;
    for n in 0..30 {
        out.write(format!("{n:02}\n").as_bytes());
        sleep(SECOND).await;
        if n == 14 {
            gitlab.model().interval = Some(2 * SECOND);
        }
    }
    assert_eq!(
        gitlab.calls(),
        [
            "3s patch 0+9",
            "13s patch 9+30",
            "23s patch 39+30",
            "25s patch 69+6",
            "27s patch 75+6",
            "29s patch 81+6"
        ]
    );
    // The wish is forgotten at the end.
    gitlab.model().interval = None;
    gitlab.model().updates.push_back(Fault::NotYet);
    drop(out);
    let ended = Instant::now();
    uploader.finish(JobResult::Success).await.unwrap();
    assert_eq!(ended.elapsed(), 3 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn silence_is_broken_by_a_keep_alive_with_checksum_and_size() {
    let (gitlab, log, uploader) = start();
    log.line(LineKind::Plain, "x");
    sleep(70 * SECOND).await;
    assert_eq!(gitlab.calls(), ["3s patch 0+11", "33s running", "63s running"]);
    let update = gitlab.model().last_running.clone().unwrap();
    assert_eq!((update.bytesize, update.checksum), (11, crc(b"\x1b[0Kx\x1b[0;m\n")));
    uploader.finish(JobResult::Success).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_dynamic_force_interval_follows_a_slow_server() {
    let gitlab = GitLab::default();
    gitlab.model().interval = Some(60 * SECOND);
    let log = log();
    let options = UploadOptions { dynamic_force_interval: true, ..UploadOptions::default() };
    let uploader = Uploader::start(log.clone(), gitlab.clone(), options);
    log.line(LineKind::Plain, "x");
    sleep(400 * SECOND).await;
    assert_eq!(gitlab.calls(), ["3s patch 0+11", "243s running"]);
    drop(uploader);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_is_behind_is_sent_without_pauses() {
    let (gitlab, log, uploader) = start_with(UploadOptions { chunk: 1000, ..UploadOptions::default() });
    let mut out = log.stdout();
    out.write(&[b'x'; 3500]);
    sleep(3 * SECOND).await;
    wait_until(|| gitlab.model().calls.len() == 4).await;
    assert_eq!(
        gitlab.calls(),
        ["3s patch 0+1000", "3s patch 1000+1000", "3s patch 2000+1000", "3s patch 3000+500"]
    );
    drop(out);
    uploader.finish(JobResult::Success).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failing_server_is_not_hammered() {
    let (gitlab, log, uploader) = start_with(UploadOptions { chunk: 10, ..UploadOptions::default() });
    gitlab.model().down = true;
    log.stdout().write(&[b'x'; 10_000]);
    sleep(600 * SECOND).await;
    let attempts = gitlab.calls().len();
    assert!((10..=20).contains(&attempts), "{attempts}");
    drop(uploader);
}

#[tokio::test(start_paused = true)]
async fn server_errors_while_streaming_lose_nothing() {
    let (gitlab, log, uploader) = start();
    gitlab.model().patches.extend([Fault::Outage, Fault::Reject, Fault::LostReply]);
    let mut out = log.stdout();
    for n in 0..40 {
        out.write(format!("{n:02}\n").as_bytes());
        sleep(SECOND).await;
    }
    drop(out);
    uploader.finish(JobResult::Success).await.unwrap();
    gitlab.assert_complete(&(0..40).map(|n| format!("{n:02}\n")).collect::<String>());
}

#[tokio::test(start_paused = true)]
async fn a_range_mismatch_moves_forward_and_back() {
    let (gitlab, log, uploader) = start();
    let mut out = log.stdout();
    // The answer to the first patch is lost, so GitLab is ahead.
    gitlab.model().patches.push_back(Fault::LostReply);
    out.write(b"one\n");
    sleep(4 * SECOND).await;
    out.write(b"two\n");
    sleep(10 * SECOND).await;
    assert_eq!(gitlab.model().log, b"one\ntwo\n");
    // GitLab loses a part, so it is behind.
    gitlab.model().log.truncate(2);
    out.write(b"three\n");
    sleep(10 * SECOND).await;
    assert_eq!(gitlab.model().log, b"one\ntwo\nthree\n");
    drop(out);
    uploader.finish(JobResult::Success).await.unwrap();
    gitlab.assert_complete("one\ntwo\nthree\n");
}
