//! `[runners.docker]`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::schema::{choice, section};
use crate::values::{Assignments, ByteSize, NanoCpus, PullPolicies};

section! {
    /// The executors that run jobs in containers: `docker`, `docker-autoscaler` and `docker+machine`.
    pub struct Docker = "[runners.docker]" {
        /// Address of the engine. Empty: all three connection keys come from the environment.
        host: Option<String>, default "environment variable `DOCKER_HOST`, else the local socket";
        /// Directory with `ca.pem`, `cert.pem` and `key.pem`.
        tls_cert_path: Option<String>, default "environment variable `DOCKER_CERT_PATH`";
        /// Use TLS to the engine.
        tls_verify: Option<bool>, default "environment variable `DOCKER_TLS_VERIFY`";
        /// Image for jobs that name none; always allowed.
        image: Option<String>;
        /// Host name of the containers.
        hostname: Option<String>, default "a unique name per job";
        /// User of the build container; the job's own choice is then ignored.
        user: Option<String>;
        /// Users that a job may choose.
        allowed_users: Vec<String>, default "`user` if that is set, else anyone";
        /// Further groups of the user.
        group_add: Vec<String>;
        /// OCI runtime.
        runtime: Option<String>, default "the engine's";
        /// Ignore an entrypoint that the job sets.
        disable_entrypoint_overwrite: bool, default "false";
        /// Helper image.
        helper_image: Option<String>;
        /// Archive of the helper image's file system, imported into engines that lack the image. A key of Drover's own.
        helper_image_archive: Option<String>, default "`drover-helper-<arch>.tar[.gz|.xz|.zst]` beside the program or in /usr/lib/drover/helper-images";
        /// Flavour of the helper image that GitLab Runner publishes, which is used where there is no archive.
        helper_image_flavor: Option<String>, default "alpine";
        /// Labels of the containers.
        container_labels: BTreeMap<String, String>;
        /// Options of the engine's log driver: `env` and `labels` only.
        log_options: BTreeMap<String, String>;

        /// Hard limit of memory.
        memory: Option<ByteSize>;
        /// Limit of memory and swap together.
        memory_swap: Option<ByteSize>;
        /// Soft limit of memory.
        memory_reservation: Option<ByteSize>;
        /// Processors, as decimal or fraction.
        cpus: Option<NanoCpus>;
        /// Relative weight of the processor.
        cpu_shares: Option<i64>, default "0";
        /// Processors that may be used.
        cpuset_cpus: Option<String>;
        /// Memory nodes that may be used.
        cpuset_mems: Option<String>;
        /// Parent of the containers' cgroups.
        cgroup_parent: Option<String>;
        /// Do not kill processes when memory is short.
        oom_kill_disable: bool, default "false";
        /// How likely processes are killed when memory is short.
        oom_score_adjust: Option<i64>, default "0";
        /// Shared memory.
        shm_size: Option<i64>, default "the engine's", unit "bytes";
        /// Limits such as `nofile`, as `soft` or `soft:hard`.
        ulimit: BTreeMap<String, String>;
        /// Kernel parameters.
        sysctls: BTreeMap<String, String>;
        /// Mounts in memory: path and options.
        tmpfs: BTreeMap<String, String>;
        /// The same for services.
        services_tmpfs: BTreeMap<String, String>;
        /// `memory` for services.
        service_memory: Option<ByteSize>;
        /// `memory_swap` for services.
        service_memory_swap: Option<ByteSize>;
        /// `memory_reservation` for services.
        service_memory_reservation: Option<ByteSize>;
        /// `cpus` for services.
        service_cpus: Option<NanoCpus>;
        /// `cpu_shares` for services.
        service_cpu_shares: Option<i64>, default "0";
        /// `cpuset_cpus` for services.
        service_cpuset_cpus: Option<String>;
        /// `cgroup_parent` for services.
        service_cgroup_parent: Option<String>;
        /// `slot_cgroup_template` for services.
        service_slot_cgroup_template: Option<String>, default "`slot_cgroup_template`";

        /// Network of the containers: `bridge`, `host`, `none`, `container:ID` or a name. Switches the network per job off.
        network_mode: Option<String>;
        /// Packet size of the network per job.
        network_mtu: Option<i64>, default "the engine's", unit "bytes";
        /// IPv6 in the network per job.
        enable_ipv6: bool, default "false";
        /// MAC address of the containers.
        mac_address: Option<String>;
        /// Name servers, as IP addresses.
        dns: Vec<String>;
        /// Search domains.
        dns_search: Vec<String>;
        /// Further hosts, as `name:ip`.
        extra_hosts: Vec<String>;
        /// Links to containers outside of the job, as `container:alias`.
        links: Vec<String>;

        /// All capabilities and devices for the build and helper containers.
        privileged: bool, default "false";
        /// The same for services.
        services_privileged: Option<bool>, default "`privileged`";
        /// Capabilities to add.
        cap_add: Vec<String>;
        /// Capabilities to drop.
        cap_drop: Vec<String>;
        /// Security options; `seccomp=<path>` is read on the manager.
        security_opt: Vec<String>;
        /// The same for services.
        services_security_opt: Vec<String>;
        /// User namespace.
        userns_mode: Option<String>;
        /// Process namespace of the build container: `host` or `container:NAME`.
        pid_mode: Option<String>;
        /// IPC namespace.
        ipcmode: Option<String>;
        /// Isolation on Windows.
        isolation: Option<Isolation>;
        /// Devices, as `host[:container[:permissions]]`.
        devices: Vec<String>;
        /// Rules for devices.
        device_cgroup_rules: Vec<String>;
        /// Graphics processors, as the engine's command line takes them.
        gpus: Option<String>;
        /// The same for services.
        service_gpus: Option<String>;
        /// Devices of services, by pattern of the image.
        services_devices: BTreeMap<String, StringList>;

        /// Volumes: a path for a cache volume, or `source:destination[:mode]`.
        volumes: Vec<String>;
        /// Containers whose volumes are used, too.
        volumes_from: Vec<String>;
        /// Driver of volumes.
        volume_driver: Option<String>;
        /// Options of the volume driver.
        volume_driver_ops: BTreeMap<String, String>;
        /// Keep anonymous volumes when containers are removed.
        volume_keep: bool, default "false";
        /// Cache volumes become directories below this path.
        cache_dir: Option<String>;
        /// Cache volumes live for one job only.
        disable_cache: bool, default "false";
        /// Services of every job.
        services: Vec<Service>;
        /// Most services of a job, those of the file included; negative means no limit.
        services_limit: Option<i64>, default "-1";
        /// How long services may take to start; 0 means the default, negative switches the check off.
        wait_for_services_timeout: Option<i64>, default "30", unit "s";
        /// When images are pulled: one policy, or several that are tried in order.
        pull_policy: PullPolicies, default "always";
        /// Policies that a job may choose.
        allowed_pull_policies: Vec<PullPolicy>, default "`pull_policy`";
        /// Images that a job may choose, as patterns.
        allowed_images: Vec<String>, default "all";
        /// Services that a job may choose, as patterns.
        allowed_services: Vec<String>, default "all";
        /// Images for which `privileged` holds, as patterns.
        allowed_privileged_images: Vec<String>, default "all";
        /// Services for which `privileged` holds, as patterns.
        allowed_privileged_services: Vec<String>, default "all";
    }
}

