//! What an executor is: it claims room for a job before GitLab is asked, and opens the environment that the job runs in.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gitlab_api::Features;
use tokio::sync::watch;
use trace::JobLog;

use crate::Environment;

/// Runs the jobs of one runner entry.
#[async_trait]
pub trait Executor: Send + Sync + 'static {
    /// The name in `config.toml`, for example `instance`.
    fn kind(&self) -> &'static str;

    /// What GitLab is told that jobs may ask for.
    fn features(&self) -> Features;

    /// Claims room for one job. Called before GitLab is asked, so that no job is taken that has nowhere to run.
    ///
    /// # Errors
    /// [`NoRoom`]: ask again when [`capacity`](Self::capacity) changes.
    fn reserve(&self) -> Result<Box<dyn Reservation>, NoRoom>;

    /// Changes whenever a refused reservation may succeed. The value has no meaning.
    fn capacity(&self) -> watch::Receiver<u64>;

    /// Opens the environment of a job in the room that was claimed. Failures that may pass are retried inside, on another
    /// instance where there is one, until `request.deadline`.
    ///
    /// # Errors
    /// [`PrepareError`]: the job cannot run.
    async fn prepare(
        &self,
        reservation: Box<dyn Reservation>,
        request: &PrepareRequest<'_>,
        log: &JobLog,
    ) -> Result<Box<dyn Environment>, PrepareError>;

    /// How long before the end of its instance is near the script of a job is stopped, so that what it leaves can be saved. For
    /// executors whose instances can be taken away.
    fn time_to_save(&self) -> Duration {
        Duration::ZERO
    }

    /// The newest scaling decision, for executors that scale.
    fn report(&self) -> Option<watch::Receiver<Option<Arc<taskscaler::Report>>>> {
        None
    }

    /// One line for each instance, for executors that have instances.
    fn instances(&self) -> Vec<taskscaler::InstanceLine> {
        Vec::new()
    }

    /// The state of the scaler, for people and programs, for executors that scale.
    fn scaling(&self) -> Option<status::Scaling> {
        None
    }

    /// Puts a changed runner entry in force, as far as that is possible without a restart.
    fn configure(&self, runner: &config::Runner) {
        let _ = runner;
    }

    /// Ends the executor after its last job. Returns what is left behind, for people; empty is good.
    async fn shutdown(&self) -> Vec<String>;
}

/// Room for one job, not yet used. Dropping it gives the room back.
pub trait Reservation: Send + Sync + fmt::Debug {
    /// For the executor that made it.
    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any + Send>;
}

/// What an executor needs to know of a job to open its environment.
#[derive(Debug, Clone, Copy)]
pub struct PrepareRequest<'a> {
    /// For logs.
    pub job: u64,
    /// When the preparation must be over.
    pub timeout: Duration,
    /// The job in its place: variables, folders, stages, image and services.
    pub context: &'a job::Context,
}

/// There is no room for a job now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no room for a job: {0}")]
pub struct NoRoom(pub String);

/// Why a job has no environment.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The configuration or the job asks for something impossible. Retrying does not help.
    #[error("{0}")]
    Configuration(String),
    /// An image cannot be pulled.
    #[error("{0}")]
    ImagePull(String),
    /// Something outside, such as a registry, does not answer.
    #[error("{0}")]
    ExternalDependency(String),
    /// No environment came up in time, or none that works.
    #[error("{0}")]
    System(String),
    /// The time for the preparation is over.
    #[error("prepare timeout: exceeded timeout of {}", go_duration::format(*.0))]
    TimedOut(Duration),
}
