//! A job's log on its way to GitLab: masked, stamped, spooled on disk, patched, finished.
//!
//! [`JobLog`] takes what the job and the runner say, from any number of streams, and keeps it in one spool. Writers are
//! held up by the disk at most, never by the network. An [`Uploader`] sends the spool to GitLab while the job runs, tells
//! when the job shall be cancelled ([`RemoteState`]), and at the end delivers the rest of the log and the final state.
//!
//! ```
//! use drover_trace::{JobLog, LineKind, LogOptions};
//!
//! let log = JobLog::new(LogOptions { timestamps: false, ..LogOptions::default() });
//! log.line(LineKind::Info, "Preparing instance...");
//! let mut stdout = log.stdout();
//! stdout.write(b"glpat-0123456789abcdef\n");
//! drop(stdout); // the stream ends: a last line without an end goes out
//! assert_eq!(log.contents().unwrap(), "\x1b[32;1mPreparing instance...\x1b[0;m\nglpat-[MASKED]\n");
//! ```
//!
//! Requests that one job costs: a patch per update interval in which it said something, a keep-alive in each 30 seconds
//! of silence, and at the end a patch for the rest and one update. A job that ends within its first interval costs one
//! patch and one update.
//!
//! # Differences from GitLab Runner
//!
//! - No keep-alive on the first tick: the update that confirmed the job has just been answered.
//! - A log that is more than a patch behind is sent without pauses, not one patch in each interval.
//! - After failures the loop backs off up to a minute.
//! - `404` and `403` to a patch stop the job; GitLab Runner goes on after a `404`.
//! - A GitLab that does not answer costs no job: such failures do not count towards
//!   `job_status_final_update_retry_limit`, but are repeated for [`UploadOptions::outage_patience`].
//! - A refusal of the final state after an attempt whose answer was lost means that the lost one was accepted.
//! - When it is the log that is refused for good (a proxy's 413), the final state is sent without the rest of it.
//! - An uploader that is dropped without a result reports `runner_system_failure`, so that no job stays running.
//!
//! What this crate does not do: survive the death of the process. The spool is a file with the job's id in its name; its
//! last 16 KiB may still be in memory.

mod api;
mod gitlab;
mod log;
mod options;
mod secrets;
mod spool;
mod upload;

pub use api::{
    Failure, FailureKind, PatchOutcome, PatchReply, RemoteJob, State, TraceApi, Update, UpdateOutcome,
    UpdateReply,
};
pub use gitlab::GitLab;
pub use job::log::{Channel, CompiledMasks, LineKind, MaskRules};
pub use log::{JobLog, LogWriter};
pub use options::{JobResult, LogOptions, Observer, UploadOptions};
pub use spool::SpoolError;
pub use upload::{Delivery, RemoteState, Undelivered, Uploader};
