//! From a job to its containers.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bollard::models::{ContainerCreateBody, HostConfig, NetworkCreateRequest};
use bollard::query_parameters::CreateContainerOptionsBuilder;
use bytes::Bytes;
use config::Docker as DockerConfig;
use job::{Context, FeatureFlag, GitStrategy, Outcome, Stage, Variable};
use trace::{JobLog, LineKind};
use uuid::Uuid;

use super::allow;
use super::belongings::Belongings;
use super::engine::{Engine, EngineError, Way};
use super::environment::{Build, DockerEnvironment, Ground, Helper, Life, Words};
use super::helper::HelperImage;
use super::labels::Labels;
use super::ownership::Ownership;
use super::pull::{Image, Images, Wanted};
use super::services::{Definition, Service, Surroundings};
use super::shell::{self, Shell};
use super::stage::Asking;
use super::template::{Network, Template};
use super::volumes::{self, Needs, Volumes};
use crate::PrepareError;
use crate::instance::SlotCgroups;

macro_rules! shells {
    () => {
        "/usr/local/bin/bash /usr/bin/bash /bin/bash /usr/local/bin/sh /usr/bin/sh /bin/sh /busybox/sh"
    };
}

/// Tries of a preparation whose failure may pass, and the pause between them.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(3);
/// The shell of an image: bash where there is one, else what is `sh`.
const DETECT: [&str; 3] = [
    "sh",
    "-c",
    concat!(
        "for s in ",
        shells!(),
        "; do if [ -x \"$s\" ]; then exec \"$s\"; fi; done; echo shell not found; exit 1"
    ),
];
/// Where shells are looked for, the best first.
pub(crate) const SHELLS: &str = shells!();

/// What jobs of a runner entry share.
pub(crate) struct Settings {
    pub(crate) config: DockerConfig,
    pub(crate) template: Template,
    /// How engines on instances are reached.
    pub(crate) way: Way,
    /// Version of this program, which the helper image has as well.
    pub(crate) version: String,
    /// Folder that relative paths start from.
    pub(crate) base: std::path::PathBuf,
}

/// One preparation.
struct Preparation<'a> {
    engine: &'a Arc<Engine>,
    settings: &'a Settings,
    context: &'a Context,
    log: &'a JobLog,
    labels: Labels,
    unique: String,
    belongings: Belongings,
    network: Network,
    /// Those of the job's slot, where it has one and they are asked for.
    cgroups: Option<SlotCgroups>,
}

/// Makes the place of a job. What may pass is tried again.
pub(crate) async fn prepare(
    engine: &Arc<Engine>,
    settings: &Settings,
    context: &Context,
    log: &JobLog,
    ground: Option<Arc<dyn Ground>>,
) -> Result<DockerEnvironment, PrepareError> {
    let mut attempt = 1;
    loop {
        let prepared = once(engine, settings, context, log, ground.clone()).await;
        match prepared {
            Err(PrepareError::System(why)) if attempt < TRIES => {
                attempt += 1;
                log.line(LineKind::Warning, format_args!("Preparation failed: {why}"));
                log.line(LineKind::Plain, format_args!("Will be retried in {} seconds ...", PAUSE.as_secs()));
                tokio::time::sleep(PAUSE).await;
            }
            prepared => return prepared,
        }
    }
}

