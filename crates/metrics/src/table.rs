//! Every metric, defined once: the exposition, the reference page, the dashboard and the check of the alert rules are made
//! from this table.

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Definition {
    /// Its name, as scraped.
    pub name: &'static str,
    /// What kind of number it is.
    pub kind: Kind,
    /// Labels that name the runner entry.
    pub scope: Scope,
    /// Labels beside these.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
    /// Whose name it is.
    pub origin: Origin,
    /// Chapter of the reference page and row of the dashboard.
    pub group: Group,
}

/// What kind of number a metric is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations up to each of these bounds.
    Histogram(&'static [f64]),
}

/// Which labels name the runner entry that a row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// None: the row is about the process.
    Process,
    /// `runner` (the part of the token that may be shown), `runner_name`, `system_id`.
    Runner,
    /// `runner`, `system_id`.
    Token,
    /// `runner`, `runner_name`.
    Name,
}

/// Whose name a metric has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// GitLab Runner's.
    GitlabRunner,
    /// That of fleeting and taskscaler, as in GitLab's published dashboards.
    Taskscaler,
    /// The Prometheus client libraries'.
    Prometheus,
    /// Drover's own: nothing upstream says it.
    Drover,
}

/// What a metric is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Jobs.
    Jobs,
    /// Runner entries, their turns and requests.
    Runners,
    /// Calls to GitLab, logs.
    Gitlab,
    /// Instances.
    Instances,
    /// Slots and claims.
    Slots,
    /// Scaling decisions and their reasons.
    Decisions,
    /// The process.
    Process,
}

/// Seconds that jobs and their stages take.
const JOB: Kind =
    Kind::Histogram(&[30.0, 60.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 10800.0, 18000.0, 36000.0]);
const QUEUE: Kind = Kind::Histogram(&[1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 1800.0, 3600.0]);
const REQUEST: Kind = Kind::Histogram(&[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0]);
/// GitLab publishes no buckets for what instances take.
const CREATION: Kind = Kind::Histogram(&[
    1.0, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 180.0, 300.0, 600.0, 1200.0, 3600.0,
]);
const DELETION: Kind =
    Kind::Histogram(&[1.0, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 180.0, 300.0, 600.0]);
const LIFE: Kind = Kind::Histogram(&[
    60.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 14400.0, 28800.0, 43200.0, 86400.0, 172_800.0, 604_800.0,
]);
const CALL: Kind = Kind::Histogram(&[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0]);

macro_rules! table {
    ($($id:ident = $name:literal $kind:ident $scope:ident [$($label:literal),*] $origin:ident $group:ident $help:literal)*) => {
        /// Names a row of the [`TABLE`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Id {
            $($id),*
        }

        /// Every metric, in the order in which they are shown.
        pub static TABLE: &[Definition] = &[
            $(Definition {
                name: $name,
                kind: kind!($kind),
                scope: Scope::$scope,
                labels: &[$($label),*],
                help: $help,
                origin: Origin::$origin,
                group: Group::$group,
            }),*
        ];
    };
}

macro_rules! kind {
    (Counter) => {
        Kind::Counter
    };
    (Gauge) => {
        Kind::Gauge
    };
    ($histogram:ident) => {
        $histogram
    };
}

