//! Metrics of a manager by the names that GitLab Runner's dashboards know, and the endpoint that shows them.
//!
//! [`Metrics`] is the manager's observer; [`Endpoint`] serves what `listen_address` promises.
//!
//! ```no_run
//! use drover_metrics::{Build, Endpoint, LogCounter, Metrics};
//! use manager::{Manager, ManagerOptions};
//!
//! async fn run(mut options: ManagerOptions, control: manager::Controlled) -> std::io::Result<()> {
//!     let build = Build { system_id: options.identity.system_id.clone(), ..Build::default() };
//!     let metrics = Metrics::new(build, options.local_zone, &LogCounter::default());
//!     let address = options.loaded.config.listen_address();
//!     options.observer = metrics.clone();
//!     let manager = Manager::new(options);
//!     if let Some(address) = address {
//!         let endpoint = Endpoint::bind(&address).await?;
//!         tokio::spawn(endpoint.serve(metrics, manager.view().jobs));
//!     }
//!     manager.run(control).await;
//!     Ok(())
//! }
//! ```
//!
//! Every metric is defined once, in [`TABLE`]: the exposition, the [reference page](reference()), the [dashboard] and the check
//! of the [alert rules](alerts) are made from it. Counting is an atomic addition; what a gauge shows is read when it is scraped.
//!
//! What this crate does not do: push anything anywhere, authenticate, or keep history.

mod alerts;
mod api;
mod cells;
mod dashboard;
mod exposition;
mod jobs;
mod logs;
mod metrics;
mod process;
mod queue;
mod reference;
mod runner;
mod scaler;
mod server;
mod table;

pub use alerts::{ALERTS, Alert, alerts};
pub use dashboard::dashboard;
pub use logs::LogCounter;
pub use metrics::{Build, Metrics};
pub use reference::reference;
pub use server::{CONNECTIONS, DEADLINE, Endpoint};
pub use table::{Definition, Group, Kind, Origin, Scope, TABLE};
