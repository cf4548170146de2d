//! The uploader against a model of GitLab, in virtual time.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a helper that fails is a test that fails")]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use drover_trace::{
    CompiledMasks, Delivery, Failure, FailureKind, JobLog, JobResult, LineKind, LogOptions, MaskRules,
    Observer, PatchOutcome, PatchReply, RemoteJob, RemoteState, State, TraceApi, Undelivered, Update,
    UpdateOutcome, UpdateReply, UploadOptions, Uploader,
};
use tokio::time::{Instant, sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);

// A short job.

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

// While the job runs.

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

// Cancel and abort.

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

// The end.

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

#[tokio::test(start_paused = true)]
async fn dropping_the_wait_does_not_stop_the_delivery() {
    let (gitlab, log, uploader) = start();
    log.stdout().write(b"x\n");
    gitlab.model().updates.extend([Fault::NotYet; 3]);
    assert!(timeout(SECOND, uploader.finish(JobResult::Success)).await.is_err());
    gitlab.wait_for_result().await;
    gitlab.assert_complete("x\n");
}

// What is in the log.

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

// === helpers ===

/// GitLab's side of one job.
#[derive(Clone)]
struct GitLab(Arc<Mutex<Model>>);

struct Model {
    begun: Instant,
    log: Vec<u8>,
    calls: Vec<(Duration, String)>,
    result: Option<Update>,
    results: u32,
    last_running: Option<Update>,
    remote: RemoteJob,
    interval: Option<Duration>,
    down: bool,
    /// The log is not dropped after a mismatch.
    keep_log: bool,
    /// The log is not compared.
    lenient: bool,
    /// Answers to a final state name the state that the job has then.
    echo_failed: bool,
    patches: VecDeque<Fault>,
    updates: VecDeque<Fault>,
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    /// Nothing arrives.
    Outage,
    /// The request is served, the answer is lost.
    LostReply,
    /// An error that is a verdict.
    Reject,
    NotYet,
    Mismatch,
    Forbidden,
    NotFound,
    /// The job is over.
    Remote(RemoteJob),
}

#[derive(Debug, Default)]
struct Recorder(Mutex<Vec<String>>);

impl Observer for Recorder {
    fn job_failed(&self, reason: &str) {
        self.0.lock().unwrap().push(format!("failed: {reason}"));
    }
}

impl Default for GitLab {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Model {
            begun: Instant::now(),
            log: Vec::new(),
            calls: Vec::new(),
            result: None,
            results: 0,
            last_running: None,
            remote: RemoteJob::Running,
            interval: None,
            down: false,
            keep_log: false,
            lenient: false,
            echo_failed: false,
            patches: VecDeque::new(),
            updates: VecDeque::new(),
        })))
    }
}

impl GitLab {
    fn model(&self) -> std::sync::MutexGuard<'_, Model> {
        self.0.lock().unwrap()
    }

    fn calls(&self) -> Vec<String> {
        self.model().calls.iter().map(|(at, call)| format!("{}s {call}", at.as_secs())).collect()
    }

    async fn wait_for_result(&self) {
        wait_until(|| self.model().result.is_some()).await;
    }

    #[track_caller]
    fn assert_complete(&self, text: &str) {
        let model = self.model();
        assert_eq!(String::from_utf8_lossy(&model.log), text);
        let result = model.result.as_ref().expect("a result");
        assert_eq!(
            (result.checksum.as_str(), result.bytesize),
            (crc(&model.log).as_str(), model.log.len() as u64)
        );
        assert_eq!(model.results, 1);
    }
}

impl Model {
    fn patch(&mut self, offset: u64, bytes: &[u8]) -> PatchOutcome {
        let size = self.log.len() as u64;
        if self.result.is_some() {
            PatchOutcome::Abort
        } else if offset != size {
            PatchOutcome::RangeMismatch { offset: size }
        } else {
            assert!(!bytes.is_empty(), "an empty patch is never sent");
            self.log.extend_from_slice(bytes);
            PatchOutcome::Accepted
        }
    }

