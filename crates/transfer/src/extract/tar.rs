//! Unpacks tar in zstd. One thread decompresses, others write the files.

use std::collections::HashSet;
use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};

use super::tree::Tree;
use super::{Attributes, ExtractError, Reader};
use crate::archive::{Stamp, threads};

/// Files up to this size are read into memory and written by another thread.
const SMALL: u64 = 512 << 10;
/// How many of them wait for each thread.
const WAITING: usize = 8;

/// What is sent to a thread that writes.
enum Parcel {
    /// A small file.
    File { path: PathBuf, content: Vec<u8>, attributes: Attributes },
    /// Asks for a sign that everything sent before has been written.
    Knock(SyncSender<()>),
}

/// Unpacks an archive.
pub(super) fn extract(archive: &File, tree: &Tree) -> Result<(), ExtractError> {
    let reader = BufReader::with_capacity(128 << 10, Reader::new(archive).map_err(ExtractError::Read)?);
    let decoder = zstd::Decoder::with_buffer(reader).map_err(ExtractError::Read)?;
    let mut archive = tar::Archive::new(BufReader::with_capacity(128 << 10, decoder));
    std::thread::scope(|scope| {
        let mut lanes = Vec::new();
        let mut writers = Vec::new();
        for _ in 0..threads() {
            let (lane, parcels) = sync_channel::<Parcel>(WAITING);
            lanes.push(lane);
            writers.push(scope.spawn(move || {
                for parcel in parcels {
                    match parcel {
                        Parcel::File { path, content, attributes } => {
                            tree.bytes(&path, &content, attributes)?
                        }
                        // Who asked waits for the answer.
                        Parcel::Knock(done) => drop(done.send(())),
                    }
                }
                Ok::<(), ExtractError>(())
            }));
        }
        let read = entries(&mut archive, tree, &lanes);
        drop(lanes);
        let mut outcome = Ok(());
        for writer in writers {
            let written = writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            outcome = outcome.and(written);
        }
        // A writer that gave up makes the reader fail, too: its reason is the real one.
        outcome.and(read)
    })
}

fn entries(
    archive: &mut tar::Archive<impl io::Read>,
    tree: &Tree,
    lanes: &[SyncSender<Parcel>],
) -> Result<(), ExtractError> {
    let mut buffer = Vec::new();
    let mut sent = HashSet::new();
    let given_up = || ExtractError::Corrupt("the files cannot be written".to_owned());
    let corrupt = |error: io::Error| ExtractError::Corrupt(error.to_string());
    for entry in archive.entries().map_err(corrupt)? {
        let mut entry = entry.map_err(corrupt)?;
        let path = Tree::path(&entry.path_bytes())?;
        let attributes = attributes(entry.header());
        let target = entry.link_name_bytes().map(|target| target.into_owned());
        let nameless = || ExtractError::Corrupt(format!("`{}` is a link to nothing", path.display()));
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            tree.directory(&path, attributes)?;
            continue;
        }
        tree.supersede(&path);
        if kind.is_symlink() {
            tree.link(&path, &target.ok_or_else(nameless)?, attributes);
        } else if kind.is_hard_link() {
            tree.hard_link(&path, Tree::path(&target.ok_or_else(nameless)?)?);
        } else if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() {
            // A directory always takes the same lane: of two entries of one name the later one stays, and no two threads wait for
            // the lock of one directory.
            let directory = number(path.parent().unwrap_or(&path));
            let lane = &lanes[usize::try_from(directory % lanes.len() as u64).unwrap_or(0)];
            let number = number(&path);
            if entry.size() > SMALL {
                if sent.contains(&number) {
                    let (knock, done) = sync_channel(1);
                    lane.send(Parcel::Knock(knock)).map_err(|_| given_up())?;
                    done.recv().map_err(|_| given_up())?;
                }
                tree.file(&path, &mut entry, attributes, &mut buffer)?;
                continue;
            }
            let mut content = Vec::with_capacity(usize::try_from(entry.size()).unwrap_or(0));
            entry.read_to_end(&mut content).map_err(corrupt)?;
            sent.insert(number);
            lane.send(Parcel::File { path, content, attributes }).map_err(|_| given_up())?;
        }
        // Devices and pipes have no place in a cache, other headers have been read by the library.
    }
    Ok(())
}

/// Stands for a path.
fn number(path: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}

fn attributes(header: &tar::Header) -> Attributes {
    let id = |id: io::Result<u64>| u32::try_from(id.ok()?).ok();
    let modified = header.mtime().ok().and_then(|seconds| i64::try_from(seconds).ok());
    Attributes {
        mode: header.mode().ok(),
        modified: modified.map(|seconds| Stamp { seconds, nanos: 0 }),
        owner: id(header.uid()).zip(id(header.gid())),
    }
}
