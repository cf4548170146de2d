//! Jobs in containers: the executors `docker` and `docker-autoscaler`.
//!
//! A job has a build container of its own image, and where one of its stages needs it, a helper container in which the runner's
//! own stages run one after another. `docs/docker.md` describes what users see, and what differs from GitLab Runner.

mod allow;
mod auth;
mod autoscaled;
mod belongings;
mod engine;
mod environment;
mod examine;
mod helper;
mod labels;
mod ownership;
mod prepare;
mod pull;
mod reference;
mod services;
mod shell;
mod stage;
mod template;
mod terminal;
mod values;
mod volumes;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use config::Runner;
use gitlab_api::Features;
use job::{FeatureFlag, Shell};
use tokio::sync::watch;
use trace::JobLog;

use crate::executor::{Executor, NoRoom, PrepareError, PrepareRequest, Reservation};
use crate::{Environment, InstanceStartError};
use engine::{Endpoint, Engine, EngineError, Way};
use prepare::Settings;
use template::{Template, TemplateError};

pub(crate) use allow::allows;
pub use autoscaled::DockerAutoscaler;
pub use engine::EndpointError;
pub use examine::{UnusableValue, unusable_values};
pub(crate) use examine::{examine, examine_on};
pub(crate) use prepare::disallowed;

/// Runs jobs in containers of one engine.
pub struct DockerExecutor {
    engine: Arc<Engine>,
    settings: RwLock<Arc<Settings>>,
    base: PathBuf,
    /// Never changes: an engine has room for whatever the entry's `limit` lets in.
    capacity: watch::Sender<u64>,
}

/// Why an executor with containers did not start.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct DockerStartError(#[from] StartError);

#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("missing docker configuration: add [runners.docker]")]
    Missing,
    #[error("[runners.docker]: {0}")]
    Template(#[from] TemplateError),
    #[error("[runners.docker]: {0}")]
    Endpoint(#[from] EndpointError),
    #[error("{0}")]
    Engine(EngineError),
    #[error("{0}")]
    Shell(String),
    #[error(transparent)]
    Instance(InstanceStartError),
}

/// Who is to be found in the labels of what a job makes.
#[derive(Debug, Clone)]
pub struct DockerParts {
    /// Folder that relative paths of the entry start from.
    pub base: PathBuf,
    /// Version of the program; the helper image has the same one.
    pub version: String,
    /// Identity of the manager.
    pub system_id: String,
}

#[derive(Debug)]
struct Seat;

impl Reservation for Seat {
    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any + Send> {
        self
    }
}

/// Whether the builds folder of an entry's jobs is a folder or volume that other jobs see as well, so that each needs one of its
/// own below it.
#[must_use]
pub fn builds_are_shared(runner: &Runner, builds_dir: &str) -> bool {
    runner.docker.as_ref().is_some_and(|docker| volumes::builds_are_shared(docker, builds_dir))
}

// === impl DockerExecutor ===

impl DockerExecutor {
    /// Reads the entry. The engine is not asked for anything yet: it may come later. What an earlier run of the manager left there
    /// is removed in the background.
    ///
    /// # Errors
    /// [`DockerStartError`]; the entry takes no jobs then.
    pub fn start(runner: &Runner, parts: DockerParts) -> Result<Self, DockerStartError> {
        let settings = settings(runner, &parts.base, &parts.version)?;
        let endpoint = Endpoint::of(&settings.config, &parts.base, |name| std::env::var(name).ok())
            .map_err(StartError::Endpoint)?;
        let place = format!("the Docker engine at {}", endpoint.address);
        let engine = Arc::new(Engine::new(endpoint.direct(), place).map_err(StartError::Engine)?);
        tidy(&engine, &parts.system_id, runner.short_token());
        let settings = RwLock::new(Arc::new(settings));
        Ok(Self { engine, settings, base: parts.base, capacity: watch::Sender::new(0) })
    }
}

#[async_trait]
impl Executor for DockerExecutor {
    fn kind(&self) -> &'static str {
        "docker"
    }

    fn features(&self) -> Features {
        features()
    }

    fn reserve(&self) -> Result<Box<dyn Reservation>, NoRoom> {
        Ok(Box::new(Seat))
    }

    fn capacity(&self) -> watch::Receiver<u64> {
        self.capacity.subscribe()
    }

    async fn prepare(
        &self,
        _: Box<dyn Reservation>,
        request: &PrepareRequest<'_>,
        log: &JobLog,
    ) -> Result<Box<dyn Environment>, PrepareError> {
        let settings = Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner));
        let preparing = prepare::prepare(&self.engine, &settings, request.context, log, None);
        match tokio::time::timeout(request.timeout, preparing).await {
            Ok(prepared) => Ok(Box::new(prepared?)),
            Err(_) => Err(PrepareError::TimedOut(request.timeout)),
        }
    }

    fn configure(&self, runner: &Runner) {
        let version = self.settings.read().unwrap_or_else(PoisonError::into_inner).version.clone();
        replace(&self.settings, settings(runner, &self.base, &version), runner);
    }

    async fn shutdown(&self) -> Vec<String> {
        Vec::new()
    }
}

/// What GitLab is told of executors with containers.
fn features() -> Features {
    Features {
        // No secrets provider is built in, so GitLab must not send jobs that need one.
        vault_secrets: false,
        terminal: true,
        session: true,
        ..Features::DOCKER
    }
}

fn settings(runner: &Runner, base: &Path, version: &str) -> Result<Settings, StartError> {
    let config = runner.docker.clone().ok_or(StartError::Missing)?;
    runner.shell().as_str().parse::<Shell>().map_err(|error| StartError::Shell(error.to_string()))?;
    let template = Template::new(&config, base)?;
    let way = Way::of(runner.feature_flag(FeatureFlag::UseDockerAutoscalerDialStdio.name()));
    Ok(Settings { config, template, way, version: version.to_owned(), base: base.to_owned() })
}

/// Puts changed settings in force, or keeps the ones that work.
fn replace(current: &RwLock<Arc<Settings>>, changed: Result<Settings, StartError>, runner: &Runner) {
    match changed {
        Ok(settings) => *current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings),
        Err(error) => {
            tracing::warn!(runner = runner.label(), %error, "the changed [runners.docker] is not in force");
        }
    }
}

/// Removes what an earlier run of this manager left on an engine, in the background.
fn tidy(engine: &Arc<Engine>, system_id: &str, short_token: &str) {
    let (engine, system_id, token) = (Arc::clone(engine), system_id.to_owned(), short_token.to_owned());
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    runtime.spawn(async move {
        match belongings::remove_leftovers(&engine, &system_id, &token).await {
            Ok(0) => {}
            Ok(count) => {
                tracing::info!(engine = engine.place(), count, "removed what an earlier run had left");
            }
            Err(error) => {
                tracing::warn!(engine = engine.place(), %error, "cannot look for what an earlier run may have left");
            }
        }
    });
}
