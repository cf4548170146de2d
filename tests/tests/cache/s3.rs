//! A bucket of moto and the jobs that use it.

use std::path::Path;

use drover_tests::{Entry, Moto, Setup, Sshd, World, bin};
use tempfile::TempDir;

/// The secret that no job may see.
pub(crate) const SECRET: &str = "s3cr3t-of-the-manager";
pub(crate) const ACCESS: &str = "AKIAOFTHEMANAGER";
const BUCKET: &str = "caches";

/// GitLab, a manager, a bucket, and two machines that share nothing else.
pub(crate) struct Fleet {
    pub(crate) world: World,
    pub(crate) moto: Moto,
    _machines: [Sshd; 2],
    _folders: TempDir,
}

// === impl Fleet ===

impl Fleet {
    pub(crate) async fn start() -> Self {
        Self::with(|entry| entry).await
    }

    /// The same with changed entries. The first runner has the first machine, the second the other.
    pub(crate) async fn with(change: impl Fn(Entry) -> Entry) -> Self {
        let moto = Moto::start().await;
        moto.put(BUCKET, &[]).await;
        let folders = tempfile::tempdir().unwrap();
        let programs = folders.path().join("programs");
        std::fs::create_dir(&programs).unwrap();
        std::os::unix::fs::symlink(bin("drover-helper"), programs.join("gitlab-runner")).unwrap();
        let machines = [machine(&programs), machine(&programs)];
        let mut setup = Setup::new();
        for (machine, name) in machines.iter().zip(["first", "second"]) {
            let below = |folder: &str| folders.path().join(name).join(folder).display().to_string();
            let entry = Entry::machines(name, [machine])
                .set("builds_dir", below("builds"))
                .set("cache_dir", below("cache"))
                .set("cache.Type", "s3")
                .set("cache.Shared", true)
                .set("cache.Path", "ci")
                .set("cache.s3.ServerAddress", moto.address())
                .set("cache.s3.Insecure", true)
                .set("cache.s3.AuthenticationType", "access-key")
                .set("cache.s3.AccessKey", ACCESS)
                .set("cache.s3.SecretKey", SECRET)
                .set("cache.s3.BucketName", BUCKET)
                .set("cache.s3.BucketLocation", "us-east-1");
            setup = setup.runner(change(entry));
        }
        Self { world: setup.start().await, moto, _machines: machines, _folders: folders }
    }

    /// An object of the only project.
    pub(crate) fn object(key: &str) -> String {
        format!("{BUCKET}/ci/project/1/{key}")
    }
}

/// A machine that has the helper, under the name of GitLab Runner.
fn machine(programs: &Path) -> Sshd {
    let command = format!("PATH={}:$PATH /bin/sh -c \"$SSH_ORIGINAL_COMMAND\"", programs.display());
    Sshd::configured(&format!("ForceCommand {command}"))
}