async fn once(
    engine: &Arc<Engine>,
    settings: &Settings,
    context: &Context,
    log: &JobLog,
    ground: Option<Arc<dyn Ground>>,
) -> Result<DockerEnvironment, PrepareError> {
    let config = &settings.config;
    let name = image_name(context, config)?;
    check(context, config, &name, log)?;
    let definitions = Definition::all(context, config, log)?;
    log.line(LineKind::Plain, format_args!("Using Docker executor with image {name} ..."));
    if config.volume_keep {
        log.line(LineKind::Warning, "volume_keep is set: anonymous volumes of this job's containers stay");
    }

    let facts = engine.facts().await.map_err(|error| failed(engine, error))?;
    if facts.os != "linux" {
        return Err(PrepareError::Configuration(format!(
            "{} runs {} containers, which are not available in this build: use an engine for Linux containers",
            engine.place(),
            facts.os
        )));
    }
    let unique = format!("{}-{}", context.unique_name(), &Uuid::new_v4().simple().to_string()[..16]);
    let belongings = Belongings::new(Arc::clone(engine), context.job().id, config.volume_keep);
    if let Some(ground) = &ground {
        belongings.lease(Box::new(Arc::clone(ground)));
    }
    let network = Network::new(
        config.network_mode.as_deref().unwrap_or_default(),
        config.mac_address.as_deref(),
        facts.api,
    );
    let mut preparation = Preparation {
        engine,
        settings,
        context,
        log,
        labels: Labels::of(context),
        unique,
        belongings,
        network,
        cgroups: ground.as_ref().and_then(|ground| ground.cgroups()).cloned(),
    };
    let environment = preparation.make(&name, &definitions, ground).await;
    if environment.is_err() {
        preparation.belongings.remove().await;
    }
    environment
}

// === impl Preparation ===

