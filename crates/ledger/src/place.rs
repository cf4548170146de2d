//! Where the files of one ledger are.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// How much of a lock's content is read: the name of a runner.
const HOLDER: u64 = 4096;
/// Longest readable part of a file's name.
const NAME: usize = 40;

/// The files of one runner entry and group.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    folder: PathBuf,
    stem: String,
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

/// Takes a group for as long as the file is open; if a scaler has it, gives the name of that one's runner. The kernel
/// frees the group of a process that ends, however it ends; the file stays.
pub(crate) fn take(folder: &Path, group: &str, runner: &str) -> io::Result<Result<File, String>> {
    prepare(folder)?;
    let path = folder.join(format!("group-{:016x}.lock", crate::journal::sum(group.as_bytes())));
    let mut file = private(OpenOptions::new().read(true).write(true).create(true).truncate(false), &path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = Vec::new();
            file.take(HOLDER).read_to_end(&mut holder)?;
            return Ok(Err(String::from_utf8_lossy(&holder).into_owned()));
        }
        Err(TryLockError::Error(error)) => return Err(error),
    }
    file.set_len(0)?;
    file.write_all(runner.as_bytes())?;
    Ok(Ok(file))
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
    fn no_name_leads_out_of_the_folder() {
        let place = Place::new(Path::new("/state"), "../../etc/passwd", "../x");
        assert_eq!(place.database().parent(), Some(Path::new("/state")));
    }
}
