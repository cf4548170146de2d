//! Jobs begin and end.

use std::sync::Arc;
use std::time::Duration;

use config::Runner;
use executors::{JobReport, JobRun, run_job};
use gitlab_api::ReceivedJob;
use job::{JobResult, Placement, TlsFiles};
use trace::{LogOptions, UploadOptions};

use super::requests::Room;
use super::{Event, Manager};
use crate::dispatch::RunnerIndex;
use crate::events::StageReporter;
use crate::numbers::Taken;
use crate::watch::JobIntake;

impl Manager {
    pub(super) fn start_job(
        &mut self,
        runner: RunnerIndex,
        received: ReceivedJob,
        room: Room,
        correlation_id: String,
    ) -> u64 {
        let job = received.job.id;
        let Some(entry) = self.runners.get_mut(&runner) else { return job };
        let Some(working) = entry.working.as_ref() else { return job };
        let taken = entry.numbers.take(received.job.job_info.project_id);
        entry.jobs += 1;
        for oddity in &received.job.oddities {
            tracing::warn!(job, oddity, "a part of the job has an unexpected form and is ignored");
        }
        let queued =
            Duration::try_from_secs_f64(received.job.job_info.time_in_queue_seconds).unwrap_or_default();
        let short_token = working.entry.short_token();
        self.reporter.jobs.begin(job, &entry.label, short_token, url_of(&received, &working.entry));
        self.reporter.observer.job_received(&entry.label, job, queued);
        let info = &received.job.job_info;
        entry.watch.entry.job_received(&JobIntake {
            job,
            queued,
            project_jobs_running: &info.project_jobs_running_on_instance_runners_count,
            queue_size: info.queue_size,
            queue_depth: info.queue_depth,
        });
        let stages = exports_stages(&received, &working.entry).then(|| {
            Arc::new(StageReporter { all: Arc::clone(&self.reporter), entry: Arc::clone(&entry.watch.entry) })
        });
        let log_observer = entry.watch.log.clone().or_else(|| self.log_observer.clone());
        let tls = &received.tls;
        let text = |pem: &Option<Arc<str>>| pem.as_deref().unwrap_or_default().to_owned();
        let placement = Placement {
            concurrent_id: taken.id,
            concurrent_project_id: taken.project_id,
            correlation_id,
            tls: TlsFiles {
                ca: text(&tls.ca_chain),
                cert: text(&tls.cert),
                key: tls.key.clone().unwrap_or_default(),
            },
            ..Placement::default()
        };
        let log = LogOptions {
            output_limit: working.entry.output_limit() / 1024,
            observer: log_observer.clone().unwrap_or_else(|| Arc::clone(&self.log.observer)),
            ..self.log.clone()
        };
        let defaults = UploadOptions::default();
        let upload = UploadOptions {
            dynamic_force_interval: working
                .entry
                .feature_flag("FF_USE_DYNAMIC_TRACE_FORCE_SEND_INTERVAL")
                .unwrap_or(false),
            final_update_retry_limit: working.entry.final_update_attempts(),
            observer: log_observer.unwrap_or_else(|| Arc::clone(&defaults.observer)),
            ..defaults
        };
        let run = JobRun {
            received,
            executor: Arc::clone(&working.executor),
            reservation: room.reservation,
            session: room.session,
            client: working.client.clone(),
            info: Arc::clone(&working.info),
            runner: Arc::clone(&working.facts),
            caches: Arc::clone(&working.caches) as Arc<dyn executors::CacheAddresses>,
            placement,
            log,
            upload,
            interrupt: self.interrupt.subscribe(),
            watcher: match &stages {
                Some(stages) => Arc::clone(stages) as Arc<dyn executors::JobWatcher>,
                None => Arc::clone(&self.reporter) as Arc<dyn executors::JobWatcher>,
            },
        };
        let events = self.events.clone();
        tokio::spawn(async move {
            let report = Box::new(run_job(run).await);
            if let Some(stages) = stages {
                stages.ended(job);
            }
            let _ = events.send(Event::Ended { runner, report, taken });
        });
        job
    }

    pub(super) fn ended(&mut self, runner: RunnerIndex, report: JobReport, taken: Taken) {
        self.reporter.jobs.end(report.job);
        self.dispatcher.job_ended(runner);
        let Some(entry) = self.runners.get_mut(&runner) else { return };
        entry.jobs -= 1;
        entry.numbers.give_back(taken);
        let failure = match &report.result {
            Some(JobResult::Failed(failure)) => Some(failure.reason.as_str()),
            Some(JobResult::Success) | None => None,
        };
        let duration = report.duration;
        tracing::info!(runner = entry.label, job = report.job, failure, ?duration, "job ended");
        self.reporter.observer.job_ended(&entry.label, report.job, failure, duration);
        if let Some(kind) = report.ended_early {
            entry.watch.entry.job_ended_early(kind);
        }
        entry.watch.entry.job_ended(failure, duration);
        self.retire_if_done(runner);
    }
}

// === helpers ===

/// Where GitLab shows a job.
fn url_of(received: &ReceivedJob, runner: &Runner) -> String {
    let job = &received.job;
    match job.variable("CI_JOB_URL") {
        Some(variable) if !variable.value.is_empty() => variable.value.clone(),
        Some(_) | None => {
            let host = runner.url().trim_end_matches('/');
            format!("{host}/{}/-/jobs/{}", job.job_info.project_full_path, job.id)
        }
    }
}

/// The durations of the job's stages are wanted; the job's word counts before its runner's.
fn exports_stages(received: &ReceivedJob, runner: &Runner) -> bool {
    const FLAG: &str = "FF_EXPORT_HIGH_CARDINALITY_METRICS";
    match received.job.variable(FLAG) {
        // Go's words for true, as for every feature flag.
        Some(of_job) => matches!(of_job.value.as_str(), "1" | "t" | "T" | "true" | "True" | "TRUE"),
        None => runner.feature_flag(FLAG).unwrap_or(false),
    }
}
