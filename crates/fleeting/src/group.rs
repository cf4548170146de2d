//! The provider contract.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{ConnectInfo, ConnectorSettings, Doom, Finding, GroupError, HeartbeatError, Watch};

/// The provider's name for one instance, unique within its group for all time.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InstanceId(Arc<str>);

/// What a provider says about an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InstanceState {
    /// Exists in the cloud, not usable yet.
    Creating,
    /// Booted according to the cloud; not necessarily reachable.
    Running,
    /// Deletion under way.
    Deleting,
    /// Gone. The same as being absent from the listing.
    Deleted,
    /// Did not become running in time, or failed to; dropped from the bookkeeping and deleted.
    Timeout,
}

/// One line of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Which instance.
    pub id: InstanceId,
    /// Its state now.
    pub state: InstanceState,
    /// What the cloud has announced about its end (spot notice, scheduled event). No new job should go there.
    pub doomed: Option<Doom>,
}

/// What a group is, learned once at the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GroupInfo {
    /// Stable identity, for example `aws/eu-west-1/build`.
    pub id: String,
    /// Most instances that the group can hold. [`InstanceGroup::max_size`] tells when that changes.
    pub max_size: u32,
    /// Name and version of the provider, for logs.
    pub provider: String,
    /// False if health checks are not worth calling because [`InstanceGroup::heartbeat`] always says healthy.
    pub has_heartbeat: bool,
}

/// The outcome of a change: what was done and, where not all of it was, why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed<T> {
    /// What the cloud accepted.
    pub done: T,
    /// Why the rest was not.
    pub error: Option<GroupError>,
}

/// A group of instances in some cloud.
///
/// Implementations are shared between tasks. The caller makes at most one of `update`, `increase` and `decrease` at a
/// time per group, and puts a deadline on each call: a call may be dropped at any await point and must then leave the
/// provider usable.
#[async_trait]
pub trait InstanceGroup: Send + Sync + 'static {
    /// Prepares the group: checks its configuration, builds clients, makes sure that the group exists. Called once,
    /// before anything else. Unsuitable but workable group settings are logged, not refused.
    ///
    /// # Errors
    /// Any error makes the runner entry unusable until the configuration is loaded again.
    async fn init(&self, settings: &ConnectorSettings) -> Result<GroupInfo, GroupError>;

    /// Lists **every** instance that the group owns, whoever made it. What is missing counts as gone. The list names
    /// each instance once; the order has no meaning. Instances that are not the group's own are never listed.
    ///
    /// # Errors
    /// On error the caller keeps its last picture and asks again later.
    async fn update(&self) -> Result<Vec<Seen>, GroupError>;

    /// Most instances that the group can hold, as it was read last: by [`init`](Self::init), [`update`](Self::update) or
    /// [`diagnose`](Self::diagnose). `None` before, and where it is not known. Costs no call.
    fn max_size(&self) -> Option<u32> {
        None
    }

    /// Why [`max_size`](Self::max_size) is less than the group was made for, for people; `None` if it is not. Costs no call.
    fn lacking(&self) -> Option<String> {
        None
    }

    /// Asks the cloud for `n` more instances and returns how many requests it accepted. The instances appear in
    /// [`update`](Self::update) later. Not idempotent.
    async fn increase(&self, n: u32) -> Changed<u32>;

    /// Deletes these instances and lowers the group's size by as many. Returns those whose deletion was accepted. Safe to
    /// repeat: an instance that is deleting or gone counts as accepted. Instances that are not the group's own are
    /// refused with [`GroupError::NotFound`]. An empty list is a no-op.
    async fn decrease(&self, ids: &[InstanceId]) -> Changed<Vec<InstanceId>>;

    /// How to reach a running instance. May provision credentials and may take minutes.
    ///
    /// # Errors
    /// [`GroupError::NotFound`] once the instance is gone.
    async fn connect_info(&self, id: &InstanceId) -> Result<ConnectInfo, GroupError>;

    /// Examines the health of a running instance.
    ///
    /// # Errors
    /// See [`HeartbeatError`]: only `Unhealthy` counts against the instance.
    async fn heartbeat(&self, id: &InstanceId) -> Result<(), HeartbeatError>;

    /// What asks the instance itself for announcements of its end, while jobs run there; none if there is nothing to ask.
    /// Called whenever a job comes to an instance that is not watched; must be quick.
    fn watch(&self, id: &InstanceId) -> Option<Box<dyn Watch>> {
        let _ = id;
        None
    }

    /// What became of an instance that vanished, in the cloud's words where it knows ("terminated by a rebalance at
    /// 12:03"). Asked at most once per lost instance.
    async fn fate(&self, id: &InstanceId) -> Option<String> {
        let _ = id;
        None
    }

    /// Examines credentials, permissions and the settings of the group, without changing anything: what works and what
    /// will go wrong. Slow, and asked for by people only. May be called instead of [`init`](Self::init), with the
    /// configuration alone. Providers that have nothing to examine say nothing.
    async fn diagnose(&self) -> Vec<Finding> {
        Vec::new()
    }

    /// Says who uses the group, before [`init`](Self::init): what belongs to nobody else is locked for this owner, by locks
    /// that lapse after `valid` unless they are renewed. Without it, or for providers that make all of their instances, nothing
    /// is locked.
    fn used_by(&self, owner: &crate::lease::Owner, valid: std::time::Duration) {
        let _ = (owner, valid);
    }

    /// The place at the group for the mark of the manager that scales it; none if the provider has no such place.
    fn lease(&self) -> Option<&dyn crate::lease::GroupLease> {
        None
    }

    /// True if instances live on when the process that uses the group dies, and have the same names for its successor. Then
    /// what is known of them is kept for a restart.
    fn outlives_process(&self) -> bool {
        true
    }

    /// Completes when something may have changed, as a hint to call [`update`](Self::update) at once. Hints may be lost or spurious.
    /// Providers without notifications never complete.
    async fn changed(&self) {
        std::future::pending::<()>().await;
    }

    /// Releases what [`init`](Self::init) made. Instances stay.
    ///
    /// # Errors
    /// Reported, never retried.
    async fn shutdown(&self) -> Result<(), GroupError>;
}

// === impl InstanceId ===

impl InstanceId {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T: Into<Arc<str>>> From<T> for InstanceId {
    fn from(id: T) -> Self {
        Self(id.into())
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Seen ===

impl Seen {
    /// A line without a foreboding.
    pub fn new(id: impl Into<InstanceId>, state: InstanceState) -> Self {
        Self { id: id.into(), state, doomed: None }
    }
}

// === impl Changed ===

impl<T> Changed<T> {
    /// Everything that was asked for was done.
    pub fn all(done: T) -> Self {
        Self { done, error: None }
    }

    /// Only `done` was accepted, because of `error`.
    pub fn partly(done: T, error: GroupError) -> Self {
        Self { done, error: Some(error) }
    }
}
