//! GitLab's side of the runner API, for tests and demonstrations: strict, stateful, with faults on demand.
//!
//! [`GitlabMock`] listens on a free port. [`GitlabMock::add_runner`] gives a token to put into a runner's configuration,
//! [`GitlabMock::enqueue`] puts a [`JobBuilder`] into its queue, and the [`Job`] that comes back tells what became of it.
//! Whatever a runner does that GitLab's protocol does not allow is refused as GitLab refuses it and recorded as a
//! [`Violation`]. [`Fault`]s break calls on purpose, and what a runner has to repeat because of one is no violation.
//!
//! ```
//! use drover_gitlab_mock::{Config, GitlabMock, JobBuilder};
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let gitlab = GitlabMock::start(Config::default()).await?;
//! let runner = gitlab.add_runner("glrt-example");
//! let job = gitlab.enqueue(&runner, JobBuilder::new("hello").script(["echo hello"]));
//!
//! // A runner with `url = gitlab.url()` and this token takes the job from here. Here nobody does:
//! job.cancel();
//! let view = job.finished(Duration::from_secs(1)).await?;
//! assert_eq!(view.log_bytes, 0);
//! gitlab.assert_no_violations();
//! # Ok(())
//! # }
//! ```
//!
//! Repositories are real: [`GitlabMock::create_repository`] makes one on disk, and `git http-backend` serves it to whoever
//! has the token of a running job. There is no TLS, no job router and no web interface; artifacts are kept in memory.

mod admin;
mod api;
mod body;
mod builder;
mod config;
mod core;
mod endpoint;
mod fault;
mod job;
mod log;
mod mock;
mod payload;
mod report;
mod repository;
mod runner;
mod server;
mod storage;
mod sync;
mod violation;

pub use api::FEATURES;
pub use builder::{ArtifactSpec, CacheSpec, GitSource, JobBuilder, JobVariable};
pub use config::{Config, LogRetention, OnChange};
pub use endpoint::Endpoint;
pub use fault::{Fault, FaultAction, FaultId, FaultReport};
pub use job::{ArtifactView, Calls, Job, JobState, JobView, Session, StoredArtifact, Transition, WaitError};
pub use mock::{GitlabMock, StartError};
pub use report::{Percentiles, Summary};
pub use repository::{GitError, Repository};
pub use runner::{ManagerView, Runner, RunnerCalls, RunnerView};
pub use storage::StorageRequest;
pub use violation::{Rule, Violation};
