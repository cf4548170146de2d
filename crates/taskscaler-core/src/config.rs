//! What an operator sets.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::policy::Policy;

/// The settings of one scaler: `[runners.autoscaler]` without what concerns clouds and connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Jobs at the same time on one instance. `0` is read as 1.
    pub capacity_per_instance: u32,
    /// Jobs after which an instance is replaced; `0` for unlimited.
    pub max_use_count: u32,
    /// Most instances in every state, deleting ones included; `0` for unlimited.
    pub max_instances: u32,
    /// Most instances that the provider's group can hold, where it has such a bound.
    pub group_max_size: Option<u32>,
    /// Most instances on their way at the same time, from the request until they are ready; `0` for unlimited.
    /// docker+machine's `MaxGrowthRate`.
    #[serde(default)]
    pub max_coming: u32,
    /// The last one that matches applies; none: [`Policy::default`].
    pub policies: Vec<Policy>,
    /// How fast instances may be asked for.
    pub scale_throttle: ScaleThrottle,
    /// While idle capacity exists, leave `capacity_per_instance` of it to other managers.
    pub reservation_throttling: bool,
    /// Consecutive health failures after which an instance is replaced. `0` is read as 1.
    pub failure_threshold: u32,
    /// How long a requested instance may take to appear, and one that appeared to run.
    pub creation_timeout: Duration,
    /// When to ask again for a deletion that had no effect.
    pub deletion_retry_interval: Duration,
    /// Time between health checks of an instance; zero if the provider has none.
    pub heartbeat_interval: Duration,
    /// Keep a restored instance that was running a job when the last manager died.
    pub keep_instance_with_acquisitions: bool,
    /// Jobs run in nested machines, so that an instance of unknown history is safe to use.
    pub vm_isolation: bool,
    /// State storage is on: what the ledger knows about an instance is believed after a restart.
    pub restores_state: bool,
}

/// `[runners.autoscaler.scale_throttle]`: a token bucket over new instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ScaleThrottle {
    /// New instances per second; `0` means 100, below 0 means infinite.
    pub limit: i64,
    /// Size of the bucket; `0` means `max_instances`, or `limit` when that is unlimited.
    pub burst: u32,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            capacity_per_instance: 1,
            max_use_count: 0,
            max_instances: 0,
            group_max_size: None,
            max_coming: 0,
            policies: Vec::new(),
            scale_throttle: ScaleThrottle::default(),
            reservation_throttling: true,
            failure_threshold: 3,
            creation_timeout: Duration::from_secs(15 * 60),
            deletion_retry_interval: Duration::from_secs(60),
            heartbeat_interval: Duration::from_secs(300),
            keep_instance_with_acquisitions: false,
            vm_isolation: false,
            restores_state: false,
        }
    }
}

impl Config {
    /// `capacity_per_instance`, at least 1.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.capacity_per_instance.max(1)
    }

    /// The effective most instances: the smaller of the operator's and the group's bound.
    #[must_use]
    pub fn ceiling(&self) -> Option<u32> {
        let own = (self.max_instances > 0).then_some(self.max_instances);
        match (own, self.group_max_size) {
            (Some(own), Some(group)) => Some(own.min(group)),
            (own, group) => own.or(group),
        }
    }
}
