//! The folder for job logs that wait to be sent. It is private, belongs to this process, and goes with it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

const PREFIX: &str = "drover-spool-";
/// Held locked while the process lives, however it ends.
const LOCK: &str = "lock";
/// A folder without a lock file for this long was left by a process that died while it made it.
const UNFINISHED: Duration = Duration::from_secs(60);

/// A spool folder.
pub(crate) struct Spool {
    directory: TempDir,
    _lock: File,
}

// === impl Spool ===

impl Spool {
    /// Makes a folder below `parent` (mode 0700), and removes those that dead processes of this user left there.
    pub(crate) fn create(parent: &Path) -> Result<Self> {
        for stale in stale(parent) {
            match fs::remove_dir_all(&stale) {
                Ok(()) => tracing::info!(path = %stale.display(), "removed the spool of a dead process"),
                Err(error) => {
                    tracing::warn!(path = %stale.display(), %error, "failed to remove a stale spool")
                }
            }
        }
        let make = || -> io::Result<Self> {
            let private = fs::Permissions::from_mode(0o700);
            let directory =
                tempfile::Builder::new().prefix(PREFIX).permissions(private).tempdir_in(parent)?;
            // The lock is taken before it gets its name, so that nobody sees it free while the process lives.
            let unnamed = directory.path().join("lock.new");
            let lock = File::create_new(&unnamed)?;
            lock.try_lock()?;
            fs::rename(&unnamed, directory.path().join(LOCK))?;
            Ok(Self { directory, _lock: lock })
        };
        make().with_context(|| format!("failed to make a folder for job logs in `{}`", parent.display()))
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// Spools of this user whose process is no more. What cannot be looked at is left alone.
fn stale(parent: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .filter(|entry| is_spool(&entry.file_name()))
        .map(|entry| entry.path())
        .filter(|path| is_own_directory(path) && is_abandoned(path))
        .collect()
}

fn is_spool(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with(PREFIX))
}

/// Anybody can put anything into the temporary folder; links are not followed.
fn is_own_directory(path: &Path) -> bool {
    fs::symlink_metadata(path)
        .is_ok_and(|found| found.is_dir() && found.uid() == nix::unistd::geteuid().as_raw())
}

fn is_abandoned(path: &Path) -> bool {
    match File::open(path.join(LOCK)) {
        Ok(lock) => lock.try_lock().is_ok(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let changed = fs::metadata(path).and_then(|found| found.modified());
            changed.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age > UNFINISHED))
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spool_is_private_and_goes_with_its_owner() {
        let parent = tempfile::tempdir().unwrap();
        let spool = Spool::create(parent.path()).unwrap();
        let path = spool.path().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        drop(spool);
        assert!(!path.exists());
    }

    #[test]
    fn spools_of_the_dead_are_removed_and_those_of_the_living_stay() {
        let parent = tempfile::tempdir().unwrap();
        let living = Spool::create(parent.path()).unwrap();
        let dead = parent.path().join("drover-spool-dead");
        fs::create_dir(&dead).unwrap();
        File::create(dead.join(LOCK)).unwrap();
        fs::write(dead.join("job"), "log").unwrap();
        let beginning = parent.path().join("drover-spool-beginning");
        fs::create_dir(&beginning).unwrap();
        let foreign = parent.path().join("other");
        fs::create_dir(&foreign).unwrap();
        let linked = parent.path().join("drover-spool-link");
        std::os::unix::fs::symlink(&foreign, &linked).unwrap();

        let new = Spool::create(parent.path()).unwrap();

        assert!(!dead.exists());
        for stays in [living.path(), new.path(), &beginning, &foreign, &linked] {
            assert!(stays.exists(), "{}", stays.display());
        }
    }
}
