//! Calls to the engine: the containers of one group, and nothing else.

use std::collections::HashMap;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, ContainerSummaryStateEnum, HostConfig, PortBinding};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, DownloadFromContainerOptionsBuilder,
    ListContainersOptionsBuilder, RemoveContainerOptionsBuilder, UploadToContainerOptionsBuilder,
};
use fleeting::{GroupError, InstanceId};
use futures_util::StreamExt as _;

use crate::Config;
use crate::lease::Marks;
use crate::login::{Login, fingerprint};

/// Labels that begin so are the group's own.
pub(crate) const RESERVED: &str = "drover.";
/// Names the group that a container belongs to.
const GROUP: &str = "drover.instance-group";
/// Seconds until the engine has answered; creating a container of a large image takes its time.
const TIMEOUT: u64 = 120;
/// Where OpenSSH has the public half of its host key.
const HOST_KEY: &str = "/etc/ssh/ssh_host_ed25519_key.pub";

/// The containers of one group on one engine.
pub(crate) struct Containers {
    docker: Docker,
    config: Config,
}

/// A container in a listing.
pub(crate) struct Listed {
    pub(crate) id: InstanceId,
    pub(crate) state: ContainerSummaryStateEnum,
    /// The state in the engine's words, for example `Exited (137) 3 seconds ago`.
    pub(crate) status: String,
}

// === impl Containers ===

impl Containers {
    /// Nothing is asked of the engine yet, but its socket must be there.
    pub(crate) fn new(config: &Config) -> Result<Self, GroupError> {
        let docker = Docker::connect_with_unix(&config.host, TIMEOUT, bollard::API_DEFAULT_VERSION)
            .map_err(|error| failed(&format!("connecting to the engine at {}", config.host), error))?;
        Ok(Self { docker, config: config.clone() })
    }

    pub(crate) fn marks(&self) -> Marks {
        Marks::new(self.docker.clone(), &self.config.name)
    }

    /// Version of the engine, as a sign that it is there.
    pub(crate) async fn version(&self) -> Result<String, GroupError> {
        let doing = format!("asking the engine at {} for its version", self.config.host);
        let version = self.docker.version().await.map_err(|error| failed(&doing, error))?;
        Ok(version.version.unwrap_or_default())
    }

    /// Whether the image of the instances is there.
    pub(crate) async fn has_image(&self) -> Result<bool, GroupError> {
        match self.docker.inspect_image(&self.config.image).await {
            Ok(_) => Ok(true),
            Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(false),
            Err(error) => Err(failed(&format!("looking for the image `{}`", self.config.image), error)),
        }
    }

