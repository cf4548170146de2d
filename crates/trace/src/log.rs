//! Many streams, one log.

use std::cell::RefCell;
use std::fmt::{self, Display};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use job::log::{
    Announcements, Channel, LineKind, LogStream, Piece, SizeLimit, Source, Timestamper, runner_line,
    section_end, section_start,
};
use tokio::sync::watch;

use crate::secrets::Secrets;
use crate::spool::{Spool, Summary};
use crate::{LogOptions, SpoolError};

/// The log of one job; a handle that can be cloned. Making one costs no I/O.
///
/// Writing is plain and synchronous: bytes are masked, stamped and copied to the spool, which is memory first and the page
/// cache of a local file afterwards. That file is all that can hold a writer up.
#[derive(Clone)]
pub struct JobLog(Arc<Shared>);

/// One stream of a log. The stream ends with [`finish`](Self::finish) or when the writer is dropped.
pub struct LogWriter {
    log: Arc<Shared>,
    lane: Lane,
    /// None where nothing can be announced.
    announcements: Option<Announcements>,
    finished: bool,
}

/// One stream on its way, and the secrets that it knows.
pub(crate) struct Lane {
    pub(crate) stream: LogStream,
    /// [`Secrets::generation`] of what it searches for.
    pub(crate) knows: u64,
}

struct Shared {
    options: LogOptions,
    spool: Mutex<Spool>,
    secrets: Secrets,
    /// The runner's own lines, stream 00.
    runner: Mutex<Lane>,
    written: watch::Sender<u64>,
}

/// Number of the runner's own stream.
const RUNNER_STREAM: u8 = 0;
/// Number of the job's streams.
const JOB_STREAM: u8 = 1;
/// Number of the first service's streams.
const FIRST_SERVICE_STREAM: u8 = 15;

/// Bytes handled at a time, so that a write of any size needs a bounded buffer.
const PIECE: usize = 64 * 1024;
/// A buffer that grew beyond this (a piece of nothing but line ends) is given back.
const KEPT_BUFFER: usize = 256 * 1024;

thread_local! {
    /// Output of one piece on its way to the spool: one per thread, so that an idle job costs none.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

// === impl JobLog ===

impl JobLog {
    /// An empty log.
    #[must_use]
    pub fn new(options: LogOptions) -> Self {
        let limit = SizeLimit::from_output_limit(options.output_limit);
        let spool = Spool::new(options.job, options.directory.clone(), options.memory, limit);
        let secrets = Secrets::new(options.masks.clone());
        let runner = lane(&options, &secrets, RUNNER_STREAM, Channel::Out);
        Self(Arc::new(Shared {
            options,
            secrets,
            spool: Mutex::new(spool),
            runner: Mutex::new(runner),
            written: watch::Sender::new(0),
        }))
    }

    /// The job's standard output.
    #[must_use]
    pub fn stdout(&self) -> LogWriter {
        self.writer(JOB_STREAM, Channel::Out)
    }

    /// The job's standard error.
    #[must_use]
    pub fn stderr(&self) -> LogWriter {
        self.writer(JOB_STREAM, Channel::Err)
    }

    /// Output of a service; the first is number 0.
    #[must_use]
    pub fn service(&self, number: u8, channel: Channel) -> LogWriter {
        self.writer(FIRST_SERVICE_STREAM.saturating_add(number), channel)
    }

    /// One line of the runner. Secrets in it are masked like those of the job.
    pub fn line(&self, kind: LineKind, text: impl Display) {
        self.runner_write(|out| runner_line(kind, text, out));
    }

    /// The beginning of a section and its title line; for servers with `features.trace_sections`.
    pub fn section_start(&self, name: &str, title: impl Display) {
        let now = (self.0.options.clock)().timestamp();
        self.runner_write(|out| {
            section_start(now, name, out);
            runner_line(LineKind::Title, title, out);
        });
    }

    /// The end of a section.
    pub fn section_end(&self, name: &str) {
        let now = (self.0.options.clock)().timestamp();
        self.runner_write(|out| section_end(now, name, out));
    }

    /// Bytes of the runner that are lines already.
    pub fn write_raw(&self, bytes: &[u8]) {
        self.runner_write(|out| out.extend_from_slice(bytes));
    }

    /// Bytes in the log.
    #[must_use]
    pub fn written(&self) -> u64 {
        *self.0.written.borrow()
    }

    /// Follows [`written`](Self::written).
    #[must_use]
    pub fn watch_written(&self) -> watch::Receiver<u64> {
        self.0.written.subscribe()
    }

    /// The whole log, for tests and for showing a short log; blocks on the disk.
    ///
    /// # Errors
    /// [`SpoolError::Read`] if the spool file cannot be read.
    pub fn contents(&self) -> Result<String, SpoolError> {
        let part = self.0.spool().part(0, usize::MAX);
        let bytes = part.map_or_else(|| Ok(Bytes::new()), crate::spool::Part::read)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A stream of any number.
    fn writer(&self, number: u8, channel: Channel) -> LogWriter {
        let lane = lane(&self.0.options, &self.0.secrets, number, channel);
        let announces = self.0.options.announced_masks && number == JOB_STREAM;
        let announcements = announces.then(Announcements::default);
        LogWriter { log: Arc::clone(&self.0), lane, announcements, finished: false }
    }

    /// The log is whole: what is written from here on is swallowed.
    pub(crate) fn close(&self) {
        self.0.finish(&mut self.0.runner.lock().unwrap_or_else(PoisonError::into_inner), Source::Runner);
        self.0.spool().close();
    }

    pub(crate) fn discard(&self) {
        self.0.spool().discard();
    }

    pub(crate) fn summary(&self) -> Summary {
        self.0.spool().summary()
    }

    /// At most `most` bytes from `offset` on; empty at the end of the log.
    pub(crate) async fn read(&self, offset: u64, most: usize) -> Result<Bytes, SpoolError> {
        let Some(part) = self.0.spool().part(offset, most) else { return Ok(Bytes::new()) };
        if part.is_in_memory() {
            return part.read();
        }
        tokio::task::spawn_blocking(move || part.read())
            .await
            .unwrap_or_else(|error| Err(SpoolError::Read(io::Error::other(error))))
    }

    fn runner_write(&self, fill: impl FnOnce(&mut Vec<u8>)) {
        self.0.runner_write(fill);
    }
}

impl fmt::Debug for JobLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobLog")
            .field("job", &self.0.options.job)
            .field("written", &self.written())
            .finish_non_exhaustive()
    }
}

