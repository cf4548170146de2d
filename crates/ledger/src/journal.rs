//! Changes since the last checkpoint: one record per change, appended in one `write`.
//!
//! A record is its length (4 bytes), the sum of its body (8 bytes), and the body in JSON; numbers are little-endian. The
//! first record is the version of the format. What follows a record that is cut off or damaged is ignored: only the end
//! of a journal can be, and only when the machine died.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};
use taskscaler::core::LedgerChanges;

use crate::place::private;

const HEAD: usize = 12;

/// The first record.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    version: u32,
}

/// What a journal holds.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Read {
    /// The version that wrote it, if it got that far.
    pub(crate) version: Option<u32>,
    pub(crate) changes: Vec<LedgerChanges>,
    /// Bytes at the end that are not understood.
    pub(crate) damaged: usize,
}

/// A journal that is written to.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    /// A record was cut off: nothing may follow it.
    torn: bool,
    length: u64,
}

// === impl Journal ===

impl Journal {
    /// Begins a journal; an existing file is overwritten.
    pub(crate) fn create(path: &Path, version: u32) -> io::Result<Self> {
        let file = private(OpenOptions::new().create(true).truncate(true).write(true), path)?;
        let mut journal = Self { file, torn: false, length: 0 };
        journal.append(&Header { version })?;
        Ok(journal)
    }

    pub(crate) fn append(&mut self, body: &impl Serialize) -> io::Result<()> {
        if self.torn {
            // Cuts the damaged record off, so that what follows can be read.
            self.file.set_len(self.length)?;
            io::Seek::seek(&mut self.file, io::SeekFrom::Start(self.length))?;
            self.torn = false;
        }
        let mut record = vec![0; HEAD];
        serde_json::to_writer(&mut record, body)?;
        let body = &record[HEAD..];
        let length = u32::try_from(body.len()).map_err(io::Error::other)?;
        let sum = sum(body);
        record[..4].copy_from_slice(&length.to_le_bytes());
        record[4..HEAD].copy_from_slice(&sum.to_le_bytes());
        self.torn = true;
        self.file.write_all(&record)?;
        self.torn = false;
        self.length += record.len() as u64;
        Ok(())
    }
}

/// Reads a journal up to where it is understood.
pub(crate) fn read(bytes: &[u8]) -> Read {
    let mut read = Read::default();
    let mut rest = bytes;
    while let Some((body, after)) = record(rest) {
        let understood = match read.version {
            None => serde_json::from_slice(body).map(|header: Header| read.version = Some(header.version)),
            Some(_) => serde_json::from_slice(body).map(|changes| read.changes.push(changes)),
        };
        if understood.is_err() {
            break;
        }
        rest = after;
    }
    read.damaged = rest.len();
    read
}

fn record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (expected, rest) = rest.split_first_chunk::<8>()?;
    let (body, after) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    (sum(body) == u64::from_le_bytes(*expected)).then_some((body, after))
}

/// FNV-1a. It finds accidents, which is all it is for.
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_that_ends_anywhere_is_read_up_to_its_last_whole_record() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j");
        let mut journal = Journal::create(&path, 1).unwrap();
        let header = journal.length as usize;
        for n in 0..3 {
            journal.append(&change(n)).unwrap();
        }
        let bytes = std::fs::read(&path).unwrap();
        let each = (bytes.len() - header) / 3;
        for end in 0..=bytes.len() {
            let read = read(&bytes[..end]);
            let whole = end.saturating_sub(header) / each;
            assert_eq!(read.changes, (0..whole as u32).map(change).collect::<Vec<_>>(), "cut at {end}");
            assert_eq!(read.version.is_some(), end >= header);
        }
    }

    #[test]
    fn nothing_after_a_damaged_record_is_believed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j");
        let mut journal = Journal::create(&path, 1).unwrap();
        journal.append(&change(0)).unwrap();
        let second = journal.length as usize;
        journal.append(&change(1)).unwrap();
        journal.append(&change(2)).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[second + HEAD + 3] ^= 1;
        let read = read(&bytes);
        assert_eq!((read.changes, read.damaged), (vec![change(0)], bytes.len() - second));
    }

    fn change(n: u32) -> LedgerChanges {
        LedgerChanges { removals: vec![format!("i-{n}").into()], ..LedgerChanges::default() }
    }
}
