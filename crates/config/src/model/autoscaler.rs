//! `[runners.autoscaler]`, everything below it, and `[runners.instance]`.

use std::time::Duration;

use taskscaler_core::Zone;

use super::connector::Connector;
use super::global::{count, positive};
use super::policy::{Policy, PolicyError};
use crate::capability::PluginReference;
use crate::schema::section;
use crate::values::RawTable;

section! {
    /// Scaling of instances for the executors `instance` and `docker-autoscaler`. Everything but `policy` needs a restart of
    /// the runner entry to take effect.
    pub struct Autoscaler = "[runners.autoscaler]" {
        /// Which provider owns the instances, as `name`, `repository/name` or `registry/repository/name`, with an optional
        /// `:version`.
        plugin: Option<String>, since "15.10";
        /// Settings of the provider.
        plugin_config: Option<RawTable>, since "15.10";
        /// How instances are reached; fills in or overrides what the provider finds out.
        connector_config: Option<Connector>, since "15.10";
        /// How much is kept idle, and when. The last entry whose period matches applies, so the general one comes first.
        policy: Vec<Policy>, since "15.10" => live;
        /// Jobs that one instance runs at the same time.
        capacity_per_instance: Option<i64>, default "1", unit "jobs", since "15.10";
        /// Jobs after which an instance is replaced; 0 means never.
        max_use_count: Option<i64>, default "0", unit "jobs", since "15.10";
        /// Most instances, whatever their state; 0 leaves it to the group's own size.
        max_instances: Option<i64>, default "0", unit "instances", since "15.10";
        /// Delete all instances of the group when the process stops.
        delete_instances_on_shutdown: bool, default "false", since "15.11";
        /// Command that each new instance must run successfully before it gets jobs.
        instance_ready_command: Option<String>, since "16.11";
        /// How long a job may wait for an instance.
        instance_acquire_timeout: Option<Duration>, default "15m", since "18.1";
        /// How often the group is listed when nothing is expected to change.
        update_interval: Option<Duration>, default "1m", since "16.11";
        /// How often the group is listed while a change is expected.
        update_interval_when_expecting: Option<Duration>, default "2s", since "16.11";
        /// When a deletion that had no effect is tried again.
        deletion_retry_interval: Option<Duration>, default "1m", since "18.4";
        /// Wait between a deletion and the look at its effect, at shutdown.
        shutdown_deletion_interval: Option<Duration>, default "10s", since "18.4";
        /// How often the deletion is tried at shutdown.
        shutdown_deletion_retries: Option<i64>, default "3", since "18.4";
        /// Failed health checks in a row after which an instance is replaced.
        failure_threshold: Option<i64>, default "3", since "18.4";
        /// Ask GitLab for no more jobs than instances can be had for.
        reservation_throttling: Option<bool>, default "true", since "18.7";
        /// Show the internal address of the instance in the job log.
        log_internal_ip: bool, default "false", since "18.1";
        /// Show the external address of the instance in the job log.
        log_external_ip: bool, default "false", since "18.1";
        /// How fast new instances are asked for.
        scale_throttle: Option<ScaleThrottle>, since "17.0";
        /// What survives a restart of the process.
        state_storage: Option<StateStorage>, since "17.5";
        /// Mark the group as this manager's, where its provider has a place for marks (`aws`: a tag), and leave a group alone that
        /// another manager has marked. Not a key of GitLab Runner.
        group_lease: Option<bool>, default "true";
        /// How long a mark is valid; it is renewed three times as often. When a manager is gone, another one takes its group over
        /// after this time. Not a key of GitLab Runner.
        group_lease_ttl: Option<Duration>, default "15m";
        /// Where the end of an instance is announced early enough, the script of a job with something to save (`after_script`, artifacts or
        /// caches also of failed jobs) is stopped this much sooner, so that it can be saved. `"0s"`: it runs for as long as it can, and
        /// nothing is saved. Not a key of GitLab Runner.
        save_before_end: Option<Duration>, default "40s";
        /// A nested virtual machine per job, on macOS hosts.
        vm_isolation: Option<VmIsolation>, since "15.8";
        /// Buckets of the four histograms below where they have none of their own.
        instance_operation_time_buckets: Vec<f64>, unit "s", since "15.11";
        /// Buckets for the time from request to first sight of an instance.
        instance_creation_time_buckets: Vec<f64>, default "`instance_operation_time_buckets`", unit "s", since "15.11";
        /// Buckets for the time from request to running.
        instance_is_running_time_buckets: Vec<f64>, default "`instance_operation_time_buckets`", unit "s", since "15.11";
        /// Buckets for the time of a deletion.
        instance_deletion_time_buckets: Vec<f64>, default "`instance_operation_time_buckets`", unit "s", since "15.11";
        /// Buckets for the time from creation to the first job that could run.
        instance_readiness_time_buckets: Vec<f64>, default "`instance_operation_time_buckets`", unit "s";
        /// Buckets for the life of instances.
        instance_life_duration_buckets: Vec<f64>, unit "s", since "15.11";
    }
}

