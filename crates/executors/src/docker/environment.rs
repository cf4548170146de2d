//! The containers of one job.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{CreateContainerOptionsBuilder, UploadToContainerOptionsBuilder};
use bytes::{Bytes, BytesMut};
use session::Terminals;
use tokio::task::JoinSet;

use super::belongings::Belongings;
use super::engine::{Engine, EngineError};
use super::ownership::Ownership;
use super::shell::Shell;
use super::stage::{Asking, Attached, Inside, Said, broken};
use super::terminal::ContainerTerminals;
use crate::Foreseen;
use crate::environment::{Environment, EnvironmentError, StageHandle, StageOutput};
use crate::instance::SlotCgroups;

/// The stage after which none follows, and no script.
const LAST_STAGE: &str = "cleanup_file_variables";

/// What an engine runs on, where that may vanish: an instance.
#[async_trait]
pub(crate) trait Ground: Send + Sync + 'static {
    /// Completes when it is lost, with the reason for people.
    async fn lost(&self) -> String;

    /// What is announced about its end.
    fn foreseen(&self) -> Option<Foreseen>;

    /// It cannot be reached any more.
    fn is_lost(&self) -> bool;

    /// No other job is to meet it.
    fn give_up(&self);

    /// Control groups of the job's slot.
    fn cgroups(&self) -> Option<&SlotCgroups>;
}

/// A job's containers on one engine.
pub(crate) struct DockerEnvironment {
    pub(crate) engine: Arc<Engine>,
    pub(crate) belongings: Belongings,
    pub(crate) build: Build,
    pub(crate) helper: Option<Helper>,
    /// The project's folder goes with the job, so that there is nothing to clean in it.
    pub(crate) builds_go: bool,
    /// Files of the helper that are to be given to the image's user.
    pub(crate) ownership: Option<Ownership>,
    pub(crate) words: Words,
    /// The instance that the engine runs on; none for an engine that is always there.
    pub(crate) ground: Option<Arc<dyn Ground>>,
    /// Tasks that end with the job: logs of services.
    pub(crate) tasks: JoinSet<()>,
    pub(crate) started: Mutex<Option<(StageHandle, Box<dyn StageOutput>)>>,
}

/// The container of the job's own image. It is made when the first of the job's commands is to run, and started anew for each
/// script, so that its entrypoint prepares every one.
pub(crate) struct Build {
    pub(crate) name: String,
    pub(crate) body: ContainerCreateBody,
    pub(crate) platform: String,
    /// Folders that have to be there before the first start, as an archive; for users who may not make them.
    pub(crate) folders: Option<Bytes>,
    /// Lines before every script.
    pub(crate) prefix: String,
    /// How its processes are asked to end.
    pub(crate) asking: Asking,
    pub(crate) life: tokio::sync::Mutex<Life>,
}

/// How far a build container has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// There is none.
    Missing,
    /// It was created beside other work, and has run nothing.
    Ahead,
    /// It was created for a script.
    Used,
}

/// The container for the runner's own stages: it stays while there may be more of them, and they run inside of it.
pub(crate) struct Helper {
    pub(crate) name: String,
    /// Runs the stages.
    pub(crate) shell: Shell,
    /// The program in it that moves caches and artifacts.
    pub(crate) program: job::Helper,
    /// Lines before the first script.
    pub(crate) first: Mutex<Option<String>>,
    /// Stages behind the job's commands run in it: caches and artifacts are saved, or a project that stays is cleaned.
    pub(crate) outlasts_commands: bool,
}

/// What stages say that need no container.
pub(crate) struct Words {
    /// `prepare_script`.
    pub(crate) greeting: Bytes,
    /// `get_sources` when there is no repository to get.
    pub(crate) no_sources: Bytes,
}

// === impl DockerEnvironment ===

impl DockerEnvironment {
    async fn run(
        &self,
        stage: &str,
        command: &str,
        script: Bytes,
    ) -> Result<Box<dyn StageOutput>, EngineError> {
        if stage == "prepare_script" {
            return Ok(Box::new(Said::new(self.words.greeting.clone())));
        }
        if stage == "after_script" || stage.starts_with("step_") {
            if let (Some(ownership), Some(helper)) = (&self.ownership, &self.helper) {
                self.build.exists(&self.engine).await?;
                ownership.settle(&self.engine, &self.build.name, &helper.name).await;
            }
            if let Some(helper) = self.helper.as_ref().filter(|helper| !helper.outlasts_commands) {
                self.belongings.remove_ahead(&helper.name);
            }
            return Ok(Box::new(self.build.start(&self.engine, script).await?));
        }
        match &self.helper {
            Some(_) if stage == LAST_STAGE && self.builds_go => Ok(Box::new(Said::new(Bytes::new()))),
            Some(helper) => {
                if stage == LAST_STAGE {
                    self.belongings.remove_ahead(&self.build.name);
                }
                let script = prefixed(helper.take_first(), script);
                if let Some(running) = helper.shell.run(command, &script).await {
                    return Ok(Box::new(running));
                }
                let command = Inside::stage_command(command);
                Ok(Box::new(Inside::start(&self.engine, &helper.name, command, Vec::new(), script).await?))
            }
            None if stage == "get_sources" => Ok(Box::new(Said::new(self.words.no_sources.clone()))),
            // Nothing outlives the containers, so nothing is left to clean.
            None => Ok(Box::new(Said::new(Bytes::new()))),
        }
    }
}

