//! The directory into which an archive is unpacked.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs::{File, FileTimes, OpenOptions, Permissions};
use std::io::{self, Read, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, fchown, lchown, symlink};
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Attributes, ExtractError};

const COPY: usize = 128 << 10;

/// Writes entries below a root. Shared by all threads that unpack one archive.
pub(crate) struct Tree {
    root: PathBuf,
    /// Whether owners can be restored.
    privileged: bool,
    /// Owner and group of what this process makes.
    own: (u32, u32),
    /// Bits that the kernel takes from the mode of new files; all of them if that is not known.
    umask: u32,
    /// Directories that exist and lie below the root. They stay so, because links are made last.
    checked: Mutex<HashSet<PathBuf>>,
    last: Mutex<Last>,
}

/// What is done after all files are written.
#[derive(Default)]
struct Last {
    /// Deepest last; their times would be changed by what is written into them, their modes could forbid it.
    directories: BTreeMap<PathBuf, Attributes>,
    symbolic: BTreeMap<PathBuf, (PathBuf, Attributes)>,
    hard: BTreeMap<PathBuf, PathBuf>,
}

// === impl Tree ===

impl Tree {
    pub(crate) fn new(directory: &Path) -> io::Result<Self> {
        Ok(Self {
            root: directory.canonicalize()?,
            privileged: nix::unistd::geteuid().is_root(),
            own: (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw()),
            umask: umask(),
            checked: Mutex::default(),
            last: Mutex::default(),
        })
    }

    /// The path of an entry, relative to the root. Empty for the root itself.
    pub(crate) fn path(name: &[u8]) -> Result<PathBuf, ExtractError> {
        let outside = || ExtractError::Outside(String::from_utf8_lossy(name).into_owned());
        if name.contains(&0) {
            return Err(outside());
        }
        let mut path = PathBuf::new();
        for part in Path::new(OsStr::from_bytes(name)).components() {
            match part {
                Component::Normal(part) => path.push(part),
                Component::CurDir => {}
                Component::ParentDir | Component::RootDir | Component::Prefix(_) => return Err(outside()),
            }
        }
        Ok(path)
    }