// === impl LogWriter ===

impl LogWriter {
    /// Takes bytes as they come from the process, in pieces of any size. The log keeps what it can; see
    /// [`Observer::spool_failed`](crate::Observer::spool_failed).
    pub fn write(&mut self, bytes: &[u8]) {
        let Self { log, lane, announcements, .. } = self;
        match announcements {
            None => log.write(lane, Source::Job, bytes),
            Some(announcements) => announcements.push(bytes, &mut |piece| log.take(lane, piece)),
        }
    }

    /// The stream ends: what was held back goes out.
    pub fn finish(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if !std::mem::replace(&mut self.finished, true) {
            let Self { log, lane, announcements, .. } = self;
            if let Some(announcements) = announcements {
                announcements.finish(&mut |piece| log.take(lane, piece));
            }
            log.finish(lane, Source::Job);
        }
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.end();
    }
}

impl io::Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Self::write(self, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for LogWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogWriter").field("job", &self.log.options.job).finish_non_exhaustive()
    }
}

// === impl Shared ===

impl Shared {
    fn spool(&self) -> MutexGuard<'_, Spool> {
        // A spool is consistent between any two of its statements that may panic.
        self.spool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, lane: &mut Lane, piece: Piece<'_>) {
        match piece {
            Piece::Text(text) => self.write(lane, Source::Job, text),
            Piece::Word(word) => {
                if let Err(warning) = self.secrets.announce(word) {
                    self.runner_write(|out| runner_line(LineKind::Warning, warning, out));
                }
            }
        }
    }

    fn runner_write(&self, fill: impl FnOnce(&mut Vec<u8>)) {
        let mut text = Vec::with_capacity(160);
        fill(&mut text);
        let mut runner = self.runner.lock().unwrap_or_else(PoisonError::into_inner);
        self.write(&mut runner, Source::Runner, &text);
    }

    fn write(&self, lane: &mut Lane, source: Source, bytes: &[u8]) {
        let now = (self.options.clock)();
        self.secrets.tell(lane);
        with_buffer(|buffer| {
            for piece in bytes.chunks(PIECE) {
                buffer.clear();
                lane.stream.push(now, piece, buffer);
                self.append(source, buffer);
            }
        });
    }

    fn finish(&self, lane: &mut Lane, source: Source) {
        self.secrets.tell(lane);
        with_buffer(|buffer| {
            buffer.clear();
            lane.stream.finish((self.options.clock)(), buffer);
            self.append(source, buffer);
        });
    }

    fn append(&self, source: Source, text: &[u8]) {
        if text.is_empty() {
            return;
        }
        let (result, len) = {
            let mut spool = self.spool();
            (spool.append(source, text), spool.len())
        };
        // Waking nobody still costs; who subscribes later sees the length at once.
        let watched = self.written.receiver_count() > 0;
        self.written.send_if_modified(|written| std::mem::replace(written, len) != len && watched);
        if let Err(error) = result {
            tracing::error!(
                job = self.options.job,
                error = &error as &dyn std::error::Error,
                "the job's log is incomplete: no more output is collected"
            );
            self.options.observer.spool_failed(&error);
        }
    }
}

fn lane(options: &LogOptions, secrets: &Secrets, number: u8, channel: Channel) -> Lane {
    let (masks, knows) = secrets.all();
    let stamper = options.timestamps.then(|| Timestamper::new(number, channel));
    Lane { stream: LogStream::new(masks.masker(), stamper), knows }
}