#[async_trait]
impl Environment for DockerEnvironment {
    fn place(&self) -> &str {
        self.engine.place()
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        let cgroups = self.ground.as_ref().and_then(|ground| ground.cgroups());
        cgroups.map(SlotCgroups::variable).into_iter().collect()
    }

    async fn start(
        &self,
        stage: &str,
        command: &str,
        script: Bytes,
    ) -> Result<StageHandle, EnvironmentError> {
        let output = self.run(stage, command, script).await.map_err(|error| broken(&self.engine, error))?;
        let handle = StageHandle { stage: stage.to_owned(), id: self.build.name.clone() };
        *self.started.lock().unwrap_or_else(PoisonError::into_inner) = Some((handle.clone(), output));
        Ok(handle)
    }

    async fn attach(
        &self,
        handle: &StageHandle,
        from_offset: u64,
    ) -> Result<Box<dyn StageOutput>, EnvironmentError> {
        let started = self.started.lock().unwrap_or_else(PoisonError::into_inner).take();
        match started {
            Some((known, output)) if known == *handle && from_offset == 0 => Ok(output),
            Some(_) | None => Err(EnvironmentError::NotResumable(from_offset)),
        }
    }

    fn helper(&self) -> Option<&job::Helper> {
        self.helper.as_ref().map(|helper| &helper.program)
    }

    async fn lost(&self) -> String {
        match &self.ground {
            Some(ground) => ground.lost().await,
            // A broken connection is noticed where it is used.
            None => std::future::pending().await,
        }
    }

    fn foreseen(&self) -> Option<Foreseen> {
        self.ground.as_ref().and_then(|ground| ground.foreseen())
    }

    fn terminals(&self, directory: &str) -> Option<Arc<dyn Terminals>> {
        Some(Arc::new(ContainerTerminals::new(Arc::clone(&self.engine), &self.build.name, directory)))
    }

    async fn close(mut self: Box<Self>, healthy: bool) {
        self.tasks.abort_all();
        match &self.ground {
            Some(ground) if ground.is_lost() || !healthy => {
                ground.give_up();
                self.belongings.abandon();
            }
            Some(_) | None => self.belongings.remove().await,
        }
    }
}

// === impl Build ===

impl Build {
    /// Creates the container before there is a script for it. What is in the way of that is the first script's to tell.
    pub(crate) async fn create_ahead(&self, engine: &Engine) {
        let mut life = self.life.lock().await;
        let _turn = engine.turn().await;
        match self.create(engine).await {
            Ok(()) => *life = Life::Ahead,
            Err(error) => tracing::debug!(container = self.name, %error, "not created ahead"),
        }
    }

    /// Has the container be there, if nothing has run in it yet.
    async fn exists(&self, engine: &Engine) -> Result<(), EngineError> {
        let mut life = self.life.lock().await;
        if *life == Life::Missing {
            self.create(engine).await?;
            *life = Life::Ahead;
        }
        Ok(())
    }

    async fn start(&self, engine: &Arc<Engine>, script: Bytes) -> Result<Attached, EngineError> {
        let mut life = self.life.lock().await;
        let _turn = engine.turn().await;
        if *life == Life::Missing {
            self.create(engine).await?;
            *life = Life::Used;
        }
        let script = prefixed(Some(self.prefix.clone()), script);
        let mut started = self.attach_and_start(engine, script.clone()).await;
        if let (Err(EngineError::NotFound(_)), Life::Ahead) = (&started, *life) {
            // Another job has removed all containers that do not run: nothing of this one's is lost.
            self.create(engine).await?;
            started = self.attach_and_start(engine, script).await;
        }
        // Where somebody removed it, the next try makes another.
        *life = if matches!(started, Err(EngineError::NotFound(_))) { Life::Missing } else { Life::Used };
        started
    }

    async fn attach_and_start(&self, engine: &Arc<Engine>, script: Bytes) -> Result<Attached, EngineError> {
        let memory = self.body.host_config.as_ref().and_then(|host| host.memory);
        Attached::start(engine, &self.name, script, self.asking, memory).await
    }

    async fn create(&self, engine: &Engine) -> Result<(), EngineError> {
        let mut options = CreateContainerOptionsBuilder::default().name(&self.name);
        if !self.platform.is_empty() {
            options = options.platform(&self.platform);
        }
        engine.api().create_container(Some(options.build()), self.body.clone()).await?;
        if let Some(folders) = &self.folders {
            let options = UploadToContainerOptionsBuilder::default().path("/").build();
            let body = bollard::body_full(folders.clone());
            engine.api().upload_to_container(&self.name, Some(options), body).await?;
        }
        Ok(())
    }
}

// === impl Helper ===

impl Helper {
    fn take_first(&self) -> Option<String> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

fn prefixed(prefix: Option<String>, script: Bytes) -> Bytes {
    match prefix.filter(|prefix| !prefix.is_empty()) {
        Some(prefix) => {
            let mut whole = BytesMut::with_capacity(prefix.len() + script.len());
            whole.extend_from_slice(prefix.as_bytes());
            whole.extend_from_slice(&script);
            whole.freeze()
        }
        None => script,
    }
}
