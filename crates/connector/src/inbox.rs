//! What arrived on one channel and was not read yet, in bounded memory.
//!
//! # Back-pressure
//!
//! russh grants the remote a new window as soon as a packet arrives, not when it is read, and its one event loop per
//! connection waits when a channel's queue is full. Left alone, one slow reader would stop all channels of its connection,
//! keepalives included. So each channel has an [`Inbox`] that the event loop fills, and when it holds [`LIMIT`] bytes:
//!
//! - **Alone on its connection**, the loop waits for the reader. TCP then fills up and the remote command blocks: nothing else
//!   is on the connection that could suffer. As soon as something else needs the connection, the loop goes on.
//! - **Beside other channels**, the loop waits for the reader for [`PATIENCE`] in all, which covers a reader that lags for a
//!   moment. Then what arrives goes to a [`Spill`], an unnamed file, until the reader has caught up. Memory stays bounded,
//!   the other channels go on; the file is limited by [`DialOptions::unread_limit`](crate::DialOptions::unread_limit).
//!
//! The event loop hands over `Bytes` without copying them: russh puts each message into a small queue of the channel right
//! before it calls the handler, and the handler moves it to the inbox.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use russh::{ChannelMsg, ChannelReadHalf, Sig};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::ConnectionError;
use crate::process::ExitStatus;
use crate::sessions::Slot;
use crate::spill::Spill;
use crate::table::Table;

/// Bytes that wait in memory for the reader of one channel, plus at most one packet.
pub(crate) const LIMIT: usize = 1024 * 1024;

/// How long, in all since its inbox was last empty, a reader may hold up the other channels of its connection.
pub(crate) const PATIENCE: Duration = Duration::from_millis(100);

/// What a queued piece costs beside its bytes; keeps a flood of one-byte packets within the limit.
const OVERHEAD: usize = 96;

/// Bytes read back from a spill at a time.
const RELOAD: usize = 256 * 1024;

/// Which stream of a command a piece belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Out,
    Err,
}

/// Bytes of one packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) stream: Stream,
    pub(crate) bytes: Bytes,
}

/// What arrived on one channel; filled by the event loop of the connection, emptied by one [`Reader`].
#[derive(Debug)]
pub(crate) struct Inbox {
    instance: Arc<str>,
    /// russh's queue of the channel. Locked while its messages are moved, so that they stay in order.
    source: Mutex<ChannelReadHalf>,
    state: Mutex<State>,
    /// The reader has made room, or has left.
    room: Notify,
    /// The channel is closed, by whichever side, or its connection is lost.
    ended: CancellationToken,
    /// Counted in [`Table::busy`]: somebody uses the channel.
    pub(crate) busy: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Piece>,
    /// Cost of `queue` in bytes.
    held: usize,
    /// Pieces on their way to the spill.
    overflow: Vec<Piece>,
    spill: Option<Arc<Spill>>,
    /// The spill is being appended to, so the reader must not drop it.
    spilling: bool,
    /// Pieces in the spill. Counted after writing, so it may be below zero while the reader took what is not counted yet.
    spilled: i64,
    /// Time that the event loop has waited since the queue was last empty.
    waited: Duration,
    eof: bool,
    closed: bool,
    /// The reader has left: everything that arrives is dropped.
    abandoned: bool,
    refused: bool,
    status: Option<ExitStatus>,
    failure: Option<ConnectionError>,
    waker: Option<Waker>,
    /// The place among the connection's sessions, free again when the channel is closed.
    slot: Option<Slot>,
}

/// The one reader of an [`Inbox`].
pub(crate) struct Reader {
    inbox: Arc<Inbox>,
    loading: Option<Loading>,
}

type Loading = Pin<Box<dyn Future<Output = std::io::Result<Vec<Piece>>> + Send + Sync>>;

/// What [`Inbox::settle`] has to do next.
enum Step {
    Done,
    Spill(Arc<Spill>, Vec<Piece>),
    StartSpill,
    Wait(Option<Duration>),
}

// === impl Inbox ===

impl Inbox {
    pub(crate) fn new(instance: Arc<str>, source: ChannelReadHalf, slot: Option<Slot>) -> Self {
        Self {
            instance,
            source: Mutex::new(source),
            state: Mutex::new(State { slot, ..State::default() }),
            room: Notify::new(),
            ended: CancellationToken::new(),
            busy: AtomicBool::new(false),
        }
    }

    /// Moves what russh has queued for the channel into the inbox.
    pub(crate) fn fill(&self) {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        // Without a budget: a message that is there must not look absent because the event loop has been busy.
        while let Some(Some(message)) = tokio::task::unconstrained(source.wait()).now_or_never() {
            self.apply(message);
        }
    }

