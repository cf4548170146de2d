//! What can be chosen.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use job::log::{CompiledMasks, MaskRules};

use crate::{Failure, SpoolError};

/// Choices for one log.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// Id of the job, for the name of the spool file.
    pub job: u64,
    /// What is secret.
    pub masks: CompiledMasks,
    /// Whether lines `::add-mask::<word>` of the job's output make words secret (`proxy_exec`).
    pub announced_masks: bool,
    /// Whether lines carry time and stream number (`FF_TIMESTAMPS`).
    pub timestamps: bool,
    /// Most bytes of the log in KiB (`output_limit`); 0 is 4 MiB.
    pub output_limit: u64,
    /// Where the spool file is made. It is readable by its owner only.
    pub directory: PathBuf,
    /// Bytes kept in memory before they go to the file; a log that stays below never touches the disk. A log of more than 1 MiB
    /// keeps up to 128 KiB, whatever this says.
    pub memory: usize,
    /// Where the time comes from.
    pub clock: fn() -> DateTime<Utc>,
    /// Told when the disk fails.
    pub observer: Arc<dyn Observer>,
}

/// Choices for sending a log and the state of its job.
#[derive(Debug, Clone)]
pub struct UploadOptions {
    /// Id of the job, for tracing and for spreading retries.
    pub job: u64,
    /// Time between patches until the server names another.
    pub interval: Duration,
    /// Most bytes of one patch.
    pub chunk: usize,
    /// Silence is broken by a keep-alive after four update intervals (30 s to 30 min) rather than after 30 s
    /// (`FF_USE_DYNAMIC_TRACE_FORCE_SEND_INTERVAL`).
    pub dynamic_force_interval: bool,
    /// How often the final state is tried while GitLab answers with errors that are its verdict rather than an outage
    /// (`job_status_final_update_retry_limit`); 0 is 10.
    pub final_update_retry_limit: u32,
    /// How long the final state is tried while GitLab cannot be reached, or keeps answering that it is not ready.
    pub outage_patience: Duration,
    /// Told about failures.
    pub observer: Arc<dyn Observer>,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobResult {
    /// It did what it should.
    Success,
    /// It did not.
    Failed {
        /// The reason as the runner knows it, for metrics; empty is `script_failure`.
        reason: String,
        /// The reason in a word that this server knows.
        sent_reason: String,
        /// Exit code of the script; 0 is not sent.
        exit_code: i32,
    },
}

/// Hears about failures, for metrics. Called from within the log's work: implementations must not block.
pub trait Observer: fmt::Debug + Send + Sync {
    /// A job failed, with the runner's own name of the reason.
    fn job_failed(&self, _reason: &str) {}

    /// A patch, keep-alive or final update failed; it will be tried again if that makes sense.
    fn request_failed(&self, _failure: &Failure) {}

    /// A log lost bytes because the disk failed.
    fn spool_failed(&self, _error: &SpoolError) {}

    /// Bytes that GitLab has taken.
    fn sent(&self, _bytes: u64) {}
}

/// Hears and says nothing.
#[derive(Debug)]
struct Nobody;

// === impl LogOptions ===

impl Default for LogOptions {
    /// Default masks, timestamps, 4 MiB, the system's directory for temporary files, 16 KiB in memory.
    fn default() -> Self {
        Self {
            job: 0,
            masks: CompiledMasks::new(&MaskRules::default()),
            announced_masks: false,
            timestamps: true,
            output_limit: 0,
            directory: std::env::temp_dir(),
            memory: 16 * 1024,
            clock: Utc::now,
            observer: Arc::new(Nobody),
        }
    }
}

// === impl UploadOptions ===

impl Default for UploadOptions {
    /// 3 s, 1 MiB, keep-alive after 30 s, 10 attempts, 4 h of outage.
    fn default() -> Self {
        Self {
            job: 0,
            interval: Duration::from_secs(3),
            chunk: 1024 * 1024,
            dynamic_force_interval: false,
            final_update_retry_limit: 10,
            outage_patience: Duration::from_secs(4 * 3600),
            observer: Arc::new(Nobody),
        }
    }
}

// === impl JobResult ===

impl JobResult {
    /// A failure of the runner, in the words that every server knows.
    #[must_use]
    pub fn system_failure() -> Self {
        let reason = "runner_system_failure".to_owned();
        Self::Failed { reason: reason.clone(), sent_reason: reason, exit_code: 0 }
    }
}

// === impl Nobody ===

impl Observer for Nobody {}
