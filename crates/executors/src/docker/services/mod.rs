//! Services: containers that run beside the job, under names by which it reaches them.

mod definition;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::models::{ContainerCreateBody, ContainerInspectResponse, ContainerStateStatusEnum};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptionsBuilder, LogsOptionsBuilder,
};
use bytes::Bytes;
use config::Docker as DockerConfig;
use futures_util::StreamExt as _;
use futures_util::future::{join_all, try_join_all};
use job::log::Channel;
use job::{Context, FeatureFlag};
use tokio::task::JoinSet;
use tokio::time::Instant;
use trace::{JobLog, LineKind};

pub(crate) use self::definition::Definition;

use self::definition::unique_names;
use super::allow;
use super::belongings::Belongings;
use super::engine::{Engine, EngineError};
use super::labels::Labels;
use super::prepare;
use super::pull::{Image, Images, Wanted};
use super::reference::Reference;
use super::stage::Inside;
use super::template::{Network, Template};
use crate::PrepareError;
use crate::environment::{StageEvent, StageOutput as _};
use crate::words::Excerpt;

/// A service that is still not started after this long has failed; longer where the file allows more for health checks.
const START_TIMEOUT: Duration = Duration::from_secs(30);
const START_PAUSE: Duration = Duration::from_millis(50);
/// Most of a service's log that is shown when it does not work.
const LOG_SHOWN: usize = 64 * 1024;
/// Ports that a health check tries.
const PORTS_CHECKED: usize = 20;
/// Variable that names the one port to check.
const HEALTH_PORT: &str = "HEALTHCHECK_TCP_PORT";
/// Variable that puts the logs of services into the job's log.
const DEBUG: &str = "CI_DEBUG_SERVICES";
/// Characters of a container's id that are its name.
const SHORT_ID: usize = 12;

/// A service that runs.
#[derive(Debug)]
pub(crate) struct Service {
    container: String,
    names: Vec<String>,
    addresses: Vec<String>,
    /// Ports to check, in order.
    ports: Vec<u16>,
}

/// What services are started with.
pub(crate) struct Surroundings<'a> {
    pub(crate) engine: &'a Arc<Engine>,
    pub(crate) config: &'a DockerConfig,
    pub(crate) template: &'a Template,
    pub(crate) context: &'a Context,
    pub(crate) images: &'a Images<'a>,
    pub(crate) labels: &'a Labels,
    pub(crate) belongings: &'a Belongings,
    pub(crate) network: &'a Network,
    /// Control group of services, where it goes by the job's slot.
    pub(crate) cgroup: Option<&'a str>,
    pub(crate) unique: &'a str,
    pub(crate) log: &'a JobLog,
}

// === impl Service ===

impl Service {
    /// Starts all services at once.
    pub(crate) async fn start_all(
        definitions: &[Definition],
        around: &Surroundings<'_>,
        binds: &super::volumes::Volumes,
    ) -> Result<Vec<Self>, PrepareError> {
        let names = unique_names(definitions, around.log);
        let starting = definitions
            .iter()
            .zip(names)
            .enumerate()
            .filter(|(_, (_, names))| !names.is_empty())
            .map(|(index, (definition, names))| Self::start(index, definition, names, around, binds));
        try_join_all(starting).await
    }

    async fn start(
        index: usize,
        definition: &Definition,
        names: Vec<String>,
        around: &Surroundings<'_>,
        volumes: &super::volumes::Volumes,
    ) -> Result<Self, PrepareError> {
        let name = &definition.name;
        around.log.line(LineKind::Plain, format_args!("Starting service {} ...", Reference::with_tag(name)));
        let wanted = Wanted { name, policies: &definition.policies, platform: &definition.platform };
        let image = around.images.get(wanted).await?;
        if !definition.entrypoint.is_empty() && around.config.disable_entrypoint_overwrite {
            around.log.line(LineKind::Warning, "Entrypoint override disabled");
        }
        let first = Reference::parse(name).service_names().swap_remove(0);
        let container = format!("{}-{first}-{index}", around.unique);
        let body = body(definition, &image, &names, around, volumes);
        around.belongings.container(&container);
        let mut options = CreateContainerOptionsBuilder::default().name(&container);
        if !definition.platform.is_empty() {
            options = options.platform(&definition.platform);
        }
        let failed = |error: EngineError| prepare::failed(around.engine, error);
        let api = around.engine.api();
        let turn = around.engine.turn().await;
        let created =
            api.create_container(Some(options.build()), body).await.map_err(|error| failed(error.into()))?;
        api.start_container(&container, None).await.map_err(|error| failed(error.into()))?;
        drop(turn);
        let state = Self::started(&container, name, around).await?;
        let mut names = names;
        names.push(created.id.chars().take(SHORT_ID).collect());
        // The container's variables: the image may have named the port, too.
        let environment = state.config.as_ref().and_then(|config| config.env.as_deref()).unwrap_or_default();
        let own_port = environment.iter().rev().find_map(|entry| {
            let (key, value) = entry.split_once('=')?;
            key.eq_ignore_ascii_case(HEALTH_PORT).then(|| value.trim().parse().ok()).flatten()
        });
        let ports = match own_port {
            Some(port) => vec![port],
            None => image.ports.iter().copied().take(PORTS_CHECKED).collect(),
        };
        Ok(Self { container, names, addresses: addresses(&state), ports })
    }