impl Preparation<'_> {
    async fn make(
        &mut self,
        name: &str,
        definitions: &[Definition],
        ground: Option<Arc<dyn Ground>>,
    ) -> Result<DockerEnvironment, PrepareError> {
        let Self { engine, settings, context, log, .. } = *self;
        let config = &settings.config;
        if self.network.ignores_mac_address() {
            log.line(LineKind::Warning, "mac_address is not applied: the engine is too old for it");
        }
        if self.network.mode.is_empty() && context.flags().is_on(FeatureFlag::NetworkPerBuild) {
            self.create_network().await?;
        }
        let images = Images::new(engine, config, context, log);
        let executor_options = &context.job().image.executor_opts.docker;
        let platform = context.variables().expand(&executor_options.platform).into_owned();
        let wanted = Wanted { name, policies: &context.job().image.pull_policy, platform: &platform };
        let image = images.get(wanted).await?;

        let user = user(context, config);
        let root = is_root(if user.is_empty() { &image.user } else { &user });
        let helped = self.needs_helper(root) || (!root && !definitions.is_empty());
        // Services see what the job builds.
        let builds = helped || !definitions.is_empty();
        let needs = Needs { config, context, labels: &self.labels, unique: &self.unique, builds };
        let volumes =
            Volumes::plan(&needs).map_err(|error| PrepareError::Configuration(error.to_string()))?;
        self.belongings.volumes(&volumes.temporary);

        let around = Surroundings {
            engine,
            config,
            template: &settings.template,
            context,
            images: &images,
            labels: &self.labels,
            belongings: &self.belongings,
            network: &self.network,
            cgroup: self.cgroups.as_ref().map(|cgroups| cgroups.services.as_str()),
            unique: &self.unique,
            log,
        };
        let services = Service::start_all(definitions, &around, &volumes).await?;
        let tasks = Service::follow(&services, &around);
        let hosts: Vec<String> =
            config.extra_hosts.iter().cloned().chain(services.iter().flat_map(Service::hosts)).collect();

        let ownership = if context.flags().is_on(FeatureFlag::DisableUmaskForDockerExecutor) {
            let folders = vec![context.project_dir(), context.temp_dir()];
            Ownership::for_user(if user.is_empty() { &image.user } else { &user }, folders)
        } else {
            None
        };
        let checks = config.wait_for_services_timeout();
        let helped = helped || (checks.is_some() && services.iter().any(Service::can_be_checked));
        let mut build = self.build(&image, user, platform, (!helped).then_some(root), &volumes, &hosts);
        if !helped && builds {
            // An image need not have the program, and services mostly run as root.
            build.prefix.insert_str(0, &opened(&volumes, " 2>/dev/null || :"));
        }
        self.belongings.container(&build.name);
        let helper = match helped {
            true => Some(self.start_helper(&images, &volumes, &hosts, &build).await?),
            false => None,
        };
        if let Some(timeout) = checks {
            let helper = helper.as_ref().map(|helper| helper.name.as_str());
            Service::check_all(&services, helper, timeout, &around).await;
        }
        Ok(DockerEnvironment {
            engine: Arc::clone(engine),
            words: self.words(),
            belongings: std::mem::replace(
                &mut self.belongings,
                Belongings::new(Arc::clone(engine), context.job().id, false),
            ),
            build,
            helper,
            builds_go: volumes.builds_go,
            ownership,
            ground,
            tasks,
            started: Mutex::new(None),
        })
    }

    async fn create_network(&mut self) -> Result<(), PrepareError> {
        let name = self.context.network_name();
        let config = &self.settings.config;
        let options = config
            .network_mtu
            .filter(|mtu| *mtu > 0)
            .map(|mtu| HashMap::from([("com.docker.network.driver.mtu".to_owned(), mtu.to_string())]));
        let request = NetworkCreateRequest {
            name: name.clone(),
            enable_ipv6: Some(config.enable_ipv6),
            labels: Some(self.labels.with("", &[])),
            options,
            ..NetworkCreateRequest::default()
        };
        let created = self.engine.api().create_network(request).await;
        let created = created.map_err(|error| failed(self.engine, error.into()))?;
        self.belongings.network(&created.id);
        self.network.mode = name;
        Ok(())
    }

    /// Whether anything has to be done that the job's own image cannot be asked to do.
    fn needs_helper(&self, root: bool) -> bool {
        let context = self.context;
        let config = &self.settings.config;
        let stages = [
            Stage::RestoreCache,
            Stage::DownloadArtifacts,
            Stage::ArchiveCache(Outcome::Success),
            Stage::ArchiveCache(Outcome::Failure),
            Stage::UploadArtifacts(Outcome::Success),
            Stage::UploadArtifacts(Outcome::Failure),
        ];
        matches!(context.settings().strategy, GitStrategy::Clone | GitStrategy::Fetch)
            || stages.iter().any(|stage| context.is_needed(*stage))
            || volumes::builds_are_kept(config, &context.runner().builds_dir)
            || (!root && !config.volumes.is_empty())
    }

    /// The helper container, running; beside its start, which takes longest, the build container is created.
    async fn start_helper(
        &self,
        images: &Images<'_>,
        volumes: &Volumes,
        hosts: &[String],
        build: &Build,
    ) -> Result<Helper, PrepareError> {
        let Self { engine, settings, context, log, .. } = self;
        let config = &settings.config;
        let image = HelperImage::choose(config, &settings.version, context, images, log).await?;
        let name = format!("{}-predefined", self.unique);
        self.belongings.container(&name);
        let mut host = self.host(volumes, hosts);
        let privileged =
            config.privileged && allow::allows(&config.allowed_privileged_images, image.reference());
        host.privileged = privileged.then_some(true);
        let mut body = ContainerCreateBody {
            image: Some(image.reference().to_owned()),
            cmd: Some(shell::COMMAND.map(str::to_owned).into()),
            open_stdin: Some(true),
            stdin_once: Some(true),
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            hostname: self.hostname(),
            labels: Some(self.container_labels("predefined")),
            networking_config: self.network.endpoint(vec![name.clone()]),
            host_config: Some(host),
            ..ContainerCreateBody::default()
        };
        let create = |body: ContainerCreateBody| {
            let options = CreateContainerOptionsBuilder::default().name(&name).build();
            async move {
                let _turn = engine.turn().await;
                engine.api().create_container(Some(options), body).await.map_err(EngineError::from)
            }
        };
        let mut program = image.program();
        match create(body.clone()).await {
            Ok(_) => {}
            Err(EngineError::NotFound(_)) => {
                let provided = image.provide(engine, config, &settings.base, context, images, log).await?;
                program = provided.program();
                body.image = Some(provided.reference().to_owned());
                create(body).await.map_err(|error| failed(engine, error))?;
            }
            Err(error) => return Err(failed(engine, error)),
        }
        let starting = async {
            let _turn = engine.turn().await;
            let shell = Shell::attach(engine, &name).await?;
            engine.api().start_container(&name, None).await?;
            Ok(shell)
        };
        let (shell, ()) = tokio::join!(starting, build.create_ahead(engine));
        let shell = shell.map_err(|error| failed(engine, error))?;
        Ok(Helper { name, shell, program, first: Mutex::new(Some(self.first_lines(volumes))) })
    }

    /// What the helper does before its first stage: volumes are opened for whoever the job's user is, and what a job that was cut
    /// off may have left is removed.
    fn first_lines(&self, volumes: &Volumes) -> String {
        let mut lines = opened(volumes, "");
        let temp = self.context.temp_dir();
        let _ = writeln!(
            lines,
            "rm -f {} {}",
            quoted(&format!("{temp}/gitlab_runner_env")),
            quoted(&format!("{temp}/masking.db"))
        );
        lines
    }

    /// The build container. Without a helper, `alone` says whether its user is root, and it makes the project's folder itself.
    fn build(
        &self,
        image: &Image,
        user: String,
        platform: String,
        alone: Option<bool>,
        volumes: &Volumes,
        hosts: &[String],
    ) -> Build {
        let Self { settings, context, log, .. } = self;
        let config = &settings.config;
        let name = format!("{}-build", self.unique);
        let mut host = self.host(volumes, hosts);
        let own_name = context.variables().expand(&context.job().image.name);
        let privileged = config.privileged && allow::allows(&config.allowed_privileged_images, &own_name);
        host.privileged = privileged.then_some(true);
        host.init = context.flags().is_on(FeatureFlag::UseInitWithDockerExecutor).then_some(true);
        host.pid_mode = config.pid_mode.clone().filter(|mode| !mode.is_empty());
        // Words of a command are the container's: a variable in them may be one of the image.
        let entrypoint = context.job().image.entrypoint.clone();
        if !entrypoint.is_empty() && config.disable_entrypoint_overwrite {
            log.line(LineKind::Warning, "Entrypoint override disabled");
        }
        let shared = host.pid_mode.is_some() || context.flags().is_on(FeatureFlag::UseNativeContainerStop);
        let asking = match host.init {
            _ if shared => Asking::Engine,
            Some(true) => Asking::BelowInit,
            Some(false) | None => Asking::All,
        };
        let body = ContainerCreateBody {
            image: Some(image.reference.clone()),
            cmd: Some(DETECT.map(str::to_owned).into()),
            entrypoint: (!entrypoint.is_empty() && !config.disable_entrypoint_overwrite)
                .then_some(entrypoint),
            env: Some(self.environment()),
            user: (!user.is_empty()).then_some(user),
            hostname: self.hostname(),
            open_stdin: Some(true),
            stdin_once: Some(true),
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            labels: Some(self.container_labels("build")),
            networking_config: self.network.endpoint(vec!["build".to_owned(), name.clone()]),
            host_config: Some(host),
            ..ContainerCreateBody::default()
        };
        let project = context.project_dir();
        let (prefix, folders) = match alone {
            Some(true) => (format!("mkdir -p {}\n", quoted(&project)), None),
            Some(false) => (String::new(), folders(&[&project, &context.temp_dir()])),
            None => (String::new(), None),
        };
        Build { name, body, platform, folders, prefix, asking, life: tokio::sync::Mutex::new(Life::Missing) }
    }

    fn environment(&self) -> Vec<String> {
        let own = self.context.variables().iter().map(|variable| assignment(variable, self.context));
        let slot = self.cgroups.iter().map(SlotCgroups::variable);
        own.chain(slot.map(|(name, value)| format!("{name}={value}"))).collect()
    }

    fn host(&self, volumes: &Volumes, hosts: &[String]) -> HostConfig {
        HostConfig {
            network_mode: self.network.mode(),
            binds: super::values::list(&volumes.binds),
            mounts: (!volumes.mounts.is_empty()).then(|| volumes.mounts.clone()),
            extra_hosts: super::values::list(hosts),
            cgroup_parent: match &self.cgroups {
                Some(cgroups) => Some(cgroups.job.clone()),
                None => self.settings.template.build.cgroup_parent.clone(),
            },
            ..self.settings.template.build.clone()
        }
    }

    fn hostname(&self) -> Option<String> {
        let configured = self.settings.config.hostname.clone().filter(|name| !name.is_empty());
        self.network.has_own_names().then(|| configured.unwrap_or_else(|| self.context.unique_name()))
    }

    fn container_labels(&self, kind: &str) -> HashMap<String, String> {
        let mut labels = self.labels.with(kind, &[]);
        for (name, value) in &self.settings.config.container_labels {
            labels.insert(name.clone(), self.context.variables().expand(value).into_owned());
        }
        labels
    }

    fn words(&self) -> Words {
        let host = self.hostname().unwrap_or_else(|| self.unique.clone());
        let manager = &self.context.runner().manager_host;
        let greeting = if manager.is_empty() {
            format!("Running on {host}...\n")
        } else {
            format!("Running on {host} via {manager}...\n")
        };
        let setup = if self.context.settings().strategy == GitStrategy::Empty {
            "Skipping Git repository setup and creating an empty build directory"
        } else {
            "Skipping Git repository setup"
        };
        let mut no_sources = String::new();
        for line in [setup, "Skipping Git checkout", "Skipping Git submodules setup"] {
            let _ = writeln!(no_sources, "\x1b[32;1m{line}\x1b[0;m");
        }
        Words { greeting: Bytes::from(greeting), no_sources: Bytes::from(no_sources) }
    }
}