    /// Waits until the inbox is within its limit, or sees to it; called by the event loop, which handles nothing else meanwhile.
    pub(crate) async fn settle(&self, table: &Table) {
        loop {
            let changed = table.changed.notified();
            let room = self.room.notified();
            tokio::pin!(changed, room);
            // Registered before looking, so that no notification between looking and waiting is lost.
            changed.as_mut().enable();
            room.as_mut().enable();
            match self.next_step(table) {
                Step::Done => return,
                Step::Wait(None) => {
                    tokio::select! { () = changed => {}, () = room => {} }
                }
                Step::Wait(Some(patience)) => {
                    let started = Instant::now();
                    let _ = tokio::time::timeout(patience, room).await;
                    self.lock().waited += started.elapsed();
                }
                Step::StartSpill => match Spill::create(table.options.spill_folder.clone()).await {
                    Ok(spill) => {
                        tracing::debug!(instance = %self.instance, "output is read too slowly; holding it in a file");
                        self.lock().spill = Some(spill);
                    }
                    Err(error) => self.overrun(&format!("cannot make a file to hold it: {error}")),
                },
                Step::Spill(spill, pieces) => {
                    let count = count(&pieces);
                    let size = spill.append(pieces).await;
                    let mut state = self.lock();
                    state.spilling = false;
                    state.spilled += count;
                    state.wake();
                    drop(state);
                    match size {
                        Ok(size) if size > table.options.unread_limit => {
                            self.overrun(&format!("more than {} bytes waited", table.options.unread_limit));
                        }
                        Ok(_) => {}
                        Err(error) => self.overrun(&format!("cannot write the file that holds it: {error}")),
                    }
                }
            }
        }
    }

    fn next_step(&self, table: &Table) -> Step {
        let mut state = self.lock();
        if state.abandoned || state.closed {
            // Nothing more arrives; what is there still may be read.
            if state.abandoned || state.overflow.is_empty() {
                return Step::Done;
            }
        }
        if let Some(spill) = state.spill.clone() {
            if state.overflow.is_empty() {
                return Step::Done;
            }
            state.spilling = true;
            return Step::Spill(spill, std::mem::take(&mut state.overflow));
        }
        if state.held <= LIMIT {
            return Step::Done;
        }
        if table.may_wait() {
            return Step::Wait(None);
        }
        match PATIENCE.checked_sub(state.waited) {
            Some(left) if !left.is_zero() => Step::Wait(Some(left)),
            Some(_) | None => Step::StartSpill,
        }
    }

    /// The reader has left: frees what is queued and lets the event loop go on.
    pub(crate) fn abandon(&self) {
        let mut state = self.lock();
        state.abandoned = true;
        state.queue = VecDeque::new();
        state.overflow = Vec::new();
        state.spill = None;
        state.held = 0;
        drop(state);
        self.room.notify_waiters();
    }

