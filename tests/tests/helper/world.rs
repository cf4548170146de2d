//! What the tests of this program share.

use std::path::{Path, PathBuf};

use drover_tests::{Entry, Setup, Sshd, World, bin};
use gitlab_mock::{ArtifactSpec, JobBuilder};
use tempfile::TempDir;

/// A folder of helpers as the manager has them, with one for this machine.
pub(crate) struct Binaries {
    folder: TempDir,
}

impl Binaries {
    /// With the real helper.
    pub(crate) fn new() -> Self {
        Self::with(|path| {
            std::fs::hard_link(bin("drover-helper"), path)
                .or_else(|_| std::fs::copy(bin("drover-helper"), path).map(drop))
                .unwrap();
        })
    }

    /// With whatever `make` puts there.
    pub(crate) fn with(make: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let binaries = Self { folder };
        std::fs::create_dir(binaries.path().parent().unwrap()).unwrap();
        make(&binaries.path());
        binaries
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join(std::env::consts::ARCH).join("drover-helper")
    }

    /// An entry with these helpers, whose one instance is this server.
    pub(crate) fn entry(&self, sshd: &Sshd) -> Entry {
        Entry::machines("ssh", [sshd])
            .set("autoscaler.capacity_per_instance", 10)
            .set("helper.binaries", self.folder.path().display().to_string())
    }

    /// A world with this entry.
    pub(crate) async fn world(&self, sshd: &Sshd) -> World {
        Setup::new().runner(self.entry(sshd)).start().await
    }
}

/// A job that makes a file and keeps it.
pub(crate) fn with_artifact(name: &str) -> JobBuilder {
    JobBuilder::new(name)
        .script([format!("echo 'made by {name}' > made.txt")])
        .artifact(ArtifactSpec::archive(name, ["made.txt"]))
}

/// Files directly in a folder; none if there is no such folder.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    found.sort();
    found
}