section! {
    /// How fast new instances are asked for: a bucket of `burst` instances that refills at `limit` per second.
    pub struct ScaleThrottle = "[runners.autoscaler.scale_throttle]" {
        /// Instances per second; 0 means the default, -1 no limit.
        limit: Option<i64>, default "100", unit "instances/s", since "17.0";
        /// Instances at once.
        burst: Option<i64>, default "`max_instances`, or `limit` when that is unset", unit "instances", since "17.0";
    }
}

section! {
    /// What survives a restart of the process. When this is off, instances that are found at the start are deleted, because
    /// their use is unknown. In GitLab Runner it is off unless it is enabled.
    pub struct StateStorage = "[runners.autoscaler.state_storage]" {
        /// Keep it.
        enabled: Option<bool>, default "true", since "17.5";
        /// Directory, relative to the configuration file.
        dir: Option<String>, default "`.taskscaler` beside the configuration file", since "17.5";
        /// Keep an instance on which a job was running when the process ended.
        keep_instance_with_acquisitions: bool, default "false", since "17.5";
    }
}

section! {
    /// A nested virtual machine per job, on macOS hosts.
    pub struct VmIsolation = "[runners.autoscaler.vm_isolation]" {
        /// Run each job in a nested virtual machine.
        enabled: bool, default "false";
        /// Address of the nesting daemon as the instance sees it: `unix:///path/to/socket` or `tcp://host:port`. It is reached
        /// through the SSH connection to the instance.
        nesting_host: Option<String>;
        /// Settings that a daemon gets which has none yet.
        nesting_config: Option<RawTable>;
        /// Image of the virtual machine; the job's `image` replaces it for `instance`. Variables of the job are replaced.
        image: Option<String>;
        /// How the virtual machine is reached from the instance. A login is needed: `username`, and `password` or `key_path`.
        connector_config: Option<Connector>;
    }
}

section! {
    /// The `instance` executor.
    pub struct Instance = "[runners.instance]" {
        /// Images that a job may choose for its nested virtual machine, as patterns.
        allowed_images: Vec<String>, default "all";
        /// One build directory for all jobs, `<builds_dir>/<namespace>/<project>`; needs virtual machine isolation or
        /// `max_use_count = 1`.
        use_common_build_dir: bool, default "false";
    }
}

/// How fast instances may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScaleRate {
    /// No limit.
    Unlimited,
    /// A token bucket.
    Limited {
        /// Instances per second.
        per_second: u32,
        /// Instances at once.
        burst: u32,
    },
}

// === impl Autoscaler ===

impl Autoscaler {
    /// The provider that is asked for, if one is named.
    #[must_use]
    pub fn plugin(&self) -> Option<PluginReference> {
        self.plugin.as_deref().map(PluginReference::parse)
    }

