//! What the containers of a runner have in common: `[runners.docker]` as the engine takes it.

use std::collections::HashMap;
use std::path::Path;

use bollard::models::{
    EndpointSettings, HostConfig, HostConfigLogConfig, NetworkingConfig, RestartPolicy, RestartPolicyNameEnum,
};
use config::{Docker as DockerConfig, Isolation, NanoCpus};

use super::engine::Version;
use super::values::{self, ValueError};
use super::volumes::{self, VolumeError};

/// Since then, endpoints may be described for networks that come with the engine, and have addresses of their own.
const ENDPOINTS_EVERYWHERE: Version = Version(1, 44);

/// Why an entry's `[runners.docker]` cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TemplateError {
    #[error(transparent)]
    Value(#[from] ValueError),
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error(
        "isolation = \"{0}\" is for Windows containers, which are not available in this build: remove the key or use \"default\""
    )]
    Isolation(&'static str),
}

/// Host settings of containers, before anything of the job is known.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    /// Build and helper containers.
    pub(crate) build: HostConfig,
    /// Services.
    pub(crate) service: HostConfig,
    /// Devices of services, by pattern of the image.
    pub(crate) service_devices: Vec<(String, Vec<bollard::models::DeviceMapping>)>,
}

/// The network of a job's containers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Network {
    /// Mode of the containers; empty is the engine's own choice.
    pub(crate) mode: String,
    /// MAC address that containers ask for.
    mac_address: Option<String>,
    endpoints_everywhere: bool,
}

// === impl Template ===

impl Template {
    /// Reads the values. `base` is the folder that relative paths start from.
    pub(crate) fn new(config: &DockerConfig, base: &Path) -> Result<Self, TemplateError> {
        if let Some(isolation) = config.isolation.filter(|isolation| *isolation != Isolation::Default) {
            return Err(TemplateError::Isolation(isolation.as_str()));
        }
        volumes::check_all(&config.volumes)?;
        let common = HostConfig {
            dns: values::list(&config.dns),
            dns_search: values::list(&config.dns_search),
            runtime: text(&config.runtime),
            userns_mode: text(&config.userns_mode),
            shm_size: config.shm_size.filter(|size| *size != 0),
            log_config: Some(HostConfigLogConfig {
                typ: Some("json-file".to_owned()),
                config: values::map(&config.log_options),
            }),
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::NO),
                ..RestartPolicy::default()
            }),
            ..HostConfig::default()
        };
        let devices = |devices: &[String]| -> Result<Option<Vec<_>>, ValueError> {
            let devices =
                devices.iter().map(|device| values::device(device)).collect::<Result<Vec<_>, _>>()?;
            Ok((!devices.is_empty()).then_some(devices))
        };
        let gpus = |gpus: &Option<String>| -> Result<_, ValueError> {
            Ok(values::gpus(gpus.as_deref().unwrap_or_default())?.map(|request| vec![request]))
        };
        let ulimits = values::ulimits(&config.ulimit)?;
        let build = HostConfig {
            memory: bytes(config.memory),
            memory_swap: bytes(config.memory_swap),
            memory_reservation: bytes(config.memory_reservation),
            nano_cpus: config.cpus.map(|NanoCpus(cpus)| cpus),
            cpu_shares: config.cpu_shares,
            cpuset_cpus: text(&config.cpuset_cpus),
            cpuset_mems: text(&config.cpuset_mems),
            cgroup_parent: text(&config.cgroup_parent),
            oom_kill_disable: config.oom_kill_disable.then_some(true),
            oom_score_adj: config.oom_score_adjust,
            ulimits: (!ulimits.is_empty()).then_some(ulimits),
            sysctls: values::map(&config.sysctls),
            tmpfs: values::map(&config.tmpfs),
            links: values::list(&config.links),
            group_add: values::list(&config.group_add),
            cap_add: values::capabilities(&config.cap_add),
            cap_drop: values::capabilities(&config.cap_drop),
            security_opt: values::list(&values::security_options(&config.security_opt, base)?),
            ipc_mode: text(&config.ipcmode),
            devices: devices(&config.devices)?,
            device_cgroup_rules: values::list(&config.device_cgroup_rules),
            device_requests: gpus(&config.gpus)?,
            volumes_from: values::list(&config.volumes_from),
            volume_driver: text(&config.volume_driver),
            ..common.clone()
        };
        let service = HostConfig {
            memory: bytes(config.service_memory),
            memory_swap: bytes(config.service_memory_swap),
            memory_reservation: bytes(config.service_memory_reservation),
            nano_cpus: config.service_cpus.map(|NanoCpus(cpus)| cpus),
            cpu_shares: config.service_cpu_shares,
            cpuset_cpus: text(&config.service_cpuset_cpus),
            cgroup_parent: text(&config.service_cgroup_parent),
            tmpfs: values::map(&config.services_tmpfs),
            security_opt: values::list(&values::security_options(&config.services_security_opt, base)?),
            device_requests: gpus(&config.service_gpus)?,
            extra_hosts: values::list(&config.extra_hosts),
            ..common
        };
        let service_devices = config
            .services_devices
            .iter()
            .map(|(pattern, list)| Ok((pattern.clone(), devices(list)?.unwrap_or_default())))
            .collect::<Result<Vec<_>, ValueError>>()?;
        Ok(Self { build, service, service_devices })
    }
}

// === impl Network ===

impl Network {
    pub(crate) fn new(mode: &str, mac_address: Option<&str>, api: Version) -> Self {
        Self {
            mode: mode.to_owned(),
            mac_address: mac_address.filter(|mac| !mac.is_empty()).map(str::to_owned),
            endpoints_everywhere: api >= ENDPOINTS_EVERYWHERE,
        }
    }

