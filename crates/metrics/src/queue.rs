//! When a job's time in the queue counts as too long: `[[runners.monitoring.job_queuing_durations]]`.

use std::time::Duration;

use chrono::{DateTime, Utc};
use config::JobQueuingDuration;
use regex::Regex;
use taskscaler_core::{Period, Zone};

/// The rules of one runner entry, in the order of the file.
#[derive(Debug, Default)]
pub(crate) struct QueueRules(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    periods: Vec<Period>,
    zone: Zone,
    threshold: Duration,
    running: Option<Regex>,
}

// === impl QueueRules ===

impl QueueRules {
    /// Rules that cannot be read are logged and left out, as nothing but a count depends on them.
    pub(crate) fn new(runner: &config::Runner, local: Zone) -> Self {
        let rules = runner.monitoring.iter().flat_map(|monitoring| &monitoring.job_queuing_durations);
        let rules = rules.filter_map(|rule| {
            Rule::new(rule, local)
                .inspect_err(|why| {
                    tracing::warn!(
                        runner = runner.label(),
                        why,
                        "an entry of job_queuing_durations is ignored"
                    );
                })
                .ok()
                .flatten()
        });
        Self(rules.collect())
    }

    /// The last rule whose period matches applies.
    pub(crate) fn exceeded(&self, queued: Duration, running: &str, now: DateTime<Utc>) -> bool {
        let rule = self.0.iter().rev().find(|rule| {
            let local = rule.zone.local(now);
            rule.periods.iter().any(|period| period.contains(local))
        });
        rule.is_some_and(|rule| {
            queued > rule.threshold && rule.running.as_ref().is_none_or(|pattern| pattern.is_match(running))
        })
    }
}

// === impl Rule ===

impl Rule {
    /// Nothing for a rule without a threshold.
    fn new(rule: &JobQueuingDuration, local: Zone) -> Result<Option<Self>, String> {
        let Some(threshold) = rule.threshold else { return Ok(None) };
        let periods: Result<Vec<Period>, _> =
            rule.periods.iter().map(|text| text.parse::<Period>()).collect();
        let mut periods = periods.map_err(|error| error.to_string())?;
        if periods.is_empty() {
            periods.push(Period::always());
        }
        let zone = match rule.timezone.as_deref() {
            Some(name) if !name.is_empty() => name.parse::<Zone>().map_err(|error| error.to_string())?,
            Some(_) | None => local,
        };
        let pattern = rule.jobs_running_for_project.as_deref().filter(|pattern| !pattern.is_empty());
        let running = pattern.map(Regex::new).transpose().map_err(|error| error.to_string())?;
        Ok(Some(Self { periods, zone, threshold, running }))
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone as _;
    use test_case::test_case;

    use super::*;

    const FILE: &str = r#"
        [[runners]]
        name = "r"
        url = "https://gitlab.test"
        token = "glrt-abcdefghi"
        executor = "instance"
        [[runners.monitoring.job_queuing_durations]]
        periods = ["* * * * *"]
        timezone = "UTC"
        threshold = "10m"
        [[runners.monitoring.job_queuing_durations]]
        periods = ["* 8-17 * * mon-fri"]
        timezone = "Europe/Berlin"
        threshold = "1m"
        jobs_running_for_project = "^(0|1)$"
    "#;

    #[test_case(6, 90, "0", true; "in office hours a minute is the most")]
    #[test_case(6, 60, "0", false; "as long as the threshold is not longer")]
    #[test_case(6, 900, "7", false; "the last rule that matches is the only one")]
    #[test_case(3, 90, "0", false; "at night the other rule applies")]
    #[test_case(3, 601, "7", true; "which has no pattern")]
    fn a_wait_is_too_long(hour: u32, seconds: u64, running: &str, expected: bool) {
        let loaded = config::parse(FILE, "config.toml", &|_| None).unwrap();
        let rules = QueueRules::new(&loaded.config.runners[0], Zone::default());
        assert_eq!(rules.0.len(), 2);
        let now = Utc.with_ymd_and_hms(2026, 8, 24, hour, 0, 0).unwrap();
        assert_eq!(rules.exceeded(Duration::from_secs(seconds), running, now), expected);
    }
}
