//! The stages of a job.

use std::fmt;

/// A stage of a job, in the order in which they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// The manager resolves secrets.
    ResolveSecrets,
    /// The executor gets the place ready.
    PrepareExecutor,
    /// First words of the environment.
    PrepareScript,
    /// Checkout.
    GetSources,
    /// Empties the project between two attempts of the checkout.
    ClearWorktree,
    /// Restores caches.
    RestoreCache,
    /// Downloads artifacts of earlier jobs.
    DownloadArtifacts,
    /// The step with this index in the payload's `steps`.
    Step(usize),
    /// `after_script`.
    AfterScript,
    /// Saves caches.
    ArchiveCache(Outcome),
    /// Uploads artifacts.
    UploadArtifacts(Outcome),
    /// Removes what must not stay.
    CleanupFileVariables,
}

/// How the job stood after its script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// No error so far.
    Success,
    /// Some stage failed.
    Failure,
}

/// Where a stage runs in executors that keep the job apart from its helper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the manager; there is no script.
    Manager,
    /// Beside the job.
    Helper,
    /// In the job's own image.
    Build,
}

/// When a stage runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runs {
    /// Whatever happened before.
    Always,
    /// If everything before it was good.
    AfterSuccess,
    /// Once, before the second attempt of [`Stage::GetSources`].
    BeforeSecondCheckout,
    /// After the steps, also when one failed or the script was cancelled; not when an earlier stage failed.
    AfterSteps,
    /// If the job stood well after its script.
    OnSuccess,
    /// If the job had failed by then.
    OnFailure,
}

/// One stage as it is about to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagePlan {
    /// Which.
    pub stage: Stage,
    /// Name of its section in the log.
    pub name: String,
    /// Its title in the log.
    pub title: String,
    /// When it runs.
    pub runs: Runs,
    /// Where it runs.
    pub place: Place,
    /// How often it is tried.
    pub attempts: u32,
}

/// `CI_JOB_STATUS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum JobStatus {
    /// Until the steps are over.
    #[default]
    Running,
    /// All steps were good.
    Success,
    /// A step failed.
    Failed,
    /// Cancelled from outside.
    Canceled,
    /// Out of time.
    TimedOut,
}

// === impl Stage ===

impl Stage {
    /// Where the stage runs.
    #[must_use]
    pub fn place(self) -> Place {
        match self {
            Self::ResolveSecrets | Self::PrepareExecutor => Place::Manager,
            Self::PrepareScript
            | Self::GetSources
            | Self::ClearWorktree
            | Self::RestoreCache
            | Self::DownloadArtifacts
            | Self::ArchiveCache(_)
            | Self::UploadArtifacts(_)
            | Self::CleanupFileVariables => Place::Helper,
            Self::Step(_) | Self::AfterScript => Place::Build,
        }
    }

    /// When the stage runs.
    #[must_use]
    pub fn runs(self) -> Runs {
        match self {
            Self::ResolveSecrets
            | Self::PrepareExecutor
            | Self::PrepareScript
            | Self::GetSources
            | Self::RestoreCache
            | Self::DownloadArtifacts
            | Self::Step(_) => Runs::AfterSuccess,
            Self::ClearWorktree => Runs::BeforeSecondCheckout,
            Self::AfterScript => Runs::AfterSteps,
            Self::ArchiveCache(Outcome::Success) | Self::UploadArtifacts(Outcome::Success) => Runs::OnSuccess,
            Self::ArchiveCache(Outcome::Failure) | Self::UploadArtifacts(Outcome::Failure) => Runs::OnFailure,
            Self::CleanupFileVariables => Runs::Always,
        }
    }

    /// Name of the stage's section; `step` is the name of the step that it runs, if it is one.
    #[must_use]
    pub fn name(self, step: &str) -> String {
        match self {
            Self::ResolveSecrets => "resolve_secrets".to_owned(),
            Self::PrepareExecutor => "prepare_executor".to_owned(),
            Self::PrepareScript => "prepare_script".to_owned(),
            Self::GetSources => "get_sources".to_owned(),
            Self::ClearWorktree => "clear_worktree".to_owned(),
            Self::RestoreCache => "restore_cache".to_owned(),
            Self::DownloadArtifacts => "download_artifacts".to_owned(),
            Self::Step(_) => format!("step_{step}"),
            Self::AfterScript => "after_script".to_owned(),
            Self::ArchiveCache(Outcome::Success) => "archive_cache".to_owned(),
            Self::ArchiveCache(Outcome::Failure) => "archive_cache_on_failure".to_owned(),
            Self::UploadArtifacts(Outcome::Success) => "upload_artifacts_on_success".to_owned(),
            Self::UploadArtifacts(Outcome::Failure) => "upload_artifacts_on_failure".to_owned(),
            Self::CleanupFileVariables => "cleanup_file_variables".to_owned(),
        }
    }

    /// Title of the stage in the log.
    #[must_use]
    pub fn title(self, step: &str, executor: &str) -> String {
        match self {
            Self::ResolveSecrets => "Resolving secrets".to_owned(),
            Self::PrepareExecutor => format!("Preparing the \"{executor}\" executor"),
            Self::PrepareScript => "Preparing environment".to_owned(),
            Self::GetSources => "Getting source from Git repository".to_owned(),
            Self::ClearWorktree => {
                "Deleting all tracked and untracked files due to source fetch failure".to_owned()
            }
            Self::RestoreCache => "Restoring cache".to_owned(),
            Self::DownloadArtifacts => "Downloading artifacts".to_owned(),
            Self::Step(_) => format!("Executing \"step_{step}\" stage of the job script"),
            Self::AfterScript => "Running after_script".to_owned(),
            Self::ArchiveCache(Outcome::Success) => "Saving cache for successful job".to_owned(),
            Self::ArchiveCache(Outcome::Failure) => "Saving cache for failed job".to_owned(),
            Self::UploadArtifacts(Outcome::Success) => "Uploading artifacts for successful job".to_owned(),
            Self::UploadArtifacts(Outcome::Failure) => "Uploading artifacts for failed job".to_owned(),
            Self::CleanupFileVariables => "Cleaning up project directory and file based variables".to_owned(),
        }
    }
}

// === impl Outcome ===

impl Outcome {
    /// Whether something with this `when` is due: `on_success` (also when empty), `on_failure`, `always`.
    pub(crate) fn wants(self, when: &str) -> bool {
        match when {
            "" | "on_success" => self == Self::Success,
            "on_failure" => self == Self::Failure,
            "always" => true,
            _ => false,
        }
    }
}

// === impl JobStatus ===

impl JobStatus {
    /// The value of `CI_JOB_STATUS`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
            Self::TimedOut => "timedout",
        }
    }
}

impl fmt::Display for JobStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
