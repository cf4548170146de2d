//! Polls GitLab for jobs, hands them to executors, and shuts down in order.
//!
//! ```no_run
//! use drover_manager::{Identity, Manager, ManagerOptions, control};
//!
//! async fn run(text: &str, identity: Identity) {
//!     let loaded = config::parse(text, "config.toml", &|name| std::env::var(name).ok()).unwrap();
//!     let (control, controlled) = control();
//!     let manager = Manager::new(ManagerOptions::new(loaded, identity));
//!     tokio::spawn(async move {
//!         tokio::signal::ctrl_c().await.ok();
//!         control.stop_forcefully("interrupt");
//!     });
//!     let ended = manager.run(controlled).await;
//!     assert!(ended.unfinished.is_empty());
//! }
//! ```
//!
//! Who may ask GitLab when is decided by a pure part (`dispatch`); everything else here carries it out.

mod board;
mod caches;
mod control;
mod diagnose;
mod dispatch;
mod dry_run;
mod events;
mod limits;
mod manager;
mod numbers;
mod providers;
mod runner;
mod verify;
mod watch;

pub use control::{Control, Controlled, Shutdown, control};
pub use diagnose::{Examination, diagnose};
pub use dry_run::DryRun;
pub use events::{JobLine, Jobs, Observer, Silent};
pub use fleeting::{Finding, Severity};
pub use manager::{Ended, Manager, ManagerOptions, View};
pub use providers::{BuiltIn, Providers};
pub use runner::{Identity, session_server, tls_files};
pub use verify::verify;
pub use watch::{EntryObserver, JobIntake, Phase, Requests, RunnerWatch};
