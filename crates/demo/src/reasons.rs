//! The reasons of a decision, with times on the clock of the demonstration.

use chrono::{DateTime, Utc};
use taskscaler::Report;
use taskscaler_core::Why;

/// One line per reason, most important first. `began` is the zero of the demonstration's clock.
pub(crate) fn reasons(report: &Report, began: DateTime<Utc>) -> Vec<String> {
    let at = |until: &DateTime<Utc>| {
        let since = (*until - began).as_seconds_f64();
        format!("{since:.1} s")
    };
    let line = |why: &Why| match why {
        Why::TooYoungToRemove { instance, until } => {
            format!("not removing {instance} before {}: it has not been idle long enough", at(until))
        }
        Why::ThrottledUntil { until, waiting } => {
            format!("scale throttle: {waiting} more to launch, next at {}", at(until))
        }
        Why::BackoffUntil { until, failures, last } => {
            format!("backing off until {} after {failures} failures, last: {last}", at(until))
        }
        Why::CircuitOpen { .. }
        | Why::Probing { .. }
        | Why::RemovedByOthers { .. }
        | Why::Churn { .. }
        | Why::NoListing
        | Why::HeldElsewhere { .. }
        | Why::ShuttingDown
        | Why::Launching { .. }
        | Why::AtMaxInstances { .. }
        | Why::Lacking { .. }
        | Why::WaitingForInstances { .. }
        | Why::GuardExceeded { .. }
        | Why::Removing { .. }
        | Why::DeletionFailing { .. }
        | Why::KeptIdle { .. }
        | Why::NoPolicyMatches
        | Why::NothingToDo => why.to_string(),
    };
    report.why.iter().map(line).collect()
}
