//! A runner on the server: its token, its managers, its queue.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde::Serialize;
use tokio::sync::watch;

use crate::job::JobRecord;
use crate::sync::lock;

/// A runner of the mock. Clones are handles on the same runner.
#[derive(Debug, Clone)]
pub struct Runner {
    pub(crate) record: Arc<RunnerRecord>,
}

/// What is known of a runner at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct RunnerView {
    /// Runner id.
    pub id: u64,
    /// Its description.
    pub description: String,
    /// Whether it is paused.
    pub paused: bool,
    /// Jobs in its queue.
    pub queued: usize,
    /// Requests that are held at this moment.
    pub held: u64,
    /// What it did so far.
    pub calls: RunnerCalls,
    /// Managers by system id.
    pub managers: BTreeMap<String, ManagerView>,
}

/// How often a runner asked for jobs, and what came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct RunnerCalls {
    /// Requests for a job that were let in.
    pub requests: u64,
    /// Requests that were held.
    pub held: u64,
    /// Requests that got a job.
    pub jobs: u64,
    /// Requests that got none.
    pub empty: u64,
}

/// One manager of a runner, as it described itself last.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ManagerView {
    /// `info.name`.
    pub name: String,
    /// `info.version`.
    pub version: String,
    /// `info.platform`.
    pub platform: String,
    /// `info.architecture`.
    pub architecture: String,
    /// `info.executor`.
    pub executor: String,
    /// Names of the features that it announced as true.
    pub features: BTreeSet<String>,
}

#[derive(Debug)]
pub(crate) struct RunnerRecord {
    pub(crate) id: u64,
    pub(crate) description: String,
    token: Mutex<String>,
    paused: AtomicBool,
    queue: Mutex<VecDeque<Arc<JobRecord>>>,
    /// Version of the queue; its text is the value of `X-GitLab-Last-Update`.
    cursor: watch::Sender<u64>,
    /// Makes cursors of different runners and runs different.
    nonce: u64,
    managers: Mutex<BTreeMap<String, ManagerView>>,
    requests: AtomicU64,
    held: AtomicU64,
    held_now: AtomicU64,
    jobs: AtomicU64,
    empty: AtomicU64,
}

/// A request that is held, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Held<'a>(&'a RunnerRecord);

// === impl Runner ===

impl Runner {
    /// Runner id.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.record.id
    }

    /// The token that it has now; a reset changes it.
    #[must_use]
    pub fn token(&self) -> String {
        self.record.token()
    }

    /// Stops giving it jobs.
    pub fn pause(&self) {
        self.record.set_paused(true);
    }

    /// Gives it jobs again.
    pub fn resume(&self) {
        self.record.set_paused(false);
    }

    /// Ends held requests as if the queue had changed.
    pub fn tick(&self) {
        self.record.tick();
    }

    /// What is known of it now.
    #[must_use]
    pub fn view(&self) -> RunnerView {
        self.record.view()
    }
}

// === impl RunnerRecord ===

impl RunnerRecord {
    pub(crate) fn new(id: u64, token: String, description: String) -> Self {
        Self {
            id,
            description,
            token: Mutex::new(token),
            paused: AtomicBool::new(false),
            queue: Mutex::default(),
            cursor: watch::Sender::new(1),
            nonce: rand::random(),
            managers: Mutex::default(),
            requests: AtomicU64::new(0),
            held: AtomicU64::new(0),
            held_now: AtomicU64::new(0),
            jobs: AtomicU64::new(0),
            empty: AtomicU64::new(0),
        }
    }

    pub(crate) fn token(&self) -> String {
        lock(&self.token).clone()
    }

    pub(crate) fn replace_token(&self, token: String) {
        *lock(&self.token) = token;
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }

    fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::Release);
        self.tick();
    }

    /// Appends jobs to the queue; held requests are woken once.
    pub(crate) fn push(&self, jobs: impl IntoIterator<Item = Arc<JobRecord>>) {
        lock(&self.queue).extend(jobs);
        self.tick();
    }

    /// The oldest job, and how many were in the queue.
    pub(crate) fn pop(&self) -> Option<(Arc<JobRecord>, usize)> {
        let mut queue = lock(&self.queue);
        let size = queue.len();
        queue.pop_front().map(|job| (job, size))
    }

    pub(crate) fn tick(&self) {
        self.cursor.send_modify(|version| *version += 1);
    }

    pub(crate) fn cursor(&self) -> String {
        format!("{:016x}.{}", self.nonce, *self.cursor.borrow())
    }

    /// A receiver that sees every change after the cursor that is returned with it.
    pub(crate) fn watch(&self) -> (String, watch::Receiver<u64>) {
        let mut changes = self.cursor.subscribe();
        let version = *changes.borrow_and_update();
        (format!("{:016x}.{version}", self.nonce), changes)
    }

    pub(crate) fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_answer(&self, with_job: bool) {
        let counter = if with_job { &self.jobs } else { &self.empty };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn hold(&self) -> Held<'_> {
        self.held.fetch_add(1, Ordering::Relaxed);
        self.held_now.fetch_add(1, Ordering::Relaxed);
        Held(self)
    }

    pub(crate) fn meet_manager(&self, system_id: &str, manager: ManagerView) {
        lock(&self.managers).insert(system_id.to_owned(), manager);
    }

    pub(crate) fn forget_manager(&self, system_id: &str) -> bool {
        lock(&self.managers).remove(system_id).is_some()
    }

    pub(crate) fn view(&self) -> RunnerView {
        RunnerView {
            id: self.id,
            description: self.description.clone(),
            paused: self.is_paused(),
            queued: lock(&self.queue).len(),
            held: self.held_now.load(Ordering::Relaxed),
            calls: RunnerCalls {
                requests: self.requests.load(Ordering::Relaxed),
                held: self.held.load(Ordering::Relaxed),
                jobs: self.jobs.load(Ordering::Relaxed),
                empty: self.empty.load(Ordering::Relaxed),
            },
            managers: lock(&self.managers).clone(),
        }
    }
}

// === impl Held ===

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.held_now.fetch_sub(1, Ordering::Relaxed);
    }
}
