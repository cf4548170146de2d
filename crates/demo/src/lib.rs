//! The whole way on one machine, without GitLab, cloud or root: jobs arrive, instances appear, run them and go away, and
//! the screen shows it.
//!
//! ```no_run
//! use drover_demo::{DemoOptions, run};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Each instance is the program itself, run again.
//! if std::env::args().nth(1).as_deref() == Some("local-instance") {
//!     return Ok(fleeting_local::instance::main_from_stdin().await?);
//! }
//! let summary = run(DemoOptions { jobs: 20, ..DemoOptions::default() }).await?;
//! assert_eq!(summary.violations, 0);
//! # Ok(())
//! # }
//! ```
//!
//! Nothing is pretended but GitLab and the cloud: the manager is the real one with a real configuration, the stand-in for
//! GitLab refuses what GitLab refuses, jobs clone a repository with git and run its scripts, and instances are processes
//! with SSH servers of their own. What the demonstration shows it also checks: [`run`] fails if any job has not got
//! exactly the one end that was meant for it, or if anything is left on the machine.
//!
//! The picture is a pure function of a model, and the model of the events; only `show` has a clock.

mod engine;
mod logging;
mod model;
mod options;
mod picture;
mod plugin;
mod reasons;
mod scene;
mod screen;
mod settings;
mod show;
mod summary;
mod svg;
mod verdict;

pub use options::{DemoError, DemoOptions};
pub use show::{run, run_to};
pub use summary::{InstanceFigures, JobFigures, Killed, Summary, Waiting};
