//! One runner entry.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use config::Runner;
use manager::{EntryObserver, JobIntake, Requests};
use taskscaler_core::{DoomKind, Zone};
use trace::{Failure, FailureKind, SpoolError};

use crate::api::Calls;
use crate::cells::{Counter, Family, Gauge, Histogram};
use crate::exposition::{EntryLabels, Exposition};
use crate::queue::QueueRules;
use crate::scaler::{ScalerMetrics, Scaling, Sums};
use crate::table::Id;

/// How scripts are run: in one shell process for each stage.
pub(crate) const MODE: &str = "traditional";
/// Label value of rows that are too many.
const OTHER: &str = "other";
/// Longest label value that is taken from a job.
const MOST_LABEL: usize = 64;

/// The numbers of one runner entry. It lives as long as somebody counts for the entry.
pub(crate) struct RunnerMetrics {
    pub(crate) labels: EntryLabels,
    /// As the table of jobs names the entry.
    pub(crate) label: String,
    /// Calls to GitLab with the entry's token.
    pub(crate) calls: Arc<Calls>,
    jobs_of_executor: RwLock<Arc<Counter>>,
    pub(crate) scaling: Arc<Scaling>,
    scalers: Mutex<Vec<Weak<ScalerMetrics>>>,
    local: Zone,
    queue_rules: RwLock<QueueRules>,
    limit: Gauge,
    jobs: Counter,
    durations: Histogram,
    queued: Family<String, Histogram>,
    stages: Family<String, Histogram>,
    queue_size: Gauge,
    queue_depth: Gauge,
    queued_too_long: Counter,
    failed: Family<String, Counter>,
    feeds: Counter,
    feed_failures: Counter,
    health_failures: Counter,
    no_room: Counter,
    job_failures: Counter,
    unreadable: Counter,
    /// At least one job told of the queue.
    queue_known: AtomicBool,
    pub(crate) requests: RequestCells,
    log_bytes: Counter,
    log_outages: Counter,
    log_rejections: Counter,
    log_losses: Counter,
}

/// Requests under way, as told last.
#[derive(Debug, Default)]
pub(crate) struct RequestCells {
    pub(crate) in_flight: Gauge,
    pub(crate) hard_limit: Gauge,
    /// Bits of a float.
    adaptive_limit: AtomicU64,
    pub(crate) used_limit: Gauge,
    pub(crate) exceeded: Counter,
    unhealthy: AtomicBool,
}

// === impl RunnerMetrics ===

impl RunnerMetrics {
    pub(crate) fn new(
        runner: &Runner,
        system_id: &str,
        local: Zone,
        calls: Arc<Calls>,
        jobs_of_executor: Arc<Counter>,
    ) -> Self {
        let metrics = Self {
            labels: EntryLabels::new(runner.short_token(), runner.name(), system_id),
            label: runner.label(),
            calls,
            jobs_of_executor: RwLock::new(jobs_of_executor),
            scaling: Arc::default(),
            scalers: Mutex::default(),
            local,
            queue_rules: RwLock::default(),
            limit: Gauge::default(),
            jobs: Counter::default(),
            durations: Histogram::new(Id::JobDuration.bounds()),
            queued: Family::default(),
            stages: Family::default(),
            queue_size: Gauge::default(),
            queue_depth: Gauge::default(),
            queued_too_long: Counter::default(),
            failed: Family::default(),
            feeds: Counter::default(),
            feed_failures: Counter::default(),
            health_failures: Counter::default(),
            no_room: Counter::default(),
            job_failures: Counter::default(),
            unreadable: Counter::default(),
            queue_known: AtomicBool::new(false),
            requests: RequestCells::default(),
            log_bytes: Counter::default(),
            log_outages: Counter::default(),
            log_rejections: Counter::default(),
            log_losses: Counter::default(),
        };
        metrics.changed(runner);
        metrics
    }

    /// The entry starts anew, for the same runner.
    pub(crate) fn replaced(&self, runner: &Runner, jobs_of_executor: Arc<Counter>) {
        *self.jobs_of_executor.write().unwrap_or_else(PoisonError::into_inner) = jobs_of_executor;
        self.changed(runner);
    }

    /// Another scaler serves the entry.
    pub(crate) fn new_scaler(&self) -> Arc<ScalerMetrics> {
        let scaler = Arc::new(ScalerMetrics::new(Arc::clone(&self.scaling)));
        let mut scalers = self.scalers.lock().unwrap_or_else(PoisonError::into_inner);
        scalers.retain(|scaler| scaler.strong_count() > 0);
        scalers.push(Arc::downgrade(&scaler));
        scaler
    }

