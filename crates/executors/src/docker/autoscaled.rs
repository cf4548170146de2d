//! `docker-autoscaler`: containers of engines on scaled instances, reached through the kept SSH connection of each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use async_trait::async_trait;
use config::Runner;
use gitlab_api::Features;
use taskscaler::{InstanceLine, Report};
use tokio::sync::watch;
use trace::JobLog;

use super::engine::{Endpoint, Engine};
use super::environment::Ground;
use super::prepare::{self, Settings};
use super::{DockerParts, DockerStartError, StartError, features, replace, settings};
use crate::executor::{Executor, NoRoom, PrepareError, PrepareRequest, Reservation};
use crate::instance::InstanceEnvironment;
use crate::{Environment, InstanceExecutor, InstanceParts};

/// Runs jobs in containers of engines on the instances of one group.
pub struct DockerAutoscaler {
    instances: InstanceExecutor,
    settings: RwLock<Arc<Settings>>,
    parts: DockerParts,
    /// By instance: jobs of one share its connections. An engine goes with its last job.
    engines: Mutex<BTreeMap<String, Weak<Engine>>>,
}

// === impl DockerAutoscaler ===

impl DockerAutoscaler {
    /// Starts to scale the entry's group.
    ///
    /// # Errors
    /// [`DockerStartError`]; the entry takes no jobs then.
    pub async fn start(
        runner: &Runner,
        instances: InstanceParts,
        parts: DockerParts,
    ) -> Result<Self, DockerStartError> {
        let settings = settings(runner, &parts.base, &parts.version)?;
        let instances = InstanceExecutor::start(runner, instances).await.map_err(StartError::Instance)?;
        let engines = Mutex::new(BTreeMap::new());
        Ok(Self { instances, settings: RwLock::new(Arc::new(settings)), parts, engines })
    }

    /// The engine of an instance.
    fn engine(&self, ground: &InstanceEnvironment, settings: &Settings) -> Result<Arc<Engine>, PrepareError> {
        let instance = ground.instance();
        let mut engines = self.engines.lock().unwrap_or_else(PoisonError::into_inner);
        engines.retain(|_, engine| engine.strong_count() > 0);
        if let Some(engine) = engines.get(instance).and_then(Weak::upgrade) {
            return Ok(engine);
        }
        let dial = Endpoint::tunnelled(&settings.config, ground.client().clone())
            .map_err(|error| PrepareError::Configuration(error.to_string()))?;
        let engine = Engine::new(dial, format!("the Docker engine of instance {instance}"))
            .map_err(|error| PrepareError::System(error.to_string()))?;
        let engine = Arc::new(engine);
        engines.insert(instance.to_owned(), Arc::downgrade(&engine));
        Ok(engine)
    }
}

#[async_trait]
impl Executor for DockerAutoscaler {
    fn kind(&self) -> &'static str {
        "docker-autoscaler"
    }

    fn features(&self) -> Features {
        features()
    }

    fn reserve(&self) -> Result<Box<dyn Reservation>, NoRoom> {
        self.instances.reserve()
    }

    fn capacity(&self) -> watch::Receiver<u64> {
        self.instances.capacity()
    }

    async fn prepare(
        &self,
        reservation: Box<dyn Reservation>,
        request: &PrepareRequest<'_>,
        log: &JobLog,
    ) -> Result<Box<dyn Environment>, PrepareError> {
        let settings = Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner));
        let ground: Arc<InstanceEnvironment> =
            Arc::new(self.instances.place(reservation, request, log, false).await?);
        let engine = self.engine(&ground, &settings)?;
        let preparing = prepare::prepare(
            &engine,
            &settings,
            request.context,
            log,
            Some(Arc::clone(&ground) as Arc<dyn Ground>),
        );
        let prepared = tokio::select! {
            prepared = tokio::time::timeout(request.timeout, preparing) => prepared,
            why = Environment::lost(&*ground) => return Err(PrepareError::System(why)),
        };
        match prepared {
            Ok(Ok(environment)) => Ok(Box::new(environment)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(PrepareError::TimedOut(request.timeout)),
        }
    }

    fn report(&self) -> Option<watch::Receiver<Option<Arc<Report>>>> {
        self.instances.report()
    }

    fn scaling(&self) -> Option<status::Scaling> {
        self.instances.scaling()
    }

    fn instances(&self) -> Vec<InstanceLine> {
        self.instances.instances()
    }

    fn configure(&self, runner: &Runner) {
        replace(&self.settings, settings(runner, &self.parts.base, &self.parts.version), runner);
        self.instances.configure(runner);
    }

    async fn shutdown(&self) -> Vec<String> {
        self.instances.shutdown().await
    }
}

// === impl InstanceEnvironment ===

#[async_trait]
impl Ground for InstanceEnvironment {
    async fn lost(&self) -> String {
        Environment::lost(self).await
    }

    fn is_lost(&self) -> bool {
        self.client().is_closed()
    }

    fn give_up(&self) {
        Self::give_up(self);
    }
}
