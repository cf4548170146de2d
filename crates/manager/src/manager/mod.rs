//! The loop: asks GitLab for jobs as the dispatcher allows, and runs what comes.

mod entries;
mod listening;
mod stop;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use config::{Config, Loaded, Runner, Verdict};
use executors::{Executor, JobReport, JobRun, Reservation, run_job};
use gitlab_api::{
    Client, JobCredentials, JobRequestOutcome, JobRequestReply, JobState, JobUpdate, ReceivedJob, RunnerInfo,
};
use job::{JobResult, Placement, TlsFiles};
use session::{Session, SessionServer};
use taskscaler_core::Zone;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use trace::{LogOptions, UploadOptions};

use self::listening::Listening;
use crate::board::Board;
use crate::control::{Controlled, Shutdown};
use crate::dispatch::{Answer, Ask, Dispatcher, RunnerIndex};
use crate::events::{Jobs, Observer, Reporter, Silent, StageReporter};
use crate::numbers::{Numbers, Taken};
use crate::providers::{BuiltIn, Providers};
use crate::runner::{EntryError, Identity, Surroundings, Working};
use crate::watch::{JobIntake, Phase, RunnerWatch};

/// What a manager is made of.
pub struct ManagerOptions {
    /// The configuration.
    pub loaded: Loaded,
    /// Folder of the configuration file, where relative paths start.
    pub base: PathBuf,
    /// The program and this manager.
    pub identity: Identity,
    /// Where job logs are spooled; private to the user.
    pub spool: PathBuf,
    /// Where instances come from.
    pub providers: Arc<dyn Providers>,
    /// Zone of the host, for policies that name none.
    pub local_zone: Zone,
    /// Hears what happens.
    pub observer: Arc<dyn Observer>,
    /// Hears about calls to GitLab.
    pub api_observer: Option<Arc<dyn gitlab_api::Observer>>,
    /// Hears about logs.
    pub log_observer: Option<Arc<dyn trace::Observer>>,
    /// Serves web terminals into running jobs.
    pub sessions: Option<SessionServer>,
    /// Take no jobs and store nothing; with [`DryRun`](crate::DryRun) providers nothing is changed at all.
    pub dry_run: bool,
}

/// How a manager ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Jobs that had not ended when the time for the shutdown was over.
    pub unfinished: Vec<u64>,
    /// What executors left behind, for people.
    pub left_behind: Vec<String>,
    /// The shutdown was a forceful one.
    pub forced: bool,
}

/// A view on a manager from outside.
#[derive(Clone)]
pub struct View {
    /// Jobs that run now.
    pub jobs: Jobs,
    board: Board,
    executors: watch::Receiver<BTreeMap<String, Arc<dyn Executor>>>,
}

/// A manager, ready to run.
pub struct Manager {
    around: Arc<Surroundings>,
    config: Config,
    dispatcher: Dispatcher,
    clock: Instant,
    next_index: u64,
    runners: BTreeMap<RunnerIndex, Entry>,
    /// What the logs of all jobs have in common. Made once, because the masks in it are compiled.
    log: LogOptions,
    reporter: Arc<Reporter>,
    board: Board,
    log_observer: Option<Arc<dyn trace::Observer>>,
    events: mpsc::UnboundedSender<Event>,
    inbox: mpsc::UnboundedReceiver<Event>,
    /// Requests under way; aborted at the end of a shutdown.
    requests: JoinSet<()>,
    listening: Listening,
    interrupt: watch::Sender<Option<Arc<str>>>,
    executors: watch::Sender<BTreeMap<String, Arc<dyn Executor>>>,
    initial: Option<Loaded>,
    /// Decides, and takes no jobs.
    dry_run: bool,
}

struct Entry {
    /// Position in the file, while it is there.
    label: String,
    runner: Runner,
    working: Option<Working>,
    numbers: Numbers,
    removed: bool,
    jobs: usize,
    watch: RunnerWatch,
    /// Its executor is on its way.
    starting: bool,
    /// Its executor is shutting down.
    retiring: bool,
    /// Entries that wait for the end of this one, because they use the same instances.
    successors: Vec<(Runner, Verdict)>,
}

enum Event {
    Started(RunnerIndex, Box<Result<Working, EntryError>>, u32),
    Answered { runner: RunnerIndex, reply: JobRequestReply, room: Box<Room> },
    Ended { runner: RunnerIndex, report: Box<JobReport>, taken: Taken },
    Room(RunnerIndex),
    StartAgain(RunnerIndex, u32),
    Retired(RunnerIndex),
}

/// What was claimed for a job before GitLab was asked for it.
struct Room {
    reservation: Box<dyn Reservation>,
    /// GitLab was told of it with the request.
    session: Option<Session>,
}

// === impl ManagerOptions ===

impl ManagerOptions {
    /// Options with the built-in providers and nobody listening.
    #[must_use]
    pub fn new(loaded: Loaded, identity: Identity) -> Self {
        Self {
            loaded,
            base: PathBuf::from("."),
            identity,
            spool: std::env::temp_dir(),
            providers: Arc::new(BuiltIn),
            local_zone: Zone::default(),
            observer: Arc::new(Silent),
            api_observer: None,
            log_observer: None,
            sessions: None,
            dry_run: false,
        }
    }
}

