//! What a scaler is told once.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use connect_info::ConnectorSettings;

use crate::observe::Nobody;
use crate::{Always, Clock, LeaseSettings, LedgerStore, MemoryStore, ReadyUp, ScalerObserver};

/// How one scaler works. The defaults are GitLab Runner's.
#[derive(Clone)]
pub struct Settings {
    /// Runner entry, for logs.
    pub runner: Arc<str>,
    /// Start of every claim's name; the shortened runner token.
    pub key_prefix: Arc<str>,
    /// Limits, policies and thresholds of the pure core.
    pub core: taskscaler_core::Config,
    /// Given to the provider; completed by what it discovers.
    pub connector: ConnectorSettings,
    /// How often the group is listed when nothing is expected.
    pub update_interval: Duration,
    /// How often it is listed while a change is expected.
    pub update_interval_when_expecting: Duration,
    /// At shutdown with deletion: gap between deletion and the look whether it worked.
    pub shutdown_deletion_interval: Duration,
    /// At shutdown with deletion: how many looks.
    pub shutdown_deletion_retries: u32,
    /// Seed of the claim names.
    pub seed: u64,
    /// The clock.
    pub clock: Clock,
    /// Makes an instance ready before jobs go there.
    pub ready: Arc<dyn ReadyUp>,
    /// Where use counts survive a restart.
    pub store: Arc<dyn LedgerStore>,
    /// Marks the group as one's own, where the provider has a place for marks; none to use it unmarked.
    pub lease: Option<LeaseSettings>,
    /// Hears what happens, for metrics.
    pub observer: Arc<dyn ScalerObserver>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            runner: "drover".into(),
            key_prefix: "drover".into(),
            core: taskscaler_core::Config::default(),
            connector: ConnectorSettings::default(),
            update_interval: Duration::from_secs(60),
            update_interval_when_expecting: Duration::from_secs(2),
            shutdown_deletion_interval: Duration::from_secs(10),
            shutdown_deletion_retries: 3,
            seed: rand::random(),
            clock: Clock::system(),
            ready: Arc::new(Always),
            store: Arc::new(MemoryStore::default()),
            lease: None,
            observer: Arc::new(Nobody),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("runner", &self.runner)
            .field("core", &self.core)
            .finish_non_exhaustive()
    }
}