table! {
    Jobs = "gitlab_runner_jobs" Gauge Runner ["state", "stage", "executor_stage"] GitlabRunner Jobs
        "Jobs that run, by what they do. A row whose labels are all `idle` always exists."
    JobsTotal = "gitlab_runner_jobs_total" Counter Runner [] GitlabRunner Jobs
        "Jobs received."
    JobExecutionModeTotal = "gitlab_runner_job_execution_mode_total" Counter Process ["mode", "executor"] GitlabRunner Jobs
        "Jobs received, by how their script is run (always `traditional`) and by executor."
    JobDuration = "gitlab_runner_job_duration_seconds" JOB Runner ["mode"] GitlabRunner Jobs
        "Time from a job's receipt to the end of its last stage."
    JobQueueDuration = "gitlab_runner_job_queue_duration_seconds" QUEUE Runner ["project_jobs_running"] GitlabRunner Jobs
        "Time that received jobs had spent in the queue, by the number of their project's running jobs; both are GitLab's figures."
    JobStageDuration = "gitlab_runner_job_stage_duration_seconds" JOB Runner ["stage"] GitlabRunner Jobs
        "Time that stages took, for jobs with `FF_EXPORT_HIGH_CARDINALITY_METRICS`."
    JobQueueSize = "gitlab_runner_job_queue_size" Gauge Runner [] GitlabRunner Jobs
        "Jobs in the queue, as GitLab said with the last job."
    JobQueueDepth = "gitlab_runner_job_queue_depth" Gauge Runner [] GitlabRunner Jobs
        "Jobs in the queue that GitLab looked at before it found the last job."
    QueuingExceededTotal = "gitlab_runner_acceptable_job_queuing_duration_exceeded_total" Counter Runner [] GitlabRunner Jobs
        "Jobs that were in the queue for longer than the matching entry of `[[runners.monitoring.job_queuing_durations]]` allows."
    FailedJobsTotal = "gitlab_runner_failed_jobs_total" Counter Name ["failure_reason", "mode"] GitlabRunner Jobs
        "Jobs that failed, by the runner's word for why."
    JobsEndedEarlyTotal = "drover_jobs_ended_early_total" Counter Runner ["kind"] Drover Jobs
        "Jobs that were stopped because their instance was about to be taken away, by what was announced."

    Concurrent = "gitlab_runner_concurrent" Gauge Process [] GitlabRunner Runners
        "The value of `concurrent`."
    Limit = "gitlab_runner_limit" Gauge Runner [] GitlabRunner Runners
        "The value of `limit`; 0 is no limit."
    RequestConcurrency = "gitlab_runner_request_concurrency" Gauge Token [] GitlabRunner Runners
        "Requests for a job under way."
    RequestHardLimit = "gitlab_runner_request_concurrency_hard_limit" Gauge Token [] GitlabRunner Runners
        "The value of `request_concurrency`."
    RequestAdaptiveLimit = "gitlab_runner_request_concurrency_adaptive_limit" Gauge Token [] GitlabRunner Runners
        "The limit that GitLab's answers suggest, before it is rounded up."
    RequestUsedLimit = "gitlab_runner_request_concurrency_used_limit" Gauge Token [] GitlabRunner Runners
        "The limit in force."
    RequestExceededTotal = "gitlab_runner_request_concurrency_exceeded_total" Counter Token [] GitlabRunner Runners
        "How often only `request_concurrency` kept another request from being made while GitLab gave jobs."
    FeedsTotal = "gitlab_runner_worker_feeds_total" Counter Runner [] GitlabRunner Runners
        "Turns of the runner entry."
    FeedFailuresTotal = "gitlab_runner_worker_feed_failures_total" Counter Runner [] GitlabRunner Runners
        "Turns lost because the entry does not work or its runner is unhealthy."
    HealthFailuresTotal = "gitlab_runner_worker_health_check_failures_total" Counter Runner [] GitlabRunner Runners
        "How often the runner became unhealthy: GitLab refused it `unhealthy_requests_limit` times in a row."
    ProcessingFailuresTotal = "gitlab_runner_worker_processing_failures_total" Counter Runner ["failure_type"] GitlabRunner Runners
        "Turns that ended without a job that succeeded: no room at the executor, a failed job, a job that cannot be read."
    SlotsNumber = "gitlab_runner_worker_slots_number" Gauge Process [] GitlabRunner Runners
        "Places for jobs; the value of `concurrent`."
    SlotOperationsTotal = "gitlab_runner_worker_slot_operations_total" Counter Process ["operation"] GitlabRunner Runners
        "Places for jobs that were added and taken away by loading a configuration."
    RunnerHealthy = "drover_runner_healthy" Gauge Runner [] Drover Runners
        "1 while GitLab does not refuse the runner, 0 while it is left alone."

    ApiStatusesTotal = "gitlab_runner_api_request_statuses_total" Counter Token ["endpoint", "status", "method"] GitlabRunner Gitlab
        "Calls to GitLab by the status of their last answer; `-1` without one."
    ApiDuration = "gitlab_runner_api_request_duration_seconds" REQUEST Token ["endpoint", "status_class", "method"] GitlabRunner Gitlab
        "Time that calls to GitLab took, retries included; class `error` without an answer."
    ApiRetriesTotal = "gitlab_runner_api_request_retries_total" Counter Process ["path", "method"] GitlabRunner Gitlab
        "Attempts of calls that had to be repeated."
    LogBytesTotal = "drover_job_log_bytes_total" Counter Runner [] Drover Gitlab
        "Bytes of job logs that GitLab has taken."
    LogFailuresTotal = "drover_job_log_request_failures_total" Counter Runner ["kind"] Drover Gitlab
        "Patches and updates of jobs that failed: an `outage` is waited for, what is `rejected` is not."
    LogLossesTotal = "drover_job_log_losses_total" Counter Runner [] Drover Gitlab
        "Job logs that lost bytes because the disk failed."

    Instances = "fleeting_provisioner_instances" Gauge Runner ["state"] Taskscaler Instances
        "Instances by state. `running` are all that run and are not being deleted."
    MaxInstances = "fleeting_provisioner_max_instances" Gauge Runner [] Taskscaler Instances
        "Most instances in every state: the smaller of `max_instances` and the group's bound; 0 is no limit."
    MissedUpdatesTotal = "fleeting_provisioner_missed_updates_total" Counter Runner [] Taskscaler Instances
        "Listings of the group that failed."
    InstanceOperationsTotal = "fleeting_provisioner_instance_operations_total" Counter Runner ["operation"] Taskscaler Instances
        "Instances that the cloud agreed to create and to delete."
    InternalOperationsTotal = "fleeting_provisioner_internal_operations_total" Counter Runner ["operation"] Taskscaler Instances
        "Calls to the provider."
    InstanceCreation = "fleeting_provisioner_instance_creation_time_seconds" CREATION Runner [] Taskscaler Instances
        "Time from the request for an instance to its first appearance."
    InstanceRunning = "fleeting_provisioner_instance_is_running_time_seconds" CREATION Runner [] Taskscaler Instances
        "Time from the request for an instance until it was seen running."
    InstanceDeletion = "fleeting_provisioner_instance_deletion_time_seconds" DELETION Runner [] Taskscaler Instances
        "Time from an accepted deletion until the instance was gone."
    InstanceLife = "fleeting_provisioner_instance_life_duration_seconds" LIFE Runner [] Taskscaler Instances
        "Time from the first appearance of a deleted instance until it was gone."
    InstanceStates = "drover_instances" Gauge Runner ["state"] Drover Instances
        "Instances by the scaler's own states."
    InstanceSecondsTotal = "drover_instance_seconds_total" Counter Runner ["state"] Drover Instances
        "Time that instances have spent in each state, added up: what is paid for, and what for."
    RemovalsTotal = "drover_instance_removals_total" Counter Runner ["reason"] Drover Instances
        "Instances marked for removal, or lost, by reason."
    AnnouncementsTotal = "drover_instance_announcements_total" Counter Runner ["kind"] Drover Instances
        "Announcements that an instance will, or may, be taken away; one that changes counts again."
    RequestsLostTotal = "drover_instance_requests_lost_total" Counter Runner [] Drover Instances
        "Instances that were asked for, agreed to, and did not appear in time."
    ProviderCall = "drover_provider_call_duration_seconds" CALL Runner ["call", "outcome"] Drover Instances
        "Time that calls to the provider took, by their outcome."

    Tasks = "fleeting_taskscaler_tasks" Gauge Runner ["state"] Taskscaler Slots
        "Slots and claims by state."
    MaxTasks = "fleeting_taskscaler_max_tasks_per_instance" Gauge Runner [] Taskscaler Slots
        "The value of `capacity_per_instance`."
    MaxUseCount = "fleeting_taskscaler_max_use_count_per_instance" Gauge Runner [] Taskscaler Slots
        "The value of `max_use_count`; 0 is no limit."
    TaskOperationsTotal = "fleeting_taskscaler_task_operations_total" Counter Runner ["operation"] Taskscaler Slots
        "Steps of claims, and claims that were refused because no slot is free and none can come (`reserve_iop_capacity_failure`) or because none is ready and free (`reserve_available_capacity_failure`)."
    Readiness = "fleeting_taskscaler_task_instance_readiness_time_seconds" CREATION Runner [] Taskscaler Slots
        "Time from the first appearance of an instance until it takes jobs."
    SlotSecondsTotal = "drover_slot_seconds_total" Counter Runner ["state"] Drover Slots
        "Time that slots have spent in each state, added up."
    RefusalsTotal = "drover_reservation_refusals_total" Counter Runner ["why"] Drover Slots
        "Claims that were refused, by the exact reason."

    DesiredInstances = "fleeting_taskscaler_desired_instances" Gauge Runner [] Taskscaler Decisions
        "Change in the number of instances that is wanted; below 0 instances may go."
    ScaleOperationsTotal = "fleeting_taskscaler_scale_operations_total" Counter Runner ["operation"] Taskscaler Decisions
        "Times that instances were asked for (`up`) and deleted (`down`)."
    ScalingReason = "drover_scaling_reason" Gauge Runner ["why"] Drover Decisions
        "1 for each reason that holds for the last decision, else 0."
    ScalingReasonsTotal = "drover_scaling_reasons_total" Counter Runner ["why"] Drover Decisions
        "How often each reason began to hold."
    Policy = "drover_policy_index" Gauge Runner [] Drover Decisions
        "Position of the policy in force, from 0; -1 if none matches."
    PolicyIdleCount = "drover_policy_idle_minimum" Gauge Runner [] Drover Decisions
        "`idle_count` of the policy in force."
    PolicyIdleTime = "drover_policy_idle_time_seconds" Gauge Runner [] Drover Decisions
        "`idle_time` of the policy in force."
    PolicyIdleWanted = "drover_policy_idle_wanted" Gauge Runner [] Drover Decisions
        "Idle slots that the policy in force asks for, `scale_factor` applied."
    PolicyUntil = "drover_policy_until_timestamp_seconds" Gauge Runner [] Drover Decisions
        "When another policy takes over, in seconds since 1970; 0 if that is not within a week."
    PolicySwitchesTotal = "drover_policy_switches_total" Counter Runner [] Drover Decisions
        "How often another policy came into force."

    BackoffFailures = "drover_scaling_backoff_failures" Gauge Runner [] Drover Decisions
        "Failures in a row after which the next instance waits; 0 without a back-off."
    HeldUntil = "drover_scaling_held_until_timestamp_seconds" Gauge Runner [] Drover Decisions
        "Until when a back-off or `scale_throttle` holds the next instance, in seconds since 1970; 0 if neither does."
    WantedInstances = "drover_instances_wanted" Gauge Runner [] Drover Decisions
        "Instances that would be wanted without a maximum."

    VersionInfo = "gitlab_runner_version_info" Gauge Process ["name", "version", "revision", "branch", "go_version", "built_at", "os", "architecture"] GitlabRunner Process
        "Always 1; the labels say what was built. `go_version` is empty: there is none."
    ProcessState = "gitlab_runner_process_state_info" Gauge Process ["state"] GitlabRunner Process
        "1 for the state that the process is in, else 0."
    ErrorsTotal = "gitlab_runner_errors_total" Counter Process ["level"] GitlabRunner Process
        "Lines logged at each level from `warning` on."
    ConfigLoadedTotal = "gitlab_runner_configuration_loaded_total" Counter Process [] GitlabRunner Process
        "Configurations put in force."
    ConfigLoadErrorsTotal = "gitlab_runner_configuration_loading_error_total" Counter Process [] GitlabRunner Process
        "Configurations that could not be."
    ConfigSavedTotal = "gitlab_runner_configuration_saved_total" Counter Process [] GitlabRunner Process
        "Configurations saved."
    ConfigSaveErrorsTotal = "gitlab_runner_configuration_saving_error_total" Counter Process [] GitlabRunner Process
        "Configurations that could not be saved."
    CpuSecondsTotal = "process_cpu_seconds_total" Counter Process [] Prometheus Process
        "Processor time used."
    OpenFds = "process_open_fds" Gauge Process [] Prometheus Process
        "Open file descriptors."
    MaxFds = "process_max_fds" Gauge Process [] Prometheus Process
        "Most open file descriptors."
    ResidentBytes = "process_resident_memory_bytes" Gauge Process [] Prometheus Process
        "Memory in use."
    VirtualBytes = "process_virtual_memory_bytes" Gauge Process [] Prometheus Process
        "Address space in use."
    StartTime = "process_start_time_seconds" Gauge Process [] Prometheus Process
        "When the process began, in seconds since 1970."
}

