//! Unpacks zip archives, several entries at a time.

use std::fs::File;
use std::io::Read as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use zip::ZipArchive;
use zip::extra_fields::ExtraField;
use zip::read::ZipFile;
use zip::result::ZipError;

use super::tree::Tree;
use super::{Attributes, ExtractError, Reader};
use crate::archive::{Stamp, threads};

/// Targets of links are paths; what is longer is none.
const MAX_TARGET: u64 = 64 << 10;

/// How many entries a thread takes at once: neighbours are often in one directory, whose lock two threads would wait for.
const RUN: usize = 32;

/// Owner and group, as Info-ZIP writes them.
const UX: u16 = 0x7875;

/// Unpacks an archive. All names are looked at before anything is written.
pub(super) fn extract(archive: &File, tree: &Tree) -> Result<(), ExtractError> {
    let reader = Reader::new(archive).map_err(ExtractError::Read)?;
    let archive = ZipArchive::new(reader).map_err(corrupt)?;
    for name in archive.file_names_raw() {
        Tree::path(name)?;
    }
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = || {
        let mut archive = archive.clone();
        let mut buffer = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let first = next.fetch_add(RUN, Ordering::Relaxed);
            if first >= archive.len() {
                break;
            }
            for index in first..archive.len().min(first + RUN) {
                let outcome = archive
                    .by_index(index)
                    .map_err(corrupt)
                    .and_then(|mut entry| unpack(&mut entry, tree, &mut buffer));
                if let Err(error) = outcome {
                    stop.store(true, Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (1..threads()).map(|_| scope.spawn(work)).collect();
        let mut outcome = work();
        for worker in workers {
            let ended = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            outcome = outcome.and(ended);
        }
        outcome
    })
}

fn unpack(
    entry: &mut ZipFile<'_, Reader<'_>>,
    tree: &Tree,
    buffer: &mut Vec<u8>,
) -> Result<(), ExtractError> {
    // Names are bytes, as for GitLab Runner: what made the archive rarely knows their encoding.
    let path = Tree::path(entry.name_raw())?;
    let attributes = attributes(entry);
    if entry.is_dir() {
        return tree.directory(&path, attributes);
    }
    if entry.is_symlink() {
        let mut target = Vec::new();
        let read = entry.take(MAX_TARGET).read_to_end(&mut target);
        read.map_err(|error| ExtractError::Corrupt(format!("`{}`: {error}", path.display())))?;
        tree.link(&path, &target, attributes);
        return Ok(());
    }
    tree.file(&path, entry, attributes, buffer)
}

fn attributes(entry: &ZipFile<'_, Reader<'_>>) -> Attributes {
    let mut attributes = Attributes { mode: entry.unix_mode(), modified: None, owner: None };
    for field in entry.extra_data_fields() {
        if let ExtraField::ExtendedTimestamp(times) = field {
            // The field is signed, whatever the library says.
            let seconds = times.mod_time().map(u32::cast_signed);
            attributes.modified = seconds.map(|seconds| Stamp { seconds: seconds.into(), nanos: 0 });
        } else if let ExtraField::Custom(field) = field
            && field.header_id == UX
        {
            attributes.owner = owner(&field.data);
        }
    }
    attributes
}

/// Version 1, then the length of the user id, the id, the length of the group id, the id.
fn owner(data: &[u8]) -> Option<(u32, u32)> {
    let number = |data: &[u8]| match *data {
        [a, b, c, d] => Some(u32::from_le_bytes([a, b, c, d])),
        [a, b] => Some(u16::from_le_bytes([a, b]).into()),
        _ => None,
    };
    let [1, length, rest @ ..] = data else { return None };
    let (uid, rest) = rest.split_at_checked((*length).into())?;
    let (length, gid) = rest.split_first()?;
    Some((number(uid)?, number(gid.get(..usize::from(*length))?)?))
}

fn corrupt(error: ZipError) -> ExtractError {
    ExtractError::Corrupt(crate::console::report(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_read_in_both_widths() {
        assert_eq!(owner(&[1, 4, 0xe8, 3, 0, 0, 4, 0xe9, 3, 0, 0]), Some((1000, 1001)));
        assert_eq!(owner(&[1, 2, 0xe8, 3, 2, 0xe9, 3]), Some((1000, 1001)));
        assert_eq!(owner(&[1, 4, 0xe8, 3]), None);
        assert_eq!(owner(&[]), None);
    }
}
