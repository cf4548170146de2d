//! `[runners.referees]` and `[runners.monitoring]`: what is measured and watched beside the standard metrics.

use std::time::Duration;

use super::global::seconds;
use crate::schema::section;

section! {
    /// What is measured for each job and kept as an artifact of it.
    pub struct Referees = "[runners.referees]" {
        /// Metrics of the machine that ran the job.
        metrics: Option<MetricsReferee>;
    }
}

section! {
    /// Metrics of the machine that ran the job, asked from Prometheus. `docker+machine` only.
    pub struct MetricsReferee = "[runners.referees.metrics]" {
        /// URL of the Prometheus server.
        prometheus_address: Option<String>;
        /// Resolution of the queries.
        query_interval: Option<i64>, unit "s";
        /// Queries of the form `label:query`; `{selector}` names the machine.
        queries: Vec<String>;
    }
}

section! {
    /// What is watched beside the standard metrics.
    pub struct Monitoring = "[runners.monitoring]" {
        /// When a wait in the queue counts as too long. The last entry whose period matches applies.
        job_queuing_durations: Vec<JobQueuingDuration>;
    }
}

section! {
    /// When a wait in the queue counts as too long.
    pub struct JobQueuingDuration = "[[runners.monitoring.job_queuing_durations]]" {
        /// When the entry applies, as cron patterns.
        periods: Vec<String>, default "[\"* * * * *\"]";
        /// Zone of the periods.
        timezone: Option<String>, default "local time of the host";
        /// A longer wait is counted.
        threshold: Option<Duration>;
        /// Count only when the number of the project's running jobs, as text, matches this regular expression.
        jobs_running_for_project: Option<String>, default ".*";
    }
}

// === impl MetricsReferee ===

impl MetricsReferee {
    /// Resolution of the queries, if one is set.
    #[must_use]
    pub fn query_interval(&self) -> Option<Duration> {
        seconds(self.query_interval)
    }
}