/// A variable as an entry of a container's environment; file variables are where their files are.
pub(crate) fn assignment(variable: &Variable, context: &Context) -> String {
    if variable.file {
        format!("{}={}/{}", variable.key, context.temp_dir(), variable.key)
    } else {
        format!("{}={}", variable.key, variable.value)
    }
}

/// An image or service that its list does not have. The log says what is on it.
pub(crate) fn disallowed(kind: &str, name: &str, patterns: &[String], log: &JobLog) -> PrepareError {
    let mut block = format!("\n\x1b[31;1mThe \"{name}\" image is not present on list of allowed {kind}:\n");
    for pattern in patterns {
        let _ = writeln!(block, "- {pattern}");
    }
    block.push_str(
        "Please check the runner's configuration: \
         https://docs.gitlab.com/runner/configuration/advanced-configuration/#override-image-and-services\x1b[0;m\n",
    );
    log.write_raw(block.as_bytes());
    PrepareError::Configuration("disallowed image".to_owned())
}

/// A call that failed, as a failure of the preparation.
pub(crate) fn failed(engine: &Engine, error: EngineError) -> PrepareError {
    match error {
        EngineError::BadRequest(text) if text.contains("HTTP request to an HTTPS server") => {
            PrepareError::Configuration(format!(
                "{} answers: {} Set `tls_verify`, and `tls_cert_path` to the folder with ca.pem, cert.pem and key.pem",
                engine.place(),
                text.trim()
            ))
        }
        EngineError::BadRequest(text) => {
            PrepareError::Configuration(format!("Error response from daemon: {text}"))
        }
        EngineError::Unreachable(why) => {
            PrepareError::System(format!("{} cannot be reached: {why}{}", engine.place(), hint(&why)))
        }
        EngineError::NotFound(text) | EngineError::Conflict(text) | EngineError::Failed(text) => {
            PrepareError::System(format!("Error response from daemon: {text}"))
        }
    }
}

