//! How much a job may log.

use super::utf8;

/// Who writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The runner's own lines: few, and at the end of a log the ones that say why the job failed.
    Runner,
    /// The job and its services.
    Job,
}

/// What of a write goes into the log.
#[derive(Debug, PartialEq, Eq)]
pub struct Admission {
    /// The first bytes of the write, up to a character's end.
    pub keep: usize,
    /// What has to be appended after them; only once in the life of a log.
    pub notice: Option<String>,
}

/// Bounds the size of one log, counted after masking and stamping.
///
/// The write that would meet or cross the limit is cut, a notice is appended and later writes are swallowed, as in
/// GitLab Runner. There the last lines (`Job succeeded`, the error) are lost as well; here the runner's own lines may go
/// on for up to [`RUNNER_RESERVE`](Self::RUNNER_RESERVE) bytes beyond the limit.
#[derive(Debug, Clone)]
pub struct SizeLimit {
    limit: u64,
    written: u64,
    reserve: u64,
    reached: bool,
}

// === impl SizeLimit ===

impl SizeLimit {
    /// GitLab Runner's limit when `output_limit` is not set, in bytes.
    pub const DEFAULT: u64 = 4 * 1024 * 1024;

    /// Bytes of the runner's own lines that are taken beyond the limit.
    pub const RUNNER_RESERVE: u64 = 8 * 1024;

    /// A limit in bytes.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self { limit, written: 0, reserve: Self::RUNNER_RESERVE, reached: false }
    }

    /// From the `output_limit` of a runner, in KiB; 0 is the default.
    #[must_use]
    pub fn from_output_limit(kibibytes: u64) -> Self {
        Self::new(if kibibytes == 0 { Self::DEFAULT } else { kibibytes.saturating_mul(1024) })
    }

    /// Whether the notice has been given.
    #[must_use]
    pub fn is_reached(&self) -> bool {
        self.reached
    }

    /// Decides about one write of valid UTF-8 and counts it.
    pub fn admit(&mut self, source: Source, text: &[u8]) -> Admission {
        let len = u64::try_from(text.len()).unwrap_or(u64::MAX);
        if self.reached {
            return Admission { keep: self.admit_beyond(source, len, text.len()), notice: None };
        }
        let left = self.limit.saturating_sub(self.written);
        if len < left {
            self.written += len;
            return Admission { keep: text.len(), notice: None };
        }
        self.reached = true;
        let keep = match source {
            Source::Runner if self.admit_beyond(source, len, text.len()) > 0 => text.len(),
            Source::Runner | Source::Job => utf8::cut(text, usize::try_from(left).unwrap_or(usize::MAX)),
        };
        Admission { keep, notice: Some(notice(self.limit)) }
    }

    /// Whole writes only: half a line of the runner helps nobody.
    fn admit_beyond(&mut self, source: Source, len: u64, whole: usize) -> usize {
        match source {
            Source::Runner if len <= self.reserve => {
                self.reserve -= len;
                whole
            }
            Source::Runner | Source::Job => 0,
        }
    }
}

fn notice(limit: u64) -> String {
    format!(
        "\n\x1b[33;1mJob's log exceeded limit of {limit} bytes.\n\
         Job execution will continue but no more output will be collected.\x1b[0;m\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_write_that_meets_the_limit_is_cut_and_the_notice_comes_once() {
        let mut limit = SizeLimit::new(10);
        assert_eq!(limit.admit(Source::Job, b"12345"), Admission { keep: 5, notice: None });
        let admission = limit.admit(Source::Job, b"67890");
        assert_eq!(admission.keep, 5);
        assert_eq!(
            admission.notice.unwrap(),
            "\n\x1b[33;1mJob's log exceeded limit of 10 bytes.\n\
             Job execution will continue but no more output will be collected.\x1b[0;m\n"
        );
        assert_eq!(limit.admit(Source::Job, b"x"), Admission { keep: 0, notice: None });
    }

    #[test]
    fn a_character_is_not_cut() {
        let mut limit = SizeLimit::new(4);
        assert_eq!(limit.admit(Source::Job, "aa世界".as_bytes()).keep, 2);
    }

    #[test]
    fn the_runner_may_say_its_last_words() {
        let mut limit = SizeLimit::new(1);
        limit.admit(Source::Job, b"too long");
        assert_eq!(limit.admit(Source::Runner, b"Job succeeded\n").keep, 14);
        assert_eq!(limit.admit(Source::Job, b"more").keep, 0);
        assert_eq!(limit.admit(Source::Runner, &[b'a'; 8 * 1024]).keep, 0, "the reserve is bounded");
        assert!(limit.is_reached());
    }

    #[test]
    fn zero_means_the_default_of_four_mebibytes() {
        let mut limit = SizeLimit::from_output_limit(0);
        assert_eq!(limit.admit(Source::Job, &vec![b'a'; 4 * 1024 * 1024 - 1]).notice, None);
        assert!(limit.admit(Source::Job, b"a").notice.is_some());
        assert_eq!(SizeLimit::from_output_limit(2).limit, 2048);
    }
}
