//! What metrics want to know of a scaler.

use std::sync::Arc;
use std::time::Duration;

use fleeting::{GroupError, HeartbeatError};
use taskscaler_core::{Config, NoCapacity, Notice, Report};

/// Hears what a scaler does. Implementations must not block: some calls come from within a job's claim. Everything has a
/// default that does nothing.
pub trait ScalerObserver: Send + Sync + 'static {
    /// Limits and policies that are in force from now on.
    fn configured(&self, _config: &Config) {}
    /// A decision that differs from the last one.
    fn decided(&self, _report: &Arc<Report>) {}
    /// A milestone in the life of an instance.
    fn noticed(&self, _notice: &Notice) {}
    /// A claim was made, turned into a slot, or given back.
    fn claimed(&self, _operation: ClaimOperation) {}
    /// A claim was refused.
    fn refused(&self, _why: &NoCapacity) {}
    /// A call to the provider has ended.
    fn called(&self, _call: &ProviderCall) {}
}

/// What happened to a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClaimOperation {
    /// A slot somewhere was claimed.
    Reserve,
    /// The claim was given back without having been a slot.
    Unreserve,
    /// The claim became a slot of an instance.
    Acquire,
    /// The slot was given back.
    Release,
}

/// One call to the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProviderCall {
    /// Which.
    pub kind: CallKind,
    /// Instances that it was about; 0 for a call about the group.
    pub asked: u32,
    /// How many of them were done.
    pub done: u32,
    /// How it ended.
    pub outcome: CallOutcome,
    /// How long it took.
    pub duration: Duration,
}

/// The calls that a provider has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallKind {
    /// Preparing the group.
    Init,
    /// Listing it.
    Update,
    /// Asking for instances.
    Increase,
    /// Deleting instances.
    Decrease,
    /// Asking how to reach an instance.
    ConnectInfo,
    /// Checking an instance's health.
    Heartbeat,
    /// Letting the group go.
    Shutdown,
}

/// How a call ended: a closed set, made from the provider's error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallOutcome {
    /// All of it was done.
    Done,
    /// [`GroupError::NotFound`]
    NotFound,
    /// [`GroupError::NoCapacity`]
    NoCapacity,
    /// [`GroupError::LimitReached`]
    LimitReached,
    /// [`GroupError::Throttled`]
    Throttled,
    /// [`GroupError::Denied`]
    Denied,
    /// [`GroupError::Configuration`]
    Configuration,
    /// [`GroupError::Unsupported`]
    Unsupported,
    /// [`GroupError::Transient`]
    Transient,
    /// [`HeartbeatError::Unhealthy`]
    Unhealthy,
    /// [`HeartbeatError::Unknown`]
    Unknown,
}

/// Hears and says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Nobody;

impl ScalerObserver for Nobody {}

// === impl ClaimOperation ===

impl ClaimOperation {
    /// All of them, in the order of a claim's life.
    pub const ALL: [Self; 4] = [Self::Reserve, Self::Unreserve, Self::Acquire, Self::Release];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reserve => "reserve",
            Self::Unreserve => "unreserve",
            Self::Acquire => "acquire",
            Self::Release => "release",
        }
    }
}

// === impl CallKind ===

impl CallKind {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Update => "update",
            Self::Increase => "increase",
            Self::Decrease => "decrease",
            Self::ConnectInfo => "connect_info",
            Self::Heartbeat => "heartbeat",
            Self::Shutdown => "shutdown",
        }
    }
}

// === impl CallOutcome ===

impl CallOutcome {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::NotFound => "not_found",
            Self::NoCapacity => "no_capacity",
            Self::LimitReached => "limit_reached",
            Self::Throttled => "throttled",
            Self::Denied => "denied",
            Self::Configuration => "configuration",
            Self::Unsupported => "unsupported",
            Self::Transient => "transient",
            Self::Unhealthy => "unhealthy",
            Self::Unknown => "unknown",
        }
    }

    /// The outcome of a call about the group.
    pub(crate) fn of(error: Option<&GroupError>) -> Self {
        match error {
            None => Self::Done,
            Some(GroupError::NotFound { .. }) => Self::NotFound,
            Some(GroupError::NoCapacity { .. }) => Self::NoCapacity,
            Some(GroupError::LimitReached { .. }) => Self::LimitReached,
            Some(GroupError::Throttled { .. }) => Self::Throttled,
            Some(GroupError::Denied { .. }) => Self::Denied,
            Some(GroupError::Configuration { .. }) => Self::Configuration,
            Some(GroupError::Unsupported { .. }) => Self::Unsupported,
            Some(GroupError::Transient { .. }) => Self::Transient,
        }
    }

    /// The outcome of a health check.
    pub(crate) fn of_heartbeat(answer: &Result<(), HeartbeatError>) -> Self {
        match answer {
            Ok(()) => Self::Done,
            Err(HeartbeatError::Unhealthy(_)) => Self::Unhealthy,
            Err(HeartbeatError::Unknown(_)) => Self::Unknown,
        }
    }
}

// === impl ProviderCall ===

impl ProviderCall {
    /// A call that is not about a number of instances.
    pub(crate) fn new(kind: CallKind, outcome: CallOutcome, duration: Duration) -> Self {
        Self { kind, asked: 0, done: 0, outcome, duration }
    }
}
