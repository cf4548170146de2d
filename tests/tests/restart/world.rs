//! A GitLab and a cloud that outlive the manager, and what jobs leave behind on instances.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use drover_tests::{Drover, Entry, PATIENCE, Setup};
use gitlab_mock::{Config, GitlabMock, Job, JobBuilder, JobState, Runner};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::cloud::Cloud;

/// What stays while managers come and go.
pub(crate) struct World {
    pub(crate) cloud: Cloud,
    pub(crate) gitlab: GitlabMock,
    pub(crate) runner: Runner,
    /// One file for each instance, with a line for each job that ran there.
    uses: TempDir,
    gates: TempDir,
}

/// A job that waits at its gate.
pub(crate) struct Held {
    pub(crate) job: Job,
    gate: PathBuf,
}

impl World {
    pub(crate) async fn start() -> Self {
        let cloud = Cloud::start().await;
        let gitlab = GitlabMock::start(Config::default()).await.unwrap();
        let runner = gitlab.add_runner("glrt-fleet-0123456789abcdef");
        let folder = || tempfile::tempdir().unwrap();
        Self { cloud, gitlab, runner, uses: folder(), gates: folder() }
    }

    /// An entry whose idle instances stay, also when the manager ends.
    pub(crate) fn entry(&self) -> Entry {
        self.cloud.entry().set("autoscaler.delete_instances_on_shutdown", false)
    }

    /// A manager with this entry, in its first life.
    pub(crate) async fn manager(&self, entry: Entry) -> Drover {
        let drover = Drover::start(&Setup::new().runner(entry), self.gitlab.url());
        drover.program.says(&["runner entry takes jobs"]).await;
        drover
    }

    /// The next life of a manager that has ended, with this entry.
    pub(crate) async fn again(&self, drover: &mut Drover, entry: Entry) {
        drover.again(&Setup::new().runner(entry), self.gitlab.url());
        drover.program.says(&["runner entry takes jobs"]).await;
    }

    /// Leaves a line in the file of the instance, whose home folder has a name of its own.
    fn trace(&self, name: &str) -> String {
        format!("echo '{name}' >>{}/\"$(basename \"$HOME\")\"; echo it runs", self.uses.path().display())
    }

    /// Runs a job to its good end.
    pub(crate) async fn run(&self, name: &str) {
        let job = self.gitlab.enqueue(&self.runner, JobBuilder::new(name).script([self.trace(name)]));
        self.succeeded(&job).await;
    }

    /// A job that runs until it is let go. A hangup does not end it.
    pub(crate) async fn hold(&self, name: &str) -> Held {
        let gate = self.gates.path().join(name);
        let wait = format!("trap '' HUP; until [ -e {} ]; do sleep 0.1; done", gate.display());
        let script = JobBuilder::new(name).script([self.trace(name), wait]);
        let job = self.gitlab.enqueue(&self.runner, script);
        job.log_contains("it runs\n", PATIENCE).await.unwrap();
        Held { job, gate }
    }

    pub(crate) async fn succeeded(&self, job: &Job) {
        let view = job.finished(PATIENCE).await.unwrap();
        assert_eq!(view.state, JobState::Success, "{}", job.log_text());
    }

    /// Lets a job go and waits for its good end.
    pub(crate) async fn release(&self, held: Held) {
        std::fs::write(&held.gate, "").unwrap();
        self.succeeded(&held.job).await;
    }

    /// The jobs that ran on each instance, in all lives.
    pub(crate) fn uses(&self) -> BTreeMap<String, Vec<String>> {
        let files = std::fs::read_dir(self.uses.path()).unwrap().flatten();
        files
            .map(|file| {
                let jobs = std::fs::read_to_string(file.path()).unwrap();
                (file.file_name().into_string().unwrap(), jobs.lines().map(str::to_owned).collect())
            })
            .collect()
    }

    /// The number of jobs on each instance that ran this one.
    pub(crate) fn uses_where(&self, job: &str) -> Vec<Vec<String>> {
        self.uses().into_values().filter(|jobs| jobs.iter().any(|name| name == job)).collect()
    }
}

/// Ends a manager without warning.
pub(crate) async fn kill(drover: &mut Drover) {
    drover.kill().await;
}

/// Ends a manager as its service would.
pub(crate) async fn stop(drover: &mut Drover) {
    drover.program.signal(Signal::SIGQUIT);
    assert_eq!(drover.program.ends().await, Some(0));
}

/// The files of the ledger whose names end so.
pub(crate) fn ledger(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder.join(".taskscaler"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|file| file.path())
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect();
    files.sort();
    files
}