// === impl View ===

impl View {
    /// The executors at work, by the name of their runner.
    #[must_use]
    pub fn executors(&self) -> BTreeMap<String, Arc<dyn Executor>> {
        self.executors.borrow().clone()
    }

    /// Everything that the manager says of itself now. It holds nothing secret.
    #[must_use]
    pub fn status(&self) -> status::Document {
        self.board.document(&self.jobs)
    }
}

// === impl Manager ===

impl Manager {
    /// A manager that does nothing before [`run`](Self::run).
    #[must_use]
    pub fn new(options: ManagerOptions) -> Self {
        let config = options.loaded.config.clone();
        let (events, inbox) = mpsc::unbounded_channel();
        let reporter = Arc::new(Reporter { jobs: Jobs::default(), observer: options.observer });
        let board = Board::new(&options.identity);
        Self {
            around: Arc::new(Surroundings {
                identity: options.identity,
                providers: options.providers,
                base: options.base,
                local_zone: options.local_zone,
                observer: options.api_observer,
                sessions: options.sessions,
            }),
            dispatcher: Dispatcher::new(config.concurrent() as usize, config.check_interval()),
            config,
            clock: Instant::now(),
            next_index: 0,
            runners: BTreeMap::new(),
            log: LogOptions { directory: options.spool, ..LogOptions::default() },
            reporter,
            board,
            log_observer: options.log_observer,
            events,
            inbox,
            requests: JoinSet::new(),
            listening: Listening::default(),
            interrupt: watch::Sender::new(None),
            executors: watch::Sender::new(BTreeMap::new()),
            initial: Some(options.loaded),
            dry_run: options.dry_run,
        }
    }

    /// A view that stays good while the manager runs.
    #[must_use]
    pub fn view(&self) -> View {
        View {
            jobs: self.reporter.jobs.clone(),
            board: self.board.clone(),
            executors: self.executors.subscribe(),
        }
    }

    /// Runs until it is told to stop and has stopped.
    pub async fn run(mut self, mut control: Controlled) -> Ended {
        if let Some(loaded) = self.initial.take() {
            self.begin(&loaded);
        }
        self.enter(Phase::Running);
        let mut shutdown = control.shutdown.clone();
        while *shutdown.borrow_and_update() == Shutdown::None {
            let wake = if self.dry_run {
                // A job that was taken could not be run.
                None
            } else {
                self.ask();
                self.dispatcher.wake_at(self.now()).map(|at| self.clock + at)
            };
            tokio::select! {
                biased;
                () = told(&mut shutdown) => {}
                Some(event) = self.inbox.recv() => self.handle(event),
                Some(loaded) = control.reloads.recv() => self.reload(*loaded),
                Some(_) = self.requests.join_next(), if !self.requests.is_empty() => {}
                () = sleep_until(wake) => {}
            }
        }
        self.stop(shutdown).await
    }

    /// Comes to another phase.
    fn enter(&self, phase: Phase) {
        self.reporter.observer.phase(phase);
        self.board.phase(phase);
    }

    fn now(&self) -> Duration {
        self.clock.elapsed()
    }

    /// Makes every request that may be made now.
    fn ask(&mut self) {
        let now = self.now();
        while let Some(Ask { runner, may_wait }) = self.dispatcher.next(now) {
            let Some(entry) = self.runners.get(&runner) else {
                self.dispatcher.refused(runner, now);
                continue;
            };
            entry.watch.entry.turn();
            let Some(working) = entry.working.as_ref() else {
                entry.watch.entry.passed_over();
                self.dispatcher.refused(runner, now);
                continue;
            };
            // Subscribed before the attempt, so that room that comes in between is noticed.
            let mut capacity = working.executor.capacity();
            capacity.borrow_and_update();
            let reservation = match working.executor.reserve() {
                Ok(reservation) => reservation,
                Err(why) => {
                    tracing::debug!(runner = working.entry.label(), %why, "no free executor");
                    self.board.room(runner, &why.0);
                    self.reporter.observer.no_room(&working.entry.label());
                    entry.watch.entry.no_room();
                    self.dispatcher.refused(runner, now);
                    self.listening.listen(runner, capacity, &mut self.requests, &self.events);
                    continue;
                }
            };
            self.board.room(runner, "");
            let client = working.client.clone();
            let session = working.session(&self.around);
            let request = working.job_request(&self.around, may_wait, session.as_ref());
            let room = Box::new(Room { reservation, session });
            let events = self.events.clone();
            self.requests.spawn(async move {
                let reply = client.request_job(&request).await;
                let _ = events.send(Event::Answered { runner, reply, room });
            });
            if self.dispatcher.requests_exhausted(runner) {
                entry.watch.entry.requests_exhausted();
            }
            self.tell_requests(runner);
        }
    }