    /// All containers of the group, in whatever state.
    pub(crate) async fn list(&self) -> Result<Vec<Listed>, GroupError> {
        let filters = HashMap::from([("label", vec![format!("{GROUP}={}", self.config.name)])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let listed = self.docker.list_containers(Some(options)).await;
        let listed = listed.map_err(|error| failed("listing containers", error))?;
        let listed = listed.into_iter().filter_map(|container| {
            let name = container.names?.into_iter().next()?;
            Some(Listed {
                id: InstanceId::from(name.trim_start_matches('/')),
                state: container.state.unwrap_or(ContainerSummaryStateEnum::EMPTY),
                status: container.status.unwrap_or_default(),
            })
        });
        Ok(listed.collect())
    }

    /// Makes a container and starts it. What cannot be started is removed again.
    pub(crate) async fn make(&self, id: &InstanceId) -> Result<(), GroupError> {
        let doing = format!("creating instance `{id}`");
        let options = || CreateContainerOptionsBuilder::default().name(id.as_str()).build();
        let mut created = self.docker.create_container(Some(options()), self.body()).await;
        if let Err(Error::DockerResponseServerError { status_code: 404, .. }) = created {
            self.pull().await?;
            created = self.docker.create_container(Some(options()), self.body()).await;
        }
        created.map_err(|error| failed(&doing, error))?;
        if let Err(error) = self.docker.start_container(id.as_str(), None).await {
            let error = failed(&format!("starting instance `{id}`"), error);
            if let Err(error) = self.remove(id).await {
                tracing::warn!(instance = %id, %error, "a container that did not start is left");
            }
            return Err(error);
        }
        Ok(())
    }

    /// Removes a container with its anonymous volumes, whatever runs in it. One that is gone is as good as removed.
    pub(crate) async fn remove(&self, id: &InstanceId) -> Result<(), GroupError> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match self.docker.remove_container(id.as_str(), Some(options)).await {
            // 409: the removal is under way already.
            Ok(()) | Err(Error::DockerResponseServerError { status_code: 404 | 409, .. }) => Ok(()),
            Err(error) => Err(failed(&format!("removing instance `{id}`"), error)),
        }
    }

    /// Host and port of the SSH server of a running instance.
    pub(crate) async fn address(&self, id: &InstanceId) -> Result<String, GroupError> {
        let not_found = || GroupError::NotFound { what: format!("instance `{id}`") };
        let inspected = match self.docker.inspect_container(id.as_str(), None).await {
            Ok(inspected) => inspected,
            Err(Error::DockerResponseServerError { status_code: 404, .. }) => return Err(not_found()),
            Err(error) => return Err(failed(&format!("inspecting instance `{id}`"), error)),
        };
        let labels = inspected.config.and_then(|config| config.labels).unwrap_or_default();
        if labels.get(GROUP) != Some(&self.config.name) {
            return Err(not_found());
        }
        let state = inspected.state.unwrap_or_default();
        if state.running != Some(true) {
            return Err(GroupError::Transient { message: format!("instance `{id}` is not running") });
        }
        let ports = inspected.network_settings.and_then(|network| network.ports).unwrap_or_default();
        let published = ports.get(&self.port()).into_iter().flatten().flatten().find_map(|binding| {
            binding.host_port.as_deref().filter(|port| !port.is_empty()).map(str::to_owned)
        });
        let port = published.ok_or_else(|| GroupError::Transient {
            message: format!("port {} of instance `{id}` is not published", self.config.ssh_port),
        })?;
        let address = match self.config.publish_address.as_str() {
            "" | "0.0.0.0" | "::" => "127.0.0.1",
            address => address,
        };
        let address = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        Ok(format!("{address}:{port}"))
    }

    /// Lets the holder of a key log in.
    pub(crate) async fn admit(&self, id: &InstanceId, login: &Login, path: &str) -> Result<(), GroupError> {
        let options = UploadToContainerOptionsBuilder::default().path("/").build();
        let body = bollard::body_full(login.archive(path)?.into());
        let written = self.docker.upload_to_container(id.as_str(), Some(options), body).await;
        written.map_err(|error| failed(&format!("writing {path} of instance `{id}`"), error))
    }

    /// Fingerprint of the host key of an instance; none if it has no such key, or not yet.
    pub(crate) async fn host_key(&self, id: &InstanceId) -> Option<String> {
        let options = DownloadFromContainerOptionsBuilder::default().path(HOST_KEY).build();
        let mut pieces = std::pin::pin!(self.docker.download_from_container(id.as_str(), Some(options)));
        let mut archive = Vec::new();
        while let Some(piece) = pieces.next().await {
            archive.extend_from_slice(&piece.ok()?);
        }
        fingerprint(&archive)
    }

    async fn pull(&self) -> Result<(), GroupError> {
        let image = &self.config.image;
        tracing::info!(image, "the engine does not have the image of the instances, pulling it");
        let mut options = CreateImageOptionsBuilder::default().from_image(image);
        if !image.contains('@') && !image.rsplit('/').next().unwrap_or_default().contains(':') {
            options = options.tag("latest");
        }
        let mut progress = std::pin::pin!(self.docker.create_image(Some(options.build()), None, None));
        while let Some(step) = progress.next().await {
            step.map_err(|error| GroupError::Configuration {
                message: format!(
                    "plugin_config.image: the engine at {} has no image `{image}`, and cannot pull it: {error}. Build or pull it there",
                    self.config.host
                ),
            })?;
        }
        Ok(())
    }

    fn port(&self) -> String {
        format!("{}/tcp", self.config.ssh_port)
    }

    fn body(&self) -> ContainerCreateBody {
        let config = &self.config;
        let some = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
        let (binds, anonymous): (Vec<String>, Vec<String>) =
            config.volumes.iter().cloned().partition(|volume| volume.contains(':'));
        let binding = PortBinding { host_ip: Some(config.publish_address.clone()), host_port: None };
        let mut labels: HashMap<String, String> = config
            .labels
            .iter()
            .map(|label| label.split_once('=').unwrap_or((label, "")))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        labels.insert(GROUP.to_owned(), config.name.clone());
        ContainerCreateBody {
            image: Some(config.image.clone()),
            cmd: some(&config.command),
            env: some(&config.environment),
            labels: Some(labels),
            volumes: some(&anonymous),
            exposed_ports: Some(vec![self.port()]),
            host_config: Some(HostConfig {
                binds: some(&binds),
                cap_add: some(&config.capabilities),
                privileged: Some(config.privileged),
                security_opt: some(&config.security_opt),
                network_mode: config.network.clone(),
                memory: config.memory,
                nano_cpus: config.nano_cpus,
                port_bindings: Some(HashMap::from([(self.port(), Some(vec![binding]))])),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        }
    }
}

/// What a failure means for the scaler.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "whatever else goes wrong between here and the engine may pass"
)]
pub(crate) fn failed(doing: &str, error: Error) -> GroupError {
    match error {
        Error::DockerResponseServerError { status_code: 400, message } => {
            GroupError::Configuration { message: format!("{doing}: {message}") }
        }
        // What stands before the socket, such as an authorization plugin, does not let the call through.
        Error::DockerResponseServerError { status_code: 401 | 403, message } => {
            GroupError::Denied { message: format!("{doing}: {message}") }
        }
        Error::DockerResponseServerError { message, .. } => {
            GroupError::Transient { message: format!("{doing}: {message}") }
        }
        Error::SocketNotFoundError(path) => GroupError::Configuration {
            message: format!(
                "{doing}: there is no socket {path}; install and start Docker, or set plugin_config.host"
            ),
        },
        other => GroupError::transient(doing, &other),
    }
}
