//! docker+machine's scaling: `[runners.machine]` as policies of the one scaler, and its own rules as plain functions.
//!
//! docker+machine is not a second scaler. [`Settings::scaler`] translates it:
//!
//! | docker+machine | the scaler |
//! | --- | --- |
//! | `limit`, over machines in every state | `max_instances` |
//! | one job on a machine | `capacity_per_instance = 1` |
//! | `MaxBuilds` | `max_use_count` |
//! | `MaxGrowthRate`, machines in creation at once | [`Config::max_coming`] |
//! | `IdleCount` without a factor | `idle_count` |
//! | `IdleCount`, `IdleCountMin` and `IdleScaleFactor` | `idle_count` (the least), `scale_factor` rounded down, `scale_factor_limit` |
//! | `IdleTime` | `idle_time` |
//! | an idle machine is locked before a job is asked for, if `IdleCount` is above 0 | `preemptive_mode` |
//! | `[[runners.machine.autoscaling]]`, the last that matches replaces all root values | one policy each, after the root's |
//!
//! [`Rules`] are the rules of docker+machine as GitLab Runner states them, and [`Rules::wanted_idle`] is the number that both
//! come to. One thing is left out on purpose: GitLab Runner removes idle machines as soon as `limit` is *reached*, to make
//! the same number again a moment later; here they go only above it.

mod period;

use std::time::Duration;

use crate::config::Config;
use crate::period::Period;
use crate::policy::{Policy, ScaleFactor};
use crate::zone::Zone;

pub use period::{MachinePeriodError, machine_period};

/// `[runners.machine]`, as far as it concerns scaling. Counts are machines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// `limit` of the runner entry: most machines in every state; `0` for unlimited.
    pub limit: u32,
    /// `MaxGrowthRate`: most machines in creation at once; `0` for unlimited.
    pub max_growth_rate: u32,
    /// `MaxBuilds`: jobs after which a machine is replaced; `0` for never.
    pub max_builds: u32,
    /// What applies when no period matches.
    pub root: Idle,
    /// `[[runners.machine.autoscaling]]`: the last one that matches applies, wholly.
    pub autoscaling: Vec<Autoscaling>,
}

/// How many machines wait idle, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Idle {
    /// `IdleCount`. With a factor: the most.
    pub count: u32,
    /// `IdleCountMin`: the least with a factor, where it counts as at least 1. Without a factor it has no effect.
    pub count_min: u32,
    /// `IdleScaleFactor`: idle machines as a factor of used ones; zero turns it off.
    pub scale_factor: ScaleFactor,
    /// `IdleTime`: idle machines older than this are removed.
    pub time: Duration,
}

/// One `[[runners.machine.autoscaling]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Autoscaling {
    /// When it applies; see [`machine_period`].
    pub periods: Vec<Period>,
    /// Where the periods are read.
    pub zone: Zone,
    /// What applies then.
    pub idle: Idle,
}

/// Machines of a runner entry by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Locked for a job that is being asked for.
    pub acquired: u32,
    /// Being created.
    pub creating: u32,
    /// Waiting for a job.
    pub idle: u32,
    /// Running a job.
    pub used: u32,
    /// Being removed.
    pub removing: u32,
    /// Being removed for the third time and more.
    pub stuck_on_removing: u32,
}

/// What is in force at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rules {
    /// See [`Settings::limit`].
    pub limit: u32,
    /// See [`Settings::max_growth_rate`].
    pub max_growth_rate: u32,
    /// See [`Settings::max_builds`].
    pub max_builds: u32,
    /// The idle values in force.
    pub idle: Idle,
}

/// Why an idle machine is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Removal {
    /// It ran `MaxBuilds` jobs.
    #[error("too many builds")]
    TooManyBuilds,
    /// `limit` is reached.
    #[error("too many machines")]
    TooManyMachines,
    /// It is idle for longer than `IdleTime`, and enough others are there.
    #[error("too many idle machines")]
    TooManyIdle,
}

// === impl Settings ===

