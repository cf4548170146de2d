//! Pure scaling decisions: policies, math, and the bookkeeping of slots and uses.
//!
//! A [`Core`] holds the state of one scaler. It is told what happens (claims of jobs, listings of the group, answers to its
//! plans), and [`Core::decide`] returns a [`Plan`] that names exact instances and a [`Report`] that says why. It has no
//! runtime, clock, I/O or randomness: the present is an argument, and the same calls give the same plans, byte for byte.
//!
//! ```
//! use std::time::Duration;
//! use drover_taskscaler_core::{Acquire, Config, Core, Event, Ledger, Now, Seen, SeenState};
//!
//! let now = Now { mono: Duration::ZERO, wall: "2026-08-03T08:00:00Z".parse()? };
//! let mut core = Core::new(Config { max_instances: 10, ..Config::default() }, Ledger::default(), now);
//! core.observe(&[], now);
//!
//! // A job comes. No slot is free, so an instance is asked for.
//! core.reserve("job-1".into(), now)?;
//! assert_eq!(core.acquire(&"job-1".into(), now)?, Acquire::Pending);
//! let (plan, report) = core.decide(now);
//! assert_eq!(plan.launch, 1);
//! assert_eq!(report.why[0].to_string(), "launching 1 for waiting jobs");
//! core.increased(1, 1, None, now);
//!
//! // It appears in a listing, is made ready, and the job has its slot.
//! core.observe(&[Seen::new("i-1", SeenState::Running)], now);
//! let (plan, _) = core.decide(now);
//! core.readied(&plan.ready_up[0].0, Ok(()), now);
//! assert!(matches!(core.poll_event(), Some(Event::Granted { slot, .. }) if slot.to_string() == "i-1/0"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The caller applies plans and gives the answers back ([`Core::increased`], [`Core::decreased`], [`Core::readied`],
//! [`Core::health`]), also when an answer is that nothing could be done; persists [`Core::take_ledger_changes`] before it
//! acts on a plan or hands out a slot; and decides again after events and at [`Plan::wake_at`].
//!
//! Where the scaling formula comes from, and what is this project's own definition, is written beside each part:
//! [`Inputs::wanted`] (how many instances), [`Core::reserve`] (who may take a job), [`Policy`] (when how much idle capacity
//! is kept).

pub mod machine;

mod breaker;
mod claims;
mod config;
mod core;
mod decide;
mod doom;
mod fate;
mod fleet;
mod ids;
mod instance;
mod ledger;
mod listing;
mod math;
mod period;
mod persist;
mod plan;
mod policy;
mod report;
mod throttle;
mod trouble;
mod why;
mod world;
mod zone;

pub use self::core::{Core, Elsewhere, Health};
pub use claims::{Acquire, NoCapacity, UnknownClaim};
pub use config::{Config, ScaleThrottle};
pub use doom::{Doom, DoomKind};
pub use fate::{Fate, InstanceLine};
pub use ids::{ClaimKey, InstanceId, Now, Slot};
pub use instance::{Origin, PhaseName, Reason, Seen, SeenState};
pub use ledger::{InstanceRecord, Ledger, LedgerChanges};
pub use math::{Inputs, Wanted};
pub use period::{Period, PeriodError};
pub use plan::{Deletion, Event, LostCause, Notice, Plan};
pub use policy::{Policy, ScaleFactor, ScaleFactorError, Switch, active_policy, policy_switches};
pub use report::{ActivePolicy, Counts, Report};
pub use throttle::{Failure, FailureKind};
pub use why::{Demand, Keep, Why};
pub use zone::{NamedZone, Zone, ZoneError};
