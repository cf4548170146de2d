//! tar in zstd: the stream is cut into frames that are read and compressed in parallel.

use std::io::Write;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::pieces::{read, read_link};
use super::{ArchiveError, Entry, Kind, ordered};
use crate::Console;

/// About how many bytes of tar go into one frame.
const FRAME: u64 = 2 << 20;
const BLOCK: usize = 512;

/// Entries, or a part of one large file, that make one frame.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Batch {
    /// Whole entries.
    Entries(Range<usize>),
    /// Part of the content of an entry; the first part begins with its header, the last is filled up to a block.
    Part { entry: usize, offset: u64, length: u64, last: bool },
    /// The end of the archive.
    End,
}

/// A frame, with the entries of it that have vanished or become shorter.
struct Frame {
    bytes: Vec<u8>,
    odd: Vec<(usize, &'static str)>,
}

/// Writes an archive.
pub(super) fn write(
    level: i32,
    root: &Path,
    entries: &[Entry],
    out: &mut dyn Write,
    console: &Console,
) -> Result<(), ArchiveError> {
    let threads = ordered::threads();
    let worker = || {
        let mut packer = None;
        let mut tar = Vec::new();
        move |batch: Batch| -> Result<Frame, ArchiveError> {
            tar.clear();
            let mut odd = Vec::new();
            fill(root, entries, &batch, &mut tar, &mut odd)?;
            let failed = |source| {
                let first = match &batch {
                    Batch::Entries(range) => entries.get(range.start),
                    Batch::Part { entry, .. } => entries.get(*entry),
                    Batch::End => None,
                };
                let path = first.map(|entry| entry.path.clone()).unwrap_or_default();
                ArchiveError::Compress { path, source }
            };
            let packer = match &mut packer {
                Some(packer) => packer,
                none => none.insert(compressor(level).map_err(failed)?),
            };
            Ok(Frame { bytes: packer.compress(&tar).map_err(failed)?, odd })
        }
    };
    ordered::in_order(batches(entries), threads, threads * 3, worker, |frame| {
        let frame = frame?;
        for (entry, what) in frame.odd {
            console.warning(&format!("{}: {what}", entries[entry].path.display()));
        }
        out.write_all(&frame.bytes).map_err(ArchiveError::Write)
    })?;
    out.flush().map_err(ArchiveError::Write)
}

/// Its frames carry a checksum, for tar has none of its own.
fn compressor(level: i32) -> std::io::Result<zstd::bulk::Compressor<'static>> {
    let mut compressor = zstd::bulk::Compressor::new(level)?;
    compressor.include_checksum(true)?;
    Ok(compressor)
}

/// Cuts the entries into batches of about a frame.
fn batches(entries: &[Entry]) -> impl Iterator<Item = Batch> + '_ {
    let mut next = 0;
    let mut offset = 0;
    let mut ended = false;
    std::iter::from_fn(move || {
        let Some(first) = entries.get(next) else {
            return (!std::mem::replace(&mut ended, true)).then_some(Batch::End);
        };
        let length = content_length(first);
        if length > FRAME {
            let part = (length - offset).min(FRAME);
            let batch = Batch::Part { entry: next, offset, length: part, last: offset + part == length };
            offset += part;
            if offset == length {
                next += 1;
                offset = 0;
            }
            return Some(batch);
        }
        let start = next;
        let mut total = 0;
        while let Some(entry) = entries.get(next) {
            let length = content_length(entry);
            if length > FRAME || total >= FRAME {
                break;
            }
            total += length + BLOCK as u64;
            next += 1;
        }
        Some(Batch::Entries(start..next))
    })
}

fn content_length(entry: &Entry) -> u64 {
    if entry.kind == Kind::File { entry.size } else { 0 }
}

