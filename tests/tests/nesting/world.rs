//! Hosts, and entries that use them.

use std::path::Path;

use drover_tests::{Entry, NestedHost, World, eventually};
use gitlab_mock::{Job, JobBuilder};
use nesting_mock::Options;
use tempfile::TempDir;

/// Some hosts, with the folder that each has its own daemon in.
pub(crate) struct Hosts {
    pub(crate) hosts: Vec<NestedHost>,
    folder: TempDir,
}

impl Hosts {
    pub(crate) fn start(count: usize) -> Self {
        Self::with(count, &Options::default())
    }

    pub(crate) fn with(count: usize, options: &Options) -> Self {
        // As on macOS, with a space.
        let folder = TempDir::with_prefix("Application Support").unwrap();
        let hosts = (0..count).map(|_| NestedHost::with(folder.path(), options.clone())).collect();
        Self { hosts, folder }
    }

    /// An entry of these hosts: two jobs each.
    pub(crate) fn entry(&self) -> Entry {
        Entry::machines("mac", self.hosts.iter().map(|host| &host.sshd)).nested(self.folder())
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Waits until no machine is left anywhere.
    pub(crate) async fn empty(&self) {
        let none = || self.hosts.iter().all(|host| host.daemon().machines().is_empty());
        eventually("no virtual machine is left", none).await;
    }
}

/// A job in a machine of this image.
pub(crate) fn job(image: &str) -> JobBuilder {
    JobBuilder::new("nested").image(image).script(["id -un", "echo \"home $HOME\""])
}

/// A job that runs until it is stopped, or its gate is opened.
pub(crate) fn gated(world: &World) -> JobBuilder {
    let gate = world.folder().join("gate").display().to_string();
    JobBuilder::new("gated").image("macos").script([
        "echo begun".to_owned(),
        format!("until [ -e {gate} ]; do sleep 0.1; done"),
        "echo done".to_owned(),
    ])
}

pub(crate) fn open_gate(world: &World) {
    std::fs::write(world.folder().join("gate"), "").unwrap();
}

/// Waits until a job's script runs.
pub(crate) async fn runs(world: &World, job: &Job) {
    world.says(job, "begun\n").await;
}
