//! The session channels of one instance: opened ahead, and spread over several SSH connections when one does not hold them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::dial::Dialer;
use crate::error::ConnectionError;
use crate::link::{Lane, Link, OpenError};

/// SSH connections to one instance at a time.
const MAX_LINKS: usize = 8;

/// An additional connection is closed after this time without use.
const IDLE: Duration = Duration::from_secs(30);

/// When no place is free, the server is asked again after this time: a command whose channel was closed early still counts on
/// the server until it ends, and nobody says when that is.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// How long a command waits for the session of one that has just ended before another connection is opened: the exit status
/// arrives a moment before the session is free.
const ENDING: Duration = Duration::from_secs(1);

/// The gap between attempts to get a session that should be free.
const RETRY: Duration = Duration::from_millis(20);

/// All connections to one instance.
///
/// How many sessions a connection may have (`MaxSessions` of `sshd`, 10 by default) cannot be asked. So sessions are opened
/// until the server refuses one, which teaches the limit; then another connection is opened, and when there are
/// [`MAX_LINKS`], the next command waits until a session ends.
pub(crate) struct Sessions {
    dialer: Dialer,
    /// The first connection: it carries the tunnels, and the instance counts as lost with it.
    pub(crate) primary: Arc<Link>,
    links: Mutex<Vec<Arc<Link>>>,
    pool: Mutex<Pool>,
    /// A session ended.
    freed: Arc<Notify>,
    /// Sessions that one connection may have, as far as known.
    limit: AtomicUsize,
    /// The most sessions that were open at a time on one connection: the limit is not below it.
    most: AtomicUsize,
    /// Held while an additional connection is dialled.
    extending: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Pool {
    spares: VecDeque<Lane>,
    waiting: VecDeque<oneshot::Sender<Result<Lane, ConnectionError>>>,
    /// Sessions that are being opened.
    opening: usize,
}

/// The session channels of one connection.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Open or being opened.
    taken: AtomicUsize,
    /// Taken since the connection was made.
    ever: AtomicUsize,
    /// Open.
    open: AtomicUsize,
    /// Open, but the command has ended.
    ending: AtomicUsize,
    /// The server refused one, and none ended since.
    full: AtomicBool,
}

/// A place among the sessions of a connection; free again when dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    counts: Arc<Counts>,
    freed: Arc<Notify>,
    confirmed: bool,
    ending: bool,
}

// === impl Sessions ===

impl Sessions {
    pub(crate) fn new(dialer: Dialer, primary: Link) -> Arc<Self> {
        let primary = Arc::new(primary);
        let sessions = Arc::new(Self {
            dialer,
            links: Mutex::new(vec![primary.clone()]),
            primary,
            pool: Mutex::default(),
            freed: Arc::new(Notify::new()),
            limit: AtomicUsize::new(usize::MAX),
            most: AtomicUsize::new(0),
            extending: tokio::sync::Mutex::new(()),
        });
        sessions.top_up(true);
        sessions
    }

    /// A session channel: one that was opened ahead, else a new one.
    pub(crate) async fn session(self: &Arc<Self>) -> Result<Lane, ConnectionError> {
        let opened = {
            let mut pool = self.pool();
            loop {
                match pool.spares.pop_front() {
                    Some(lane) if lane.inbox.is_closed() => {}
                    Some(lane) => break Ok(lane),
                    None => {
                        let (sender, receiver) = oneshot::channel();
                        pool.waiting.push_back(sender);
                        break Err(receiver);
                    }
                }
            }
        };
        self.top_up(true);
        match opened {
            Ok(lane) => Ok(lane),
            // The sender is dropped only with the runtime.
            Err(receiver) => receiver.await.unwrap_or_else(|_| Err(self.closed())),
        }
    }

    /// Closes all connections.
    pub(crate) async fn close(&self) {
        let links = self.links().clone();
        for link in links {
            link.close().await;
        }
    }

    /// How many connections there are.
    pub(crate) fn connections(&self) -> usize {
        self.links().len()
    }

