//! How the stand-in behaves.

use std::sync::Arc;
use std::time::Duration;

use crate::backend::{InstanceBackend, Nothing};
use crate::kinds::{Hook, HookResult, MixedPolicy, WarmPool};

/// The times and limits of the cloud, and what its instances are.
#[derive(Clone)]
pub struct Options {
    /// From the request for an instance to its appearance in the group's listing.
    pub launch_delay: Duration,
    /// From there until it is in service.
    pub boot_delay: Duration,
    /// From the order to end until it is gone.
    pub terminate_delay: Duration,
    /// How far listings lag behind.
    pub lag: Duration,
    /// Instances that the cloud has room for; `None`: any number.
    pub capacity: Option<u32>,
    /// Between two attempts to launch what there is no capacity for.
    pub launch_retry: Duration,
    /// How long a pushed key lives.
    pub key_life: Duration,
    /// What instances really are.
    pub backend: Arc<dyn InstanceBackend>,
}

/// The settings of an Auto Scaling group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupOptions {
    /// Name.
    pub name: String,
    /// Least instances.
    pub min: u32,
    /// Most instances.
    pub max: u32,
    /// New instances are protected from scale-in.
    pub protected: bool,
    /// Availability zones, filled in turn.
    pub zones: Vec<String>,
    /// Suspended processes, such as `AZRebalance`.
    pub suspended: Vec<String>,
    /// Architecture in EC2's terms, for example `arm64`.
    pub architecture: String,
    /// Instances run Windows.
    pub windows: bool,
    /// Instances are spot instances.
    pub spot: bool,
    /// Capacity rebalancing is on.
    pub capacity_rebalance: bool,
    /// Instances have public addresses.
    pub public: bool,
    /// A hook holds starting instances for so long.
    pub launching_hook: Option<Duration>,
    /// A hook holds ending instances for so long.
    pub terminating_hook: Option<Duration>,
    /// What becomes of a starting instance whose hook nobody completes in time.
    pub launching_default: HookResult,
    /// The warm pool, if there is one.
    pub warm_pool: Option<WarmPool>,
    /// The mixed instances policy, if there is one.
    pub mixed: Option<MixedPolicy>,
    /// Unit of the desired capacity, such as `vcpu`, where it is not the number of instances.
    pub capacity_type: Option<String>,
    /// Health checks besides EC2's, such as `ELB`.
    pub health_check: String,
    /// State of the instance refresh, such as `InProgress`, if there is one.
    pub refresh: Option<String>,
    /// Names of scaling policies.
    pub policies: Vec<String>,
    /// Encrypted password data, as `GetPasswordData` gives it.
    pub password_data: Option<String>,
}

// === impl Options ===

impl Default for Options {
    fn default() -> Self {
        Self {
            launch_delay: Duration::ZERO,
            boot_delay: Duration::from_millis(20),
            terminate_delay: Duration::from_millis(20),
            lag: Duration::ZERO,
            capacity: None,
            launch_retry: Duration::from_millis(500),
            key_life: Duration::from_secs(60),
            backend: Arc::new(Nothing),
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("boot_delay", &self.boot_delay).finish_non_exhaustive()
    }
}

// === impl GroupOptions ===

impl GroupOptions {
    /// A group as it should be for a scaler: 0 to 10 instances, protected, no rebalancing.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            min: 0,
            max: 10,
            protected: true,
            zones: vec!["eu-west-1a".to_owned(), "eu-west-1b".to_owned()],
            suspended: vec!["AZRebalance".to_owned()],
            architecture: "x86_64".to_owned(),
            windows: false,
            spot: false,
            capacity_rebalance: false,
            public: true,
            launching_hook: None,
            terminating_hook: None,
            launching_default: HookResult::Continue,
            warm_pool: None,
            mixed: None,
            capacity_type: None,
            health_check: "EC2".to_owned(),
            refresh: None,
            policies: Vec::new(),
            password_data: None,
        }
    }

    /// The hooks that hold instances.
    pub(crate) fn hooks(&self) -> impl Iterator<Item = Hook> {
        let hooks = [
            ("launching", "autoscaling:EC2_INSTANCE_LAUNCHING", self.launching_hook),
            ("terminating", "autoscaling:EC2_INSTANCE_TERMINATING", self.terminating_hook),
        ];
        hooks
            .into_iter()
            .filter_map(|(name, transition, held)| held.map(|held| Hook { name, transition, held }))
    }
}
