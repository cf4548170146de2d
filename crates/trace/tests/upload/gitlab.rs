//! GitLab's side of one job.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use drover_trace::{
    CompiledMasks, Failure, FailureKind, JobLog, LogOptions, MaskRules, Observer, PatchOutcome, PatchReply,
    RemoteJob, State, TraceApi, Update, UpdateOutcome, UpdateReply, UploadOptions, Uploader,
};
use tokio::time::{Instant, sleep, timeout};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// GitLab's side of one job.
#[derive(Clone)]
pub(crate) struct GitLab(pub(crate) Arc<Mutex<Model>>);

pub(crate) struct Model {
    pub(crate) begun: Instant,
    pub(crate) log: Vec<u8>,
    pub(crate) calls: Vec<(Duration, String)>,
    pub(crate) result: Option<Update>,
    pub(crate) results: u32,
    pub(crate) last_running: Option<Update>,
    pub(crate) remote: RemoteJob,
    pub(crate) interval: Option<Duration>,
    pub(crate) down: bool,
    /// The log is not dropped after a mismatch.
    pub(crate) keep_log: bool,
    /// The log is not compared.
    pub(crate) lenient: bool,
    /// Answers to a final state name the state that the job has then.
    pub(crate) echo_failed: bool,
    pub(crate) patches: VecDeque<Fault>,
    pub(crate) updates: VecDeque<Fault>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
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
pub(crate) struct Recorder(pub(crate) Mutex<Vec<String>>);

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
    pub(crate) fn model(&self) -> std::sync::MutexGuard<'_, Model> {
        self.0.lock().unwrap()
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.model().calls.iter().map(|(at, call)| format!("{}s {call}", at.as_secs())).collect()
    }

    pub(crate) async fn wait_for_result(&self) {
        wait_until(|| self.model().result.is_some()).await;
    }

    #[track_caller]
    pub(crate) fn assert_complete(&self, text: &str) {
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

pub(crate) fn start() -> (GitLab, JobLog, Uploader) {
    start_with(UploadOptions::default())
}

pub(crate) fn start_with(options: UploadOptions) -> (GitLab, JobLog, Uploader) {
    let gitlab = GitLab::default();
    let log = log();
    let uploader = Uploader::start(log.clone(), gitlab.clone(), options);
    (gitlab, log, uploader)
}

pub(crate) fn log() -> JobLog {
    let rules = MaskRules { phrases: vec!["s3cr3t".to_owned()], ..MaskRules::default() };
    JobLog::new(LogOptions { timestamps: false, masks: CompiledMasks::new(&rules), ..LogOptions::default() })
}

pub(crate) fn failure(kind: FailureKind) -> Failure {
    Failure { kind, text: "as scripted".to_owned() }
}

pub(crate) fn crc(bytes: &[u8]) -> String {
    format!("crc32:{:08x}", crc32fast::hash(bytes))
}

pub(crate) async fn wait_until(condition: impl Fn() -> bool) {
    timeout(60 * SECOND, async {
        while !condition() {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("the condition within a minute");
}
