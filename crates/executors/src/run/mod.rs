//! One job from its receipt to its final state.
//!
//! Cancel, timeout, shutdown and a lost place are inputs to every step; each has one defined result. Whatever happens, the
//! job gets exactly one final state: it is sent by the [`Uploader`], also when this future is dropped.

mod script;
mod signals;
mod stage;

use std::sync::Arc;
use std::time::Duration;

use gitlab_api::{
    Client, ExposeSecret as _, JobCredentials, JobState, JobUpdate, ReceivedJob, RunnerInfo, UpdateOutcome,
};
use job::log::{CompiledMasks, LineKind, MaskRules};
use job::{Context, FeatureFlag, JobFailure, JobResult, Placement, RunnerFacts};
use session::Session;
use taskscaler::DoomKind;
use tokio::sync::watch;
use tokio::time::Instant;
use trace::{Delivery, GitLab, JobLog, LogOptions, Undelivered, UploadOptions, Uploader};

use crate::{CacheAddresses, Executor, Reservation};
use signals::Signals;

/// The name of a signal, or another reason, that makes all jobs stop; `None` while all is well.
pub type Interrupt = watch::Receiver<Option<Arc<str>>>;

/// Everything that one job needs.
pub struct JobRun {
    /// The job.
    pub received: ReceivedJob,
    /// Where it runs.
    pub executor: Arc<dyn Executor>,
    /// Room that was claimed for it.
    pub reservation: Box<dyn Reservation>,
    /// Leads web terminals to it, if they are served.
    pub session: Option<Session>,
    /// GitLab.
    pub client: Client,
    /// What GitLab is told of the runner in each update.
    pub info: Arc<RunnerInfo>,
    /// The runner entry.
    pub runner: Arc<RunnerFacts>,
    /// Numbers and files of this job.
    pub placement: Placement,
    /// Signs addresses of its caches.
    pub caches: Arc<dyn CacheAddresses>,
    /// Choices for its log; masks, timestamps and job are filled in.
    pub log: LogOptions,
    /// Choices for sending it; the job is filled in.
    pub upload: UploadOptions,
    /// Forceful shutdown.
    pub interrupt: Interrupt,
    /// Hears what the job does.
    pub watcher: Arc<dyn JobWatcher>,
}

/// Hears what a job does, for metrics and pictures. Implementations must not block.
pub trait JobWatcher: Send + Sync + 'static {
    /// A stage begins.
    fn stage(&self, _job: u64, _stage: &str) {}

    /// The job has a place.
    fn placed(&self, _job: u64, _place: &str) {}
}

/// Hears and says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unwatched;

impl JobWatcher for Unwatched {}

/// How a job ended.
#[derive(Debug)]
pub struct JobReport {
    /// The job.
    pub job: u64,
    /// Its result; none if GitLab withdrew the job before anything was done.
    pub result: Option<JobResult>,
    /// From receipt to the end of the last stage.
    pub duration: Duration,
    /// The job was stopped because this was announced for its instance.
    pub ended_early: Option<DoomKind>,
    /// What became of the final state; none if none was due.
    pub delivery: Option<Result<Delivery, Undelivered>>,
}

