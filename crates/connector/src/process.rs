//! A command that runs on an instance.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::AbortHandle;
use futures_util::future::Abortable;
use russh::Sig;

use crate::error::ConnectionError;
use crate::inbox::{Reader, Stream};
use crate::link::Lane;
use crate::sessions::Sessions;

/// A piece of a command's output, as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Written to standard output.
    Stdout(Bytes),
    /// Written to standard error.
    Stderr(Bytes),
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitStatus {
    /// It exited with this code. 127 also means that the instance found no such command or shell.
    Code(i32),
    /// It was ended by the signal of this name, without `SIG`.
    Signal(String),
}

/// A running command. Dropping it closes its channel, which ends most commands but not all: one that neither reads nor writes
/// goes on, so [`signal`](Self::signal) it first if it has to stop.
pub struct Process {
    reader: Reader,
    lane: Arc<Lane>,
    feeder: Option<AbortHandle>,
    /// Keeps the connection open while the command runs.
    _sessions: Arc<Sessions>,
}

/// The standard input of a command that was started with [`Client::exec_piped`](crate::Client::exec_piped). Dropping it
/// closes the input.
pub struct ProcessStdin {
    lane: Arc<Lane>,
    finished: bool,
}

// === impl Output ===

impl Output {
    /// The bytes, whichever stream they belong to.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        match self {
            Self::Stdout(bytes) | Self::Stderr(bytes) => bytes,
        }
    }

    /// The bytes, whichever stream they belong to.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        match self {
            Self::Stdout(bytes) | Self::Stderr(bytes) => bytes,
        }
    }
}

// === impl ExitStatus ===

impl ExitStatus {
    /// The exit code; for a signal 128 and its number on Linux, as shells have it (128 if the signal is not known).
    #[must_use]
    pub fn code(&self) -> i32 {
        match self {
            Self::Code(code) => *code,
            Self::Signal(name) => 128 + number(name),
        }
    }

    /// True for exit code 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.code() == 0
    }
}

// === impl Process ===

impl Process {
    /// Starts `command` on a session channel. `None` as `stdin` leaves it open.
    pub(crate) async fn start(
        sessions: Arc<Sessions>,
        lane: Lane,
        command: &str,
        stdin: Option<Bytes>,
    ) -> Result<Self, ConnectionError> {
        lane.occupy();
        let mut process = Self::idle(sessions, lane, command).await?;
        if let Some(stdin) = stdin {
            process.feed(stdin).await?;
        }
        Ok(process)
    }

    /// Starts `command` on a session channel that does not count as used yet.
    pub(crate) async fn idle(
        sessions: Arc<Sessions>,
        lane: Lane,
        command: &str,
    ) -> Result<Self, ConnectionError> {
        let lane = Arc::new(lane);
        let process =
            Self { reader: Reader::new(lane.inbox.clone()), lane, feeder: None, _sessions: sessions };
        match process.lane.writer.exec(true, command).await {
            Ok(()) => Ok(process),
            Err(_) => Err(process.lane.over().await),
        }
    }

    /// Counts the channel as used, and sends all of the input and its end.
    pub(crate) async fn feed(&mut self, stdin: Bytes) -> Result<(), ConnectionError> {
        let lane = &self.lane;
        lane.occupy();
        if stdin.is_empty() {
            return match lane.writer.eof().await {
                Ok(()) => Ok(()),
                Err(_) => Err(lane.over().await),
            };
        }
        // What fits into the window can be sent right away.
        if stdin.len() <= lane.writer.writable_packet_size().await {
            if lane.writer.data_bytes(stdin).await.is_err() || lane.writer.eof().await.is_err() {
                return Err(lane.over().await);
            }
            return Ok(());
        }
        let (writer, inbox) = (lane.writer.clone(), lane.inbox.clone());
        let (abort, registration) = AbortHandle::new_pair();
        self.feeder = Some(abort);
        let feed = async move {
            let feed = async {
                if writer.data_bytes(stdin).await.is_ok() {
                    let _ = writer.eof().await;
                }
            };
            // A command may end without reading all of its input.
            inbox.ended().run_until_cancelled(feed).await;
        };
        tokio::spawn(Abortable::new(feed, registration));
        Ok(())
    }

    /// A handle to the input, for a command started without one.
    pub(crate) fn stdin(&self) -> ProcessStdin {
        ProcessStdin { lane: self.lane.clone(), finished: false }
    }

