//! What a cloud has announced about the end of an instance.

use std::time::SystemTime;

/// An announcement that an instance will, or may, be taken away. No new job should go there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doom {
    /// What was announced.
    pub kind: DoomKind,
    /// When the instance will be gone or its processes stopped, where that is **certain** and known. A job that still runs
    /// shortly before is ended, so that its log and its result are safe. Without it, jobs run on until the instance goes.
    pub at: Option<SystemTime>,
    /// The cloud's words, in one line without control characters, for people. The moment is not part of them.
    pub why: String,
}

/// What was announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DoomKind {
    /// Spare capacity is taken back.
    Interruption,
    /// The cloud fears an interruption and advises to leave; nothing is certain.
    Rebalance,
    /// The machine will be stopped, rebooted or retired for maintenance.
    Maintenance,
    /// Something else ends the instance: its group, or an operator.
    Ending,
}

// === impl Doom ===

impl Doom {
    /// An announcement without a moment.
    pub fn new(kind: DoomKind, why: impl Into<String>) -> Self {
        Self { kind, at: None, why: why.into() }
    }

    /// The same with the moment at which the instance is gone.
    #[must_use]
    pub fn at(self, at: SystemTime) -> Self {
        Self { at: Some(at), ..self }
    }
}
