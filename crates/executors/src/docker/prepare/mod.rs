//! From a job to its containers.

mod checks;
mod containers;
mod trouble;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bollard::models::NetworkCreateRequest;
use bytes::Bytes;
use config::Docker as DockerConfig;
use job::{Context, FeatureFlag, GitStrategy, Outcome, Stage};
use trace::{JobLog, LineKind};
use uuid::Uuid;

pub(crate) use self::checks::disallowed;
pub(crate) use self::containers::{SHELLS, assignment};
pub(crate) use self::trouble::failed;

use self::checks::{check, image_name, log_images, user};
use self::containers::opened;
use super::belongings::Belongings;
use super::engine::{Engine, Way};
use super::environment::{DockerEnvironment, Ground, Words};
use super::labels::Labels;
use super::ownership::{Ownership, is_root};
use super::pull::{Images, Wanted};
use super::services::{Definition, Service, Surroundings};
use super::template::{Network, Template};
use super::volumes::{self, Needs, Volumes};
use crate::PrepareError;
use crate::instance::SlotCgroups;

/// Tries of a preparation whose failure may pass, and the pause between them.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(3);

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
    if context.flags().is_on(FeatureFlag::LogImagesConfiguredForJob) {
        log_images(context, &name, &definitions);
    }
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
        belongings.ground(Arc::clone(ground));
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
        if engine.facts().await.is_ok_and(|facts| facts.podman) {
            volumes.create(engine).await.map_err(|error| failed(engine, error))?;
        }

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
        self.belongings.network(&name);
        let created = self.engine.api().create_network(request).await;
        let created = created.map_err(|error| failed(self.engine, error.into()))?;
        self.belongings.network_is(&name, &created.id);
        self.network.mode = name;
        Ok(())
    }

    /// Whether anything has to be done that the job's own image cannot be asked to do.
    fn needs_helper(&self, root: bool) -> bool {
        let context = self.context;
        let config = &self.settings.config;
        matches!(context.settings().strategy, GitStrategy::Clone | GitStrategy::Fetch)
            || [Stage::RestoreCache, Stage::DownloadArtifacts].iter().any(|stage| context.is_needed(*stage))
            || self.saves_something()
            || volumes::builds_are_kept(config, &context.runner().builds_dir)
            || (!root && !config.volumes.is_empty())
    }

    /// Whether something has to be done after the job's commands, be it that they fail.
    fn saves_something(&self) -> bool {
        let stages = [
            Stage::ArchiveCache(Outcome::Success),
            Stage::ArchiveCache(Outcome::Failure),
            Stage::UploadArtifacts(Outcome::Success),
            Stage::UploadArtifacts(Outcome::Failure),
        ];
        stages.iter().any(|stage| self.context.is_needed(*stage))
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