    /// Settings of the provider as JSON object; empty when there are none.
    #[must_use]
    pub fn plugin_config(&self) -> serde_json::Value {
        self.plugin_config.clone().unwrap_or_default().to_json()
    }

    /// Jobs that one instance runs at the same time.
    #[must_use]
    pub fn capacity_per_instance(&self) -> u32 {
        count(self.capacity_per_instance).unwrap_or(1)
    }

    /// Jobs after which an instance is replaced; `None` means never.
    #[must_use]
    pub fn max_use_count(&self) -> Option<u32> {
        count(self.max_use_count)
    }

    /// Most instances; `None` leaves it to the group's own size.
    #[must_use]
    pub fn max_instances(&self) -> Option<u32> {
        count(self.max_instances)
    }

    /// How long a job may wait for an instance.
    #[must_use]
    pub fn instance_acquire_timeout(&self) -> Duration {
        positive(self.instance_acquire_timeout).unwrap_or(Duration::from_secs(900))
    }

    /// How often the group is listed when nothing is expected to change.
    #[must_use]
    pub fn update_interval(&self) -> Duration {
        positive(self.update_interval).unwrap_or(Duration::from_secs(60))
    }

    /// How often the group is listed while a change is expected.
    #[must_use]
    pub fn update_interval_when_expecting(&self) -> Duration {
        positive(self.update_interval_when_expecting).unwrap_or(Duration::from_secs(2))
    }

    /// When a deletion that had no effect is tried again.
    #[must_use]
    pub fn deletion_retry_interval(&self) -> Duration {
        positive(self.deletion_retry_interval).unwrap_or(Duration::from_secs(60))
    }

    /// Wait between a deletion and the look at its effect, at shutdown.
    #[must_use]
    pub fn shutdown_deletion_interval(&self) -> Duration {
        positive(self.shutdown_deletion_interval).unwrap_or(Duration::from_secs(10))
    }

    /// How often the deletion is tried at shutdown.
    #[must_use]
    pub fn shutdown_deletion_retries(&self) -> u32 {
        count(self.shutdown_deletion_retries).unwrap_or(3)
    }

    /// Failed health checks in a row after which an instance is replaced.
    #[must_use]
    pub fn failure_threshold(&self) -> u32 {
        count(self.failure_threshold).unwrap_or(3)
    }

    /// Whether the group is marked as this manager's, and for how long each time.
    #[must_use]
    pub fn group_lease(&self) -> Option<Duration> {
        let valid = positive(self.group_lease_ttl).unwrap_or(Duration::from_secs(900));
        self.group_lease.unwrap_or(true).then_some(valid)
    }

    /// How much sooner than 20 seconds before the announced end of its instance a script is stopped, for what saves its results.
    #[must_use]
    pub fn save_before_end(&self) -> Duration {
        self.save_before_end.unwrap_or(Duration::from_secs(40))
    }

    /// Whether GitLab is asked for no more jobs than instances can be had for.
    #[must_use]
    pub fn reservation_throttling(&self) -> bool {
        self.reservation_throttling.unwrap_or(true)
    }

    /// How fast new instances may be asked for.
    #[must_use]
    pub fn scale_rate(&self) -> ScaleRate {
        let throttle = self.scale_throttle.clone().unwrap_or_default();
        if throttle.limit.is_some_and(|limit| limit < 0) {
            return ScaleRate::Unlimited;
        }
        let per_second = count(throttle.limit).unwrap_or(100);
        let burst = count(throttle.burst).or(self.max_instances()).unwrap_or(per_second);
        ScaleRate::Limited { per_second, burst }
    }

    /// How instances are reached, without the key file's content; see [`Connector::settings`].
    #[must_use]
    pub fn connector_config(&self) -> Connector {
        self.connector_config.clone().unwrap_or_default()
    }

