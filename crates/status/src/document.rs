//! Everything that a manager says of itself.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::diary::Moment;
use crate::scaling::Scaling;

/// Version of the document. Fields may be added under the same version; what changes its meaning or goes makes another one.
pub const VERSION: u32 = 1;

/// Everything that a manager says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// [`VERSION`].
    pub version: u32,
    /// When it was made.
    pub at: DateTime<Utc>,
    /// The process.
    pub manager: ManagerStatus,
    /// Its runner entries, in the order of the file as far as it is known.
    pub runners: Vec<RunnerStatus>,
}

/// The process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagerStatus {
    /// Name of the program.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its source revision.
    pub revision: String,
    /// Identity of this manager at GitLab.
    pub system_id: String,
    /// The process.
    pub pid: u32,
    /// When it started.
    pub started: DateTime<Utc>,
    /// How far it has come: `starting`, `running`, `graceful-shutdown`, `forceful-shutdown`.
    pub phase: String,
    /// Most jobs at the same time.
    pub concurrent: u32,
    /// Jobs that run or wait for a place now.
    pub jobs: u32,
}

/// One runner entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunnerStatus {
    /// Its name.
    pub name: String,
    /// The part of its token that may be shown.
    pub short_token: String,
    /// Its executor.
    pub executor: String,
    /// Whether it takes jobs.
    pub state: EntryState,
    /// Why it takes none; empty if it does.
    pub why: String,
    /// GitLab does not refuse it.
    pub healthy: bool,
    /// Most jobs at the same time; 0 is no limit but the manager's.
    pub limit: u32,
    /// Requests for jobs under way.
    pub requests: u32,
    /// Most requests at the same time.
    pub requests_limit: u32,
    /// Why GitLab is not asked for another job now, although the limits would allow one; empty if it is asked.
    #[serde(default)]
    pub no_room: String,
    /// Its jobs, by id.
    pub jobs: Vec<JobStatus>,
    /// What failed lately beside its scaler, oldest first.
    pub errors: Vec<Moment>,
    /// Its scaler, if it has one.
    pub scaling: Option<Scaling>,
}

/// Whether a runner entry takes jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryState {
    /// It comes to work.
    Starting,
    /// It takes jobs.
    Working,
    /// It cannot work yet and is tried again.
    Retrying,
    /// It cannot work as it is configured.
    Refused,
    /// It is no longer in the file; its jobs run to their end.
    Removed,
    /// A state that this version does not know.
    #[serde(other)]
    Unknown,
}

/// One job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStatus {
    /// Its id.
    pub job: u64,
    /// Where GitLab shows it; empty if it did not say.
    pub url: String,
    /// Where it runs; empty while it has no place.
    pub place: String,
    /// The stage that it is in; empty while it has no place.
    pub stage: String,
    /// When it was received.
    pub since: DateTime<Utc>,
    /// When its stage began.
    pub stage_since: DateTime<Utc>,
}

// === impl EntryState ===

impl EntryState {
    /// The state in words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "comes to work",
            Self::Working => "takes jobs",
            Self::Retrying => "cannot work yet and is tried again",
            Self::Refused => "takes no jobs",
            Self::Removed => "removed from the file; its jobs run to their end",
            Self::Unknown => "in a state that this version does not know",
        }
    }
}

// === impl JobStatus ===

impl JobStatus {
    /// It has no place yet.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.place.is_empty() && self.stage.is_empty()
    }
}
