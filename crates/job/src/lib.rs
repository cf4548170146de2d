//! Pure job logic: variables, stages, shell scripts, secret masking, log format.
//!
//! A [`Context`] is a job in its place: made from the payload, the facts about the runner and the placement, it knows the
//! job's variables, its stages in order, and the script of each. Nothing here does I/O, reads a clock or draws a number.
//!
//! ```
//! use drover_job::{Context, Placement, Product, RunnerFacts, Shell, Stage};
//!
//! let job = job_payload::Job::from_json(br#"{"id": 7, "token": "secret", "steps": [
//!     {"name": "script", "script": ["make"]}]}"#).unwrap();
//! let product = Product {
//!     name: "drover".into(), version: "0.1.0".into(), revision: "abc".into(), platform: "linux/amd64".into(),
//! };
//! let runner = RunnerFacts::new(product, "instance", Shell::Bash, "https://gitlab.example.test");
//! let context = Context::new(&job, &runner, &Placement::default()).unwrap();
//!
//! let names: Vec<String> = context.stages().into_iter().map(|plan| plan.name).collect();
//! assert_eq!(names, ["prepare_executor", "prepare_script", "get_sources", "step_script", "cleanup_file_variables"]);
//! let script = context.script(Stage::Step(0)).unwrap();
//! assert!(script.text().contains("make"));
//! ```
//!
//! It does not run anything: the executor sends a [`Script`] to the standard input of [`Interpreter::command`].

mod cache;
mod context;
mod failure;
mod flags;
mod inputs;
pub mod log;
mod paths;
mod remote;
mod runner;
mod settings;
mod setup;
mod shell;
mod stage;
mod variables;

pub use cache::{CacheEntry, CacheKey, CachePolicy};
pub use context::{Context, Timeouts};
pub use failure::{Deadline, FailureReason, JobFailure, JobResult};
pub use flags::{FeatureFlag, FeatureFlags};
pub use inputs::InputError;
pub use job_payload::{ExposeSecret, SecretString};
pub use paths::ClonePathError;
pub use runner::{
    Helper, Isolation, Layout, Placement, Product, RemoteCache, RunnerFacts, TempAccess, TlsFiles,
};
pub use settings::{Attempts, BuildSettings, GitStrategy, SubmoduleStrategy};
pub use setup::SetupError;
pub use shell::{Interpreter, Script, Shell, ShellError};
pub use stage::{JobStatus, Outcome, Place, Runs, Stage, StagePlan};
pub use variables::{Variable, Variables};
