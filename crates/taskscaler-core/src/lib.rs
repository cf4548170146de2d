//! Pure scaling decisions: policies, math, bookkeeping of slots and uses.

pub mod go_duration;

mod claims;
mod config;
mod core;
mod decide;
mod fleet;
mod ids;
mod instance;
mod ledger;
mod math;
mod period;
mod plan;
mod policy;
mod report;
mod requeue;
mod throttle;
mod world;

pub use self::core::{Acquire, Core, Health, NoCapacity, UnknownClaim};
pub use config::{Config, ScaleThrottle};
pub use ids::{ClaimKey, InstanceId, Now, Slot};
pub use instance::{Origin, PhaseName, Reason, Seen, SeenState};
pub use ledger::{InstanceRecord, Ledger, LedgerChanges};
pub use math::{Inputs, Wanted};
pub use period::{Period, PeriodError};
pub use plan::{Deletion, Event, LostCause, Notice, Plan};
pub use policy::{
    Policy, ScaleFactor, ScaleFactorError, Switch, Zone, ZoneError, active_policy, policy_switches,
};
pub use report::{ActivePolicy, Counts, Demand, Fate, InstanceLine, Keep, Report, Why};
pub use throttle::{Failure, FailureKind};