    /// Tells who is interested how many requests of a runner are under way.
    fn tell_requests(&self, runner: RunnerIndex) {
        if let Some(entry) = self.runners.get(&runner)
            && let Some(requests) = self.dispatcher.requests(runner, self.now())
        {
            entry.watch.entry.requests(&requests);
            self.board.requests(runner, &requests);
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Started(runner, outcome, tries) => self.started(runner, *outcome, tries),
            Event::StartAgain(runner, tries) => self.start(runner, tries),
            Event::Answered { runner, reply, room } => self.answered(runner, reply, *room),
            Event::Ended { runner, report, taken } => self.ended(runner, *report, taken),
            Event::Room(runner) => {
                self.listening.forget(runner);
                self.dispatcher.room(runner);
            }
            Event::Retired(runner) => self.retired(runner),
        }
    }

    fn answered(&mut self, runner: RunnerIndex, reply: JobRequestReply, room: Room) {
        let now = self.now();
        let retried = reply.retried;
        let Some(entry) = self.runners.get_mut(&runner) else { return };
        let label = entry.label.clone();
        let correlation_id = reply.correlation_id.as_str();
        let answer = match &reply.outcome {
            JobRequestOutcome::Job(_) => Answer::Job { retried },
            JobRequestOutcome::None => Answer::Nothing { retried, again: reply.ask_again },
            JobRequestOutcome::Forbidden => {
                tracing::error!(
                    runner = label,
                    correlation_id,
                    "Checking for jobs... forbidden: GitLab refuses this runner's token"
                );
                self.board.failed(runner, "asking for jobs: forbidden, GitLab refuses this runner's token");
                Answer::Refused
            }
            JobRequestOutcome::Unavailable => {
                tracing::warn!(
                    runner = label,
                    correlation_id,
                    "Checking for jobs... GitLab instance currently unavailable"
                );
                self.board.failed(runner, "asking for jobs: GitLab is unavailable");
                Answer::Nothing { retried, again: false }
            }
            JobRequestOutcome::Failed(error) if error.is_client_error() => {
                tracing::error!(runner = label, error = error.report(), "Checking for jobs... client error");
                self.board.failed(runner, format!("asking for jobs: {}", error.report()));
                Answer::Refused
            }
            JobRequestOutcome::Failed(error) => {
                tracing::warn!(
                    runner = label,
                    correlation_id,
                    error = error.report(),
                    "Checking for jobs... failed"
                );
                self.board.failed(runner, format!("asking for jobs: {}", error.report()));
                Answer::Nothing { retried, again: false }
            }
            JobRequestOutcome::Undecodable { id, error, .. } => {
                tracing::error!(
                    runner = label,
                    job = id,
                    error = error.report(),
                    "Checking for jobs... received a job that cannot be read; it is reported as failed"
                );
                self.board.failed(runner, format!("job {id} cannot be read: {}", error.report()));
                Answer::Nothing { retried, again: false }
            }
        };
        if !answer.is_job() {
            self.reporter.observer.asked_in_vain(&label);
        }
        let healthy = |dispatcher: &Dispatcher| {
            dispatcher.requests(runner, now).is_none_or(|requests| requests.healthy)
        };
        let was_healthy = healthy(&self.dispatcher);
        self.dispatcher.answered(runner, answer, now);
        if was_healthy && !healthy(&self.dispatcher) {
            entry.watch.entry.turned_unhealthy();
            entry.watch.entry.passed_over();
        }
        self.tell_requests(runner);
        let Some(entry) = self.runners.get(&runner) else { return };
        let Some(working) = entry.working.as_ref() else { return };
        match reply.outcome {
            JobRequestOutcome::Job(received) => {
                let job = self.start_job(runner, *received, room, reply.correlation_id);
                tracing::info!(runner = label, job, "Checking for jobs... received");
            }
            JobRequestOutcome::Undecodable { id, token, .. } => {
                entry.watch.entry.job_unreadable();
                let client = working.client.clone();
                let info = Arc::clone(&working.info);
                let credentials = JobCredentials { id, token: token.0 };
                tokio::spawn(async move { fail(&client, &credentials, info).await });
            }
            JobRequestOutcome::None
            | JobRequestOutcome::Forbidden
            | JobRequestOutcome::Unavailable
            | JobRequestOutcome::Failed(_) => {}
        }
    }

    fn start_job(
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

    fn ended(&mut self, runner: RunnerIndex, report: JobReport, taken: Taken) {
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

/// Tells GitLab that a job that cannot be read has failed, so that it does not wait for its timeout.
async fn fail(client: &Client, credentials: &JobCredentials, info: Arc<RunnerInfo>) {
    let update = JobUpdate {
        state: JobState::Failed,
        failure_reason: Some("runner_system_failure".to_owned()),
        checksum: None,
        bytesize: None,
        exit_code: None,
        info,
    };
    client.update_job(credentials, &update).await;
}

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

async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// Completes when the shutdown goes a step further; never once nobody is left who could say so.
async fn told(shutdown: &mut watch::Receiver<Shutdown>) {
    if shutdown.changed().await.is_err() {
        std::future::pending().await
    }
}
