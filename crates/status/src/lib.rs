//! What a running manager says of itself.
//!
//! A [`Document`] holds the state of a manager: its runner entries, their policies, instances and jobs, what was decided lately
//! and why. It is plain data. [`text`] writes it for people, [`page`] for a browser, `serde` for programs. [`Socket`] hands it
//! out on this machine, and [`ask`] fetches it.
//!
//! [`words`] has the sentences for decisions. The log, the logs of waiting jobs, the metrics and the document all take them
//! from there, so that the same fact reads the same everywhere.
//!
//! ```
//! use std::time::Duration;
//! use drover_status::words;
//! use taskscaler_core::{Config, Core, Ledger, Now};
//!
//! let now = Now { mono: Duration::ZERO, wall: "2026-08-03T08:00:00Z".parse()? };
//! let mut core = Core::new(Config { max_instances: 10, ..Config::default() }, Ledger::default(), now);
//! core.observe(&[], now);
//! core.reserve("job-1".into(), now)?;
//! core.acquire(&"job-1".into(), now)?;
//! let (_, report) = core.decide(now);
//! assert_eq!(words::decided(&report), "launching 1: 1 job waits, 0 free slots");
//! assert!(words::waiting(&core.decide(now).1).starts_with("1 requested"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What this crate does not do: decide, serve the network, or keep history beyond the last [`KEPT`] moments.

mod diary;
mod document;
mod page;
mod scaling;
mod socket;
mod text;
pub mod words;

pub use diary::{Diary, KEPT, Kind, Moment};
pub use document::{Document, EntryState, JobStatus, ManagerStatus, RunnerStatus, VERSION};
pub use page::page;
pub use scaling::{InstanceStatus, PolicyStatus, Reason, Scaling, Slots, Waiting};
pub use socket::{AskError, Socket, SocketError, ask, default_path};
pub use text::{Filter, text};
