//! The stores.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, Utc};
use redb::Database;
use taskscaler::core::{InstanceId, InstanceRecord, Ledger, LedgerChanges};
use taskscaler::{LedgerStore, StoreError};

use crate::database::{self, Fault, Held, MIGRATIONS, Migration};
use crate::journal::{self, Journal};
use crate::place::{GroupLock, PATIENCE, PAUSE, Place};

/// How long changes may stay in the journal only.
const CHECKPOINT: Duration = Duration::from_secs(1);

/// Keeps the ledger of one runner entry in a folder.
#[derive(Debug)]
pub struct DurableStore {
    folder: PathBuf,
    runner: String,
    migrations: &'static [Migration],
    /// Without files the scaler works on, as if it had just been installed.
    optional: bool,
    closed: AtomicBool,
    open: Mutex<Option<Open>>,
}

/// Keeps nothing, and drops what was kept: with `state_storage` switched off the records grow old, and must not be
/// believed when it is switched on again.
#[derive(Debug)]
pub struct ForgettingStore {
    folder: PathBuf,
    runner: String,
    group: Mutex<Option<GroupLock>>,
}

/// The files in use, and the thread that brings the journal into the database.
#[derive(Debug)]
struct Open {
    desk: Arc<Desk>,
    thread: Option<JoinHandle<()>>,
    /// Keeps other scalers away from the group.
    _group: GroupLock,
}

/// What the scaler and the thread share.
#[derive(Debug)]
struct Desk {
    place: Place,
    runner: String,
    version: u32,
    state: Mutex<State>,
    ring: Condvar,
}

#[derive(Debug)]
struct State {
    journal: Option<Journal>,
    generation: u64,
    /// What the database lacks, in the order of the changes.
    since: Merged,
    closing: bool,
}

/// Changes one after the other, as one.
#[derive(Debug, Default)]
struct Merged {
    /// `None` for records to drop.
    instances: BTreeMap<InstanceId, Option<InstanceRecord>>,
    requests: Option<Vec<DateTime<Utc>>>,
}

// === impl DurableStore ===

impl DurableStore {
    /// A store in `folder` for the runner entry of this name. Nothing is opened before [`load`](LedgerStore::load).
    #[must_use]
    pub fn new(folder: &Path, runner: &str) -> Self {
        Self {
            folder: folder.to_owned(),
            runner: runner.to_owned(),
            migrations: MIGRATIONS,
            optional: false,
            closed: AtomicBool::new(false),
            open: Mutex::new(None),
        }
    }

    /// Where files cannot be made, nothing is kept and that is said; [`load`](LedgerStore::load) does not fail then.
    #[must_use]
    pub fn optional(self) -> Self {
        Self { optional: true, ..self }
    }

    fn open(&self, group: &str) -> Result<(Open, Ledger), StoreError> {
        let place = Place::new(&self.folder, &self.runner, group);
        let taken = GroupLock::take(&self.folder, group, &self.runner)
            .map_err(|error| io("taking the group of", &place.database(), error))?;
        let lock = taken.map_err(|holder| in_use(&place, group, holder, &self.runner))?;
        let opened = match self.try_open(&place, group) {
            Err(Fault::Damaged(why)) => {
                self.set_aside(&place, &why)
                    .map_err(|error| io("setting aside the damaged", &place.database(), error))?;
                self.try_open(&place, group)
            }
            other => other,
        };
        let (desk, thread, ledger) = opened.map_err(|fault| self.error(&place, fault))?;
        Ok((Open { desk, thread: Some(thread), _group: lock }, ledger))
    }

