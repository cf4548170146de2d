//! Who hears what concerns one runner entry.

use std::sync::Arc;
use std::time::Duration;

use config::Runner;

/// The observers of one runner entry. They are let go of when the entry is, after its last job.
#[derive(Clone)]
pub struct RunnerWatch {
    /// Turns, requests and jobs.
    pub entry: Arc<dyn EntryObserver>,
    /// Calls to GitLab; [`ManagerOptions::api_observer`](crate::ManagerOptions) without one.
    pub api: Option<Arc<dyn gitlab_api::Observer>>,
    /// Logs; [`ManagerOptions::log_observer`](crate::ManagerOptions) without one.
    pub log: Option<Arc<dyn trace::Observer>>,
    /// The scaler, where there is one.
    pub scaler: Option<Arc<dyn taskscaler::ScalerObserver>>,
}

/// Hears what one runner entry does. Implementations must not block; everything has a default that does nothing.
pub trait EntryObserver: Send + Sync + 'static {
    /// Another version of the entry is in force, without a restart.
    fn changed(&self, _runner: &Runner) {}
    /// The entry had its turn: it was looked whether a job can be asked for.
    fn turn(&self) {}
    /// It cannot be asked for: the entry does not work, or GitLab refuses its runner.
    fn passed_over(&self) {}
    /// The executor had no room.
    fn no_room(&self) {}
    /// Requests under way and what bounds them.
    fn requests(&self, _requests: &Requests) {}
    /// `request_concurrency` is all that keeps another request from being made.
    fn requests_exhausted(&self) {}
    /// GitLab has refused the runner so often that it is left alone for a while.
    fn turned_unhealthy(&self) {}
    /// A job was received.
    fn job_received(&self, _job: &JobIntake<'_>) {}
    /// A job was received that cannot be read.
    fn job_unreadable(&self) {}
    /// A stage of a job is over. Told for jobs that ask for it with `FF_EXPORT_HIGH_CARDINALITY_METRICS`.
    fn stage_ended(&self, _stage: &str, _duration: Duration) {}
    /// A job was stopped because this was announced for its instance. It is over; that is told too.
    fn job_ended_early(&self, _kind: taskscaler::DoomKind) {}
    /// A job is over: `failure` is the runner's word for why, none for success.
    fn job_ended(&self, _failure: Option<&str>, _duration: Duration) {}
}

/// Requests for jobs of one runner.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Requests {
    /// Under way.
    pub in_flight: usize,
    /// `request_concurrency`.
    pub hard_limit: usize,
    /// What GitLab's answers suggest, between 1 and the hard limit.
    pub adaptive_limit: f64,
    /// The limit in force.
    pub used_limit: usize,
    /// GitLab does not refuse the runner.
    pub healthy: bool,
}

/// What GitLab says of a job and its queue.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JobIntake<'a> {
    /// Its id.
    pub job: u64,
    /// Its time in the queue.
    pub queued: Duration,
    /// Running jobs of its project on instance runners, as text: a number, or one with `+`.
    pub project_jobs_running: &'a str,
    /// Jobs in the queue.
    pub queue_size: i64,
    /// Jobs in the queue that were looked at for this one.
    pub queue_depth: i64,
}

/// How far a manager has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Phase {
    /// No job is asked for yet.
    #[default]
    Starting,
    /// Jobs are asked for.
    Running,
    /// Running jobs end in their own time.
    GracefulShutdown,
    /// Running jobs are stopped.
    ForcefulShutdown,
}

/// Hears and says nothing.
struct Nobody;

impl EntryObserver for Nobody {}

// === impl RunnerWatch ===

impl Default for RunnerWatch {
    fn default() -> Self {
        Self { entry: Arc::new(Nobody), api: None, log: None, scaler: None }
    }
}

// === impl Phase ===

impl Phase {
    /// All of them, in their order.
    pub const ALL: [Self; 4] =
        [Self::Starting, Self::Running, Self::GracefulShutdown, Self::ForcefulShutdown];

    /// GitLab Runner's word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::GracefulShutdown => "graceful-shutdown",
            Self::ForcefulShutdown => "forceful-shutdown",
        }
    }
}