    /// The channel is over on our side: frees its place, because the server hears of it before any later request.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.wake();
        let slot = state.slot.take();
        drop(state);
        drop(slot);
        self.ended.cancel();
        self.room.notify_waiters();
    }

    /// The connection is over: what was read so far stays readable, then comes `error`.
    pub(crate) fn fail(&self, error: ConnectionError) {
        let mut state = self.lock();
        if !state.closed {
            state.failure.get_or_insert(error);
        }
        drop(state);
        self.close();
    }

    /// Cancelled when nothing can be sent on the channel any more.
    pub(crate) fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    /// True once the channel is closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// The exit status, the failure, or `None` while neither is known.
    pub(crate) fn outcome(&self) -> Option<Result<ExitStatus, ConnectionError>> {
        let state = self.lock();
        if let Some(status) = &state.status {
            return Some(Ok(status.clone()));
        }
        if state.refused {
            return Some(Err(ConnectionError::ExecRefused { instance: self.instance.clone() }));
        }
        if let Some(failure) = &state.failure {
            return Some(Err(failure.clone()));
        }
        state.closed.then(|| Err(ConnectionError::NoExitStatus { instance: self.instance.clone() }))
    }

    fn overrun(&self, reason: &str) {
        self.fail(ConnectionError::Unread { instance: self.instance.clone(), reason: reason.into() });
        self.abandon();
    }

    fn apply(&self, message: ChannelMsg) {
        let mut state = self.lock();
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "russh's enum is open, and half of it only travels the other way"
        )]
        match message {
            ChannelMsg::Data { data } => state.push(Piece { stream: Stream::Out, bytes: data }),
            ChannelMsg::ExtendedData { data, ext: 1 } => {
                state.push(Piece { stream: Stream::Err, bytes: data })
            }
            ChannelMsg::Eof => state.eof = true,
            ChannelMsg::ExitStatus { exit_status } => {
                // SSH sends 32 bits; Windows uses all of them.
                state.end(ExitStatus::Code(exit_status.cast_signed()));
            }
            ChannelMsg::ExitSignal { signal_name, .. } => {
                state.end(ExitStatus::Signal(signal_text(&signal_name)));
            }
            ChannelMsg::Failure => state.refused = true,
            ChannelMsg::Close => {
                drop(state);
                self.close();
                return;
            }
            _ => return,
        }
        state.wake();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    fn push(&mut self, piece: Piece) {
        if self.abandoned || piece.bytes.is_empty() {
            return;
        }
        if self.spill.is_some() {
            self.overflow.push(piece);
            return;
        }
        self.held += piece.bytes.len() + OVERHEAD;
        self.queue.push_back(piece);
    }

    fn end(&mut self, status: ExitStatus) {
        self.status = Some(status);
        if let Some(slot) = &mut self.slot {
            slot.end();
        }
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

// === impl Reader ===

impl Reader {
    pub(crate) fn new(inbox: Arc<Inbox>) -> Self {
        Self { inbox, loading: None }
    }

    /// The next piece; `None` at the end of the output. A lost connection is an error after what arrived before it.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Piece>, ConnectionError>> {
        loop {
            if let Some(loading) = &mut self.loading {
                let loaded = ready!(loading.as_mut().poll(cx));
                self.loading = None;
                self.take_over(loaded);
            }
            let mut state = self.inbox.lock();
            if let Some(piece) = state.queue.pop_front() {
                let before = state.held;
                state.held -= piece.bytes.len() + OVERHEAD;
                let made_room = before > LIMIT / 2 && state.held <= LIMIT / 2;
                if state.queue.is_empty() {
                    state.waited = Duration::ZERO;
                }
                drop(state);
                if made_room {
                    self.inbox.room.notify_waiters();
                }
                return Poll::Ready(Ok(Some(piece)));
            }
            if state.spilled > 0
                && let Some(spill) = state.spill.clone()
            {
                self.loading = Some(Box::pin(spill.take(RELOAD)));
                continue;
            }
            let pending = state.spilling || !state.overflow.is_empty();
            if !pending {
                if state.spill.take().is_some() {
                    // Caught up: what arrives from here on stays in memory again.
                    state.waited = Duration::ZERO;
                }
                if let Some(failure) = &state.failure {
                    return Poll::Ready(Err(failure.clone()));
                }
                if state.eof || state.closed || state.refused {
                    return Poll::Ready(Ok(None));
                }
            }
            state.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
    }

    /// Waits for the exit status; output that is left is dropped.
    pub(crate) fn poll_outcome(&mut self, cx: &mut Context<'_>) -> Poll<Result<ExitStatus, ConnectionError>> {
        loop {
            if let Some(outcome) = self.inbox.outcome() {
                return Poll::Ready(outcome);
            }
            match self.poll_next(cx) {
                Poll::Ready(Ok(Some(_))) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(None)) | Poll::Pending => {
                    // At the end of the output `poll_next` leaves no waker behind; then look again, for the status may have
                    // come in between.
                    self.inbox.lock().waker = Some(cx.waker().clone());
                    return match self.inbox.outcome() {
                        Some(outcome) => Poll::Ready(outcome),
                        None => Poll::Pending,
                    };
                }
            }
        }
    }

    fn take_over(&self, loaded: std::io::Result<Vec<Piece>>) {
        let mut state = self.inbox.lock();
        match loaded {
            Ok(pieces) => {
                state.spilled -= count(&pieces);
                state.held += pieces.iter().map(|piece| piece.bytes.len() + OVERHEAD).sum::<usize>();
                state.queue.extend(pieces);
            }
            Err(error) => {
                tracing::warn!(instance = %self.inbox.instance, %error, "cannot read back output that was held in a file");
                state.spill = None;
                state.spilled = 0;
                state.failure.get_or_insert(ConnectionError::Unread {
                    instance: self.inbox.instance.clone(),
                    reason: format!("cannot read the file that holds it: {error}").into(),
                });
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.inbox.abandon();
    }
}

fn count(pieces: &[Piece]) -> i64 {
    i64::try_from(pieces.len()).unwrap_or(i64::MAX)
}

/// The name of a signal without `SIG`, as SSH writes it.
fn signal_text(signal: &Sig) -> String {
    match signal {
        Sig::ABRT => "ABRT".into(),
        Sig::ALRM => "ALRM".into(),
        Sig::FPE => "FPE".into(),
        Sig::HUP => "HUP".into(),
        Sig::ILL => "ILL".into(),
        Sig::INT => "INT".into(),
        Sig::KILL => "KILL".into(),
        Sig::PIPE => "PIPE".into(),
        Sig::QUIT => "QUIT".into(),
        Sig::SEGV => "SEGV".into(),
        Sig::TERM => "TERM".into(),
        Sig::USR1 => "USR1".into(),
        Sig::Custom(name) => name.clone(),
    }
}
