//! The demonstration itself: brings the parts together, lets jobs arrive, and watches until nothing is left.

mod watch;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use executors::Executor;
use gitlab_mock::{GitlabMock, Repository, Runner};
use job::Product;
use manager::{Control, Ended, Identity, Manager, ManagerOptions, View, control};
use tokio::process::Command;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::engine::Docker;
use crate::logging;
use crate::model::{Event, Model};
use crate::options::{DemoError, DemoOptions};
use crate::picture;
use crate::plugin::Local;
use crate::reasons::reasons;
use crate::scene::{self, FILES, Kind, PROJECT, Planned};
use crate::screen::Screen;
use crate::settings;
use crate::summary::Summary;
use crate::svg;
use crate::verdict;
use watch::{Ears, Heard, Told, Watcher};

const TOKEN: &str = "glrt-demo";
/// Between two looks at the instances, and between two pictures.
const FRAME: Duration = Duration::from_millis(100);
/// Looks per sample of the numbers.
const FRAMES_PER_SAMPLE: u32 = 5;
/// For the jobs; the slowest machine should need less.
const PATIENCE_WITH_JOBS: Duration = Duration::from_secs(300);
/// For idle instances to go after the last job.
const PATIENCE_WITH_IDLE: Duration = Duration::from_secs(20);
/// For the manager to end when it was told to.
const PATIENCE_WITH_MANAGER: Duration = Duration::from_secs(60);
/// A job must have run its script for so long before its instance is killed under it.
const KILL_AFTER: Duration = Duration::from_secs(1);
/// After so long it is killed even if another job shares its instance.
const KILL_AT_LAST: Duration = Duration::from_secs(6);
/// Size of the picture that is written to a file.
const PICTURE: (usize, usize) = (100, 32);

/// Runs the demonstration on standard output and returns what came of it.
///
/// # Errors
/// [`DemoError`]: it could not be run, was interrupted, or something was not as it should be.
pub async fn run(options: DemoOptions) -> Result<Summary, DemoError> {
    let data = options.json.as_deref() == Some(Path::new("-"));
    show(options, |plain| Screen::standard(plain, data)).await
}

/// The same, with one line per event to `out`.
///
/// # Errors
/// As [`run`].
pub async fn run_to(options: DemoOptions, out: Box<dyn Write + Send>) -> Result<Summary, DemoError> {
    show(options, |_| Ok(Screen::Lines(out))).await
}

async fn show(
    options: DemoOptions,
    screen: impl FnOnce(bool) -> std::io::Result<Screen>,
) -> Result<Summary, DemoError> {
    if options.jobs == 0 {
        return Err(DemoError::NoJobs);
    }
    look_for_git().await?;
    let docker = match &options.docker {
        Some(image) => Some(Docker::find(image, std::env::var("DOCKER_HOST").ok().as_deref()).await?),
        None => None,
    };
    let stage = Stage::set(&options, docker.as_ref()).await?;
    let screen = screen(options.plain).map_err(screen_failed)?;
    let Finished { summary, picture, complaints, dir } =
        stage.play(screen, options.picture.as_deref()).await?;
    if let Some(path) = &options.json {
        write_json(path, &summary)?;
    }
    if let (Some(path), Some(picture)) = (&options.picture, picture) {
        std::fs::write(path, picture).map_err(|source| DemoError::Write { path: path.clone(), source })?;
    }
    if complaints.is_empty() {
        return Ok(summary);
    }
    Err(DemoError::Failed { complaints, log: log_file(&dir.keep()) })
}

/// Everything that is set up before the first job arrives.
struct Stage {
    dir: tempfile::TempDir,
    gitlab: GitlabMock,
    runner: Runner,
    repository: Repository,
    plan: Vec<Planned>,
    kill_instance: bool,
    local: Arc<Local>,
    manager: Manager,
    told: UnboundedReceiver<Told>,
}

/// The demonstration when it is over.
struct Finished {
    summary: Summary,
    /// The picture of the busiest moment, if it is wanted.
    picture: Option<String>,
    /// What was not as it should be.
    complaints: Vec<String>,
    dir: tempfile::TempDir,
}