impl Settings {
    /// The settings of the scaler that keeps as many machines.
    #[must_use]
    pub fn scaler(&self) -> Config {
        let mut policies = vec![self.root.policy(vec![Period::always()], Zone::default())];
        policies.extend(
            self.autoscaling.iter().map(|entry| entry.idle.policy(entry.periods.clone(), entry.zone)),
        );
        Config {
            capacity_per_instance: 1,
            max_use_count: self.max_builds,
            max_instances: self.limit,
            max_coming: self.max_growth_rate,
            policies,
            // Managers with docker+machine do not share machines, and none is held back for others.
            reservation_throttling: false,
            ..Config::default()
        }
    }
}

// === impl Idle ===

impl Idle {
    /// The policy that wants as many idle instances as docker+machine wants idle machines.
    fn policy(&self, periods: Vec<Period>, zone: Zone) -> Policy {
        let scaled = self.scale_factor.is_on();
        // `IdleCount = 0` makes machines on demand only, whatever the factor: a limit of 0 would mean none.
        let (idle_count, scale_factor) = match (scaled, self.count) {
            (_, 0) => (0, ScaleFactor::default()),
            (true, most) => (self.least().min(most), self.scale_factor.rounded_down()),
            (false, count) => (count, ScaleFactor::default()),
        };
        Policy {
            periods,
            zone,
            idle_count,
            idle_time: self.time,
            scale_factor,
            scale_factor_limit: if scaled { self.count } else { 0 },
            preemptive_mode: Some(self.count > 0),
        }
    }

    fn least(&self) -> u32 {
        if self.scale_factor.is_on() { self.count_min.max(1) } else { self.count_min }
    }
}

// === impl Counts ===

impl Counts {
    /// Machines that have or soon have room for a job.
    #[must_use]
    pub fn available(&self) -> u32 {
        self.acquired + self.creating + self.idle
    }

    /// Machines in every state.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.available() + self.used + self.removing + self.stuck_on_removing
    }
}

// === impl Rules ===

impl Rules {
    /// Idle machines that are wanted while `used` run jobs: creation goes on below this number, and removal above it.
    #[must_use]
    pub fn wanted_idle(&self, used: u32) -> u32 {
        let Idle { count, scale_factor, .. } = self.idle;
        if !scale_factor.is_on() {
            return count;
        }
        count.min(self.idle.least().max(scale_factor.rounded_down().of(used)))
    }

    /// Whether a machine may be created: ahead of need, or `on_demand` of a job that has none.
    #[must_use]
    pub fn can_create(&self, counts: &Counts, on_demand: bool) -> bool {
        let growth_exceeded = self.max_growth_rate > 0 && counts.creating >= self.max_growth_rate;
        let on_demand_only = on_demand && self.idle.count == 0;
        !growth_exceeded && !self.total_exceeded(counts) && (on_demand_only || !self.enough_idle(counts))
    }

    /// Whether an idle machine that ran `builds` jobs and was used last `age` ago goes, and why.
    #[must_use]
    pub fn should_remove(&self, counts: &Counts, builds: u32, age: Duration) -> Option<Removal> {
        if self.max_builds > 0 && builds >= self.max_builds {
            return Some(Removal::TooManyBuilds);
        }
        if self.total_exceeded(counts) {
            return Some(Removal::TooManyMachines);
        }
        (age > self.idle.time && self.enough_idle(counts)).then_some(Removal::TooManyIdle)
    }

    fn total_exceeded(&self, counts: &Counts) -> bool {
        self.limit > 0 && counts.total() >= self.limit
    }

    /// GitLab Runner's words: idle count exceeded, or minimum fulfilled and factor exceeded.
    fn enough_idle(&self, counts: &Counts) -> bool {
        let available = counts.available();
        let factor = self.idle.scale_factor.rounded_down();
        let factor_exceeded = factor.is_on() && available >= factor.of(counts.used);
        available >= self.idle.count || (available >= self.idle.least() && factor_exceeded)
    }
}

#[cfg(test)]
mod tests;
