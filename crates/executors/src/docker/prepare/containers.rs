//! The containers of a job: the helper, and that of the job's own image.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Mutex;

use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::CreateContainerOptionsBuilder;
use bytes::Bytes;
use job::{Context, FeatureFlag, Variable};
use trace::LineKind;

use super::super::allow;
use super::super::engine::EngineError;
use super::super::environment::{Build, Helper, Life};
use super::super::helper::HelperImage;
use super::super::pull::{Image, Images};
use super::super::shell::{self, Shell};
use super::super::stage::Asking;
use super::super::values;
use super::super::volumes::Volumes;
use super::Preparation;
use super::trouble::failed;
use crate::PrepareError;
use crate::instance::SlotCgroups;
use crate::words::quoted;

macro_rules! shells {
    () => {
        "/usr/local/bin/bash /usr/bin/bash /bin/bash /usr/local/bin/sh /usr/bin/sh /bin/sh /busybox/sh"
    };
}

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

/// Where users mount the certificate of an authority that helpers are to trust; GitLab Runner's images look there as well.
const AUTHORITY: &str = "/etc/gitlab-runner/certs/ca.crt";
/// What programs in the helper image trust.
const TRUSTED: &str = "/etc/ssl/certs/ca-certificates.crt";

// === impl Preparation ===

impl Preparation<'_> {
    /// The helper container, running; beside its start, which takes longest, the build container is created.
    pub(super) async fn start_helper(
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
        let first = self.first_lines(volumes, program.is_drover);
        Ok(Helper {
            name,
            shell,
            program,
            first: Mutex::new(Some(first)),
            outlasts_commands: self.saves_something() || !volumes.builds_go,
        })
    }

    /// What the helper does before its first stage: volumes are opened for whoever the job's user is, an authority that the file
    /// mounts is trusted, and what a job that was cut off may have left is removed.
    fn first_lines(&self, volumes: &Volumes, own: bool) -> String {
        let mut lines = opened(volumes, "");
        if own {
            let _ = writeln!(lines, "if [ -r {AUTHORITY} ]; then cat {AUTHORITY} >>{TRUSTED}; fi");
        }
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
    pub(super) fn build(
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
            // As the helper makes it: the commands may go on as somebody else.
            Some(true) => (format!("( umask 0000; mkdir -p {} )\n", quoted(&project)), None),
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
            binds: values::list(&volumes.binds),
            mounts: (!volumes.mounts.is_empty()).then(|| volumes.mounts.clone()),
            extra_hosts: values::list(hosts),
            cgroup_parent: match &self.cgroups {
                Some(cgroups) => Some(cgroups.job.clone()),
                None => self.settings.template.build.cgroup_parent.clone(),
            },
            ..self.settings.template.build.clone()
        }
    }

    pub(super) fn hostname(&self) -> Option<String> {
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
}

// === helpers ===

/// A variable as an entry of a container's environment; file variables are where their files are.
pub(crate) fn assignment(variable: &Variable, context: &Context) -> String {
    if variable.file {
        format!("{}={}/{}", variable.key, context.temp_dir(), variable.key)
    } else {
        format!("{}={}", variable.key, variable.value)
    }
}

/// Lines that open volumes to all users.
pub(super) fn opened(volumes: &Volumes, otherwise: &str) -> String {
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
