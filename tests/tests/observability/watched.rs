//! A manager as a process that is looked at from outside.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use drover_tests::{Drover, Entry, Setup, bin, eventually, within};
use gitlab_mock::{GitlabMock, Job, JobBuilder, Runner};
use nix::sys::signal::Signal;
use serde_json::Value;
use status::Document;

/// GitLab, and `drover run` with a page and a socket.
pub(crate) struct Watched {
    pub(crate) gitlab: GitlabMock,
    pub(crate) runner: Runner,
    pub(crate) drover: Drover,
    address: String,
}

/// Instances run one job each; two at most.
pub(crate) fn fleet() -> Entry {
    Entry::local("fleet")
        .set("request_concurrency", 4)
        .set("autoscaler.max_instances", 2)
        .set("autoscaler.capacity_per_instance", 1)
}

/// A setup whose manager shows its status.
pub(crate) fn shown(entry: Entry) -> Setup {
    Setup::new().set("listen_address", "127.0.0.1:0").set("status.page", true).runner(entry)
}

/// A job that runs until the file is there.
pub(crate) fn until(file: &Path) -> JobBuilder {
    let script = format!("while ! test -e {}; do sleep 0.05; done", file.display());
    JobBuilder::new("waits").script([script])
}

// === impl Watched ===

impl Watched {
    pub(crate) async fn start(setup: Setup, token: &str) -> Self {
        let gitlab = GitlabMock::start(gitlab_mock::Config::default()).await.unwrap();
        let runner = gitlab.add_runner(token);
        let drover = Drover::start(&setup, gitlab.url());
        drover.program.says(&["Metrics server listening"]).await;
        drover.program.says(&["`drover explain` is answered"]).await;
        let said = drover.program.said();
        let address = said.lines().find_map(|line| line.split(" address=").nth(1)).unwrap().trim().to_owned();
        Self { gitlab, runner, drover, address }
    }

    pub(crate) fn enqueue(&self, job: JobBuilder) -> Job {
        self.gitlab.enqueue(&self.runner, job)
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.drover.folder().join("config.toml")
    }

    /// The body at a path of the metrics server.
    pub(crate) async fn get(&self, path: &str) -> String {
        let answer = reqwest::get(format!("http://{}{path}", self.address)).await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        answer.text().await.unwrap()
    }

    /// What `drover explain` says with these arguments.
    pub(crate) async fn explain(&self, arguments: &[&str]) -> String {
        let output = explain(&self.config(), arguments).await;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{error}");
        assert_eq!(error, "");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) async fn document(&self) -> Document {
        serde_json::from_str(&self.explain(&["--json"]).await).unwrap()
    }

    /// Waits for a document of which this holds.
    pub(crate) async fn eventually(&self, what: &str, holds: impl Fn(&Document) -> bool) -> Document {
        within(what, async {
            loop {
                let document = self.document().await;
                if holds(&document) {
                    return document;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    }

    /// Ends the manager and holds it to what is promised.
    pub(crate) async fn stop(mut self) -> String {
        assert!(self.gitlab.all_finished(drover_tests::PATIENCE).await);
        self.drover.program.signal(Signal::SIGQUIT);
        self.runner.tick();
        assert_eq!(self.drover.program.ends().await, Some(0));
        eventually("the instances are gone", || {
            std::fs::read_dir(self.drover.instances()).into_iter().flatten().flatten().next().is_none()
        })
        .await;
        assert!(!self.drover.folder().join("config.toml.sock").exists(), "the socket is left behind");
        self.gitlab.assert_no_violations();
        self.drover.program.said()
    }
}

/// Runs `drover explain` with this configuration file.
pub(crate) async fn explain(config: &Path, arguments: &[&str]) -> Output {
    let running = tokio::process::Command::new(bin("drover"))
        .args(["explain", "--config", &config.display().to_string()])
        .args(arguments)
        .env_clear()
        .stdin(Stdio::null())
        .output();
    within("drover explain ends", running).await.unwrap()
}

/// The names in a list of objects.
pub(crate) fn names<'a>(list: &'a Value, key: &str) -> Vec<&'a str> {
    list.as_array().unwrap().iter().map(|one| one[key].as_str().unwrap()).collect()
}