fn fill(
    root: &Path,
    entries: &[Entry],
    batch: &Batch,
    tar: &mut Vec<u8>,
    odd: &mut Vec<(usize, &'static str)>,
) -> Result<(), ArchiveError> {
    match batch {
        Batch::End => tar.resize(2 * BLOCK, 0),
        Batch::Entries(range) => {
            for index in range.clone() {
                whole(root, &entries[index], index, tar, odd)?;
            }
        }
        Batch::Part { entry: index, offset, length, last } => {
            let entry = &entries[*index];
            if *offset == 0 {
                header(entry, None, tar);
            }
            let content = tar.len();
            let there = read(root, entry, *offset, *length, tar)?;
            complete(tar, content, *length, *index, odd);
            if !there && *offset == 0 {
                // Other threads are making its other parts already: the entry stays, as zeros.
                odd.push((*index, "has vanished and is filled up with zeros"));
            }
            if *last {
                pad(tar);
            }
        }
    }
    Ok(())
}

fn whole(
    root: &Path,
    entry: &Entry,
    index: usize,
    tar: &mut Vec<u8>,
    odd: &mut Vec<(usize, &'static str)>,
) -> Result<(), ArchiveError> {
    const GONE: &str = "has vanished and is left out";
    let start = tar.len();
    match entry.kind {
        Kind::Directory => header(entry, None, tar),
        Kind::Link => match read_link(root, entry)? {
            Some(target) => header(entry, Some(&target), tar),
            None => odd.push((index, GONE)),
        },
        Kind::File => {
            header(entry, None, tar);
            let content = tar.len();
            if read(root, entry, 0, entry.size, tar)? {
                complete(tar, content, entry.size, index, odd);
                pad(tar);
            } else {
                tar.truncate(start);
                odd.push((index, GONE));
            }
        }
    }
    Ok(())
}

/// Fills up what has become shorter than the header says, as tar does.
fn complete(
    tar: &mut Vec<u8>,
    content: usize,
    length: u64,
    index: usize,
    odd: &mut Vec<(usize, &'static str)>,
) {
    let wanted = content + usize::try_from(length).unwrap_or(usize::MAX);
    if tar.len() < wanted {
        tar.resize(wanted, 0);
        odd.push((index, "has become shorter and is filled up with zeros"));
    }
}

fn pad(tar: &mut Vec<u8>) {
    tar.resize(tar.len().next_multiple_of(BLOCK), 0);
}

/// The header of an entry, with GNU's long-name blocks before it where they are needed.
fn header(entry: &Entry, target: Option<&[u8]>, tar: &mut Vec<u8>) {
    let mut name = entry.path.as_os_str().as_bytes().to_vec();
    let kind = match entry.kind {
        Kind::File => tar::EntryType::Regular,
        Kind::Directory => {
            name.push(b'/');
            tar::EntryType::Directory
        }
        Kind::Link => tar::EntryType::Symlink,
    };
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(entry.mode & 0o7777);
    header.set_uid(entry.uid.into());
    header.set_gid(entry.gid.into());
    header.set_mtime(u64::try_from(entry.modified.seconds).unwrap_or(0));
    header.set_size(content_length(entry));
    let old = header.as_old_mut();
    if !fits(&mut old.name, &name) {
        long(tar::EntryType::GNULongName, &name, tar);
    }
    if let Some(target) = target
        && !fits(&mut old.linkname, target)
    {
        long(tar::EntryType::GNULongLink, target, tar);
    }
    header.set_cksum();
    tar.extend_from_slice(header.as_bytes());
}

/// Puts a text into a field, cut if need be; false if it was.
fn fits(field: &mut [u8], text: &[u8]) -> bool {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
    text.len() < field.len()
}

fn long(kind: tar::EntryType, text: &[u8], tar: &mut Vec<u8>) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(text.len() as u64 + 1);
    header.as_old_mut().name[..13].copy_from_slice(b"././@LongLink");
    header.set_cksum();
    tar.extend_from_slice(header.as_bytes());
    tar.extend_from_slice(text);
    tar.push(0);
    pad(tar);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::Stamp;

    fn file(size: u64) -> Entry {
        Entry {
            path: "f".into(),
            kind: Kind::File,
            mode: 0o644,
            size,
            modified: Stamp::default(),
            uid: 0,
            gid: 0,
        }
    }

    #[test]
    fn small_files_share_a_frame_and_large_ones_have_several() {
        let entries = [file(10), file(FRAME), file(20), file(FRAME * 2 + 1), file(0)];
        let wanted = [
            Batch::Entries(0..2),
            Batch::Entries(2..3),
            Batch::Part { entry: 3, offset: 0, length: FRAME, last: false },
            Batch::Part { entry: 3, offset: FRAME, length: FRAME, last: false },
            Batch::Part { entry: 3, offset: FRAME * 2, length: 1, last: true },
            Batch::Entries(4..5),
            Batch::End,
        ];
        assert_eq!(batches(&entries).collect::<Vec<_>>(), wanted);
        assert_eq!(batches(&[]).collect::<Vec<_>>(), [Batch::End]);
    }
}
