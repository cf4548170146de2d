//! What a provider says, in the core's terms.

use std::time::Duration;

use fleeting::{Doom, GroupError};
use taskscaler_core::{Failure, FailureKind, InstanceId};

/// One line of a listing.
pub(crate) fn seen(line: &fleeting::Seen) -> taskscaler_core::Seen {
    taskscaler_core::Seen {
        id: InstanceId::from(line.id.as_str()),
        state: match line.state {
            fleeting::InstanceState::Creating => taskscaler_core::SeenState::Creating,
            fleeting::InstanceState::Running => taskscaler_core::SeenState::Running,
            fleeting::InstanceState::Deleting => taskscaler_core::SeenState::Deleting,
            fleeting::InstanceState::Deleted => taskscaler_core::SeenState::Deleted,
            fleeting::InstanceState::Timeout => taskscaler_core::SeenState::Timeout,
        },
        doomed: line.doomed.clone().map(in_core),
    }
}

/// The provider's announcement in the core's terms.
pub(crate) fn in_core(doom: Doom) -> taskscaler_core::Doom {
    taskscaler_core::Doom {
        kind: match doom.kind {
            fleeting::DoomKind::Interruption => taskscaler_core::DoomKind::Interruption,
            fleeting::DoomKind::Rebalance => taskscaler_core::DoomKind::Rebalance,
            fleeting::DoomKind::Maintenance => taskscaler_core::DoomKind::Maintenance,
            fleeting::DoomKind::Ending => taskscaler_core::DoomKind::Ending,
        },
        at: doom.at.map(Into::into),
        why: doom.why,
    }
}

/// Why a call failed.
pub(crate) fn failure(error: &GroupError) -> Failure {
    let (kind, retry_after) = match error {
        GroupError::Throttled { retry_after, .. } => (FailureKind::Throttled, *retry_after),
        GroupError::NoCapacity { .. } => (FailureKind::NoCapacity, None),
        GroupError::LimitReached { .. }
        | GroupError::Denied { .. }
        | GroupError::Configuration { .. }
        | GroupError::Unsupported { .. } => (FailureKind::NeedsOperator, None),
        GroupError::NotFound { .. } | GroupError::Transient { .. } => (FailureKind::Transient, None),
    };
    Failure { retry_after, ..Failure::new(kind, error.to_string()) }
}

/// When a call that failed may be made again, at least `least` from now.
pub(crate) fn retry_after(error: &GroupError, least: Duration) -> Duration {
    failure(error).retry_after.unwrap_or(least).max(least)
}
