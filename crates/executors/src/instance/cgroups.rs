//! Control groups that are named after slots, so that the jobs of one instance can be kept apart.

use config::Runner;

/// What jobs know their control group by.
const VARIABLE: &str = "GITLAB_RUNNER_SLOT_CGROUP";

/// Control groups of one slot. They are made by whoever makes the instances; here they are only named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlotCgroups {
    /// Of the job.
    pub(crate) job: String,
    /// Of its services, where they are containers.
    pub(crate) services: String,
}

// === impl SlotCgroups ===

impl SlotCgroups {
    /// Those of a slot; none if the entry does not ask for them.
    pub(crate) fn of(runner: &Runner, slot: u32) -> Option<Self> {
        Some(Self { job: runner.slot_cgroup(slot)?, services: runner.service_slot_cgroup(slot)? })
    }

    /// The variable by which the job knows its own.
    pub(crate) fn variable(&self) -> (&'static str, String) {
        (VARIABLE, self.job.clone())
    }
}
