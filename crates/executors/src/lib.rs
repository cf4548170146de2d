//! Where jobs run: the [`Executor`] trait, the `instance` executor, and [`run_job`], which takes one job from its receipt
//! to its final state.
//!
//! ```no_run
//! use std::sync::Arc;
//! use drover_executors::{Executor, JobReport, JobRun, run_job};
//!
//! async fn one(run: JobRun) {
//!     let JobReport { job, result, .. } = run_job(run).await;
//!     println!("job {job}: {}", result.map_or("withdrawn".to_owned(), |result| result.log_line()));
//! }
//! ```
//!
//! An executor claims room before GitLab is asked ([`Executor::reserve`]), opens an [`Environment`] for the job that came
//! ([`Executor::prepare`]), and runs the job's stages there by handles that can be written down.

mod caches;
mod docker;
mod doctor;
mod environment;
mod executor;
mod foreseen;
mod instance;
mod run;
mod words;

pub use caches::{CacheAddresses, LocalCaches, SignedCaches};
pub use docker::{
    DockerAutoscaler, DockerExecutor, DockerParts, DockerStartError, EndpointError, UnusableValue,
    builds_are_shared, unusable_values,
};
pub use doctor::diagnose;
pub use environment::{Environment, EnvironmentError, StageEvent, StageHandle, StageOutput, Stop};
pub use executor::{Executor, NoRoom, PrepareError, PrepareRequest, Reservation};
pub use foreseen::Foreseen;
pub use instance::{
    InstanceExecutor, InstanceParts, InstanceStartError, SettingsError, group_owner, look_at_instances,
};
pub use run::{Interrupt, JobReport, JobRun, JobWatcher, Unwatched, run_job};
