//! One instance and the stages of its life.

use chrono::{DateTime, Utc};

use crate::kinds::Kind;
use crate::metadata::Announced;

#[derive(Debug, Clone)]
pub(crate) struct Instance {
    pub(crate) id: String,
    pub(crate) group: Option<String>,
    pub(crate) zone: String,
    pub(crate) kind: Kind,
    pub(crate) launched: DateTime<Utc>,
    pub(crate) stage: Stage,
    pub(crate) health: &'static str,
    pub(crate) protected: bool,
    pub(crate) address: Option<String>,
    pub(crate) spot_mark: Option<String>,
    pub(crate) event: Option<String>,
    pub(crate) announced: Announced,
    pub(crate) reason: Option<(String, String)>,
}

/// Where in its life an instance is, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// On its way into the warm pool.
    WarmedPending(DateTime<Utc>),
    /// Waits in the warm pool, stopped.
    Warmed,
    Pending(DateTime<Utc>),
    PendingWait(DateTime<Utc>),
    InService,
    TerminatingWait(DateTime<Utc>),
    Terminating(DateTime<Utc>),
    Terminated,
}

// === impl Stage ===

impl Stage {
    pub(crate) fn lifecycle(self) -> &'static str {
        match self {
            Self::WarmedPending(_) => "Warmed:Pending",
            Self::Warmed => "Warmed:Stopped",
            Self::Pending(_) => "Pending",
            Self::PendingWait(_) => "Pending:Wait",
            Self::InService => "InService",
            Self::TerminatingWait(_) => "Terminating:Wait",
            Self::Terminating(_) => "Terminating",
            Self::Terminated => "Terminated",
        }
    }

    /// Name and code of EC2's state.
    pub(crate) fn ec2(self) -> (&'static str, u8) {
        match self {
            Self::Pending(_) => ("pending", 0),
            Self::WarmedPending(_) | Self::PendingWait(_) | Self::InService | Self::TerminatingWait(_) => {
                ("running", 16)
            }
            Self::Warmed => ("stopped", 80),
            Self::Terminating(_) => ("shutting-down", 32),
            Self::Terminated => ("terminated", 48),
        }
    }

    /// Counted in the desired capacity.
    pub(crate) fn is_live(self) -> bool {
        match self {
            Self::Pending(_) | Self::PendingWait(_) | Self::InService => true,
            Self::WarmedPending(_)
            | Self::Warmed
            | Self::TerminatingWait(_)
            | Self::Terminating(_)
            | Self::Terminated => false,
        }
    }

    /// In the warm pool or on the way there.
    pub(crate) fn is_warm(self) -> bool {
        self.lifecycle().starts_with("Warmed:")
    }

    /// When the stage ends by itself.
    pub(crate) fn until(self) -> Option<DateTime<Utc>> {
        match self {
            Self::WarmedPending(at)
            | Self::Pending(at)
            | Self::PendingWait(at)
            | Self::TerminatingWait(at)
            | Self::Terminating(at) => Some(at),
            Self::Warmed | Self::InService | Self::Terminated => None,
        }
    }
}