/// Runs a job to its end.
pub async fn run_job(run: JobRun) -> JobReport {
    let began = Instant::now();
    let id = run.received.job.id;
    let credentials = JobCredentials { id, token: run.received.job.token.0.clone() };
    let verdict = confirm(&run, &credentials).await;
    if verdict == Confirmed::Withdrawn {
        tracing::info!(job = id, "GitLab withdrew the job before it started");
        return JobReport {
            job: id,
            result: None,
            duration: began.elapsed(),
            ended_early: None,
            delivery: None,
        };
    }

    let context = Context::new(&run.received.job, &run.runner, &run.placement);
    let log = JobLog::new(log_options(&run, context.as_ref().ok()));
    let debug_trace = context.as_ref().is_ok_and(Context::hides_log);
    let gitlab =
        GitLab { client: run.client.clone(), job: credentials, debug_trace, info: Arc::clone(&run.info) };
    let upload = UploadOptions { job: id, ..run.upload.clone() };
    let uploader = Uploader::start(log.clone(), gitlab, upload);

    let supported = run.received.job.features.failure_reasons.clone();
    // The context has its own; a payload is not kept twice for as long as the job runs.
    drop(run.received);
    let (result, place) = match context {
        Err(setup) => {
            let failure = setup.failure();
            (JobResult::Failed(failure), None)
        }
        Ok(_) if verdict == Confirmed::CancelRequested => (JobResult::Failed(JobFailure::canceled()), None),
        Ok(context) => {
            let signals = Signals::new(uploader.remote(), run.interrupt.clone(), context.timeouts().job);
            let shell = run.runner.shell.as_str();
            script::Driver::new(&*run.executor, &*run.watcher, &*run.caches, shell, context, &log, signals)
                .drive(run.reservation, run.session)
                .await
        }
    };
    let ended_early = place.as_ref().and_then(|place| place.ended_early);
    if let Some(place) = place {
        // Before the final state: a next job of the project is to find the place free, and with it the number that names its folders
        // and volumes.
        place.close().await;
    }
    let kind = if result.is_success() { LineKind::Info } else { LineKind::Error };
    log.line(kind, result.log_line());
    let duration = began.elapsed();
    let delivery = uploader.finish(sent(&result, &supported)).await;
    if let Err(error) = &delivery {
        tracing::error!(
            job = id,
            error = error as &dyn std::error::Error,
            "the job's result did not reach GitLab"
        );
    }
    JobReport { job: id, result: Some(result), duration, ended_early, delivery: Some(delivery) }
}

/// What GitLab said to the confirmation of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Confirmed {
    Run,
    CancelRequested,
    Withdrawn,
}

/// Confirms the job before any work is done (`two_phase_job_commit`). A GitLab that cannot be asked now has given the job
/// already, so it runs.
async fn confirm(run: &JobRun, credentials: &JobCredentials) -> Confirmed {
    let update = JobUpdate {
        state: JobState::Running,
        failure_reason: None,
        checksum: None,
        bytesize: None,
        exit_code: None,
        info: Arc::clone(&run.info),
    };
    let reply = run.client.update_job(credentials, &update).await;
    match reply.outcome {
        UpdateOutcome::Abort | UpdateOutcome::NotFound => Confirmed::Withdrawn,
        _ if reply.remote.wants_cancel() => Confirmed::CancelRequested,
        UpdateOutcome::Done | UpdateOutcome::NotYet | UpdateOutcome::TraceMismatch => Confirmed::Run,
        UpdateOutcome::Failed(error) => {
            tracing::warn!(
                job = credentials.id,
                error = error.report(),
                "the job could not be confirmed; it runs all the same"
            );
            Confirmed::Run
        }
    }
}

fn log_options(run: &JobRun, context: Option<&Context>) -> LogOptions {
    let job = &run.received.job;
    let phrases = match context {
        Some(context) => {
            context.masked_values().iter().map(|value| value.expose_secret().to_owned()).collect()
        }
        None => job
            .variables
            .iter()
            .filter(|variable| variable.masked)
            .map(|variable| variable.value.clone())
            .collect(),
    };
    let flag = |flag| context.is_none_or(|context| context.flags().is_on(flag));
    let mut rules = MaskRules { phrases, ..MaskRules::default() };
    rules.token_prefixes.extend(job.features.token_mask_prefixes.iter().cloned());
    LogOptions {
        job: job.id,
        masks: CompiledMasks::new(&rules),
        timestamps: flag(FeatureFlag::Timestamps),
        announced_masks: run.runner.proxy_exec,
        ..run.log.clone()
    }
}

fn sent(result: &JobResult, supported: &[String]) -> trace::JobResult {
    match result {
        JobResult::Success => trace::JobResult::Success,
        JobResult::Failed(failure) => trace::JobResult::Failed {
            reason: failure.reason.as_str().to_owned(),
            sent_reason: failure.reason.sent_as(supported).as_str().to_owned(),
            exit_code: failure.exit_code.unwrap_or(0),
        },
    }
}
