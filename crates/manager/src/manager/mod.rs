//! The loop: asks GitLab for jobs as the dispatcher allows, and runs what comes.

mod entries;
mod jobs;
mod listening;
mod requests;
mod stop;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use config::{Config, Loaded, Runner, Verdict};
use executors::{Executor, JobReport};
use gitlab_api::JobRequestReply;
use session::SessionServer;
use taskscaler_core::Zone;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use trace::LogOptions;

use self::listening::Listening;
use self::requests::Room;
use crate::board::Board;
use crate::control::{Controlled, Shutdown};
use crate::dispatch::{Dispatcher, RunnerIndex};
use crate::events::{Jobs, Observer, Reporter, Silent};
use crate::numbers::{Numbers, Taken};
use crate::providers::{BuiltIn, Providers};
use crate::runner::{EntryError, Identity, Surroundings, Working};
use crate::watch::{Phase, RunnerWatch};

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
    /// It was removed: requests under way are given up after a while, and no more are made.
    removed: watch::Sender<bool>,
    jobs: usize,
    watch: RunnerWatch,
    /// Its executor is on its way.
    starting: bool,
    /// It was changed meanwhile.
    changed: bool,
    /// The next try to start it.
    again: Option<AbortHandle>,
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

// === impl Entry ===

impl Entry {
    fn is_removed(&self) -> bool {
        *self.removed.borrow()
    }
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
}

// === helpers ===

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