/// The demonstration while it runs.
struct Play {
    began: Instant,
    began_wall: DateTime<Utc>,
    model: Model,
    screen: Screen,
    view: View,
    executor: Option<Arc<dyn Executor>>,
    ears: Ears,
    /// When the last event was.
    last: Duration,
    frames: u32,
    /// The picture of the busiest moment so far, if it is wanted, with how busy that was and where it is to be written.
    best: Option<(u32, PathBuf, String)>,
}

// === impl Stage ===

impl Stage {
    async fn set(options: &DemoOptions, docker: Option<&Docker>) -> Result<Self, DemoError> {
        let write = |path: &Path| {
            let path = path.to_owned();
            move |source| DemoError::Write { path, source }
        };
        let dir = tempfile::Builder::new()
            .prefix("drover-demo-")
            .tempdir()
            .map_err(write(&std::env::temp_dir()))?;
        let (work_dir, spool) = (dir.path().join("instances"), dir.path().join("spool"));
        for path in [&work_dir, &spool] {
            std::fs::create_dir(path).map_err(write(path))?;
        }
        let log = log_file(dir.path());
        logging::to_file(&log).map_err(write(&log))?;

        let gitlab = GitlabMock::start(gitlab_mock::Config::default()).await?;
        let repository = gitlab.create_repository(PROJECT).await?;
        repository.commit("main", FILES.iter().copied(), "Light the lamp").await?;
        let runner = gitlab.add_runner(TOKEN);

        let text = settings::text(gitlab.url(), TOKEN, &work_dir, options.program.as_deref(), docker);
        let (watcher, told) = Watcher::new();
        let local = Arc::new(Local::default());
        let manager = Manager::new(ManagerOptions {
            base: dir.path().to_owned(),
            spool,
            providers: Arc::clone(&local) as Arc<dyn manager::Providers>,
            observer: Arc::new(watcher),
            ..ManagerOptions::new(settings::load(&text)?, identity())
        });
        let plan = scene::plan(options.jobs, options.kill_instance, options.seed);
        let kill_instance = options.kill_instance;
        Ok(Self { dir, gitlab, runner, repository, plan, kill_instance, local, manager, told })
    }

    /// Runs it to its end. `picture` is where a picture is to be written later.
    async fn play(self, screen: Screen, picture: Option<&Path>) -> Result<Finished, DemoError> {
        let Self { dir, gitlab, runner, repository, plan, kill_instance, local, manager, told } = self;
        let mut play = Play {
            began: Instant::now(),
            began_wall: Utc::now(),
            model: Model::new(plan.len()),
            screen,
            view: manager.view(),
            executor: None,
            ears: Ears::new(told, FRAME),
            last: Duration::ZERO,
            frames: 0,
            best: picture.map(|path| (0, path.to_owned(), String::new())),
        };
        let (control, controlled) = control();
        let mut manager = tokio::spawn(manager.run(controlled));
        let mut kinds = BTreeMap::new();

        let playing = async {
            let mut cast =
                Cast { gitlab: &gitlab, runner: &runner, repository: &repository, kinds: &mut kinds };
            let complaints = play.jobs(&mut cast, plan, kill_instance.then_some(&*local)).await?;
            if complaints.is_empty() {
                control.stop_gracefully();
            } else {
                control.stop_forcefully("demo");
            }
            Ok((complaints, play.until_ended(&mut manager).await?))
        };
        let played = tokio::select! {
            played = playing => played,
            () = interrupted() => Err(DemoError::Interrupted),
        };
        let (mut complaints, ended) = match played {
            Ok(played) => played,
            Err(error) => {
                end_early(&control, manager).await;
                return Err(error);
            }
        };
        if let Some(group) = local.group() {
            // Bounded by the group itself; a failure shows in what is left.
            let _ = fleeting::InstanceGroup::shutdown(&**group).await;
        }
        play.frame()?;

        let (outcome, found) = verdict::judge(&gitlab, &play.model, &kinds);
        complaints.extend(found);
        complaints.extend(verdict::leftovers(&ended, &dir.path().join("instances"), &play.model));
        let summary = Summary::new(&play.model, play.now(), outcome);
        play.screen.close(&format!("\n{summary}")).map_err(screen_failed)?;
        let picture = play.best.map(|(_, _, picture)| picture);
        Ok(Finished { summary, picture, complaints, dir })
    }
}