// === impl Id ===

impl Id {
    pub(crate) fn definition(self) -> &'static Definition {
        &TABLE[self as usize]
    }

    /// Bounds of a histogram; none for another kind.
    pub(crate) fn bounds(self) -> &'static [f64] {
        match self.definition().kind {
            Kind::Histogram(bounds) => bounds,
            Kind::Counter | Kind::Gauge => &[],
        }
    }
}

// === impl Definition ===

impl Definition {
    /// All labels, in the order of the exposition.
    pub fn all_labels(&self) -> impl Iterator<Item = &'static str> {
        self.scope.labels().iter().chain(self.labels).copied()
    }
}

// === impl Kind ===

impl Kind {
    /// The word for it in the exposition.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

// === impl Scope ===

impl Scope {
    /// The labels that name the runner entry.
    #[must_use]
    pub fn labels(self) -> &'static [&'static str] {
        match self {
            Self::Process => &[],
            Self::Runner => &["runner", "runner_name", "system_id"],
            Self::Token => &["runner", "system_id"],
            Self::Name => &["runner", "runner_name"],
        }
    }
}

// === impl Group ===

impl Group {
    /// All of them, in their order.
    pub const ALL: [Self; 7] = [
        Self::Jobs,
        Self::Runners,
        Self::Gitlab,
        Self::Instances,
        Self::Slots,
        Self::Decisions,
        Self::Process,
    ];

