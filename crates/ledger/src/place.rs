//! Where the files of one ledger are.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How much of a lock's content is read: a process and the name of a runner.
const HOLDER: u64 = 4096;
/// How long files that a dead process had are waited for. Of the children that it was starting, those that have not yet
/// executed their program still hold copies of its descriptors, and so its locks: milliseconds, on a busy machine more.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks.
pub(crate) const PAUSE: Duration = Duration::from_millis(10);
/// Longest readable part of a file's name.
const NAME: usize = 40;

/// The files of one runner entry and group.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    folder: PathBuf,
    stem: String,
}

/// A group that no other scaler on this machine gets.
#[derive(Debug)]
pub(crate) struct GroupLock(File);

/// Who says to have a group, by the content of its lock.
struct Holder {
    process: Option<u32>,
    runner: String,
}

// === impl Place ===

impl Place {
    /// The readable part is for people; the sum of both names keeps the files of others apart.
    pub(crate) fn new(folder: &Path, runner: &str, group: &str) -> Self {
        let readable: String = runner
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' })
            .take(NAME)
            .collect();
        // A runner's name cannot hold a zero byte, so no two pairs of names are joined to the same text.
        let sum = crate::journal::sum(format!("{runner}\0{group}").as_bytes());
        Self { folder: folder.to_owned(), stem: format!("{readable}-{sum:016x}") }
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.folder.join(format!("{}.redb", self.stem))
    }

    pub(crate) fn journal(&self, generation: u64) -> PathBuf {
        self.folder.join(format!("{}.{generation}.journal", self.stem))
    }

    /// The journals that exist, oldest first.
    pub(crate) fn journals(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let generation = name
                .to_str()
                .and_then(|name| name.strip_prefix(&self.stem)?.strip_prefix('.')?.strip_suffix(".journal"))
                .and_then(|generation| generation.parse().ok());
            found.extend(generation.map(|generation| (generation, entry.path())));
        }
        found.sort();
        Ok(found)
    }
}

// === impl GroupLock ===

impl GroupLock {
    /// Takes a group until this is dropped; if a scaler has it, gives the name of that one's runner. The kernel frees the
    /// group of a process that ends, however it ends; the file stays.
    pub(crate) fn take(folder: &Path, group: &str, runner: &str) -> io::Result<Result<Self, String>> {
        Self::take_within(folder, group, runner, PATIENCE)
    }

    fn take_within(
        folder: &Path,
        group: &str,
        runner: &str,
        patience: Duration,
    ) -> io::Result<Result<Self, String>> {
        prepare(folder)?;
        let path = lock_path(folder, group);
        let mut file =
            private(OpenOptions::new().read(true).write(true).create(true).truncate(false), &path)?;
        let deadline = Instant::now() + patience;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => {
                    let holder = Holder::read(&mut file)?;
                    if holder.lives() || Instant::now() >= deadline {
                        return Ok(Err(holder.runner));
                    }
                    std::thread::sleep(PAUSE);
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(format!("{}\n{runner}", std::process::id()).as_bytes())?;
        Ok(Ok(Self(file)))
    }
}

impl Drop for GroupLock {
    /// Lets go of the group itself and not only of this descriptor: a child process that is being started has copies of all
    /// descriptors until it executes its program, and with them it would keep the group for that long.
    fn drop(&mut self) {
        // What cannot be unlocked is closed.
        let _ = self.0.unlock();
    }
}

// === impl Holder ===

impl Holder {
    fn read(file: &mut File) -> io::Result<Self> {
        let mut content = Vec::new();
        file.rewind()?;
        file.take(HOLDER).read_to_end(&mut content)?;
        let content = String::from_utf8_lossy(&content);
        let (process, runner) = content.split_once('\n').unwrap_or(("", &content));
        Ok(Self { process: process.parse().ok(), runner: runner.to_owned() })
    }

    /// Whether the process is known to be there: one in another container is not.
    fn lives(&self) -> bool {
        let there = |id: u32| id == std::process::id() || Path::new("/proc").join(id.to_string()).exists();
        self.process.is_some_and(there)
    }
}

// === helpers ===

fn lock_path(folder: &Path, group: &str) -> PathBuf {
    folder.join(format!("group-{:016x}.lock", crate::journal::sum(group.as_bytes())))
}

/// Makes the folder, readable by its owner alone.
fn prepare(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Opens a file for its owner alone, also where one with another mode exists.
pub(crate) fn private(options: &mut fs::OpenOptions, path: &Path) -> io::Result<fs::File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = options.mode(0o600).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    #[test]
    fn entries_and_groups_have_files_of_their_own() {
        let stem = |runner, group| Place::new(Path::new("/state"), runner, group).stem;
        assert_ne!(stem("a", "aws/x"), stem("a", "aws/y"));
        assert_ne!(stem("a", "aws/x"), stem("b", "aws/x"));
        assert_ne!(stem("a/b", "aws/x"), stem("a_b", "aws/x"));
        assert_eq!(stem("a", "aws/x"), stem("a", "aws/x"));
    }

    #[test]
    fn a_group_that_was_let_go_is_free_though_a_child_still_has_copies_of_the_files() {
        let folder = tempfile::tempdir().unwrap();
        let lock = GroupLock::take(folder.path(), "aws/x", "builders").unwrap().unwrap();
        let mut child = child(&lock.0);
        drop(lock);
        GroupLock::take(folder.path(), "aws/x", "testers").unwrap().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn the_group_of_a_dead_process_is_waited_for_until_its_last_child_lets_go() {
        let folder = tempfile::tempdir().unwrap();
        let dead = child(&File::open("/dev/null").unwrap()).id_after_its_end();
        let mut child = child_for("0.3", &held_by(dead, folder.path()));
        let minute = Duration::from_secs(60);
        GroupLock::take_within(folder.path(), "aws/x", "testers", minute).unwrap().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn nobody_waits_for_a_group_that_a_living_process_has_or_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let hour = Duration::from_secs(3600);
        let lock = GroupLock::take(folder.path(), "aws/x", "builders").unwrap().unwrap();
        let ours = GroupLock::take_within(folder.path(), "aws/x", "testers", hour);
        assert_eq!(ours.unwrap().unwrap_err(), "builders");
        drop(lock);
        let dead = child(&File::open("/dev/null").unwrap()).id_after_its_end();
        let _held = held_by(dead, folder.path());
        let theirs = GroupLock::take_within(folder.path(), "aws/x", "testers", PAUSE * 3);
        assert_eq!(theirs.unwrap().unwrap_err(), "builders");
    }

    #[test]
    fn no_name_leads_out_of_the_folder() {
        let place = Place::new(Path::new("/state"), "../../etc/passwd", "../x");
        assert_eq!(place.database().parent(), Some(Path::new("/state")));
    }

    trait Ended {
        fn id_after_its_end(self) -> u32;
    }

    impl Ended for Child {
        fn id_after_its_end(mut self) -> u32 {
            self.kill().unwrap();
            self.wait().unwrap();
            self.id()
        }
    }

    fn child(file: &File) -> Child {
        child_for("60", file)
    }

    /// A process that holds a copy of the descriptor, as one does that has not yet executed its program.
    fn child_for(seconds: &str, file: &File) -> Child {
        let file = Stdio::from(file.try_clone().unwrap());
        Command::new("sleep")
            .arg(seconds)
            .stdin(file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// A lock as a process leaves it that is killed.
    fn held_by(process: u32, folder: &Path) -> File {
        let mut file = File::create(lock_path(folder, "aws/x")).unwrap();
        file.try_lock().unwrap();
        write!(file, "{process}\nbuilders").unwrap();
        file
    }
}
