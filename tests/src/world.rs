//! GitLab, the manager in this process, and its instances.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gitlab_mock::{GitlabMock, Job, JobBuilder, Runner};
use manager::{Control, Ended, Identity, Manager, ManagerOptions, Observer, View};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tracing::subscriber::DefaultGuard;

use crate::captured::Captured;
use crate::entry::Setup;
use crate::finished::{Finished, tail};
use crate::machine::{PATIENCE, eventually, processes_in, within};

/// A GitLab with a manager that takes its jobs.
pub struct World {
    /// GitLab.
    pub gitlab: GitlabMock,
    /// GitLab's runners, one for each entry whose token is known, in the order of the entries.
    pub runners: Vec<Runner>,
    /// The manager's remote control.
    pub control: Control,
    /// A view on the manager.
    pub view: View,
    /// The manager's log.
    pub log: Captured,
    setup: Setup,
    folder: TempDir,
    ended: Option<JoinHandle<Ended>>,
    _capturing: DefaultGuard,
}

// === impl World ===

impl World {
    pub(crate) async fn start(setup: Setup) -> Self {
        Self::observed(setup, Arc::new(manager::Silent)).await
    }

    /// The same with somebody who hears what the manager does.
    ///
    /// # Panics
    /// When the setup makes no configuration.
    pub async fn observed(setup: Setup, observer: Arc<dyn Observer>) -> Self {
        let (log, capturing) = Captured::start();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let gitlab = GitlabMock::start(setup.gitlab.clone()).await.expect("GitLab starts");
        let known = setup.entries.iter().filter(|entry| entry.known);
        let runners = known.map(|entry| gitlab.add_runner(entry.token())).collect();
        let spool = folder.path().join("spool");
        std::fs::create_dir(&spool).expect("the folder can be written to");
        let product = job::Product {
            name: "drover".to_owned(),
            version: "0.1.0".to_owned(),
            revision: "0a1b2c3d".to_owned(),
            platform: "linux/amd64".to_owned(),
        };
        let identity = Identity { product, system_id: setup.system_id.clone(), host: "manager".to_owned() };
        let mut options = ManagerOptions::new(Self::load(&setup, gitlab.url(), folder.path()), identity);
        options.base = folder.path().to_owned();
        options.spool = spool;
        options.observer = observer;
        options.sessions =
            manager::session_server(&options.loaded.config).await.expect("the session server starts");
        let manager = Manager::new(options);
        let view = manager.view();
        let (control, controlled) = manager::control();
        let ended = Some(tokio::spawn(manager.run(controlled)));
        Self { gitlab, runners, control, view, log, setup, folder, ended, _capturing: capturing }
    }

    fn load(setup: &Setup, url: &str, folder: &Path) -> config::Loaded {
        let text = setup.text(url, folder);
        config::parse(&text, "config.toml", &|_| None).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    /// Puts a changed configuration in force.
    pub fn reload(&mut self, change: impl FnOnce(Setup) -> Setup) {
        let before = self.setup.entries.len();
        self.setup = change(self.setup.clone());
        for entry in self.setup.entries.iter().skip(before).filter(|entry| entry.known) {
            self.runners.push(self.gitlab.add_runner(entry.token()));
        }
        self.control.reload(Self::load(&self.setup, self.gitlab.url(), self.folder.path()));
    }

    /// The folder of this world.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where local instances have their folders.
    #[must_use]
    pub fn instances(&self) -> PathBuf {
        self.folder.path().join("instances")
    }

    /// Puts a job into the queue of the first runner.
    pub fn enqueue(&self, job: JobBuilder) -> Job {
        self.gitlab.enqueue(&self.runners[0], job)
    }

    /// Waits until a job has ended, and holds it to what is promised for every job.
    ///
    /// # Panics
    /// When it does not end, or not as promised.
    pub async fn finished(&self, job: &Job) -> Finished {
        if let Err(error) = job.finished(PATIENCE).await {
            panic!("{error}");
        }
        Finished::check(job)
    }

    /// Runs a job to its end.
    pub async fn run(&self, job: JobBuilder) -> Finished {
        self.finished(&self.enqueue(job)).await
    }

    /// Waits until every job has ended, and holds each to what is promised.
    ///
    /// # Panics
    /// When one does not end, or not as promised.
    pub async fn all_finished(&self) -> Vec<Finished> {
        assert!(self.gitlab.all_finished(PATIENCE).await, "{} jobs do not end", self.gitlab.unfinished());
        self.gitlab.jobs().iter().map(Finished::check).collect()
    }

    /// Waits for a text in the log of a job.
    ///
    /// # Panics
    /// When it does not come.
    pub async fn says(&self, job: &Job, text: &str) {
        if let Err(error) = job.log_contains(text, PATIENCE).await {
            panic!("no `{text}`: {error}");
        }
    }

    /// Waits for a line of the manager's log that holds all of these texts.
    ///
    /// # Panics
    /// When it does not come.
    pub async fn logs(&self, texts: &[&str]) {
        eventually(&format!("the manager's log has a line with {texts:?}"), || self.log.has_line(texts))
            .await;
    }

    /// Ends the manager gracefully, and holds it to what is promised: all jobs ended, the protocol was kept, and no
    /// instance and no process is left.
    ///
    /// # Panics
    /// When a promise is broken.
    pub async fn stop(self) {
        self.control.stop_gracefully();
        // Requests that wait at GitLab would be given up after a while; answered, they do not take that long.
        for runner in &self.runners {
            runner.tick();
        }
        let ended = self.ends().await;
        assert!(!ended.forced, "{ended:?}");
    }

    /// Waits for the end of the manager, and holds it to what is promised.
    ///
    /// # Panics
    /// When a promise is broken.
    pub async fn ends(mut self) -> Ended {
        let ended = self.ended.take().expect("the manager runs");
        let ended = within("the manager ends", ended).await.expect("the manager does not panic");
        assert_eq!((&ended.unfinished[..], &ended.left_behind[..]), (&[][..], &[][..]));
        self.gitlab.assert_no_violations();
        let mut left = Vec::new();
        eventually("the instances are gone", || {
            left = std::fs::read_dir(self.instances())
                .into_iter()
                .flatten()
                .flatten()
                .map(|e| e.path())
                .collect();
            left.is_empty()
        })
        .await;
        let running = processes_in(self.folder.path());
        assert!(running.is_empty(), "processes are left: {running:?}");
        let spooled = std::fs::read_dir(self.folder.path().join("spool")).into_iter().flatten().count();
        assert_eq!(spooled, 0, "job logs are left in the spool");
        ended
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for job in self.gitlab.jobs().iter().filter(|job| !job.state().is_final()).take(5) {
                let view = job.view();
                eprintln!("job {} ({}) is {}, its log ends with:", view.id, view.name, view.state);
                eprintln!("{}", tail(&crate::plain(&job.log_text()), 3000));
            }
            eprintln!("manager's log:\n{}", tail(&self.log.text(), 12_000));
        }
    }
}
