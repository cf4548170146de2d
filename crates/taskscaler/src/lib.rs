//! The async shell around `drover-taskscaler-core`: it watches an instance group, applies the core's plans to it, makes
//! instances ready, and hands their slots to jobs.
//!
//! A job first takes a [`Reservation`] (one slot somewhere, before GitLab is asked for a job), then turns it into an
//! [`Acquisition`] (one slot of one instance). Both give their claim back when dropped.
//!
//! ```
//! # use std::sync::Arc;
//! use drover_taskscaler::{Settings, Taskscaler};
//! use fleeting::InstanceGroup;
//!
//! async fn one_job(group: Arc<dyn InstanceGroup>) -> Result<(), Box<dyn std::error::Error>> {
//!     let scaler = Taskscaler::start(Settings::default(), group).await?;
//!     let reservation = scaler.reserve()?;
//!     let acquisition = scaler.acquire(reservation, std::time::Duration::from_secs(900)).await?;
//!     println!("running on {} slot {}", acquisition.instance(), acquisition.slot());
//!     drop(acquisition);
//!     scaler.shutdown(true).await;
//!     Ok(())
//! }
//! ```
//!
//! Nothing is decided here: the core decides, and its [`Report`] says why. A wake-up carries no
//! data, it only says "look again", so that a lost notification costs nothing.

mod claims;
mod clock;
mod engine;
mod lease;
mod observe;
mod provider;
mod ready;
mod scaler;
mod settings;
mod shared;
mod store;
mod translate;
mod voice;
mod watching;

pub use claims::{AcquireError, Acquisition, LostCause, Reservation};
pub use clock::Clock;
pub use lease::LeaseSettings;
pub use observe::{CallKind, CallOutcome, ClaimOperation, ProviderCall, ScalerObserver};
pub use ready::{Always, ReadyUp};
pub use scaler::{Leftover, StartError, Taskscaler};
pub use settings::Settings;
pub use store::{LedgerStore, MemoryStore, StoreError};
pub use taskscaler_core as core;
pub use taskscaler_core::{Doom, DoomKind, InstanceLine, NoCapacity, Report};