    /// Waits until the service has left the state `created`.
    async fn started(
        container: &str,
        name: &str,
        around: &Surroundings<'_>,
    ) -> Result<ContainerInspectResponse, PrepareError> {
        let patience = around.config.wait_for_services_timeout().unwrap_or_default().max(START_TIMEOUT);
        let end = Instant::now() + patience;
        loop {
            let options = InspectContainerOptionsBuilder::default().build();
            let inspected = around.engine.api().inspect_container(container, Some(options)).await;
            let inspected = inspected.map_err(|error| prepare::failed(around.engine, error.into()))?;
            let status = inspected.state.as_ref().and_then(|state| state.status);
            if status != Some(ContainerStateStatusEnum::CREATED) {
                return Ok(inspected);
            }
            if Instant::now() >= end {
                return Err(PrepareError::System(format!(
                    "service {name} failed to start after {}",
                    go_duration::format(patience)
                )));
            }
            tokio::time::sleep(START_PAUSE).await;
        }
    }

    /// Entries of `/etc/hosts` for the containers of the job.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = String> + '_ {
        self.names
            .iter()
            .flat_map(|name| self.addresses.iter().map(move |address| format!("{name}:{address}")))
    }

    /// Whether there is something that a check from the helper can reach.
    pub(crate) fn can_be_checked(&self) -> bool {
        !self.ports.is_empty() && !self.addresses.is_empty()
    }

    /// Waits until every service can be reached from the helper, which is there if [any can be](Self::can_be_checked). One that
    /// cannot is described in the log; the job runs all the same.
    pub(crate) async fn check_all(
        services: &[Self],
        helper: Option<&str>,
        timeout: Duration,
        around: &Surroundings<'_>,
    ) {
        if services.is_empty() {
            return;
        }
        around.log.line(
            LineKind::Plain,
            format_args!(
                "Waiting for services to be up and running (timeout {} seconds)...",
                timeout.as_secs()
            ),
        );
        join_all(services.iter().map(|service| service.check(helper, timeout, around))).await;
    }

    async fn check(&self, helper: Option<&str>, timeout: Duration, around: &Surroundings<'_>) {
        let (said, why) = match (self.addresses.last().zip(helper), self.ports.is_empty()) {
            (_, true) => (String::new(), format!("service \"{}\" has no exposed ports", self.container)),
            (None, _) => {
                (String::new(), "it has no address: it has ended, or its network has none".to_owned())
            }
            (Some((address, helper)), false) => {
                let mut heard = Excerpt::new(LOG_SHOWN);
                let checked =
                    tokio::time::timeout(timeout, self.reach(helper, address, around, &mut heard)).await;
                let said = heard.text().into_owned();
                match checked {
                    Ok(Ok(0)) => return,
                    Ok(Ok(code)) => (said, format!("exit code {code}")),
                    Ok(Err(why)) => (said, why),
                    Err(_) => (said, format!("service \"{}-wait-for-service\" timeout", self.container)),
                }
            }
        };
        let mut block = format!(
            "*** WARNING: Service {} probably didn't start properly.\n\nHealth check error:\n{why}\n",
            self.container
        );
        if !said.is_empty() {
            let _ = write!(block, "\nHealth check container logs:\n{said}");
        }
        let _ = write!(block, "\nService container logs:\n{}\n*********\n", self.log(around.engine).await);
        let mut coloured = String::with_capacity(block.len() + 16);
        let _ = write!(coloured, "\n\x1b[0;33m{block}\x1b[0;m\n");
        around.log.write_raw(coloured.as_bytes());
    }

    async fn reach(
        &self,
        helper: &str,
        address: &str,
        around: &Surroundings<'_>,
        said: &mut Excerpt,
    ) -> Result<i32, String> {
        let mut environment = vec![format!("WAIT_FOR_SERVICE_TCP_ADDR={address}")];
        environment.extend(self.ports.iter().map(|port| format!("WAIT_FOR_SERVICE_{port}_TCP_PORT={port}")));
        let command = ["gitlab-runner-helper", "health-check"].map(str::to_owned).into();
        let mut check = Inside::start(around.engine, helper, command, environment, Bytes::new())
            .await
            .map_err(|error| error.to_string())?;
        loop {
            match check.next().await.map_err(|error| error.to_string())? {
                StageEvent::Stdout(bytes) | StageEvent::Stderr(bytes) => {
                    said.add(&bytes);
                }
                StageEvent::Exited(code) => return Ok(code),
            }
        }
    }

    async fn log(&self, engine: &Engine) -> String {
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).timestamps(true).build();
        let mut log = engine.api().logs(&self.container, Some(options));
        let mut said = Excerpt::new(LOG_SHOWN);
        while !said.is_full()
            && let Some(Ok(piece)) = log.next().await
        {
            said.add(&piece.into_bytes());
        }
        said.text().into_owned()
    }

    /// Puts the logs of the services into the job's, if the job asks for it.
    pub(crate) fn follow(services: &[Self], around: &Surroundings<'_>) -> JoinSet<()> {
        let Some(value) = around.context.variables().get(DEBUG).filter(|value| !value.is_empty()) else {
            return JoinSet::new();
        };
        match value.to_ascii_lowercase().as_str() {
            "true" | "1" | "t" => {}
            "false" | "0" | "f" => return JoinSet::new(),
            _ => {
                around.log.line(
                    LineKind::Warning,
                    format_args!("{DEBUG}: expected bool got \"{value}\", using default value: false"),
                );
                return JoinSet::new();
            }
        }
        let follow = |(index, service): (usize, &Self)| {
            let (engine, log) = (Arc::clone(around.engine), around.log.clone());
            let container = service.container.clone();
            let prefix = format!("[service:{}] ", service.names[..service.names.len() - 1].join("-"));
            let number = u8::try_from(index).unwrap_or(u8::MAX);
            async move { follow(&engine, &container, &prefix, number, &log).await }
        };
        services.iter().enumerate().map(follow).collect()
    }
}