/// Where jobs come from.
struct Cast<'a> {
    gitlab: &'a GitlabMock,
    runner: &'a Runner,
    repository: &'a Repository,
    kinds: &'a mut BTreeMap<u64, Kind>,
}

// === impl Play ===

impl Play {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Lets all jobs arrive, and waits until they have ended and idle instances are gone. Returns what is to be complained
    /// of.
    async fn jobs(
        &mut self,
        cast: &mut Cast<'_>,
        plan: Vec<Planned>,
        mut kill: Option<&Local>,
    ) -> Result<Vec<String>, DemoError> {
        let mut plan = plan.into_iter().peekable();
        let mut idle_since = None;
        loop {
            let next = plan.peek().map(|job| self.began + job.at);
            tokio::select! {
                () = until(next) => {
                    let now = self.now();
                    while let Some(planned) = plan.next_if(|planned| planned.at <= now) {
                        self.arrive(cast, &planned)?;
                    }
                }
                something = self.ears.listen() => self.react(something)?,
            }
            if let Some(group) = kill.and_then(Local::group)
                && let Some(instance) = self.victim(cast.kinds)
                && group.kill(&fleeting::InstanceId::from(instance.as_str()))
            {
                self.happened(self.now(), Event::Killed { instance })?;
                kill = None;
            }
            if self.model.all_ended() && cast.gitlab.unfinished() == 0 {
                let since = *idle_since.get_or_insert_with(Instant::now);
                if self.model.instances.len() <= 1 || since.elapsed() >= PATIENCE_WITH_IDLE {
                    return Ok(Vec::new());
                }
            }
            if self.began.elapsed() >= PATIENCE_WITH_JOBS {
                return Ok(vec![format!("jobs had not ended after {} s", PATIENCE_WITH_JOBS.as_secs())]);
            }
        }
    }

    /// Watches until the manager has ended.
    async fn until_ended(&mut self, manager: &mut JoinHandle<Ended>) -> Result<Ended, DemoError> {
        let end = Instant::now() + PATIENCE_WITH_MANAGER;
        loop {
            tokio::select! {
                ended = &mut *manager => {
                    while let Some(told) = self.ears.already_told() {
                        self.react(Heard::Told(told))?;
                    }
                    self.frame()?;
                    return Ok(ended.unwrap_or_else(|error| broken(&error)));
                }
                something = self.ears.listen() => self.react(something)?,
                () = tokio::time::sleep_until(end) => {
                    manager.abort();
                    return Ok(broken(&"it had not ended in time"));
                }
            }
        }
    }

    /// One more job is at GitLab.
    fn arrive(&mut self, cast: &mut Cast<'_>, planned: &Planned) -> Result<(), DemoError> {
        for job in cast.gitlab.try_enqueue(cast.runner, [planned.job(cast.repository)])? {
            cast.kinds.insert(job.id(), planned.kind);
            self.happened(self.now(), Event::Arrived { job: job.id(), name: planned.name.clone() })?;
        }
        Ok(())
    }

    fn react(&mut self, heard: Heard) -> Result<(), DemoError> {
        match heard {
            Heard::Told(Told { at, event }) => {
                let at = at.saturating_duration_since(self.began);
                if matches!(event, Event::Placed { .. }) {
                    // A job comes to an instance that is known to be ready.
                    self.look(at)?;
                }
                self.happened(at, event)
            }
            Heard::Decided => self.look(self.now()),
            Heard::Tick => self.frame(),
        }
    }

    /// Looks at the instances and at the last decision.
    fn look(&mut self, at: Duration) -> Result<(), DemoError> {
        let Some(executor) = &self.executor else { return Ok(()) };
        let why = self.ears.report().map(|report| reasons(&report, self.began_wall)).unwrap_or_default();
        let instances = executor.instances();
        self.happened(at, Event::Looked { instances, why })
    }

