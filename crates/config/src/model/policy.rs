//! How much is kept idle, and when.

use std::time::Duration;

use taskscaler_core::{Period, PeriodError, ScaleFactor, ScaleFactorError, Zone, ZoneError};

use super::global::count;
use crate::schema::section;

section! {
    /// How much is kept idle while one of its periods matches. The last entry that matches applies.
    pub struct Policy = "[[runners.autoscaler.policy]]" {
        /// When the entry applies, as cron patterns of five fields: each names the minutes in which it holds.
        periods: Vec<String>, default "[\"* * * * *\"]";
        /// Zone of the periods, as an IANA name.
        timezone: Option<String>, default "local time of the host";
        /// Idle capacity to keep, in jobs, not instances.
        idle_count: Option<i64>, default "0", unit "jobs";
        /// Idle instances older than this are removed.
        idle_time: Option<Duration>, default "5m";
        /// Idle capacity as a share of the capacity in use.
        scale_factor: Option<f64>, default "0";
        /// Most that `scale_factor` may ask for; 0 means no limit.
        scale_factor_limit: Option<i64>, default "0", unit "jobs";
        /// Ask GitLab for jobs only when an instance is there for them.
        preemptive_mode: Option<bool>, default "true if `idle_count` is above 0";
    }
}

/// Why an entry of `policy` cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// One of its periods.
    #[error(transparent)]
    Period(#[from] PeriodError),
    /// Its time zone.
    #[error(transparent)]
    Zone(#[from] ZoneError),
    /// Its scale factor.
    #[error(transparent)]
    ScaleFactor(#[from] ScaleFactorError),
}

// === impl Policy ===

impl Policy {
    /// When the entry applies.
    #[must_use]
    pub fn periods(&self) -> Vec<&str> {
        if self.periods.is_empty() {
            vec!["* * * * *"]
        } else {
            self.periods.iter().map(String::as_str).collect()
        }
    }

    /// The entry as the scaler takes it. `local` is the zone of the host, for an entry that names none.
    ///
    /// # Errors
    /// [`PolicyError`]; never for an entry of a runner that was found runnable.
    pub fn resolve(&self, local: Zone) -> Result<taskscaler_core::Policy, PolicyError> {
        let periods =
            self.periods().iter().map(|period| period.parse::<Period>()).collect::<Result<_, _>>()?;
        let zone = match self.timezone.as_deref() {
            None | Some("Local") => local,
            Some(name) => name.parse()?,
        };
        Ok(taskscaler_core::Policy {
            periods,
            zone,
            idle_count: self.idle_count(),
            idle_time: self.idle_time(),
            scale_factor: ScaleFactor::try_from(self.scale_factor())?,
            scale_factor_limit: self.scale_factor_limit().unwrap_or(0),
            preemptive_mode: self.preemptive_mode,
        })
    }

    /// Idle capacity to keep, in jobs.
    #[must_use]
    pub fn idle_count(&self) -> u32 {
        count(self.idle_count).unwrap_or(0)
    }

    /// Idle instances older than this are removed.
    #[must_use]
    pub fn idle_time(&self) -> Duration {
        self.idle_time.unwrap_or(Duration::from_secs(300))
    }

    /// Idle capacity as a share of the capacity in use.
    #[must_use]
    pub fn scale_factor(&self) -> f64 {
        self.scale_factor.unwrap_or(0.0)
    }

    /// Most that the factor may ask for; `None` means no limit.
    #[must_use]
    pub fn scale_factor_limit(&self) -> Option<u32> {
        count(self.scale_factor_limit)
    }

    /// Whether jobs are asked for only when an instance is there for them.
    #[must_use]
    pub fn preemptive_mode(&self) -> bool {
        self.preemptive_mode.unwrap_or_else(|| self.idle_count() > 0)
    }

    /// Whether the entry applies always.
    #[must_use]
    pub fn is_general(&self) -> bool {
        self.periods.is_empty()
            || self.periods.iter().any(|period| period.split_whitespace().eq(["*", "*", "*", "*", "*"]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preemptive_mode_follows_idle_count_unless_set() {
        let idle = Policy { idle_count: Some(1), ..Policy::default() };
        assert!(idle.preemptive_mode());
        assert!(!Policy::default().preemptive_mode());
        assert!(!Policy { preemptive_mode: Some(false), ..idle }.preemptive_mode());
    }
}