fn with_buffer(work: impl FnOnce(&mut Vec<u8>)) {
    BUFFER.with_borrow_mut(|buffer| {
        work(buffer);
        if buffer.capacity() > KEPT_BUFFER {
            *buffer = Vec::new();
        }
    });
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use job::log::MaskRules;

    use super::*;

    const T: &str = "2026-08-22T10:15:30.000000Z";

    #[test]
    fn lines_of_several_streams_are_not_torn() {
        let log = log();
        let (mut out, mut err) = (log.stdout(), log.stderr());
        out.write(b"from ");
        err.write(b"wor");
        log.line(LineKind::Plain, "runner");
        out.write(b"out\n");
        err.write(b"se");
        out.finish();
        drop(err);
        log.service(0, Channel::Out).write(b"db up\n");
        assert_eq!(
            log.contents().unwrap(),
            format!("{T} 00O \x1b[0Krunner\x1b[0;m\n{T} 01O from out\n{T} 01E worse\n{T} 0fO db up\n")
        );
    }

    #[test]
    fn secrets_are_masked_in_lines_of_the_runner_too() {
        let log = log();
        log.line(LineKind::Error, "cannot log in with s3cr3t");
        assert_eq!(
            log.contents().unwrap(),
            format!("{T} 00O \x1b[31;1mERROR: cannot log in with [MASKED]\x1b[0;m\n")
        );
    }

    #[test]
    fn announced_words_are_masked_everywhere_from_then_on() {
        let log = JobLog::new(LogOptions { announced_masks: true, timestamps: false, ..options() });
        let (mut out, mut err) = (log.stdout(), log.stderr());
        err.write(b"magic\n");
        out.write(b"magic\n::add-mask::magic\nmagic s3cr3t\n::add-");
        err.write(b"magic\n");
        out.write(b"mask::word\n");
        log.service(0, Channel::Out).write(b"word\n");
        log.line(LineKind::Plain, "magic word");
        log.stdout().write(b"word\n");
        drop((out, err));
        assert_eq!(
            log.contents().unwrap(),
            "magic\nmagic\n[MASKED] [MASKED]\n[MASKED]\n[MASKED]\n\x1b[0K[MASKED] [MASKED]\x1b[0;m\n[MASKED]\n"
        );
    }

    #[test]
    fn without_leave_nothing_is_announced() {
        let log = JobLog::new(LogOptions { timestamps: false, ..options() });
        log.stdout().write(b"::add-mask::magic\nmagic\n");
        assert_eq!(log.contents().unwrap(), "::add-mask::magic\nmagic\n");
    }

    #[test]
    fn a_section_and_its_title_are_continued_lines() {
        let log = log();
        log.section_start("prepare", "Preparing");
        log.section_end("prepare");
        log.line(LineKind::Plain, "x");
        let start = "section_start:1787393730:prepare\r\x1b[0K";
        let end = "section_end:1787393730:prepare\r\x1b[0K";
        assert_eq!(
            log.contents().unwrap(),
            format!(
                "{T} 00O {start}\x1b[0K\x1b[36;1mPreparing\x1b[0;m\n{T} 00O {end}\n{T} 00O+\x1b[0Kx\x1b[0;m\n"
            )
        );
    }

    #[test]
    fn after_closing_writes_are_swallowed() {
        let log = log();
        let mut out = log.stdout();
        out.write(b"a\n");
        log.close();
        let summary = log.summary();
        out.write(b"b\n");
        log.line(LineKind::Plain, "c");
        assert_eq!(log.summary(), summary);
        assert_eq!(log.written(), summary.len);
    }

    #[test]
    fn the_runner_has_the_last_word_beyond_the_limit() {
        let options = LogOptions { output_limit: 1, ..options() };
        let log = JobLog::new(options);
        log.stdout().write(&[b'x'; 4096]);
        log.line(LineKind::Info, "Job succeeded");
        let text = log.contents().unwrap();
        assert_eq!(&text[1024..1024 + 50], "\n\x1b[33;1mJob's log exceeded limit of 1024 bytes.\nJo");
        assert!(text.ends_with(
            "collected.\x1b[0;m\n2026-08-22T10:15:30.000000Z 00O \x1b[32;1mJob succeeded\x1b[0;m\n"
        ));
    }

    #[test]
    fn nothing_secret_is_in_the_debug_text() {
        let log = log();
        log.stdout().write(b"private words\n");
        let text = format!("{log:?} {:?} {:?}", log.stdout(), log.0.options);
        assert!(!text.contains("s3cr3t") && !text.contains("private words"), "{text}");
    }

    fn log() -> JobLog {
        JobLog::new(options())
    }

    fn options() -> LogOptions {
        let rules = MaskRules { phrases: vec!["s3cr3t".to_owned()], ..MaskRules::default() };
        LogOptions {
            masks: job::log::CompiledMasks::new(&rules),
            clock: || DateTime::from_timestamp(1_787_393_730, 0).unwrap(),
            ..LogOptions::default()
        }
    }
}
