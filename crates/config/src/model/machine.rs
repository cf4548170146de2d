//! `[runners.machine]`: the docker+machine executor.

use std::time::Duration;

use taskscaler_core::machine::{self, MachinePeriodError, machine_period};
use taskscaler_core::{ScaleFactor, ScaleFactorError, Zone, ZoneError};

use super::global::{count, seconds};
use crate::schema::section;
use crate::values::Assignments;

section! {
    /// Scaling of single machines for the executor `docker+machine`. Counts are machines; times are whole seconds.
    pub struct Machine = "[runners.machine]" {
        /// Machines in creation at the same time; 0 means no limit.
        max_growth_rate as "MaxGrowthRate": Option<i64>, default "0", unit "machines";
        /// Machines to keep idle; 0 creates a machine when a job is there. With `IdleScaleFactor`: most idle machines.
        idle_count as "IdleCount": Option<i64>, default "0", unit "machines";
        /// Idle machines as a share of those in use; 0 switches it off.
        idle_scale_factor as "IdleScaleFactor": Option<f64>, default "0", since "14.6";
        /// Least idle machines with `IdleScaleFactor`, where it is at least 1.
        idle_count_min as "IdleCountMin": Option<i64>, default "0", unit "machines", since "14.6";
        /// Idle machines older than this are removed.
        idle_time as "IdleTime": Option<i64>, default "0", unit "s";
        /// Jobs after which a machine is replaced; 0 means never.
        max_builds as "MaxBuilds": Option<i64>, default "0", unit "jobs";
        /// Driver, such as `amazonec2` or `google`.
        machine_driver as "MachineDriver": Option<String>;
        /// Template of machine names; must contain `%s`.
        machine_name as "MachineName": Option<String>;
        /// Options of the driver, without leading dashes.
        machine_options as "MachineOptions": Assignments;
        /// Options in which `%s` is replaced by the machine's name.
        machine_options_with_name as "MachineOptionsWithName": Assignments;
        /// Attempts to remove a machine before it is given up.
        max_removal_attempts as "MaxRemovalAttempts": Option<i64>, default "30";
        /// Deprecated and without effect in GitLab Runner since 14.0: write an `autoscaling` entry.
        off_peak_periods as "OffPeakPeriods": Vec<String>;
        /// Deprecated, as `OffPeakPeriods`.
        off_peak_timezone as "OffPeakTimezone": Option<String>;
        /// Deprecated, as `OffPeakPeriods`.
        off_peak_idle_count as "OffPeakIdleCount": Option<i64>;
        /// Deprecated, as `OffPeakPeriods`.
        off_peak_idle_time as "OffPeakIdleTime": Option<i64>;
        /// Values for certain periods. The last entry that matches replaces all of `IdleCount`, `IdleScaleFactor`,
        /// `IdleCountMin` and `IdleTime`: a key that it omits counts as 0.
        autoscaling: Vec<MachineAutoscaling>;
    }
}

section! {
    /// Values for certain periods. The last entry that matches replaces all four root values: a key that it omits counts as 0.
    pub struct MachineAutoscaling = "[[runners.machine.autoscaling]]" {
        /// When the entry applies, as cron patterns of seven fields, the first being seconds and the last the year.
        periods as "Periods": Vec<String>;
        /// Zone of the periods, as an IANA name or `Local`.
        timezone as "Timezone": Option<String>, default "Local";
        /// As in `[runners.machine]`.
        idle_count as "IdleCount": Option<i64>, default "0", unit "machines";
        /// As in `[runners.machine]`.
        idle_scale_factor as "IdleScaleFactor": Option<f64>, default "0";
        /// As in `[runners.machine]`.
        idle_count_min as "IdleCountMin": Option<i64>, default "0", unit "machines";
        /// As in `[runners.machine]`.
        idle_time as "IdleTime": Option<i64>, default "0", unit "s";
    }
}

