//! Alert rules for Prometheus. Each says what it means and what to look at.

use std::fmt::Write as _;

/// One rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alert {
    /// Its name.
    pub name: &'static str,
    /// When it holds.
    pub expression: &'static str,
    /// How long it must hold, in Prometheus' notation.
    pub lasting: &'static str,
    /// `critical` for what stops jobs, else `warning`.
    pub severity: &'static str,
    /// One line for people.
    pub summary: &'static str,
    /// What it means and what to look at.
    pub description: &'static str,
}

/// Every rule.
pub static ALERTS: &[Alert] = &[
    Alert {
        name: "DroverRunnerUnhealthy",
        expression: "drover_runner_healthy == 0",
        lasting: "5m",
        severity: "critical",
        summary: "GitLab refuses runner {{ $labels.runner_name }}",
        description: "GitLab answered job requests with a refusal: the runner's token was reset or the runner was removed. It takes no jobs until the token is right.",
    },
    Alert {
        name: "DroverGitlabFailing",
        expression: "sum by (runner, system_id) (rate(gitlab_runner_api_request_statuses_total{status=~\"-1|5..\"}[5m])) / sum by (runner, system_id) (rate(gitlab_runner_api_request_statuses_total[5m])) > 0.2",
        lasting: "10m",
        severity: "warning",
        summary: "More than a fifth of the calls to GitLab fail",
        description: "GitLab does not answer or answers with server errors. Logs and results of running jobs are kept and sent when it is back.",
    },
    Alert {
        name: "DroverJobsQueueTooLong",
        expression: "rate(gitlab_runner_acceptable_job_queuing_duration_exceeded_total[10m]) > 0",
        lasting: "10m",
        severity: "warning",
        summary: "Jobs of {{ $labels.runner_name }} are in the queue for longer than configured",
        description: "Idle slots meanwhile: jobs are not asked for, see request_concurrency. No idle slots: see fleeting_provisioner_max_instances, drover_scaling_reason and the policy in force.",
    },
    Alert {
        name: "DroverQueueDelay",
        expression: "histogram_quantile(0.95, sum by (le, runner, runner_name, system_id) (rate(gitlab_runner_job_queue_duration_seconds_bucket[15m]))) > 120",
        lasting: "15m",
        severity: "warning",
        summary: "One in twenty jobs of {{ $labels.runner_name }} waits for more than two minutes",
        description: "Two minutes is the delay that users notice. Look at idle slots, pending claims and the limits of requests.",
    },
    Alert {
        name: "DroverRequestConcurrencyTooLow",
        expression: "rate(gitlab_runner_request_concurrency_exceeded_total[10m]) > 0.1",
        lasting: "15m",
        severity: "warning",
        summary: "request_concurrency keeps jobs waiting",
        description: "GitLab has jobs, there is room for them, and as many requests as allowed are under way. Raise request_concurrency.",
    },
    Alert {
        name: "DroverClaimsPending",
        expression: "fleeting_taskscaler_tasks{state=\"pending\"} > 0",
        lasting: "10m",
        severity: "warning",
        summary: "Jobs of {{ $labels.runner_name }} have waited for an instance for ten minutes",
        description: "Instances are missing. drover_scaling_reason says why: at_max_instances, backoff, throttled or waiting_for_instances; drover_provider_call_duration_seconds has the provider's outcomes.",
    },
    Alert {
        name: "DroverNoFreeExecutor",
        expression: "sum by (runner, runner_name, system_id) (rate(gitlab_runner_worker_processing_failures_total{failure_type=\"no_free_executor\"}[5m])) > 1 and on (runner, runner_name, system_id) rate(fleeting_taskscaler_scale_operations_total{operation=\"up\"}[5m]) > 0",
        lasting: "15m",
        severity: "warning",
        summary: "Runner {{ $labels.runner_name }} often finds no room while its group grows",
        description: "The idle capacity is too small for the peak. Raise idle_count or scale_factor for known peaks; idle capacity costs money.",
    },
    Alert {
        name: "DroverDeletionsStuck",
        expression: "min_over_time(fleeting_provisioner_instances{state=\"deleting\"}[20m]) > 0 and on (runner, runner_name, system_id) increase(fleeting_provisioner_instance_deletion_time_seconds_count[20m]) == 0",
        lasting: "10m",
        severity: "critical",
        summary: "Deletions of {{ $labels.runner_name }} are stuck",
        description: "Instances are being deleted and none has gone for twenty minutes. They are paid for and count towards max_instances. Look at the cloud's console and at the outcomes of decrease.",
    },
    Alert {
        name: "DroverDeletionsFail",
        expression: "drover_scaling_reason{why=\"deletion_failing\"} == 1",
        lasting: "10m",
        severity: "critical",
        summary: "The cloud refuses to delete instances of {{ $labels.runner_name }}",
        description: "Deletions are repeated and refused. The log has the cloud's words.",
    },
    Alert {
        name: "DroverCreationFails",
        expression: "drover_scaling_reason{why=\"backoff\"} == 1",
        lasting: "10m",
        severity: "warning",
        summary: "Instances of {{ $labels.runner_name }} keep failing to come or to get ready",
        description: "See drover_instance_removals_total for ready_up_failed and creation_timeout, and the outcomes of increase.",
    },
    Alert {
        name: "DroverGroupSaturated",
        expression: "drover_scaling_reason{why=\"at_max_instances\"} == 1",
        lasting: "30m",
        severity: "warning",
        summary: "The group of {{ $labels.runner_name }} has been at its maximum for half an hour",
        description: "More instances are wanted than max_instances or the group allows. With few slots in use, creation or deletion is slow.",
    },
    Alert {
        name: "DroverInstancesLost",
        expression: "increase(drover_instance_removals_total{reason=~\"unexpectedly_removed|taken_away|doomed\"}[1h]) > 3",
        lasting: "0m",
        severity: "warning",
        summary: "Instances of {{ $labels.runner_name }} are taken away",
        description: "The cloud or another actor removes instances: spot interruptions, a health check or a scaling policy of the group itself.",
    },
    Alert {
        name: "DroverListingsFail",
        expression: "rate(fleeting_provisioner_missed_updates_total[10m]) > 0",
        lasting: "10m",
        severity: "warning",
        summary: "The group of {{ $labels.runner_name }} cannot be listed",
        description: "Nothing is decided on stale pictures. See the outcomes of update.",
    },
    Alert {
        name: "DroverSystemFailures",
        expression: "sum by (runner, runner_name) (increase(gitlab_runner_failed_jobs_total{failure_reason=\"runner_system_failure\"}[30m])) > 5",
        lasting: "0m",
        severity: "warning",
        summary: "Jobs of {{ $labels.runner_name }} fail for reasons that are not theirs",
        description: "More than five jobs in half an hour ended with runner_system_failure.",
    },
    Alert {
        name: "DroverConfigurationRefused",
        expression: "increase(gitlab_runner_configuration_loading_error_total[15m]) > 0",
        lasting: "0m",
        severity: "warning",
        summary: "A changed configuration is not in force",
        description: "The file could not be read; the old configuration stays. The log has line and reason.",
    },
];

/// The rules as a file for Prometheus.
#[must_use]
pub fn alerts() -> String {
    let mut text = String::from(
        "# Made from the code: UPDATE_REFERENCE=1 cargo test -p drover-metrics --test reference\n\
         groups:\n  - name: drover\n    rules:\n",
    );
    for alert in ALERTS {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "      - alert: {}", alert.name);
        let _ = writeln!(text, "        expr: {}", quoted(alert.expression));
        let _ = writeln!(text, "        for: {}", alert.lasting);
        let _ = writeln!(text, "        labels:\n          severity: {}", alert.severity);
        let _ = writeln!(text, "        annotations:\n          summary: {}", quoted(alert.summary));
        let _ = writeln!(text, "          description: {}", quoted(alert.description));
    }
    text
}

/// Strings of JSON are strings of YAML.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