    /// Looks and draws.
    fn frame(&mut self) -> Result<(), DemoError> {
        if self.executor.is_none() {
            self.executor = self.view.executors().into_values().next();
            self.ears.decisions = self.executor.as_ref().and_then(|executor| executor.report());
        }
        let now = self.now();
        self.look(now)?;
        if self.frames.is_multiple_of(FRAMES_PER_SAMPLE) {
            self.happened(now, Event::Sample)?;
        }
        self.frames += 1;
        self.keep_the_best(now);
        self.screen.draw(&self.model, now).map_err(screen_failed)
    }

    fn keep_the_best(&mut self, now: Duration) {
        let counts = self.model.counts();
        // Most is to be seen where many jobs run and many still wait.
        let busy = counts.running * (1 + counts.waiting);
        let Some((most, path, frame)) = &mut self.best else { return };
        if busy > *most {
            let picture = picture::render(&self.model, now, PICTURE.0, PICTURE.1);
            let is_svg = path.extension().is_some_and(|extension| extension == "svg");
            *frame = if is_svg { svg::render(&picture, PICTURE.0) } else { picture.text().join("\n") + "\n" };
            *most = busy;
        }
    }

    fn happened(&mut self, at: Duration, event: Event) -> Result<(), DemoError> {
        // What was told a moment ago may be heard after a look; the order in which it is heard is the one that is shown.
        let at = at.max(self.last);
        self.last = at;
        let news = self.model.apply(at, event);
        self.screen.tell(at, &news).map_err(screen_failed)
    }

    /// The instance to kill: that of the long job, once its script is well under way and nothing else runs there.
    fn victim(&self, kinds: &BTreeMap<u64, Kind>) -> Option<String> {
        let (id, _) = kinds.iter().find(|(_, kind)| **kind == Kind::Soak)?;
        let job = self.model.jobs.get(id)?;
        let place = job.place.as_ref()?;
        let running = self.now().saturating_sub(job.stage_since);
        let alone = self.model.on(&place.instance).count() == 1;
        let ripe = job.stage == "step_script" && running >= KILL_AFTER && (alone || running >= KILL_AT_LAST);
        ripe.then(|| place.instance.clone())
    }
}

// === helpers ===

fn log_file(dir: &Path) -> PathBuf {
    dir.join("manager.log")
}

fn screen_failed(source: std::io::Error) -> DemoError {
    DemoError::Write { path: "-".into(), source }
}

fn broken(why: &dyn std::fmt::Display) -> Ended {
    Ended { unfinished: Vec::new(), left_behind: vec![format!("the manager: {why}")], forced: true }
}

fn identity() -> Identity {
    let fields = gitlab_api::InfoFields::of_this_build("drover", env!("CARGO_PKG_VERSION"), "demo");
    Identity {
        product: Product {
            platform: format!("{}/{}", fields.platform, fields.architecture),
            name: fields.name,
            version: fields.version,
            revision: fields.revision,
        },
        system_id: "s_demo00000000".to_owned(),
        host: "demo".to_owned(),
    }
}

/// Finds out whether git is there with the part that serves repositories, which some systems package apart.
async fn look_for_git() -> Result<(), DemoError> {
    let output = Command::new("git").arg("--exec-path").output().await;
    let output = output.map_err(|error| DemoError::NoGit { why: format!("cannot run `git`: {error}") })?;
    let folder = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let program = folder.join("git-http-backend");
    if output.status.success() && program.is_file() {
        return Ok(());
    }
    Err(DemoError::NoGit { why: format!("there is no `{}`", program.display()) })
}

/// Stops everything without another look.
async fn end_early(control: &Control, manager: JoinHandle<Ended>) {
    control.stop_forcefully("interrupt");
    let abort = manager.abort_handle();
    if tokio::time::timeout(PATIENCE_WITH_MANAGER, manager).await.is_err() {
        abort.abort();
    }
}

async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminated) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        Ok(()) = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

fn write_json(path: &Path, summary: &Summary) -> Result<(), DemoError> {
    let failed = |source| DemoError::Write { path: path.to_owned(), source };
    let text = serde_json::to_string_pretty(summary).map_err(|error| failed(error.into()))? + "\n";
    if path == Path::new("-") {
        let mut out = std::io::stdout();
        return out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(failed);
    }
    std::fs::write(path, text).map_err(failed)
}