    /// Writes a file, replacing what is there unless that is a directory.
    pub(crate) fn file(
        &self,
        path: &Path,
        content: &mut dyn Read,
        attributes: Attributes,
        buffer: &mut Vec<u8>,
    ) -> Result<(), ExtractError> {
        let mut file = self.create(path, attributes)?;
        buffer.resize(COPY, 0);
        loop {
            // Errors of the archive are told apart from those of the disk.
            let count = match content.read(buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Err(ExtractError::Corrupt(format!("`{}`: {error}", path.display())));
                }
            };
            file.write_all(&buffer[..count]).map_err(|source| failed(path, source))?;
        }
        self.complete(&file, path, self.left(attributes))
    }

    /// The same for content that is at hand.
    pub(crate) fn bytes(
        &self,
        path: &Path,
        content: &[u8],
        attributes: Attributes,
    ) -> Result<(), ExtractError> {
        let mut file = self.create(path, attributes)?;
        file.write_all(content).map_err(|source| failed(path, source))?;
        self.complete(&file, path, self.left(attributes))
    }

    /// Makes a directory; its attributes are set at the end.
    pub(crate) fn directory(&self, path: &Path, attributes: Attributes) -> Result<(), ExtractError> {
        if path.as_os_str().is_empty() {
            return Ok(());
        }
        self.ensure(path)?;
        self.last().directories.insert(path.to_owned(), attributes);
        Ok(())
    }

    /// Remembers a symbolic link.
    pub(crate) fn link(&self, path: &Path, target: &[u8], attributes: Attributes) {
        let target = PathBuf::from(OsStr::from_bytes(target));
        self.last().symbolic.insert(path.to_owned(), (target, attributes));
    }

    /// Remembers a hard link; the target is an entry of the archive.
    pub(crate) fn hard_link(&self, path: &Path, target: PathBuf) {
        self.last().hard.insert(path.to_owned(), target);
    }

    /// Forgets an earlier link, because a later entry of the same name takes its place.
    pub(crate) fn supersede(&self, path: &Path) {
        let mut last = self.last();
        last.symbolic.remove(path);
        last.hard.remove(path);
    }

    /// Makes the links and sets what is to be set last.
    pub(crate) fn finish(self) -> Result<(), ExtractError> {
        let last = std::mem::take(&mut *self.last());
        for (path, target) in &last.hard {
            self.parent(path)?;
            self.parent(target)?;
            let there = self.root.join(path);
            // The target must be a file of this tree, not what a link leads to.
            let is_file = std::fs::symlink_metadata(self.root.join(target)).is_ok_and(|meta| meta.is_file());
            if !is_file {
                return Err(ExtractError::Corrupt(format!(
                    "`{}` is a hard link to `{}`, which is no file",
                    path.display(),
                    target.display()
                )));
            }
            remove(&there).map_err(|source| failed(path, source))?;
            std::fs::hard_link(self.root.join(target), there).map_err(|source| failed(path, source))?;
        }
        // The parents of all links are there before the first link is.
        for path in last.symbolic.keys() {
            self.parent(path)?;
        }
        for (path, (target, attributes)) in &last.symbolic {
            let there = self.root.join(path);
            remove(&there).map_err(|source| failed(path, source))?;
            symlink(target, &there).map_err(|source| failed(path, source))?;
            if let Some((uid, gid)) = attributes.owner.filter(|_| self.privileged) {
                // The link works for whoever owns it.
                let _ = lchown(&there, Some(uid), Some(gid));
            }
        }
        for (path, attributes) in last.directories.iter().rev() {
            // A link may have taken its place.
            let opened = OpenOptions::new()
                .read(true)
                .custom_flags(nix::libc::O_DIRECTORY | nix::libc::O_NOFOLLOW)
                .open(self.root.join(path));
            if let Ok(directory) = opened {
                self.complete(&directory, path, *attributes)?;
            }
        }
        Ok(())
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new file; what was there before is unlinked, never written through.
    fn create(&self, path: &Path, attributes: Attributes) -> Result<File, ExtractError> {
        if path.as_os_str().is_empty() {
            return Err(ExtractError::Corrupt("a file without a name".to_owned()));
        }
        self.parent(path)?;
        let there = self.root.join(path);
        let mode = attributes.mode.unwrap_or(0o666) & 0o777;
        let open = || OpenOptions::new().write(true).create_new(true).mode(mode).open(&there);
        match open() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                remove(&there).and_then(|()| open()).map_err(|source| failed(path, source))
            }
            other => other.map_err(|source| failed(path, source)),
        }
    }

    /// What of the attributes a new file does not have by itself. Each call that is saved counts with many small files.
    fn left(&self, attributes: Attributes) -> Attributes {
        Attributes {
            mode: attributes.mode.filter(|mode| mode & self.umask & 0o777 != 0),
            owner: attributes.owner.filter(|owner| *owner != self.own),
            ..attributes
        }
    }

    fn complete(&self, file: &File, path: &Path, attributes: Attributes) -> Result<(), ExtractError> {
        if let Some((uid, gid)) = attributes.owner.filter(|_| self.privileged) {
            // Where owners cannot be changed (some network file systems) the content still is of use.
            let _ = fchown(file, Some(uid), Some(gid));
        }
        if let Some(mode) = attributes.mode {
            // As GitLab Runner: permissions only, never set-user-id.
            file.set_permissions(Permissions::from_mode(mode & 0o777))
                .map_err(|source| failed(path, source))?;
        }
        if let Some(modified) = attributes.modified {
            let times = FileTimes::new().set_modified(modified.to_system());
            file.set_times(times).map_err(|source| failed(path, source))?;
        }
        Ok(())
    }

    fn parent(&self, path: &Path) -> Result<(), ExtractError> {
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => self.ensure(parent),
            Some(_) | None => Ok(()),
        }
    }

    /// Makes a directory with its parents. A link on the way must lead to a directory below the root.
    fn ensure(&self, directory: &Path) -> Result<(), ExtractError> {
        let checked = || self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if checked().contains(directory) {
            return Ok(());
        }
        self.parent(directory)?;
        let there = self.root.join(directory);
        let write = |source| failed(directory, source);
        match std::fs::create_dir(&there) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let metadata = std::fs::symlink_metadata(&there).map_err(write)?;
                if metadata.is_symlink() {
                    let real = there.canonicalize().map_err(write)?;
                    if !real.starts_with(&self.root) {
                        return Err(ExtractError::Outside(directory.display().to_string()));
                    }
                    if !real.is_dir() {
                        return Err(write(io::ErrorKind::NotADirectory.into()));
                    }
                } else if !metadata.is_dir() {
                    return Err(write(io::ErrorKind::NotADirectory.into()));
                }
            }
            Err(error) => return Err(write(error)),
        }
        checked().insert(directory.to_owned());
        Ok(())
    }
}

/// The mask of this process, without changing it.
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let text = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    text.and_then(|text| u32::from_str_radix(text.trim(), 8).ok()).unwrap_or(0o777)
}

/// Removes what is there, if it is no directory.
fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn failed(path: &Path, source: io::Error) -> ExtractError {
    ExtractError::Write { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("a/b", Some("a/b"))]
    #[test_case("./a//b/", Some("a/b"); "dots and slashes")]
    #[test_case("/a", None; "absolute")]
    #[test_case("a/../../b", None; "climbs")]
    #[test_case("a/../b", None; "climbs, though not out")]
    #[test_case("a\0b", None; "zero")]
    fn names(name: &str, wanted: Option<&str>) {
        assert_eq!(Tree::path(name.as_bytes()).ok().as_deref(), wanted.map(Path::new));
    }
}