    /// Starts opening as many sessions as are waited for and, if `ahead`, as are to be kept ready.
    fn top_up(self: &Arc<Self>, ahead: bool) {
        let mut pool = self.pool();
        let wanted = pool.waiting.len() + if ahead { self.dialer.spare_sessions() } else { 0 };
        while pool.spares.len() + pool.opening < wanted {
            pool.opening += 1;
            // In a task of its own, because an open that is dropped half-way would leave the channel open on the server.
            tokio::spawn(self.clone().open());
        }
    }

    /// Opens one session and gives it to whoever waits first, else keeps it.
    async fn open(self: Arc<Self>) {
        let opened = self.find().await;
        let mut pool = self.pool();
        pool.opening -= 1;
        match opened {
            Ok(Some(mut lane)) => {
                while let Some(waiter) = pool.waiting.pop_front() {
                    match waiter.send(Ok(lane)) {
                        Ok(()) => return,
                        Err(Ok(unwanted)) => lane = unwanted,
                        Err(Err(_)) => return,
                    }
                }
                if pool.spares.len() < self.dialer.spare_sessions() {
                    pool.spares.push_back(lane);
                }
            }
            Ok(None) => {
                drop(pool);
                // Somebody may have begun to wait in between.
                self.top_up(false);
            }
            Err(error) => {
                for waiter in pool.waiting.drain(..) {
                    let _ = waiter.send(Err(error.clone()));
                }
            }
        }
    }

    /// Opens a session on the first connection that has room; `None` if there is no room and the others that are
    /// being opened are enough for those who wait.
    async fn find(self: &Arc<Self>) -> Result<Option<Lane>, ConnectionError> {
        let mut patience = None;
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if self.primary.table.is_gone() {
                return Err(self.primary.table.gone().await);
            }
            let limit = self.limit.load(Ordering::Acquire);
            let free =
                self.links().iter().find_map(|link| Some((link.clone(), link.reserve(limit, &self.freed)?)));
            if let Some((link, slot)) = free {
                match link.open_session(slot).await {
                    Ok(lane) => {
                        self.most.fetch_max(link.counts.open.load(Ordering::Acquire), Ordering::AcqRel);
                        return Ok(Some(lane));
                    }
                    Err(OpenError::Refused(reason)) => {
                        let others = link.counts.taken.load(Ordering::Acquire);
                        let most = self.most.load(Ordering::Acquire);
                        if others == 0 && most == 0 {
                            return Err(ConnectionError::SessionRefused {
                                instance: self.dialer.instance(),
                                reason,
                            });
                        }
                        // OpenSSH may look at the request for a new session before it has cleaned up the one that ended
                        // just before.
                        let until = *patience.get_or_insert_with(|| Instant::now() + ENDING);
                        if others < most && Instant::now() < until {
                            tokio::time::sleep(RETRY).await;
                            continue;
                        }
                        link.counts.full.store(true, Ordering::Release);
                        self.limit.fetch_min(others.max(most).max(1), Ordering::AcqRel);
                    }
                    Err(OpenError::Over(error)) if Arc::ptr_eq(&link, &self.primary) => return Err(error),
                    Err(OpenError::Over(_)) => {
                        self.dismiss(&link);
                    }
                }
                continue;
            }
            if self.is_superfluous() {
                return Ok(None);
            }
            let ending = self.links().iter().any(|link| link.counts.ending.load(Ordering::Acquire) > 0);
            if ending {
                let until = *patience.get_or_insert_with(|| Instant::now() + ENDING);
                if Instant::now() < until {
                    let _ = timeout_at(until, freed).await;
                    continue;
                }
            }
            if self.extend().await {
                continue;
            }
            tokio::select! {
                () = freed => {}
                _ = self.primary.table.gone() => {}
                () = tokio::time::sleep(ASK_AGAIN) => {
                    for link in self.links().iter() {
                        link.counts.full.store(false, Ordering::Release);
                    }
                }
            }
        }
    }

    /// True if fewer wait for a session than are being opened.
    fn is_superfluous(&self) -> bool {
        let mut pool = self.pool();
        pool.waiting.retain(|waiter| !waiter.is_closed());
        pool.waiting.len() < pool.opening
    }

    /// Opens another connection; false if there may be no more of them or it failed. True also if another task was faster.
    async fn extend(self: &Arc<Self>) -> bool {
        let before = self.connections();
        let _extending = self.extending.lock().await;
        if self.connections() > before {
            return true;
        }
        if self.connections() >= MAX_LINKS {
            return false;
        }
        match self.dialer.connect().await {
            Ok(link) => {
                tracing::debug!(instance = %self.dialer.instance(), "opened another connection for more sessions");
                let link = Arc::new(link);
                self.links().push(link.clone());
                tokio::spawn(Self::retire(Arc::downgrade(self), link));
                true
            }
            Err(error) => {
                tracing::warn!(
                    instance = %self.dialer.instance(),
                    error = &error as &dyn std::error::Error,
                    "cannot open another connection for more sessions"
                );
                false
            }
        }
    }

    /// Closes an additional connection when it has been idle for a while.
    async fn retire(sessions: Weak<Self>, link: Arc<Link>) {
        loop {
            let before = link.counts.ever.load(Ordering::Acquire);
            tokio::select! { () = tokio::time::sleep(IDLE) => {}, _ = link.table.gone() => {} }
            let Some(sessions) = sessions.upgrade() else { break };
            let unused = link.counts.ever.load(Ordering::Acquire) == before;
            if (unused || link.table.is_gone()) && sessions.dismiss(&link) {
                break;
            }
        }
        link.close().await;
    }

    /// Takes a connection, and the spare sessions on it, out of use; false if it is used.
    fn dismiss(&self, link: &Arc<Link>) -> bool {
        // With both locks nobody can take a place on the connection or a spare session of it.
        let mut links = self.links();
        let mut pool = self.pool();
        let spares = pool.spares.iter().filter(|lane| Arc::ptr_eq(&lane.table, &link.table)).count();
        if link.counts.taken.load(Ordering::Acquire) > spares && !link.table.is_gone() {
            return false;
        }
        links.retain(|known| !Arc::ptr_eq(known, link));
        pool.spares.retain(|lane| !Arc::ptr_eq(&lane.table, &link.table));
        true
    }

    fn closed(&self) -> ConnectionError {
        ConnectionError::Closed { instance: self.dialer.instance() }
    }

    fn links(&self) -> MutexGuard<'_, Vec<Arc<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Sessions {
    /// The last user has gone: ends the tasks that watch the connections.
    fn drop(&mut self) {
        for link in self.links().drain(..) {
            link.table.fail(ConnectionError::Closed { instance: self.dialer.instance() });
        }
    }
}

