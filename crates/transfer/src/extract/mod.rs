//! Unpacks archives: zip, tar in zstd, and gzip members, told apart by their first bytes.
//!
//! Nothing is written outside of the directory: names that are absolute or climb are refused, and no entry is written through a
//! link that leads out. Links themselves are made as they were saved, also those that lead out, such as the interpreter of a
//! Python environment. Files are written in parallel; links are made after all files, so that no file can go through them.

mod gzip;
mod tar;
mod tree;
mod zip;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::archive::Stamp;
use tree::Tree;

/// What went wrong while an archive was unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// It begins like no known format.
    #[error("the archive has no known format")]
    Unknown,
    /// It is damaged or incomplete.
    #[error("the archive is damaged: {0}")]
    Corrupt(String),
    /// An entry would be written outside of the directory.
    #[error("the archive holds `{0}`, which leads outside of the directory")]
    Outside(String),
    /// The archive cannot be read.
    #[error("failed to read the archive")]
    Read(#[source] io::Error),
    /// A file cannot be written.
    #[error("failed to write `{}`", path.display())]
    Write {
        /// The file, relative to the directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What an archive says of an entry beside its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// Permission bits.
    pub(crate) mode: Option<u32>,
    pub(crate) modified: Option<Stamp>,
    /// Restored when this runs as root.
    pub(crate) owner: Option<(u32, u32)>,
}

/// Unpacks an archive into a directory.
pub(crate) fn extract(archive: &File, directory: &Path) -> Result<(), ExtractError> {
    let mut magic = [0; 4];
    let mut filled = 0;
    while filled < magic.len() {
        match archive.read_at(&mut magic[filled..], filled as u64).map_err(ExtractError::Read)? {
            0 => break,
            count => filled += count,
        }
    }
    let tree = Tree::new(directory).map_err(|source| ExtractError::Write { path: PathBuf::new(), source })?;
    match magic {
        [0x28, 0xb5, 0x2f, 0xfd] => tar::extract(archive, &tree)?,
        [0x1f, 0x8b, ..] => gzip::extract(archive, &tree)?,
        [b'P', b'K', ..] => zip::extract(archive, &tree)?,
        _ => return Err(ExtractError::Unknown),
    }
    tree.finish()
}

/// Reads a file with a position and a buffer of its own, so that clones can read elsewhere at the same time.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    file: &'a File,
    position: u64,
    length: u64,
    /// What has been read ahead, and where in the file it begins.
    buffer: Vec<u8>,
    start: u64,
}

/// Enough for the header and content of a small entry.
const AHEAD: usize = 32 << 10;

// === impl Reader ===

impl<'a> Reader<'a> {
    pub(crate) fn new(file: &'a File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self { file, position: 0, length, buffer: Vec::new(), start: 0 })
    }

    /// What the buffer holds from the position on.
    fn ahead(&self) -> &[u8] {
        let skip = self.position.checked_sub(self.start).and_then(|skip| usize::try_from(skip).ok());
        skip.and_then(|skip| self.buffer.get(skip..)).unwrap_or_default()
    }
}

impl Clone for Reader<'_> {
    fn clone(&self) -> Self {
        Self { buffer: Vec::new(), ..*self }
    }
}

impl io::Read for Reader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.ahead().is_empty() {
            if out.len() >= AHEAD {
                let count = self.file.read_at(out, self.position)?;
                self.position += count as u64;
                return Ok(count);
            }
            self.start = self.position;
            self.buffer.resize(AHEAD, 0);
            let count = self.file.read_at(&mut self.buffer, self.position);
            self.buffer.truncate(*count.as_ref().unwrap_or(&0));
            count?;
        }
        let ahead = self.ahead();
        let count = ahead.len().min(out.len());
        out[..count].copy_from_slice(&ahead[..count]);
        self.position += count as u64;
        Ok(count)
    }
}

impl io::Seek for Reader<'_> {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        let position = match to {
            io::SeekFrom::Start(position) => Some(position),
            io::SeekFrom::End(offset) => self.length.checked_add_signed(offset),
            io::SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
