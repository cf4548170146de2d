//! How the stand-in behaves.

use std::sync::Arc;
use std::time::Duration;

use crate::backend::{InstanceBackend, Nothing};

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
    /// There is a warm pool.
    pub warm_pool: bool,
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
            warm_pool: false,
            policies: Vec::new(),
            password_data: None,
        }
    }
}