    pub(crate) fn show(&self, text: &mut Exposition) {
        let entry = &self.labels;
        text.row(Id::Jobs, entry, &["idle", "idle", "idle"], 0);
        for (id, count) in [
            (Id::JobsTotal, &self.jobs),
            (Id::QueuingExceededTotal, &self.queued_too_long),
            (Id::FeedsTotal, &self.feeds),
            (Id::FeedFailuresTotal, &self.feed_failures),
            (Id::HealthFailuresTotal, &self.health_failures),
            (Id::LogBytesTotal, &self.log_bytes),
            (Id::LogLossesTotal, &self.log_losses),
        ] {
            text.row(id, entry, &[], count.get());
        }
        for (kind, count) in [
            ("no_free_executor", &self.no_room),
            ("job_failure", &self.job_failures),
            ("other", &self.unreadable),
        ] {
            text.row(Id::ProcessingFailuresTotal, entry, &[kind], count.get());
        }
        for (kind, count) in [("outage", &self.log_outages), ("rejected", &self.log_rejections)] {
            text.row(Id::LogFailuresTotal, entry, &[kind], count.get());
        }
        text.row(Id::Limit, entry, &[], self.limit.get());
        text.row(Id::RunnerHealthy, entry, &[], u8::from(!self.requests.unhealthy.load(Ordering::Relaxed)));
        if self.queue_known.load(Ordering::Relaxed) {
            text.row(Id::JobQueueSize, entry, &[], self.queue_size.get());
            text.row(Id::JobQueueDepth, entry, &[], self.queue_depth.get());
        }
        text.histogram(Id::JobDuration, entry, &[MODE], &self.durations);
        self.queued.for_each(|running, histogram| {
            text.histogram(Id::JobQueueDuration, entry, &[running], histogram);
        });
        self.stages.for_each(|stage, histogram| {
            text.histogram(Id::JobStageDuration, entry, &[stage], histogram);
        });
        self.failed.for_each(|reason, count| {
            text.row(Id::FailedJobsTotal, entry, &[reason, MODE], count.get());
        });
        let mut sums = Sums::default();
        for scaler in &*self.scalers.lock().unwrap_or_else(PoisonError::into_inner) {
            if let Some(scaler) = scaler.upgrade() {
                scaler.add_to(&mut sums);
            }
        }
        self.scaling.show(text, entry, &sums);
    }
}

impl EntryObserver for RunnerMetrics {
    fn changed(&self, runner: &Runner) {
        self.limit.set(runner.limit().map_or(0, i64::from));
        let rules = QueueRules::new(runner, self.local);
        *self.queue_rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
    }

    fn turn(&self) {
        self.feeds.inc();
    }

    fn passed_over(&self) {
        self.feed_failures.inc();
    }

    fn no_room(&self) {
        self.no_room.inc();
    }

    fn requests(&self, requests: &Requests) {
        let Requests { in_flight, hard_limit, adaptive_limit, used_limit, healthy } = *requests;
        let cells = &self.requests;
        let number = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        cells.in_flight.set(number(in_flight));
        cells.hard_limit.set(number(hard_limit));
        cells.used_limit.set(number(used_limit));
        cells.adaptive_limit.store(adaptive_limit.to_bits(), Ordering::Relaxed);
        cells.unhealthy.store(!healthy, Ordering::Relaxed);
    }

    fn requests_exhausted(&self) {
        self.requests.exceeded.inc();
    }

    fn turned_unhealthy(&self) {
        self.health_failures.inc();
    }

    fn job_received(&self, job: &JobIntake<'_>) {
        self.jobs.inc();
        self.jobs_of_executor.read().unwrap_or_else(PoisonError::into_inner).inc();
        let running = bounded(job.project_jobs_running);
        self.queued.row(running, OTHER, || Histogram::new(Id::JobQueueDuration.bounds())).observe(job.queued);
        self.queue_size.set(job.queue_size);
        self.queue_depth.set(job.queue_depth);
        self.queue_known.store(true, Ordering::Relaxed);
        let rules = self.queue_rules.read().unwrap_or_else(PoisonError::into_inner);
        if rules.exceeded(job.queued, job.project_jobs_running, chrono::Utc::now()) {
            self.queued_too_long.inc();
        }
    }

    fn job_unreadable(&self) {
        self.unreadable.inc();
    }

    fn stage_ended(&self, stage: &str, duration: Duration) {
        self.stages
            .row(bounded(stage), OTHER, || Histogram::new(Id::JobStageDuration.bounds()))
            .observe(duration);
    }

    fn job_ended_early(&self, kind: DoomKind) {
        self.scaling.ended_early[kind as usize].inc();
    }

    fn job_ended(&self, failure: Option<&str>, duration: Duration) {
        self.durations.observe(duration);
        if let Some(reason) = failure {
            self.job_failures.inc();
            self.failed.row(bounded(reason), OTHER, Counter::default).inc();
        }
    }
}

impl trace::Observer for RunnerMetrics {
    fn request_failed(&self, failure: &Failure) {
        match failure.kind {
            FailureKind::Outage => self.log_outages.inc(),
            FailureKind::Rejected => self.log_rejections.inc(),
        }
    }

    fn spool_failed(&self, _: &SpoolError) {
        self.log_losses.inc();
    }

    fn sent(&self, bytes: u64) {
        self.log_bytes.add(bytes);
    }
}

impl std::fmt::Debug for RunnerMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunnerMetrics").field("label", &self.label).finish_non_exhaustive()
    }
}

// === impl RequestCells ===

impl RequestCells {
    pub(crate) fn adaptive_limit(&self) -> f64 {
        f64::from_bits(self.adaptive_limit.load(Ordering::Relaxed))
    }
}

// === helpers ===

/// Label values that a job could choose are short and never empty, which would mean that there is no label.
fn bounded(value: &str) -> &str {
    if value.is_empty() || value.len() > MOST_LABEL { OTHER } else { value }
}
