//! Where the stages of one job run.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use session::Terminals;

use crate::Foreseen;

/// The place of one job: an instance's slot, a set of containers.
///
/// A stage is started, then awaited, by a handle that can be written down: a later implementation can find the stage again
/// over another connection, or after a restart of the manager, without a change to its callers.
#[async_trait]
pub trait Environment: Send + Sync {
    /// Where this is, for log lines: ``instance `i-1` ``.
    fn place(&self) -> &str;

    /// The helper that jobs use here, where the place knows; else the one that the runner's facts name.
    fn helper(&self) -> Option<&job::Helper> {
        None
    }

    /// Variables that the place adds to the job's, each with its name and value.
    fn variables(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Starts a stage: `command` is run with `script` on its standard input.
    ///
    /// # Errors
    /// [`EnvironmentError`]: nothing runs.
    async fn start(&self, stage: &str, command: &str, script: Bytes)
    -> Result<StageHandle, EnvironmentError>;

    /// Reads what a stage says, from this many bytes of its output on.
    ///
    /// # Errors
    /// [`EnvironmentError::NotResumable`] where output that was read once cannot be read again.
    async fn attach(
        &self,
        handle: &StageHandle,
        from_offset: u64,
    ) -> Result<Box<dyn StageOutput>, EnvironmentError>;

    /// Completes when the place is lost, with the reason for people.
    async fn lost(&self) -> String;

    /// What is announced about the end of the place's instance; none if there is no instance, or nobody would know.
    fn foreseen(&self) -> Option<Foreseen> {
        None
    }

    /// What opens terminals here, with `directory` as their working directory; none if this place has no terminals.
    fn terminals(&self, directory: &str) -> Option<Arc<dyn Terminals>> {
        let _ = directory;
        None
    }

    /// Gives the place back. `healthy` is false if the place itself failed, so that no other job meets it.
    async fn close(self: Box<Self>, healthy: bool);
}

/// The output of one running stage.
#[async_trait]
pub trait StageOutput: Send {
    /// The next piece. What is not read is not sent either: the stage waits.
    ///
    /// # Errors
    /// [`EnvironmentError`]: the stage's fate is unknown.
    async fn next(&mut self) -> Result<StageEvent, EnvironmentError>;

    /// Asks the stage to end (`TERM`), or makes it end.
    async fn stop(&mut self, how: Stop);
}

/// Names a stage that was started. Can be stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageHandle {
    /// Stage name, for example `step_script`.
    pub stage: String,
    /// The environment's own name for it.
    pub id: String,
}

/// A piece of a stage's output, or its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StageEvent {
    /// Standard output.
    Stdout(Bytes),
    /// Standard error.
    Stderr(Bytes),
    /// The stage ended with this status; 128 + n after signal n.
    Exited(i32),
}

/// How a stage is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// A signal that it can handle.
    Terminate,
    /// At once.
    Kill,
}

/// Why a stage cannot be started or followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvironmentError {
    /// The connection to the place is gone.
    #[error("{0}")]
    Lost(String),
    /// The place refuses to run the stage.
    #[error("{0}")]
    Refused(String),
    /// What the stage ran in, such as its container, is gone, but the place is not: the next stage gets another. The stage is
    /// tried again as often as `EXECUTOR_JOB_SECTION_ATTEMPTS` says.
    #[error("{0}")]
    Vanished(String),
    /// Output that was read once cannot be read again here.
    #[error("the output of this stage cannot be read again from byte {0}")]
    NotResumable(u64),
}