    /// The policies as the scaler takes them. `local` is the zone of the host, for entries that name none.
    ///
    /// # Errors
    /// [`PolicyError`]; never for a runner entry that was found runnable.
    pub fn policies(&self, local: Zone) -> Result<Vec<taskscaler_core::Policy>, PolicyError> {
        self.policy.iter().map(|policy| policy.resolve(local)).collect()
    }

    /// What the scaler has to know. `local` is the zone of the host, for policies that name none. State storage is off:
    /// whether there is a store is the caller's business.
    ///
    /// # Errors
    /// [`PolicyError`]; never for a runner entry that was found runnable.
    pub fn scaler(&self, local: Zone) -> Result<taskscaler_core::Config, PolicyError> {
        let scale_throttle = match self.scale_rate() {
            ScaleRate::Unlimited => taskscaler_core::ScaleThrottle { limit: -1, burst: 0 },
            ScaleRate::Limited { per_second, burst } => {
                taskscaler_core::ScaleThrottle { limit: i64::from(per_second), burst }
            }
        };
        Ok(taskscaler_core::Config {
            capacity_per_instance: self.capacity_per_instance(),
            max_use_count: self.max_use_count().unwrap_or(0),
            max_instances: self.max_instances().unwrap_or(0),
            policies: self.policies(local)?,
            scale_throttle,
            reservation_throttling: self.reservation_throttling(),
            failure_threshold: self.failure_threshold(),
            deletion_retry_interval: self.deletion_retry_interval(),
            vm_isolation: self.is_isolated(),
            keep_instance_with_acquisitions: self
                .state_storage
                .as_ref()
                .is_some_and(|storage| storage.keep_instance_with_acquisitions),
            ..taskscaler_core::Config::default()
        })
    }

    /// Buckets of the histograms for creation, running, deletion and readiness, each falling back to the common ones.
    #[must_use]
    pub fn operation_buckets(&self) -> [&[f64]; 4] {
        let common = self.instance_operation_time_buckets.as_slice();
        [
            &self.instance_creation_time_buckets,
            &self.instance_is_running_time_buckets,
            &self.instance_deletion_time_buckets,
            &self.instance_readiness_time_buckets,
        ]
        .map(|own: &Vec<f64>| if own.is_empty() { common } else { own.as_slice() })
    }

    /// Whether use counts survive a restart; GitLab Runner's default is that they do not.
    #[must_use]
    pub fn keeps_state(&self) -> bool {
        self.state_storage.as_ref().and_then(|storage| storage.enabled).unwrap_or(true)
    }

    /// Where they are kept, from the folder of the configuration file.
    #[must_use]
    pub fn state_dir(&self) -> &str {
        self.state_storage.as_ref().and_then(|storage| storage.dir.as_deref()).unwrap_or(".taskscaler")
    }

    /// Whether jobs run in nested virtual machines.
    #[must_use]
    pub fn is_isolated(&self) -> bool {
        self.vm_isolation.as_ref().is_some_and(|isolation| isolation.enabled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scale_rate_takes_its_burst_from_the_limits() {
        let mut autoscaler = Autoscaler::default();
        assert_eq!(autoscaler.scale_rate(), ScaleRate::Limited { per_second: 100, burst: 100 });
        autoscaler.max_instances = Some(10);
        assert_eq!(autoscaler.scale_rate(), ScaleRate::Limited { per_second: 100, burst: 10 });
        autoscaler.scale_throttle = Some(ScaleThrottle { limit: Some(1), burst: Some(60) });
        assert_eq!(autoscaler.scale_rate(), ScaleRate::Limited { per_second: 1, burst: 60 });
        autoscaler.scale_throttle = Some(ScaleThrottle { limit: Some(-1), burst: Some(60) });
        assert_eq!(autoscaler.scale_rate(), ScaleRate::Unlimited);
    }
}