    fn update(&mut self, update: Update) -> UpdateOutcome {
        if self.result.is_some() {
            return UpdateOutcome::Abort;
        }
        if update.state == State::Running {
            self.last_running = Some(update);
            return UpdateOutcome::Done;
        }
        let whole = (update.checksum.as_str(), update.bytesize) == (&crc(&self.log), self.log.len() as u64);
        if !whole && !self.lenient {
            if !self.keep_log {
                self.log.clear();
            }
            return UpdateOutcome::TraceMismatch;
        }
        let failed = update.state == State::Failed;
        self.results += 1;
        self.result = Some(update);
        if failed && self.echo_failed {
            self.remote = RemoteJob::Failed;
            return UpdateOutcome::Abort;
        }
        UpdateOutcome::Done
    }

    fn record(&mut self, call: String) {
        self.calls.push((self.begun.elapsed(), call));
    }
}

impl TraceApi for GitLab {
    async fn patch(&self, offset: u64, bytes: Bytes) -> PatchReply {
        tokio::task::yield_now().await;
        let mut model = self.model();
        model.record(format!("patch {offset}+{}", bytes.len()));
        let fault = if model.down { Some(Fault::Outage) } else { model.patches.pop_front() };
        let mut remote = model.remote;
        let outcome = match fault {
            None => model.patch(offset, &bytes),
            Some(Fault::Outage) => PatchOutcome::Failed(failure(FailureKind::Outage)),
            Some(Fault::LostReply) => {
                model.patch(offset, &bytes);
                PatchOutcome::Failed(failure(FailureKind::Outage))
            }
            Some(Fault::Forbidden) => PatchOutcome::Abort,
            Some(Fault::NotFound) => PatchOutcome::NotFound,
            Some(Fault::Remote(state)) => {
                remote = state;
                model.patch(offset, &bytes)
            }
            Some(Fault::Reject | Fault::NotYet | Fault::Mismatch) => {
                PatchOutcome::Failed(failure(FailureKind::Rejected))
            }
        };
        PatchReply { outcome, remote, interval: model.interval }
    }

    async fn update(&self, update: Update) -> UpdateReply {
        tokio::task::yield_now().await;
        let mut model = self.model();
        model.record(format!("{:?}", update.state).to_lowercase());
        let fault = if model.down { Some(Fault::Outage) } else { model.updates.pop_front() };
        let mut remote = None;
        let outcome = match fault {
            None => model.update(update),
            Some(Fault::Outage) => UpdateOutcome::Failed(failure(FailureKind::Outage)),
            Some(Fault::LostReply) => {
                model.update(update);
                UpdateOutcome::Failed(failure(FailureKind::Outage))
            }
            Some(Fault::NotYet) => UpdateOutcome::NotYet,
            Some(Fault::Mismatch) => {
                model.log.clear();
                UpdateOutcome::TraceMismatch
            }
            Some(Fault::Forbidden) => UpdateOutcome::Abort,
            Some(Fault::NotFound) => UpdateOutcome::NotFound,
            Some(Fault::Remote(state)) => {
                remote = Some(state);
                model.update(update)
            }
            Some(Fault::Reject) => UpdateOutcome::Failed(failure(FailureKind::Rejected)),
        };
        UpdateReply { outcome, remote: remote.unwrap_or(model.remote), interval: model.interval }
    }
}

fn start() -> (GitLab, JobLog, Uploader) {
    start_with(UploadOptions::default())
}

fn start_with(options: UploadOptions) -> (GitLab, JobLog, Uploader) {
    let gitlab = GitLab::default();
    let log = log();
    let uploader = Uploader::start(log.clone(), gitlab.clone(), options);
    (gitlab, log, uploader)
}

fn log() -> JobLog {
    let rules = MaskRules { phrases: vec!["s3cr3t".to_owned()], ..MaskRules::default() };
    JobLog::new(LogOptions { timestamps: false, masks: CompiledMasks::new(&rules), ..LogOptions::default() })
}

fn failure(kind: FailureKind) -> Failure {
    Failure { kind, text: "as scripted".to_owned() }
}

fn crc(bytes: &[u8]) -> String {
    format!("crc32:{:08x}", crc32fast::hash(bytes))
}

async fn wait_until(condition: impl Fn() -> bool) {
    timeout(60 * SECOND, async {
        while !condition() {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("the condition within a minute");
}
