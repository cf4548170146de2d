//! The log of a job as the server holds it.

use crate::config::LogRetention;

/// Bytes of a log, with size and checksum of the whole of it.
#[derive(Debug)]
pub(crate) struct LogStore {
    retention: LogRetention,
    data: Vec<u8>,
    len: u64,
    crc: crc32fast::Hasher,
    corrupted: bool,
}

// === impl LogStore ===

impl LogStore {
    pub(crate) fn new(retention: LogRetention) -> Self {
        Self { retention, data: Vec::new(), len: 0, crc: crc32fast::Hasher::new(), corrupted: false }
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// What is kept: the whole log, or its end.
    pub(crate) fn kept(&self) -> &[u8] {
        &self.data
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) {
        self.crc.update(bytes);
        self.len += bytes.len() as u64;
        self.data.extend_from_slice(bytes);
        if let LogRetention::Tail(keep) = self.retention
            && self.data.len() > keep.saturating_mul(2).max(4096)
        {
            self.data.drain(..self.data.len() - keep);
        }
    }

    /// `crc32:` and eight lower-case hexadecimal digits over every byte that was appended.
    pub(crate) fn checksum(&self) -> String {
        let crc = self.crc.clone().finalize() ^ u32::from(self.corrupted);
        format!("crc32:{crc:08x}")
    }

    /// From now on the checksum is wrong, as if the storage had lost a bit.
    pub(crate) fn corrupt(&mut self) {
        self.corrupted = true;
    }

    pub(crate) fn is_corrupted(&self) -> bool {
        self.corrupted
    }

    /// Throws everything away.
    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.retention);
    }

    /// Keeps the first `len` bytes only, if they are all there; a longer `len` changes nothing.
    pub(crate) fn truncate(&mut self, len: usize) -> bool {
        if self.len != self.data.len() as u64 || len >= self.data.len() {
            return false;
        }
        self.data.truncate(len);
        self.len = len as u64;
        self.crc = crc32fast::Hasher::new();
        self.crc.update(&self.data);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tail_keeps_the_end_and_the_size_and_checksum_of_all() {
        let (mut tail, mut full) =
            (LogStore::new(LogRetention::Tail(100)), LogStore::new(LogRetention::Full));
        for line in 0..2_000 {
            let text = format!("line {line}\n");
            tail.append(text.as_bytes());
            full.append(text.as_bytes());
        }
        assert_eq!(tail.len(), full.len());
        assert_eq!(tail.checksum(), full.checksum());
        assert!(tail.kept().len() <= 4096);
        assert!(full.kept().ends_with(tail.kept()));
    }

    #[test]
    fn truncated_log_has_the_checksum_of_what_is_left() {
        let (mut log, mut expected) = (LogStore::new(LogRetention::Full), LogStore::new(LogRetention::Full));
        log.append(b"hello, world");
        expected.append(b"hello");
        assert!(log.truncate(5));
        assert_eq!(log.checksum(), expected.checksum());
        assert_eq!(log.checksum(), "crc32:3610a686");
    }
}