/// Why `[runners.machine]` cannot be turned into settings of the scaler.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MachineError {
    /// One of its periods.
    #[error(transparent)]
    Period(#[from] MachinePeriodError),
    /// A time zone.
    #[error(transparent)]
    Zone(#[from] ZoneError),
    /// A scale factor.
    #[error(transparent)]
    ScaleFactor(#[from] ScaleFactorError),
}

// === impl Machine ===

impl Machine {
    /// Machines in creation at the same time; `None` means no limit.
    #[must_use]
    pub fn max_growth_rate(&self) -> Option<u32> {
        count(self.max_growth_rate)
    }

    /// Machines to keep idle outside of all `autoscaling` periods.
    #[must_use]
    pub fn idle_count(&self) -> u32 {
        count(self.idle_count).unwrap_or(0)
    }

    /// Least idle machines: with a factor at least 1.
    #[must_use]
    pub fn idle_count_min(&self) -> u32 {
        least(self.idle_count_min, self.idle_scale_factor)
    }

    /// Age at which idle machines are removed.
    #[must_use]
    pub fn idle_time(&self) -> Duration {
        seconds(self.idle_time).unwrap_or(Duration::ZERO)
    }

    /// Jobs after which a machine is replaced; `None` means never.
    #[must_use]
    pub fn max_builds(&self) -> Option<u32> {
        count(self.max_builds)
    }

    /// What the scaler has to know. `limit` is that of the runner entry, `local` the zone of the host.
    ///
    /// # Errors
    /// [`MachineError`]; among them periods that GitLab Runner accepts and the scaler cannot follow.
    pub fn settings(&self, limit: Option<u32>, local: Zone) -> Result<machine::Settings, MachineError> {
        let entry = |entry: &MachineAutoscaling| -> Result<machine::Autoscaling, MachineError> {
            Ok(machine::Autoscaling {
                periods: entry.periods.iter().map(|text| machine_period(text)).collect::<Result<_, _>>()?,
                zone: match entry.timezone.as_deref() {
                    None | Some("" | "Local") => local,
                    Some(name) => name.parse()?,
                },
                idle: machine::Idle {
                    count: entry.idle_count(),
                    count_min: entry.idle_count_min(),
                    scale_factor: ScaleFactor::try_from(entry.idle_scale_factor.unwrap_or(0.0))?,
                    time: entry.idle_time(),
                },
            })
        };
        Ok(machine::Settings {
            limit: limit.unwrap_or(0),
            max_growth_rate: self.max_growth_rate().unwrap_or(0),
            max_builds: self.max_builds().unwrap_or(0),
            root: machine::Idle {
                count: self.idle_count(),
                count_min: self.idle_count_min(),
                scale_factor: ScaleFactor::try_from(self.idle_scale_factor.unwrap_or(0.0))?,
                time: self.idle_time(),
            },
            autoscaling: self.autoscaling.iter().map(entry).collect::<Result<_, _>>()?,
        })
    }

    /// Attempts to remove a machine before it is given up.
    #[must_use]
    pub fn max_removal_attempts(&self) -> u32 {
        count(self.max_removal_attempts).unwrap_or(30)
    }
}

// === impl MachineAutoscaling ===

impl MachineAutoscaling {
    /// Machines to keep idle.
    #[must_use]
    pub fn idle_count(&self) -> u32 {
        count(self.idle_count).unwrap_or(0)
    }

    /// Least idle machines: with a factor at least 1.
    #[must_use]
    pub fn idle_count_min(&self) -> u32 {
        least(self.idle_count_min, self.idle_scale_factor)
    }

    /// Age at which idle machines are removed.
    #[must_use]
    pub fn idle_time(&self) -> Duration {
        seconds(self.idle_time).unwrap_or(Duration::ZERO)
    }
}

fn least(min: Option<i64>, factor: Option<f64>) -> u32 {
    let min = count(min).unwrap_or(0);
    if factor.is_some_and(|factor| factor > 0.0) { min.max(1) } else { min }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_factor_keeps_at_least_one_machine() {
        assert_eq!(Machine::default().idle_count_min(), 0);
        let machine = Machine { idle_scale_factor: Some(0.5), ..Machine::default() };
        assert_eq!(machine.idle_count_min(), 1);
    }
}
