//! What one SSH connection shares between its event loop and the users of its channels.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use russh::ChannelId;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::error::ConnectionError;
use crate::inbox::Inbox;

/// Packets that are not held up after something urgent was sent, so that the event loop gets to send it.
const RELEASE: usize = 64;

/// The channels of one connection, and whether it still stands.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) instance: Arc<str>,
    pub(crate) options: Holding,
    inboxes: Mutex<BTreeMap<u32, Arc<Inbox>>>,
    /// Channels that are used or being opened; spare sessions do not count.
    busy: AtomicUsize,
    /// Packets that pass without waiting for their reader.
    release: AtomicUsize,
    /// `busy` or `release` grew: a waiting event loop has to look again.
    pub(crate) changed: Notify,
    lost: OnceLock<ConnectionError>,
    /// Cancelled when the connection is over.
    gone: CancellationToken,
}

/// What may be held for readers that lag.
#[derive(Debug, Clone)]
pub(crate) struct Holding {
    pub(crate) spill_folder: Option<PathBuf>,
    pub(crate) unread_limit: u64,
}

/// Counts in [`Table::busy`] while a channel is being opened.
pub(crate) struct Opening(Arc<Table>);

// === impl Table ===

impl Table {
    pub(crate) fn new(instance: Arc<str>, options: Holding) -> Self {
        Self {
            instance,
            options,
            inboxes: Mutex::default(),
            busy: AtomicUsize::new(0),
            release: AtomicUsize::new(0),
            changed: Notify::new(),
            lost: OnceLock::new(),
            gone: CancellationToken::new(),
        }
    }

    pub(crate) fn inbox(&self, id: ChannelId) -> Option<Arc<Inbox>> {
        self.lock().get(&id.number()).cloned()
    }

    /// Makes the inbox of a new channel known to the event loop, and takes in what arrived before.
    pub(crate) fn register(&self, id: ChannelId, inbox: Arc<Inbox>) {
        self.lock().insert(id.number(), inbox.clone());
        inbox.fill();
        if let Some(error) = self.lost.get() {
            // The connection broke in between; whoever cleared the table did not see this one.
            inbox.fail(error.clone());
        }
    }

    /// Marks a channel as used.
    pub(crate) fn occupy(&self, inbox: &Inbox) {
        if !inbox.busy.swap(true, Ordering::AcqRel) {
            self.busy.fetch_add(1, Ordering::AcqRel);
            self.changed.notify_waiters();
        }
    }

    /// Forgets a channel that is closed.
    pub(crate) fn remove(&self, id: ChannelId, inbox: &Arc<Inbox>) {
        let mut inboxes = self.lock();
        if inboxes.get(&id.number()).is_some_and(|known| Arc::ptr_eq(known, inbox)) {
            inboxes.remove(&id.number());
        }
        drop(inboxes);
        if inbox.busy.swap(false, Ordering::AcqRel) {
            self.busy.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Counts a channel that is being opened.
    pub(crate) fn opening(self: &Arc<Self>) -> Opening {
        self.busy.fetch_add(1, Ordering::AcqRel);
        self.changed.notify_waiters();
        Opening(self.clone())
    }

    /// Lets the event loop go on although a reader lags, because something has to be sent.
    pub(crate) fn urge(&self) {
        self.release.store(RELEASE, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// True if the event loop may wait for one reader as long as it takes.
    pub(crate) fn may_wait(&self) -> bool {
        let released =
            self.release.try_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1)).is_ok();
        !released && self.busy.load(Ordering::Acquire) <= 1
    }

    /// Declares the connection over; only the first reason counts.
    pub(crate) fn fail(&self, error: ConnectionError) {
        let error = self.lost.get_or_init(|| error).clone();
        let inboxes = std::mem::take(&mut *self.lock());
        for inbox in inboxes.into_values() {
            inbox.fail(error.clone());
        }
        self.gone.cancel();
    }

    /// Declares the connection lost for `reason`.
    pub(crate) fn lose(&self, reason: &str) {
        self.fail(ConnectionError::Lost { instance: self.instance.clone(), reason: reason.into() });
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone.is_cancelled()
    }

    /// Waits until the connection is over.
    pub(crate) async fn gone(&self) -> ConnectionError {
        self.gone.cancelled().await;
        self.lost
            .get()
            .cloned()
            .unwrap_or_else(|| ConnectionError::Closed { instance: self.instance.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<Inbox>>> {
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Opening ===

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::AcqRel);
    }
}
