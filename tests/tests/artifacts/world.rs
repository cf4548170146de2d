//! What the tests of this program share.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use drover_tests::{Entry, Setup, Sshd, World, bin};
use gitlab_mock::{Config, Job, StoredArtifact};

/// A GitLab, a manager, and one machine that has the helper and room for one job after the other.
pub(crate) struct Bench {
    pub(crate) world: World,
    machine: Sshd,
}

// === impl Bench ===

impl Bench {
    pub(crate) async fn start() -> Self {
        Self::with(|entry| entry, |_| {}).await
    }

    /// The same with a changed entry, and a GitLab that behaves otherwise.
    pub(crate) async fn with(change: impl Fn(Entry) -> Entry, gitlab: impl FnOnce(&mut Config)) -> Self {
        let machine = Sshd::start();
        let caches = machine.home().join("caches").display().to_string();
        let entry = Entry::machines("ssh", [&machine])
            .set("autoscaler.capacity_per_instance", 1)
            .set("cache_dir", caches)
            .set("helper.command", bin("drover-helper").display().to_string());
        let world = Setup::new().gitlab(gitlab).runner(change(entry)).start().await;
        Self { world, machine }
    }

    /// Where the machine keeps its caches.
    pub(crate) fn caches(&self) -> PathBuf {
        self.machine.home().join("caches")
    }
}

/// Types and file names of what GitLab has of a job, in the order in which it came.
pub(crate) fn stored(job: &Job) -> Vec<(String, String)> {
    let artifacts = job.artifacts().into_iter();
    artifacts.map(|one| (one.view.artifact_type, one.view.filename)).collect()
}

/// The artifact of this type.
pub(crate) fn artifact(job: &Job, kind: &str) -> StoredArtifact {
    let found = job.artifacts().into_iter().find(|one| one.view.artifact_type == kind);
    found.unwrap_or_else(|| panic!("no {kind} among {:?}", stored(job)))
}

/// The names in a zip archive, sorted, as an implementation that is not ours reads them.
pub(crate) fn zip_names(data: &[u8]) -> Vec<String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), data).unwrap();
    let program = "import sys, zipfile; print('\\n'.join(sorted(zipfile.ZipFile(sys.argv[1]).namelist())))";
    let output = Command::new("python3").args(["-c", program]).arg(file.path()).output();
    let output = output.expect("tests need python3");
    assert!(output.status.success(), "no zip archive: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// What `gzip` makes of it.
pub(crate) fn gunzip(data: &[u8]) -> String {
    let mut child = Command::new("gzip")
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("tests need gzip");
    child.stdin.take().unwrap().write_all(data).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "no gzip file");
    String::from_utf8(output.stdout).unwrap()
}