    /// The next piece of output; `None` at its end. Output that is not read is not acknowledged beyond a bound, and the command
    /// blocks; see the crate's documentation for what happens if other commands share the connection.
    ///
    /// Nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// [`ConnectionError::Lost`] after all output that arrived before; [`ConnectionError::Unread`].
    pub async fn next(&mut self) -> Result<Option<Output>, ConnectionError> {
        let piece = poll_fn(|cx| self.reader.poll_next(cx)).await?;
        Ok(piece.map(|piece| match piece.stream {
            Stream::Out => Output::Stdout(piece.bytes),
            Stream::Err => Output::Stderr(piece.bytes),
        }))
    }

    /// False once the channel is closed: the command has ended, the connection is lost, or its output was given up. Output may
    /// still be there to read.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.lane.inbox.is_closed()
    }

    /// Waits for the command to end; to be called after [`next`](Self::next) gave `None`. Output that was not read is dropped.
    ///
    /// # Errors
    /// [`ConnectionError::ExecRefused`], [`ConnectionError::NoExitStatus`] if the channel was closed without a status,
    /// [`ConnectionError::Lost`].
    pub async fn wait(mut self) -> Result<ExitStatus, ConnectionError> {
        poll_fn(|cx| self.reader.poll_outcome(cx)).await
    }

    /// Sends a signal (`TERM`, `INT`, `KILL`, ... with or without `SIG`) to the command. OpenSSH delivers it to the command's
    /// process group, but not if the login is root or its command is forced; servers do not tell.
    ///
    /// # Errors
    /// [`ConnectionError::Lost`].
    pub async fn signal(&self, name: &str) -> Result<(), ConnectionError> {
        let name = name.strip_prefix("SIG").unwrap_or(name).to_owned();
        // Before and after: the event loop may be waiting for the reader of this very process.
        self.lane.table.urge();
        let sent = self.lane.writer.signal(Sig::Custom(name)).await;
        self.lane.table.urge();
        match sent {
            Ok(()) => Ok(()),
            Err(_) => Err(self.lane.over().await),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(feeder) = &self.feeder {
            feeder.abort();
        }
    }
}

// === impl ProcessStdin ===

impl ProcessStdin {
    /// Sends bytes to the command; waits while the command does not read. A command that has ended takes no more input: then
    /// the bytes are dropped, and the exit status tells.
    ///
    /// # Errors
    /// [`ConnectionError::Lost`].
    pub async fn write(&mut self, bytes: impl Into<Bytes> + Send) -> Result<(), ConnectionError> {
        let sending = self.lane.writer.data_bytes(bytes.into());
        match self.lane.inbox.ended().run_until_cancelled(sending).await {
            Some(Ok(())) => Ok(()),
            Some(Err(_)) => Err(self.lane.over().await),
            None => self.ended().await,
        }
    }

    /// Closes the input, which the command sees as its end.
    ///
    /// # Errors
    /// [`ConnectionError::Lost`].
    pub async fn finish(mut self) -> Result<(), ConnectionError> {
        self.finished = true;
        if self.lane.inbox.is_closed() {
            return self.ended().await;
        }
        match self.lane.writer.eof().await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.lane.over().await),
        }
    }

    async fn ended(&self) -> Result<(), ConnectionError> {
        if self.lane.table.is_gone() { Err(self.lane.over().await) } else { Ok(()) }
    }
}

impl Drop for ProcessStdin {
    fn drop(&mut self) {
        if self.finished || self.lane.inbox.is_closed() {
            return;
        }
        let lane = self.lane.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let _ = lane.writer.eof().await;
            });
        }
    }
}

/// The number of a signal on Linux.
fn number(name: &str) -> i32 {
    match name {
        "HUP" => 1,
        "INT" => 2,
        "QUIT" => 3,
        "ILL" => 4,
        "TRAP" => 5,
        "ABRT" => 6,
        "BUS" => 7,
        "FPE" => 8,
        "KILL" => 9,
        "USR1" => 10,
        "SEGV" => 11,
        "USR2" => 12,
        "PIPE" => 13,
        "ALRM" => 14,
        "TERM" => 15,
        "XCPU" => 24,
        "XFSZ" => 25,
        "SYS" => 31,
        _ => 0,
    }
}