async fn follow(engine: &Engine, container: &str, prefix: &str, number: u8, log: &JobLog) {
    let options = LogsOptionsBuilder::default().follow(true).stdout(true).stderr(true).build();
    let mut pieces = engine.api().logs(container, Some(options));
    let (mut out, mut err) = (log.service(number, Channel::Out), log.service(number, Channel::Err));
    let mut text = Vec::new();
    while let Some(Ok(piece)) = pieces.next().await {
        let writer = if matches!(piece, LogOutput::StdErr { .. }) { &mut err } else { &mut out };
        let bytes = piece.into_bytes();
        text.clear();
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            text.extend_from_slice(b"\x1b[0;33m");
            text.extend_from_slice(prefix.as_bytes());
            text.extend_from_slice(b"\x1b[0;m");
            text.extend_from_slice(line);
        }
        writer.write(&text);
    }
}

fn body(
    definition: &Definition,
    image: &Image,
    names: &[String],
    around: &Surroundings<'_>,
    volumes: &super::volumes::Volumes,
) -> ContainerCreateBody {
    let config = around.config;
    let mut host = around.template.service.clone();
    host.network_mode = around.network.mode();
    if let Some(cgroup) = around.cgroup {
        host.cgroup_parent = Some(cgroup.to_owned());
    }
    host.binds = super::values::list(&volumes.binds);
    host.mounts = (!volumes.mounts.is_empty()).then(|| volumes.mounts.clone());
    let privileged =
        config.services_privileged() && allow::allows(&config.allowed_privileged_services, &definition.name);
    host.privileged = privileged.then_some(true);
    host.init = around.context.flags().is_on(FeatureFlag::UseInitWithDockerExecutor).then_some(true);
    let with_tag = Reference::with_tag(&definition.name);
    let devices: Vec<_> = around
        .template
        .service_devices
        .iter()
        .filter(|(pattern, _)| allow::matches(pattern, &with_tag))
        .flat_map(|(_, devices)| devices.iter().cloned())
        .collect();
    host.devices = (!devices.is_empty()).then_some(devices);

    let reference = Reference::parse(&definition.name);
    let mut labels = around
        .labels
        .with("service", &[("service", &reference.service()), ("service.version", &reference.version())]);
    let expand = |text: &String| around.context.variables().expand(text).into_owned();
    for (name, value) in &config.container_labels {
        labels.insert(format!("com.gitlab.gitlab-runner.{name}"), expand(value));
        labels.insert(name.clone(), expand(value));
    }
    let list = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    ContainerCreateBody {
        image: Some(image.reference.clone()),
        env: list(&definition.environment),
        cmd: list(&definition.command),
        entrypoint: list(&definition.entrypoint).filter(|_| !config.disable_entrypoint_overwrite),
        user: Some(definition.user.clone()).filter(|user| !user.is_empty()),
        labels: Some(labels),
        networking_config: around.network.endpoint(names.to_vec()),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    }
}

/// Every address of a container in every network.
fn addresses(container: &ContainerInspectResponse) -> Vec<String> {
    let networks = container.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
    let mut found: Vec<String> = networks
        .into_iter()
        .flat_map(std::collections::HashMap::values)
        .flat_map(|endpoint| [endpoint.ip_address.clone(), endpoint.global_ipv6_address.clone()])
        .flatten()
        .filter(|address| !address.is_empty())
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}