    /// A MAC address is asked for that this engine cannot give.
    pub(crate) fn ignores_mac_address(&self) -> bool {
        self.mac_address.is_some() && !self.endpoints_everywhere
    }

    /// The mode for a container.
    pub(crate) fn mode(&self) -> Option<String> {
        (!self.mode.is_empty()).then(|| self.mode.clone())
    }

    /// Whether containers may have a host name of their own.
    pub(crate) fn has_own_names(&self) -> bool {
        !self.mode.starts_with("container:")
    }

    /// The endpoint of a container with these names. Names exist in networks of the user's own only. Whether a network has MAC
    /// addresses at all is the engine's to say.
    pub(crate) fn endpoint(&self, aliases: Vec<String>) -> Option<NetworkingConfig> {
        let own = self.is_user_defined();
        let mac_address = self.mac_address.clone().filter(|_| self.endpoints_everywhere);
        if (!own && mac_address.is_none()) || !self.has_own_names() {
            return None;
        }
        let name = if self.mode.is_empty() { "default".to_owned() } else { self.mode.clone() };
        let endpoint = EndpointSettings {
            aliases: (own && !aliases.is_empty()).then_some(aliases),
            mac_address,
            ..EndpointSettings::default()
        };
        Some(NetworkingConfig { endpoints_config: Some(HashMap::from([(name, endpoint)])) })
    }

    fn is_user_defined(&self) -> bool {
        !matches!(self.mode.as_str(), "" | "default" | "bridge" | "host" | "none") && self.has_own_names()
    }
}

fn text(value: &Option<String>) -> Option<String> {
    value.clone().filter(|value| !value.is_empty())
}

fn bytes(size: Option<config::ByteSize>) -> Option<i64> {
    size.map(|config::ByteSize(bytes)| i64::try_from(bytes).unwrap_or(i64::MAX)).filter(|bytes| *bytes != 0)
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    const MAC: &str = "92:d0:c6:0a:29:33";
    const OLD: Version = Version(1, 43);

    #[test_case("", OLD, None; "the engine's own network")]
    #[test_case("", ENDPOINTS_EVERYWHERE, Some(("default", Some(MAC), false)); "the engine's own network, and an engine that takes addresses")]
    #[test_case("bridge", ENDPOINTS_EVERYWHERE, Some(("bridge", Some(MAC), false)); "bridge")]
    #[test_case("none", ENDPOINTS_EVERYWHERE, Some(("none", Some(MAC), false)); "none, which the engine refuses")]
    #[test_case("container:x", ENDPOINTS_EVERYWHERE, None; "the network of another container")]
    #[test_case("of-users", OLD, Some(("of-users", None, true)); "a network of the user's own")]
    #[test_case("of-users", ENDPOINTS_EVERYWHERE, Some(("of-users", Some(MAC), true)); "a network of the user's own, and addresses")]
    fn endpoints_are_described_as_far_as_the_engine_takes_them(
        mode: &str,
        api: Version,
        expected: Option<(&str, Option<&str>, bool)>,
    ) {
        let network = Network::new(mode, Some(MAC), api);
        let found = network.endpoint(vec!["build".to_owned()]).and_then(|config| config.endpoints_config);
        let found = found.map(|endpoints| {
            let (name, endpoint) = endpoints.into_iter().next().unwrap();
            (name, endpoint.mac_address, endpoint.aliases.is_some())
        });
        let expected =
            expected.map(|(name, mac, aliases)| (name.to_owned(), mac.map(str::to_owned), aliases));
        assert_eq!(found, expected);
        assert_eq!(network.ignores_mac_address(), api == OLD);
    }

    #[test]
    fn every_key_arrives_in_the_host_settings_of_those_whom_it_is_for() {
        let file = r#"
[[runners]]
[runners.docker]
cgroup_parent = "/jobs"
memory_swap = "2g"
oom_kill_disable = true
userns_mode = "host"
volume_driver = "nfs"
service_cgroup_parent = "/services"
service_memory_swap = "1g"
service_memory_reservation = "42m"
service_gpus = "1"
[runners.docker.tmpfs]
"/a" = "rw"
[runners.docker.services_tmpfs]
"/b" = "ro"
"#;
        let loaded = config::parse(file, "config.toml", &|_| None).unwrap();
        let docker = loaded.config.runners[0].docker.clone().unwrap();
        let Template { build, service, .. } = Template::new(&docker, Path::new("/")).unwrap();
        assert_eq!(build.cgroup_parent.as_deref(), Some("/jobs"));
        assert_eq!(service.cgroup_parent.as_deref(), Some("/services"));
        assert_eq!((build.memory_swap, service.memory_swap), (Some(2 << 30), Some(1 << 30)));
        assert_eq!((build.memory_reservation, service.memory_reservation), (None, Some(42 << 20)));
        assert_eq!((build.oom_kill_disable, service.oom_kill_disable), (Some(true), None));
        assert_eq!(build.userns_mode.as_deref(), Some("host"));
        assert_eq!(service.userns_mode.as_deref(), Some("host"));
        assert_eq!((build.volume_driver.as_deref(), service.volume_driver), (Some("nfs"), None));
        assert_eq!((build.device_requests.is_some(), service.device_requests.is_some()), (false, true));
        let paths = |map: Option<HashMap<String, String>>| map.unwrap().into_keys().collect::<Vec<_>>();
        assert_eq!(
            (paths(build.tmpfs), paths(service.tmpfs)),
            (vec!["/a".to_owned()], vec!["/b".to_owned()])
        );
    }
}
