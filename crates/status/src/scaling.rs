//! The state of one scaler.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use taskscaler_core::{Config, InstanceLine, Report, Why};

use crate::diary::Moment;
use crate::words;

/// The state of one scaler, and why it is so.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scaling {
    /// The group, as the provider names it.
    pub group: String,
    /// The provider.
    pub provider: String,
    /// Which manager has the group; empty where groups are not marked.
    #[serde(default)]
    pub owner: String,
    /// The policy in force.
    pub policy: PolicyStatus,
    /// Instances, by state, in words.
    pub have: String,
    /// Instances that exist or are asked for, those being deleted left out.
    pub instance_count: u32,
    /// Instances wanted; none when the counts contradict each other.
    pub wanted: Option<u32>,
    /// Instances that would be wanted without a maximum.
    pub wanted_without_maximum: u32,
    /// Most instances; none without a maximum.
    pub maximum: Option<u32>,
    /// Change wanted; below 0 instances may go.
    pub required: i64,
    /// Slots by state.
    pub slots: Slots,
    /// Why the last decision is as it is, most important first.
    pub why: Vec<Reason>,
    /// What jobs without a slot wait for; none without such jobs.
    pub waiting: Option<Waiting>,
    /// Every instance.
    pub instances: Vec<InstanceStatus>,
    /// What was decided and what failed lately, oldest first.
    pub recent: Vec<Moment>,
}

/// The policy in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// Its position in the file, from 0; none if none matches and the defaults apply.
    pub index: Option<usize>,
    /// How many there are.
    pub of: usize,
    /// When it applies.
    pub periods: Vec<String>,
    /// The zone in which the periods are read.
    pub zone: String,
    /// When another one takes over, as far as it is known.
    pub until: Option<DateTime<Utc>>,
    /// Idle capacity that is kept, in jobs.
    pub idle_count: u32,
    /// How long an instance stays idle before it may go, in seconds.
    pub idle_time_seconds: f64,
    /// Idle capacity as a factor of what is in use; 0 is off.
    pub scale_factor: f64,
    /// Idle capacity that follows from all this now, in jobs.
    pub idle_wanted: u32,
    /// Jobs are taken only when a ready slot exists.
    pub preemptive: bool,
}

/// Slots by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slots {
    /// Running a job.
    pub acquired: u32,
    /// Free.
    pub idle: u32,
    /// Claims that wait for one.
    pub pending: u32,
    /// Claimed for a job that GitLab is asked for.
    pub reserved: u32,
    /// Not to be used.
    pub unavailable: u32,
    /// Slots of one instance.
    pub per_instance: u32,
    /// Jobs after which an instance is replaced; 0 is no limit.
    pub uses_per_instance: u32,
}

/// One reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Its name, as in the metric `drover_scaling_reason`.
    pub name: String,
    /// It keeps jobs from getting more instances.
    pub holds_back: bool,
    /// When this changes by itself, if that is known.
    pub until: Option<DateTime<Utc>>,
    /// The reason in words.
    pub text: String,
}

/// What jobs without a slot wait for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// How many jobs.
    pub jobs: u32,
    /// What for.
    pub text: String,
}

/// One instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// The cloud's name for it.
    pub id: String,
    /// Its state.
    pub state: String,
    /// Why it is known.
    pub origin: String,
    /// Slots running a job.
    pub slots_used: u32,
    /// Its slots.
    pub slots: u32,
    /// Jobs ever started on it.
    pub uses: u32,
    /// First seen.
    pub created: DateTime<Utc>,
    /// Since when it is idle, if it is.
    pub idle_since: Option<DateTime<Utc>>,
    /// When its state changes by itself, if that is known.
    pub until: Option<DateTime<Utc>>,
    /// What it waits for and what will become of it.
    pub next: String,
}

// === impl Scaling ===

impl Scaling {
    /// The state that a decision, the instances and the settings make up. Nothing here is computed again.
    #[must_use]
    pub fn of(
        report: &Report,
        instances: impl IntoIterator<Item = InstanceLine>,
        config: &Config,
        recent: Vec<Moment>,
    ) -> Self {
        let inputs = &report.inputs;
        Self {
            group: String::new(),
            provider: String::new(),
            owner: String::new(),
            policy: PolicyStatus::of(report, config),
            have: words::instances(&report.counts),
            instance_count: inputs.instance_count,
            wanted: report.wanted.target,
            wanted_without_maximum: report.wanted.uncapped,
            maximum: inputs.max_instance_count,
            required: report.wanted.required,
            slots: Slots {
                acquired: inputs.acquired,
                idle: report.idle,
                pending: inputs.pending,
                reserved: inputs.reserved,
                unavailable: inputs.unavailable_capacity,
                per_instance: inputs.capacity_per_instance,
                uses_per_instance: config.max_use_count,
            },
            why: report.why.iter().map(|why| Reason::of(why, report)).collect(),
            waiting: (inputs.pending > 0)
                .then(|| Waiting { jobs: inputs.pending, text: words::waiting(report) }),
            instances: instances.into_iter().map(InstanceStatus::from).collect(),
            recent,
        }
    }
}

// === impl PolicyStatus ===

impl PolicyStatus {
    fn of(report: &Report, config: &Config) -> Self {
        let active = &report.policy;
        let policy = active.index.and_then(|index| config.policies.get(index));
        Self {
            index: active.index,
            of: config.policies.len(),
            periods: policy
                .map(|policy| policy.periods.iter().map(ToString::to_string).collect())
                .unwrap_or_default(),
            zone: policy.map_or_else(String::new, |policy| policy.zone.to_string()),
            until: active.until,
            idle_count: report.inputs.idle_count,
            idle_time_seconds: active.idle_time.as_secs_f64(),
            scale_factor: report.inputs.scale_factor.as_f64(),
            idle_wanted: report.wanted.idle,
            preemptive: active.preemptive,
        }
    }

    /// How long an instance stays idle before it may go, for people.
    #[must_use]
    pub fn idle_time(&self) -> String {
        let idle_time = Duration::try_from_secs_f64(self.idle_time_seconds).unwrap_or_default();
        go_duration::format(idle_time)
    }
}

// === impl Reason ===

impl Reason {
    fn of(why: &Why, report: &Report) -> Self {
        Self {
            name: why.name().to_owned(),
            holds_back: why.holds_back(),
            until: why.until(),
            text: words::reason(why, report),
        }
    }
}

// === impl InstanceStatus ===

impl From<InstanceLine> for InstanceStatus {
    fn from(line: InstanceLine) -> Self {
        Self {
            id: line.id.to_string(),
            state: line.phase.to_string(),
            origin: line.origin.to_string(),
            slots_used: line.slots_used,
            slots: line.capacity,
            uses: line.use_count,
            created: line.created,
            idle_since: line.idle_since,
            until: line.fate.until(),
            next: line.fate.to_string(),
        }
    }
}