/// What to do about the usual causes.
fn hint(why: &str) -> &'static str {
    if why.contains("No such file or directory") || why.contains("Connection refused") {
        " (is the engine running there?)"
    } else if why.contains("fatal alert") {
        " (the engine wants a client certificate that it knows: cert.pem and key.pem in tls_cert_path)"
    } else if why.contains("invalid peer certificate") {
        " (ca.pem in tls_cert_path must be of the authority that signed the engine's certificate)"
    } else if why.contains("connect failed") {
        " (does the engine run there, and may the SSH user open its socket, for example by the group docker?)"
    } else if why.contains("prohibited") {
        " (sshd of the instance must allow it: AllowStreamLocalForwarding yes, AllowTcpForwarding yes)"
    } else if why.contains("Permission denied") {
        " (the user must be allowed to use the engine's socket, for example by the group docker)"
    } else {
        ""
    }
}

fn image_name(context: &Context, config: &DockerConfig) -> Result<String, PrepareError> {
    let configured = config.image.as_deref().unwrap_or_default();
    let own = context.job().image.name.as_str();
    let name = context.variables().expand(if own.is_empty() { configured } else { own }).into_owned();
    if name.is_empty() {
        return Err(PrepareError::Configuration("no Docker image specified to run the build in".to_owned()));
    }
    Ok(name)
}