section! {
    /// A service that runs beside every job.
    pub struct Service = "[[runners.docker.services]]" {
        /// Image.
        name: Option<String>;
        /// Names in the network, separated by spaces or commas.
        alias: Option<String>;
        /// Entrypoint.
        entrypoint: Vec<String>;
        /// Command.
        command: Vec<String>;
        /// Variables.
        environment: Assignments;
        /// Read by the Kubernetes executor only.
        suspend_data_path: Option<String>;
    }
}

choice! {
    /// When an image is pulled.
    pub enum PullPolicy {
        /// Before each use.
        Always = "always",
        /// When the engine does not have it.
        IfNotPresent = "if-not-present",
        /// Never.
        Never = "never",
    }
}

choice! {
    /// Isolation of containers on Windows.
    pub enum Isolation {
        /// The engine's choice.
        Default = "default",
        /// As processes.
        Process = "process",
        /// In virtual machines.
        Hyperv = "hyperv",
    }
}

/// A list inside of a map.
pub(crate) type StringList = crate::read::ListValue<String>;

// === impl Docker ===

impl Docker {
    /// Limit of the health check of services; `None` switches it off.
    #[must_use]
    pub fn wait_for_services_timeout(&self) -> Option<Duration> {
        match self.wait_for_services_timeout {
            None | Some(0) => Some(Duration::from_secs(30)),
            Some(seconds) => u64::try_from(seconds).ok().map(Duration::from_secs),
        }
    }

    /// Most services of a job; `None` means no limit.
    #[must_use]
    pub fn services_limit(&self) -> Option<u32> {
        self.services_limit.and_then(|limit| u32::try_from(limit).ok())
    }

    /// The policies to try, in order.
    #[must_use]
    pub fn pull_policies(&self) -> Vec<PullPolicy> {
        match self.pull_policy.as_slice() {
            [] => vec![PullPolicy::Always],
            policies => policies.to_vec(),
        }
    }

    /// The policies that a job may choose.
    #[must_use]
    pub fn allowed_pull_policies(&self) -> Vec<PullPolicy> {
        if self.allowed_pull_policies.is_empty() {
            self.pull_policies()
        } else {
            self.allowed_pull_policies.clone()
        }
    }

    /// Whether services are privileged.
    #[must_use]
    pub fn services_privileged(&self) -> bool {
        self.services_privileged.unwrap_or(self.privileged)
    }

    /// The users that a job may choose; empty means anyone.
    #[must_use]
    pub fn allowed_users(&self) -> Vec<&str> {
        if self.allowed_users.is_empty() {
            self.user.as_deref().into_iter().collect()
        } else {
            self.allowed_users.iter().map(String::as_str).collect()
        }
    }
}

// === impl Service ===

impl Service {
    /// Names in the network.
    #[must_use]
    pub fn aliases(&self) -> Vec<&str> {
        let alias = self.alias.as_deref().unwrap_or_default();
        alias.split([' ', ',']).filter(|alias| !alias.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case(None, Some(30); "absent")]
    #[test_case(Some(0), Some(30); "zero")]
    #[test_case(Some(-1), None; "negative")]
    #[test_case(Some(5), Some(5); "given")]
    fn waiting_for_services_follows_the_documented_values(value: Option<i64>, seconds: Option<u64>) {
        let docker = Docker { wait_for_services_timeout: value, ..Docker::default() };
        assert_eq!(docker.wait_for_services_timeout(), seconds.map(Duration::from_secs));
    }

    #[test]
    fn aliases_are_split_on_spaces_and_commas() {
        let service = Service { alias: Some("db, pg  sql".into()), ..Service::default() };
        assert_eq!(service.aliases(), ["db", "pg", "sql"]);
    }
}
