//! Instances on this machine, without root: each a separate process with an SSH server of its own on loopback.
//!
//! [`LocalGroup`] is a provider like those of clouds: it starts, lists and deletes instances, and says how to reach
//! them. An instance is the program itself, run again with a hidden sub-command; that sub-command calls
//! [`instance::main`]. Commands run as the user of the manager, in a directory that is removed with the instance: this is
//! for trying things out, for tests and for demonstrations, and **no isolation** between jobs.
//!
//! ```no_run
//! use drover_fleeting_local::{Config, LocalGroup};
//! use fleeting::{ConnectorSettings, InstanceGroup};
//!
//! # async fn example() -> Result<(), fleeting::GroupError> {
//! if std::env::args().nth(1).as_deref() == Some("local-instance") {
//!     drover_fleeting_local::instance::main_from_stdin().await.expect("this process is an instance");
//!     return Ok(());
//! }
//! let group = LocalGroup::new(Config { max_size: 4, ..Config::default() });
//! group.init(&ConnectorSettings::default()).await?;
//! group.increase(2).await;
//! group.changed().await;
//! for seen in group.update().await? {
//!     println!("{} is {:?}", seen.id, seen.state);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What is left behind
//!
//! Nothing: when an instance is deleted, dies, or loses its manager (also by `kill -9`), all processes that were
//! started on it end and its directory goes. Processes are found by their session and by a mark in their environment,
//! both of which are read from `/proc`; on systems without it only the process groups of running commands are ended.

pub mod instance;

mod config;
mod group;
mod keeper;
mod keys;
mod processes;
mod protocol;
mod tree;

pub use config::Config;
pub use group::LocalGroup;
