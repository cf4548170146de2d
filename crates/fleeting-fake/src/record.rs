//! What was asked of the cloud, and what it answered.

use std::time::Duration;

use fleeting::InstanceId;

/// The calls of [`fleeting::InstanceGroup`] that can be made to fail and that are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// `init`
    Init,
    /// `update`
    Update,
    /// `increase`
    Increase,
    /// `decrease`
    Decrease,
    /// `connect_info`
    ConnectInfo,
    /// `heartbeat`
    Heartbeat,
    /// `shutdown`
    Shutdown,
}

/// One call with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// `init`
    Init,
    /// `update`
    Update,
    /// `increase` by so many
    Increase(u32),
    /// `decrease` of these
    Decrease(Vec<InstanceId>),
    /// `connect_info` of one
    ConnectInfo(InstanceId),
    /// `heartbeat` of one
    Heartbeat(InstanceId),
    /// `shutdown`
    Shutdown,
}

/// What a call came back with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// When it came back.
    pub at: Duration,
    /// Instances listed, granted or accepted for deletion; 1 for other calls that went well, 0 where they did not.
    pub done: u32,
    /// The text of the error, if there was one.
    pub error: Option<String>,
}

/// One line of the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// When it arrived.
    pub at: Duration,
    /// What was asked.
    pub request: Request,
    /// `None` while it is under way, and for ever if the caller dropped it.
    pub answer: Option<Answer>,
}

// === impl Operation ===

impl Operation {
    /// Every operation.
    pub const ALL: [Self; 7] = [
        Self::Init,
        Self::Update,
        Self::Increase,
        Self::Decrease,
        Self::ConnectInfo,
        Self::Heartbeat,
        Self::Shutdown,
    ];
}

// === impl Request ===

impl Request {
    /// The kind of call.
    #[must_use]
    pub fn operation(&self) -> Operation {
        match self {
            Self::Init => Operation::Init,
            Self::Update => Operation::Update,
            Self::Increase(_) => Operation::Increase,
            Self::Decrease(_) => Operation::Decrease,
            Self::ConnectInfo(_) => Operation::ConnectInfo,
            Self::Heartbeat(_) => Operation::Heartbeat,
            Self::Shutdown => Operation::Shutdown,
        }
    }
}