// === impl Slot ===

impl Slot {
    /// Takes one of `limit` places if one is free.
    pub(crate) fn take(counts: &Arc<Counts>, limit: usize, freed: &Arc<Notify>) -> Option<Self> {
        if counts.full.load(Ordering::Acquire) {
            return None;
        }
        let taken = counts
            .taken
            .try_update(Ordering::AcqRel, Ordering::Acquire, |taken| (taken < limit).then_some(taken + 1));
        taken.ok()?;
        counts.ever.fetch_add(1, Ordering::AcqRel);
        Some(Self { counts: counts.clone(), freed: freed.clone(), confirmed: false, ending: false })
    }

    /// The command has ended, so the session is about to.
    pub(crate) fn end(&mut self) {
        if !std::mem::replace(&mut self.ending, true) {
            self.counts.ending.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// The server opened the session.
    pub(crate) fn confirm(&mut self) {
        if !std::mem::replace(&mut self.confirmed, true) {
            self.counts.open.fetch_add(1, Ordering::AcqRel);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.confirmed {
            self.counts.open.fetch_sub(1, Ordering::AcqRel);
        }
        if self.ending {
            self.counts.ending.fetch_sub(1, Ordering::AcqRel);
        }
        self.counts.taken.fetch_sub(1, Ordering::AcqRel);
        self.counts.full.store(false, Ordering::Release);
        self.freed.notify_waiters();
    }
}