    fn try_open(&self, place: &Place, group: &str) -> Result<(Arc<Desk>, JoinHandle<()>, Ledger), Fault> {
        let version = 1 + u32::try_from(self.migrations.len()).unwrap_or(u32::MAX - 1);
        let (database, held) = self.open_database(place, group)?;
        let Held { mut ledger, generation } = held;
        let disk = |error: std::io::Error| Fault::Disk(redb::Error::Io(error));
        let mut replayed = Merged::default();
        let mut last = generation;
        let journals = place.journals().map_err(disk)?;
        for (number, path) in &journals {
            last = last.max(*number);
            if *number <= generation {
                continue;
            }
            let read = journal::read(&fs::read(path).map_err(disk)?);
            match read.version {
                Some(found) if found > version => return Err(Fault::Newer { found }),
                Some(_) | None => {}
            }
            if read.damaged > 0 {
                tracing::warn!(path = %path.display(), bytes = read.damaged,
                    "the end of the scaler's journal is damaged: its last moments are lost");
            }
            for changes in read.changes {
                ledger.apply(changes.clone());
                replayed.add(changes);
            }
        }
        // All that is known is on disk before anything new is added.
        database::checkpoint(&database, &replayed.take(), last)?;
        for (_, path) in journals {
            fs::remove_file(path).map_err(disk)?;
        }
        let generation = last + 1;
        let journal = Journal::create(&place.journal(generation), version).map_err(disk)?;
        let desk = Arc::new(Desk {
            place: place.clone(),
            runner: self.runner.clone(),
            version,
            state: Mutex::new(State {
                journal: Some(journal),
                generation,
                since: Merged::default(),
                closing: false,
            }),
            ring: Condvar::new(),
        });
        let thread = std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn({
                let desk = Arc::clone(&desk);
                move || desk.keep(&database)
            })
            .map_err(disk)?;
        Ok((desk, thread, ledger))
    }

    /// Whoever has the group has the database to itself: if that is still locked, then by children of a dead process that have
    /// not yet executed their program.
    fn open_database(&self, place: &Place, group: &str) -> Result<(Database, Held), Fault> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match database::open(&place.database(), group, self.migrations) {
                Err(Fault::InUse) if Instant::now() < deadline => std::thread::sleep(PAUSE),
                done => return done,
            }
        }
    }

    /// Moves files that cannot be understood out of the way.
    fn set_aside(&self, place: &Place, why: &str) -> std::io::Result<()> {
        let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let aside = |path: &Path| -> std::io::Result<()> {
            let mut name = path.as_os_str().to_owned();
            name.push(format!(".damaged-{seconds}"));
            match fs::rename(path, &name) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                done => done,
            }
        };
        let database = place.database();
        aside(&database)?;
        for (_, path) in place.journals()? {
            aside(&path)?;
        }
        tracing::error!(runner = %self.runner, path = %database.display(), %why,
            "the scaler's ledger is damaged and was set aside: instances found in the group are removed, not used");
        Ok(())
    }

    fn error(&self, place: &Place, fault: Fault) -> StoreError {
        let path = place.database();
        match fault {
            Fault::InUse => StoreError::InUse { path, runner: self.runner.clone() },
            Fault::Newer { found } => {
                let known = 1 + u32::try_from(self.migrations.len()).unwrap_or(u32::MAX - 1);
                StoreError::Newer { path, found, known }
            }
            Fault::Damaged(why) => io("reading", &path, std::io::Error::other(why)),
            Fault::Disk(error) => io("opening", &path, error),
        }
    }
}

impl LedgerStore for DurableStore {
    fn load(&self, group: &str) -> Result<Ledger, StoreError> {
        match self.open(group) {
            Ok((open, ledger)) => {
                *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(open);
                Ok(ledger)
            }
            Err(error @ StoreError::Io { .. }) if self.optional => {
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                tracing::warn!(runner = %self.runner, %error, %cause,
                    "nothing is kept for a restart: instances found at the next start will be removed; \
                     set [runners.autoscaler.state_storage] dir to a folder that can be written to");
                Ok(Ledger::default())
            }
            Err(error) => Err(error),
        }
    }

    fn save(&self, changes: &LedgerChanges) -> Result<(), StoreError> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        match open.as_ref() {
            Some(open) => open.desk.save(changes),
            None if self.optional || self.closed.load(Ordering::Relaxed) => Ok(()),
            None => Err(io("writing", &self.folder, std::io::Error::other("the ledger was not loaded"))),
        }
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(open);
    }
}

// === impl ForgettingStore ===

impl ForgettingStore {
    /// A store that drops what a [`DurableStore`] of the same names kept.
    #[must_use]
    pub fn new(folder: &Path, runner: &str) -> Self {
        Self { folder: folder.to_owned(), runner: runner.to_owned(), group: Mutex::new(None) }
    }
}

