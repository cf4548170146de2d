//! What is in the log.

use drover_trace::{JobLog, JobResult, LineKind, LogOptions, UploadOptions, Uploader};
use tokio::time::sleep;

use crate::gitlab::{GitLab, SECOND, start_with};

#[tokio::test(start_paused = true)]
async fn a_secret_is_masked_over_writes_and_over_patches() {
    let options = UploadOptions { chunk: 7, ..UploadOptions::default() };
    let (gitlab, log, uploader) = start_with(options);
    let mut out = log.stdout();
    for piece in ["the s3c", "r3t is s3", "cr3", "t, ", "done s3cr3", "t\n"] {
        out.write(piece.as_bytes());
        sleep(4 * SECOND).await;
    }
    drop(out);
    uploader.finish(JobResult::Success).await.unwrap();
    gitlab.assert_complete("the [MASKED] is [MASKED], done [MASKED]\n");
}

#[tokio::test(start_paused = true)]
async fn invalid_utf8_and_the_limit_are_part_of_checksum_and_size() {
    let gitlab = GitLab::default();
    let log = JobLog::new(LogOptions { timestamps: false, output_limit: 1, ..LogOptions::default() });
    let uploader = Uploader::start(log.clone(), gitlab.clone(), UploadOptions::default());
    let mut out = log.stdout();
    out.write(b"caf\xc3");
    out.write(b"\xa9 \xff\n");
    out.write(&"世".repeat(1000).into_bytes());
    drop(out);
    log.line(LineKind::Info, "Job succeeded");
    uploader.finish(JobResult::Success).await.unwrap();
    let held = String::from_utf8(gitlab.model().log.clone()).unwrap();
    gitlab.assert_complete(&held);
    assert!(held.starts_with("café \u{fffd}\n世世"));
    assert!(held.contains("世\n\x1b[33;1mJob's log exceeded limit of 1024 bytes.\n"));
    assert!(held.ends_with("Job succeeded\x1b[0;m\n"));
}

#[tokio::test(start_paused = true)]
async fn the_spool_file_is_gone_after_delivery() {
    let directory = tempfile::tempdir().unwrap();
    let options =
        LogOptions { timestamps: false, directory: directory.path().into(), ..LogOptions::default() };
    let log = JobLog::new(options);
    let gitlab = GitLab::default();
    let uploader = Uploader::start(log.clone(), gitlab.clone(), UploadOptions::default());
    let text = "0123456789abcde\n".repeat(10_000);
    log.stdout().write(text.as_bytes());
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1);
    uploader.finish(JobResult::Success).await.unwrap();
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
    gitlab.assert_complete(&text);
}
