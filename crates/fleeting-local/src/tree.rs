//! Removing the directory of an instance, whatever its jobs did to it.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Removes a directory with all that is in it. Directories that do not let their content be removed (as those of Go's
/// module cache) are opened first. One that is missing is as good as removed.
pub(crate) fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open(dir);
            fs::remove_dir_all(dir)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Makes the directories of a tree writable. What cannot be changed is found out by the removal.
fn open(dir: &Path) {
    let _ = fs::set_permissions(dir, Permissions::from_mode(0o700));
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        // The type is that of the entry itself: links are not followed.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_directories_are_removed_and_links_not_followed() {
        let outside = tempfile::tempdir().unwrap();
        fs::set_permissions(outside.path(), Permissions::from_mode(0o500)).unwrap();
        let work = tempfile::tempdir().unwrap();
        let dir = work.path().join("instance");
        let closed = dir.join("cache/module");
        fs::create_dir_all(&closed).unwrap();
        fs::write(closed.join("file"), "x").unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.join("link")).unwrap();
        fs::set_permissions(&closed, Permissions::from_mode(0o500)).unwrap();

        open(&dir);
        assert_eq!(closed.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        remove(&dir).unwrap();

        assert!(!dir.exists());
        assert_eq!(outside.path().metadata().unwrap().permissions().mode() & 0o777, 0o500);
        remove(&dir).unwrap();
    }
}
