//! How long a job and its stages may take.

use std::time::Duration;

/// The bounds of a job and its stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// From the end of the secrets' resolution to the end of the job.
    pub job: Duration,
    /// Preparation: [`Stage::PrepareExecutor`](crate::Stage::PrepareExecutor) and [`Stage::PrepareScript`](crate::Stage::PrepareScript).
    pub prepare: Duration,
    /// [`Stage::GetSources`](crate::Stage::GetSources) with all its attempts.
    pub get_sources: Duration,
    /// All steps together; none means what is left of the job.
    pub script: Option<Duration>,
    /// [`Stage::AfterScript`](crate::Stage::AfterScript).
    pub after_script: Duration,
}

// === impl Timeouts ===

impl Timeouts {
    /// The bound of the steps or of `after_script` when this much of the job is left, and a warning if that is less than
    /// the variable `name` asks for.
    #[must_use]
    pub fn within(asked: Option<Duration>, left: Duration, name: &str) -> (Duration, Option<String>) {
        match asked {
            Some(asked) if asked > left => {
                let asked = go_duration::format(asked);
                (
                    left,
                    Some(format!(
                        "{name} timeout: {asked} is longer than job timeout. Setting to job timeout"
                    )),
                )
            }
            Some(asked) => (asked, None),
            None => (left, None),
        }
    }
}

// === helpers ===

/// Whether a runner's own bound can hold inside of the job's.
pub(super) fn is_usable(bound: Duration, job: Duration) -> bool {
    !bound.is_zero() && bound <= job
}