    /// Heading of the chapter.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Jobs => "Jobs",
            Self::Runners => "Runner entries",
            Self::Gitlab => "GitLab and job logs",
            Self::Instances => "Instances",
            Self::Slots => "Slots",
            Self::Decisions => "Scaling decisions",
            Self::Process => "The process",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_follow_the_rules_of_prometheus() {
        for row in TABLE {
            let suffixes_of_histograms = ["_count", "_sum", "_bucket"];
            assert!(!suffixes_of_histograms.iter().any(|end| row.name.ends_with(end)), "{}", row.name);
            assert!(!row.help.is_empty() && row.help.ends_with('.'), "{}", row.name);
            assert!(!row.all_labels().any(|label| matches!(label, "le" | "quantile")), "{}", row.name);
        }
    }

    #[test]
    fn each_name_is_defined_once_and_counters_say_total() {
        let names: BTreeSet<&str> = TABLE.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), TABLE.len());
        for row in TABLE {
            assert_eq!(
                row.kind == Kind::Counter,
                row.name.ends_with("_total"),
                "{}: counters and only they end in _total",
                row.name
            );
            let ours = row.name.starts_with("drover_");
            assert_eq!(ours, row.origin == Origin::Drover, "{}", row.name);
        }
    }

    #[test]
    fn buckets_of_histograms_grow() {
        for row in TABLE {
            if let Kind::Histogram(bounds) = row.kind {
                assert!(bounds.is_sorted_by(|a, b| a < b) && !bounds.is_empty(), "{}", row.name);
                assert!(row.name.ends_with("_seconds"), "{}", row.name);
            }
        }
    }
}
