//! Where the bytes of a log wait: the newest in memory, the others in a file.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use job::log::{SizeLimit, Source};
use tempfile::NamedTempFile;

/// The disk failed.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The file could not be made.
    #[error("failed to create a spool file in `{}`", directory.display())]
    Create {
        /// Where.
        directory: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Bytes of the log are lost.
    #[error("failed to write a job's log to its spool file")]
    Write(#[source] io::Error),
    /// Bytes of the log cannot be sent.
    #[error("failed to read a job's log from its spool file")]
    Read(#[source] io::Error),
}

/// All bytes of one log, its length and checksum. Not more than `memory` bytes are in memory, or, of a long log, a [`BLOCK`].
pub(crate) struct Spool {
    job: u64,
    directory: PathBuf,
    memory: usize,
    /// Made when memory is full; removed with the last handle.
    file: Option<Arc<NamedTempFile>>,
    /// Bytes in the file.
    filed: u64,
    /// Bytes behind those in the file.
    tail: Vec<u8>,
    checksum: crc32fast::Hasher,
    limit: SizeLimit,
    taking: bool,
}

/// Length and checksum of a log at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) len: u64,
    /// `crc32:` and eight hex digits.
    pub(crate) checksum: String,
}

/// Part of a log, not yet read.
pub(crate) struct Part {
    file: Option<(Arc<NamedTempFile>, u64, usize)>,
    tail: Vec<u8>,
}

/// A long log goes to its file in blocks of this size that begin at multiples of it. The kernel keeps such a block in one piece;
/// pieces of any size cost it more than twice the processor time, to take, to read back and to give back.
const BLOCK: usize = 128 * 1024;
/// A log is long when its file has this many bytes, so that only the few long ones among many jobs hold a block each.
const LONG: u64 = 1024 * 1024;

const DISK_NOTICE: &[u8] = b"\n\x1b[31;1mERROR: The runner has no room to store the job's log.\n\
    Job execution will continue but no more output will be collected.\x1b[0;m\n";

// === impl Spool ===

impl Spool {
    pub(crate) fn new(job: u64, directory: PathBuf, memory: usize, limit: SizeLimit) -> Self {
        Self {
            job,
            directory,
            memory,
            file: None,
            filed: 0,
            tail: Vec::new(),
            checksum: crc32fast::Hasher::new(),
            limit,
            taking: true,
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.filed + length(self.tail.len())
    }

    pub(crate) fn summary(&self) -> Summary {
        Summary { len: self.len(), checksum: format!("crc32:{:08x}", self.checksum.clone().finalize()) }
    }

    /// Appends valid UTF-8 as far as the limit admits. After an error the log takes nothing more.
    pub(crate) fn append(&mut self, source: Source, text: &[u8]) -> Result<(), SpoolError> {
        if !self.taking || text.is_empty() {
            return Ok(());
        }
        let admission = self.limit.admit(source, text);
        let stored = self.store(&text[..admission.keep]).and_then(|()| match &admission.notice {
            Some(notice) => self.store(notice.as_bytes()),
            None => Ok(()),
        });
        if stored.is_err() {
            self.taking = false;
            self.checksum.update(DISK_NOTICE);
            self.tail.extend_from_slice(DISK_NOTICE);
        }
        stored
    }

    /// From here on writes are swallowed.
    pub(crate) fn close(&mut self) {
        self.taking = false;
    }

    /// Gives memory and file back.
    pub(crate) fn discard(&mut self) {
        self.close();
        self.file = None;
        self.filed = 0;
        self.tail = Vec::new();
    }

    /// At most `most` bytes from `offset` on; `None` at the end of the log.
    pub(crate) fn part(&self, offset: u64, most: usize) -> Option<Part> {
        let available = usize::try_from(self.len().checked_sub(offset)?).unwrap_or(usize::MAX).min(most);
        if available == 0 {
            return None;
        }
        let in_file = usize::try_from(self.filed.saturating_sub(offset)).unwrap_or(usize::MAX).min(available);
        let file = self.file.as_ref().filter(|_| in_file > 0).map(|file| (Arc::clone(file), offset, in_file));
        let from =
            usize::try_from(offset.saturating_sub(self.filed)).unwrap_or(usize::MAX).min(self.tail.len());
        let tail = self.tail[from..from + (available - in_file)].to_vec();
        Some(Part { file, tail })
    }

    fn store(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        let mut rest = bytes;
        if self.filed >= LONG {
            while self.tail.len() + rest.len() >= self.until_block() {
                let piece;
                (piece, rest) = rest.split_at(self.until_block().saturating_sub(self.tail.len()));
                self.keep(piece);
                self.write_tail()?;
            }
        } else if self.tail.len() + rest.len() > self.memory {
            self.write_tail()?;
            if rest.len() >= self.memory {
                let file = Arc::clone(self.file()?);
                write(&file, rest, self.filed)?;
                self.filed += length(rest.len());
                self.checksum.update(rest);
                return Ok(());
            }
        }
        self.keep(rest);
        Ok(())
    }

    /// Bytes from the end of the file to the next block of a long log.
    fn until_block(&self) -> usize {
        BLOCK - usize::try_from(self.filed % length(BLOCK)).unwrap_or_default()
    }

    /// What is in the tail is in the log: it counts in the checksum, also if it never gets to the file.
    fn keep(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        self.checksum.update(bytes);
    }

    fn write_tail(&mut self) -> Result<(), SpoolError> {
        let file = Arc::clone(self.file()?);
        write(&file, &self.tail, self.filed)?;
        self.filed += length(self.tail.len());
        self.tail.clear();
        Ok(())
    }

    fn file(&mut self) -> Result<&Arc<NamedTempFile>, SpoolError> {
        let file = match self.file.take() {
            Some(file) => file,
            None => {
                let file = tempfile::Builder::new()
                    .prefix(&format!("trace-{}-", self.job))
                    .permissions(Permissions::from_mode(0o600))
                    .tempfile_in(&self.directory)
                    .map_err(|source| SpoolError::Create { directory: self.directory.clone(), source })?;
                Arc::new(file)
            }
        };
        Ok(self.file.insert(file))
    }
}

// === impl Part ===

impl Part {
    pub(crate) fn is_in_memory(&self) -> bool {
        self.file.is_none()
    }

    /// Blocks on the disk unless the part is in memory.
    pub(crate) fn read(self) -> Result<Bytes, SpoolError> {
        let Some((file, offset, len)) = self.file else { return Ok(Bytes::from(self.tail)) };
        let mut bytes = vec![0; len + self.tail.len()];
        let (filed, tail) = bytes.split_at_mut(len);
        file.as_file().read_exact_at(filed, offset).map_err(SpoolError::Read)?;
        tail.copy_from_slice(&self.tail);
        Ok(Bytes::from(bytes))
    }
}

/// Writing at an offset, so that a write that failed half way leaves nothing behind.
fn write(file: &NamedTempFile, bytes: &[u8], offset: u64) -> Result<(), SpoolError> {
    file.as_file().write_all_at(bytes, offset).map_err(SpoolError::Write)
}

fn length(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_log_makes_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = spool(&directory, 16);
        spool.append(Source::Job, b"0123456789abcdef").unwrap();
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
        assert_eq!(read(&spool, 0, 100), b"0123456789abcdef");
    }

    #[test]
    fn parts_reach_over_file_and_memory() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = spool(&directory, 16);
        let mut whole = Vec::new();
        for n in 0..50_u8 {
            let text = vec![b'a' + n % 26; usize::from(n) * 7 % 31];
            spool.append(Source::Job, &text).unwrap();
            whole.extend_from_slice(&text);
            assert!(spool.tail.len() <= 16);
        }
        assert!(spool.filed > 0 && !spool.tail.is_empty());
        assert_eq!(spool.summary().len, whole.len() as u64);
        assert_eq!(spool.summary().checksum, format!("crc32:{:08x}", crc32fast::hash(&whole)));
        for from in 0..whole.len() {
            for most in [1, 13, 4096] {
                let to = (from + most).min(whole.len());
                assert_eq!(read(&spool, from as u64, most), whole[from..to], "{from} {most}");
            }
        }
        assert!(spool.part(whole.len() as u64, 1).is_none());
        assert!(spool.part(whole.len() as u64 + 1, 1).is_none());
    }

    #[test]
    fn a_long_log_is_written_in_whole_blocks() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = spool(&directory, 16);
        let mut whole = Vec::new();
        for n in 0..120_usize {
            let text = vec![b'a' + (n % 26) as u8; n * 7919 % 50_000 + 1];
            spool.append(Source::Job, &text).unwrap();
            whole.extend_from_slice(&text);
            assert!(spool.tail.len() < BLOCK);
        }
        assert!(spool.filed > 2 * LONG && spool.filed.is_multiple_of(BLOCK as u64), "{}", spool.filed);
        assert_eq!(spool.summary().checksum, format!("crc32:{:08x}", crc32fast::hash(&whole)));
        assert_eq!(read(&spool, 0, usize::MAX), whole);
        // From the file into memory.
        let from = spool.filed - 10;
        assert_eq!(read(&spool, from, 20), whole[usize::try_from(from).unwrap()..][..20]);
    }

    #[test]
    fn the_file_is_private_and_goes_with_the_log() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = spool(&directory, 4);
        spool.append(Source::Job, b"0123456789").unwrap();
        let entry = std::fs::read_dir(&directory).unwrap().next().unwrap().unwrap();
        assert!(entry.file_name().to_string_lossy().starts_with("trace-7-"));
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        spool.discard();
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
    }

    #[test]
    fn when_the_disk_fails_the_log_says_so_and_stays_consistent() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = spool(&directory, 16);
        spool.directory = directory.path().join("gone");
        spool.append(Source::Job, b"0123456789").unwrap();
        let error = spool.append(Source::Job, b"0123456789").unwrap_err();
        assert!(matches!(error, SpoolError::Create { .. }), "{error:?}");
        spool.append(Source::Job, b"more").unwrap();
        let log = read(&spool, 0, 1000);
        assert_eq!(log, [b"0123456789", DISK_NOTICE].concat());
        assert_eq!(spool.summary().checksum, format!("crc32:{:08x}", crc32fast::hash(&log)));
    }

    #[test]
    fn the_notice_of_the_limit_counts_in_length_and_checksum() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(7, directory.path().into(), 16, SizeLimit::new(10));
        spool.append(Source::Job, b"0123456789abc").unwrap();
        spool.append(Source::Job, b"more").unwrap();
        let log = read(&spool, 0, 1000);
        assert!(log.starts_with(b"0123456789\n\x1b[33;1mJob's log exceeded limit of 10 bytes.\n"));
        assert_eq!(spool.summary().len, log.len() as u64);
        assert_eq!(spool.summary().checksum, format!("crc32:{:08x}", crc32fast::hash(&log)));
    }

    fn spool(directory: &tempfile::TempDir, memory: usize) -> Spool {
        Spool::new(7, directory.path().into(), memory, SizeLimit::from_output_limit(0))
    }

    fn read(spool: &Spool, offset: u64, most: usize) -> Vec<u8> {
        spool.part(offset, most).unwrap().read().unwrap().to_vec()
    }
}
