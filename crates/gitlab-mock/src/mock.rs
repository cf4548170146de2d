//! The handle on a running mock.

use std::net::SocketAddr;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::builder::JobBuilder;
use crate::config::Config;
use crate::core::{Core, Parts};
use crate::fault::{Fault, FaultId, FaultReport};
use crate::job::{Job, Shared};
use crate::report::Summary;
use crate::repository::{GitError, Repository};
use crate::runner::Runner;
use crate::server;
use crate::storage::StorageRequest;
use crate::sync::lock;
use crate::violation::Violation;

/// A running mock. Clones are handles on the same one; it stops when the last handle is dropped.
#[derive(Debug, Clone)]
pub struct GitlabMock {
    running: Arc<Running>,
}

#[derive(Debug)]
struct Running {
    core: Arc<Core>,
    _stop: DropGuard,
    /// Keeps the repositories on disk.
    _git_root: Option<tempfile::TempDir>,
}

/// Why a mock could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The address could not be listened on.
    #[error("failed to listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The directory for repositories could not be made.
    #[error("failed to make a directory for repositories")]
    GitRoot(#[source] std::io::Error),
}

// === impl GitlabMock ===

impl GitlabMock {
    /// Starts a mock.
    ///
    /// # Errors
    ///
    /// When it cannot listen or has no directory for repositories.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let (listener, address) = listen(config.listen).await?;
        let (storage, storage_address) = listen(SocketAddr::new(config.listen.ip(), 0)).await?;
        let (git_root, keep) = match &config.git_root {
            Some(root) => {
                std::fs::create_dir_all(root).map_err(StartError::GitRoot)?;
                (root.canonicalize().map_err(StartError::GitRoot)?, None)
            }
            None => {
                let directory = tempfile::tempdir().map_err(StartError::GitRoot)?;
                (directory.path().to_owned(), Some(directory))
            }
        };
        let shared = Shared { config, started: Instant::now(), unfinished: watch::Sender::new(0) };
        let parts = Parts { shared: Arc::new(shared), address, storage_address, git_root };
        let core = Arc::new(Core::new(parts));
        let stop = CancellationToken::new();
        tokio::spawn(server::serve_gitlab(Arc::clone(&core), listener, stop.clone()));
        tokio::spawn(server::serve_storage(Arc::clone(&core), storage, stop.clone()));
        Ok(Self { running: Arc::new(Running { core, _stop: stop.drop_guard(), _git_root: keep }) })
    }

    /// The address of this GitLab, without a trailing slash: what a runner has as `url`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.running.url
    }

    /// The address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.running.address
    }

    /// Adds a runner with a token.
    pub fn add_runner(&self, token: &str) -> Runner {
        Runner { record: self.running.add_runner(token, "mock runner") }
    }

    /// The runner that has a token now.
    #[must_use]
    pub fn runner(&self, token: &str) -> Option<Runner> {
        self.running.runner_by_token(token).map(|record| Runner { record })
    }

    /// All runners, by id.
    #[must_use]
    pub fn runners(&self) -> Vec<Runner> {
        self.running.runners().into_iter().map(|record| Runner { record }).collect()
    }

    /// Removes a runner, as somebody does in the user interface: its token is refused from now on, without that being a
    /// violation.
    pub fn remove_runner(&self, runner: &Runner) {
        self.running.remove_runner(&runner.record);
    }

    /// Puts a job into the queue of a runner.
    ///
    /// # Panics
    ///
    /// When the job names a project or ref that this server does not have; see [`GitlabMock::try_enqueue`].
    #[expect(clippy::panic, reason = "a test that names a missing repository is wrong")]
    pub fn enqueue(&self, runner: &Runner, job: JobBuilder) -> Job {
        match self.try_enqueue(runner, [job]) {
            Ok(mut jobs) if jobs.len() == 1 => jobs.remove(0),
            Ok(jobs) => panic!("one job became {}", jobs.len()),
            Err(error) => panic!("failed to enqueue a job: {error}"),
        }
    }

    /// Puts jobs into the queue of a runner, waking it once.
    ///
    /// # Errors
    ///
    /// When a job names a project or ref that this server does not have.
    pub fn try_enqueue(
        &self,
        runner: &Runner,
        jobs: impl IntoIterator<Item = JobBuilder>,
    ) -> Result<Vec<Job>, GitError> {
        let records = self.running.enqueue(&runner.record, jobs.into_iter().map(Arc::new))?;
        Ok(records.into_iter().map(|record| Job { record }).collect())
    }

    /// Puts `count` jobs of one kind into the queue of a runner, waking it once. They share the description.
    ///
    /// # Errors
    ///
    /// When the job names a project or ref that this server does not have.
    pub fn enqueue_many(&self, runner: &Runner, job: JobBuilder, count: usize) -> Result<Vec<Job>, GitError> {
        let records = self.running.enqueue(&runner.record, std::iter::repeat_n(Arc::new(job), count))?;
        Ok(records.into_iter().map(|record| Job { record }).collect())
    }

    /// A job by its id.
    #[must_use]
    pub fn job(&self, id: u64) -> Option<Job> {
        self.running.job(id).map(|record| Job { record })
    }

    /// All jobs, by id.
    #[must_use]
    pub fn jobs(&self) -> Vec<Job> {
        self.running.jobs().into_iter().map(|record| Job { record }).collect()
    }

    /// Jobs without a final state.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        *self.running.shared.unfinished.borrow()
    }

    /// Waits until every job has its final state. False when that does not happen within `timeout`.
    pub async fn all_finished(&self, timeout: Duration) -> bool {
        let mut unfinished = self.running.shared.unfinished.subscribe();
        tokio::time::timeout(timeout, unfinished.wait_for(|&count| count == 0)).await.is_ok()
    }

    /// Makes an empty repository for a project (`namespace/project`).
    ///
    /// # Errors
    ///
    /// When the path is none or git fails.
    pub async fn create_repository(&self, project: &str) -> Result<Repository, GitError> {
        self.running.create_repository(project, None).await
    }

    /// Copies an existing repository, bare or with a work tree, into a project (`namespace/project`).
    ///
    /// # Errors
    ///
    /// When the path is none or git fails.
    pub async fn import_repository(&self, project: &str, source: &Path) -> Result<Repository, GitError> {
        self.running.create_repository(project, Some(source)).await
    }

    /// Every breach of the protocol so far.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        self.running.violations.all()
    }

    /// Every breach of the protocol so far, which are then forgotten.
    #[must_use]
    pub fn take_violations(&self) -> Vec<Violation> {
        self.running.violations.take()
    }

    /// Fails a test when there is a violation.
    ///
    /// # Panics
    ///
    /// When there is one; the text names them all.
    #[track_caller]
    pub fn assert_no_violations(&self) {
        let violations = self.violations();
        let listing: Vec<String> = violations.iter().map(|violation| format!("  {violation}")).collect();
        assert!(violations.is_empty(), "{} protocol violations:\n{}", listing.len(), listing.join("\n"));
    }

    /// Lets a fault befall calls from now on.
    pub fn inject(&self, fault: Fault) -> FaultId {
        self.running.faults.add(fault, Instant::now())
    }

    /// Ends a fault. False when it had been ended before.
    pub fn remove_fault(&self, id: FaultId) -> bool {
        self.running.faults.remove(id)
    }

    /// Ends all faults.
    pub fn clear_faults(&self) {
        self.running.faults.clear();
    }

    /// All faults and how many calls they hit.
    #[must_use]
    pub fn faults(&self) -> Vec<FaultReport> {
        self.running.faults.report(Instant::now())
    }

    /// Closes the port and breaks every connection. Returns when connections are refused.
    pub async fn refuse_connections(&self) {
        self.running.gate.close().await;
    }

    /// Opens the port again. Returns when connections are accepted.
    pub async fn accept_connections(&self) {
        self.running.gate.open().await;
    }

    /// Changes `X-GitLab-Trace-Update-Interval`; whole seconds, `None` leaves the header out.
    pub fn set_trace_interval(&self, interval: Option<Duration>) {
        self.running.set_trace_interval(interval);
    }

    /// Requests that reached the object storage.
    #[must_use]
    pub fn storage_requests(&self) -> Vec<StorageRequest> {
        lock(&self.running.storage_requests).clone()
    }

    /// Figures over all jobs.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary::of(&self.running)
    }
}

// === impl Running ===

impl Deref for Running {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.core
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}