/// Everything about a job that can be refused without an engine.
fn check(context: &Context, config: &DockerConfig, name: &str, log: &JobLog) -> Result<(), PrepareError> {
    let configured = context.variables().expand(config.image.as_deref().unwrap_or_default());
    if name != configured && !allow::allows(&config.allowed_images, name) {
        return Err(disallowed("images", name, &config.allowed_images, log));
    }
    let user = user(context, config);
    let allowed = config.allowed_users();
    if !user.is_empty() && !allowed.is_empty() && !allowed.contains(&user.as_str()) {
        return Err(PrepareError::Configuration(format!(
            "user \"{user}\" is not an allowed user: [{}]",
            allowed.join(" ")
        )));
    }
    for server in &config.dns {
        if server.parse::<std::net::IpAddr>().is_err() {
            return Err(PrepareError::Configuration(format!("invalid DNS server address \"{server}\"")));
        }
    }
    Ok(())
}

/// The user of the build container; empty is the image's own.
fn user(context: &Context, config: &DockerConfig) -> String {
    match config.user.as_deref().filter(|user| !user.is_empty()) {
        Some(user) => user.to_owned(),
        None => context.variables().expand(&context.job().image.executor_opts.docker.user).into_owned(),
    }
}

fn is_root(user: &str) -> bool {
    matches!(user.split(':').next(), None | Some("" | "0" | "root"))
}

/// Lines that open volumes to all users.
fn opened(volumes: &Volumes, otherwise: &str) -> String {
    volumes.open.iter().map(|folder| format!("chmod 0777 {}{otherwise}\n", quoted(folder))).collect()
}

/// An archive with these folders, and those above them, open to everybody.
fn folders(paths: &[&str]) -> Option<Bytes> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut made = std::collections::BTreeSet::new();
    for path in paths {
        let path = Path::new(path.trim_start_matches('/'));
        let above: Vec<&Path> = path.ancestors().filter(|path| !path.as_os_str().is_empty()).collect();
        for folder in above.into_iter().rev().filter(|folder| made.insert(folder.to_path_buf())) {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o777);
            header.set_size(0);
            archive.append_data(&mut header, folder, std::io::empty()).ok()?;
        }
    }
    archive.into_inner().ok().map(Bytes::from)
}

/// A path as one word of a shell.
pub(crate) fn quoted(path: &str) -> String {
    format!("'{}'", path.replace('\'', r"'\''"))
}