impl LedgerStore for ForgettingStore {
    fn load(&self, group: &str) -> Result<Ledger, StoreError> {
        let place = Place::new(&self.folder, &self.runner, group);
        match GroupLock::take(&self.folder, group, &self.runner) {
            Ok(Ok(lock)) => *self.group.lock().unwrap_or_else(PoisonError::into_inner) = Some(lock),
            Ok(Err(holder)) => return Err(in_use(&place, group, holder, &self.runner)),
            // Who keeps nothing needs no folder.
            Err(error) => tracing::debug!(runner = %self.runner, %error, "the instance group is not locked"),
        }
        let journals = place.journals().unwrap_or_default().into_iter().map(|(_, path)| path);
        for path in journals.chain([place.database()]) {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(io("dropping", &path, error));
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(Ledger::default())
    }

    fn save(&self, _: &LedgerChanges) -> Result<(), StoreError> {
        Ok(())
    }

    fn close(&self) {
        drop(self.group.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

// === impl Open ===

impl Drop for Open {
    /// Waits until everything is on disk and the files are free for a successor.
    fn drop(&mut self) {
        self.desk.state().closing = true;
        self.desk.ring.notify_one();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so; the journal has what it did not do.
            let _ = thread.join();
        }
    }
}

// === impl Desk ===

impl Desk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn save(&self, changes: &LedgerChanges) -> Result<(), StoreError> {
        let mut state = self.state();
        let written = match state.journal.as_mut() {
            Some(journal) => journal.append(changes),
            None => {
                let begun = Journal::create(&self.place.journal(state.generation), self.version);
                begun.and_then(|journal| state.journal.insert(journal).append(changes))
            }
        };
        // What the journal did not take still reaches the database with the next checkpoint.
        let quiet = state.since.is_empty();
        state.since.add(changes.clone());
        let path = self.place.journal(state.generation);
        drop(state);
        if quiet {
            self.ring.notify_one();
        }
        written.map_err(|error| io("writing", &path, error))
    }

    /// Brings changes into the database, a while after the first of them.
    fn keep(&self, database: &Database) {
        let mut failing = false;
        loop {
            let mut state = self.state();
            while state.since.is_empty() && !state.closing {
                state = self.ring.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if !state.closing {
                let waited = self.ring.wait_timeout_while(state, CHECKPOINT, |state| !state.closing);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            let closing = state.closing;
            let changes = state.since.take();
            let full = state.generation;
            // Without a journal the next change begins one.
            let next = Journal::create(&self.place.journal(full + 1), self.version);
            state.generation = full + 1;
            state.journal = next.ok();
            drop(state);
            match database::checkpoint(database, &changes, full) {
                Ok(()) => {
                    if failing {
                        tracing::info!(runner = %self.runner, "the scaler's ledger is kept again");
                    }
                    failing = false;
                    // A journal that stays is older than the database, which says so: it is not read again.
                    for (number, path) in self.place.journals().unwrap_or_default() {
                        if number <= full {
                            let _ = fs::remove_file(path);
                        }
                    }
                }
                Err(fault) => {
                    if !failing {
                        tracing::error!(runner = %self.runner, path = %self.place.database().display(), ?fault,
                            "failed to keep the scaler's ledger: its journal grows until that works again");
                    }
                    failing = true;
                    let mut state = self.state();
                    let later = std::mem::take(&mut state.since);
                    state.since.add(changes);
                    state.since.add_all(later);
                }
            }
            if closing {
                return;
            }
        }
    }
}

// === impl Merged ===

impl Merged {
    fn is_empty(&self) -> bool {
        self.instances.is_empty() && self.requests.is_none()
    }

    fn add(&mut self, changes: LedgerChanges) {
        self.instances.extend(changes.removals.into_iter().map(|id| (id, None)));
        self.instances.extend(changes.upserts.into_iter().map(|(id, record)| (id, Some(record))));
        self.requests = changes.requests.or(self.requests.take());
    }

    fn add_all(&mut self, later: Self) {
        self.instances.extend(later.instances);
        self.requests = later.requests.or(self.requests.take());
    }

    fn take(&mut self) -> LedgerChanges {
        let Self { instances, requests } = std::mem::take(self);
        let mut changes = LedgerChanges { requests, ..LedgerChanges::default() };
        for (id, record) in instances {
            match record {
                Some(record) => changes.upserts.push((id, record)),
                None => changes.removals.push(id),
            }
        }
        changes
    }
}

// === helpers ===

/// Somebody has the group: the same entry in another process, or another entry.
fn in_use(place: &Place, group: &str, holder: String, runner: &str) -> StoreError {
    let runner = runner.to_owned();
    if holder == runner {
        return StoreError::InUse { path: place.database(), runner };
    }
    StoreError::GroupInUse { group: group.to_owned(), holder, runner }
}

fn io(doing: &str, path: &Path, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::Io { doing: format!("{doing} the ledger `{}`", path.display()), source: source.into() }
}
