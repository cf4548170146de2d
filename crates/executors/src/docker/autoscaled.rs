//! `docker-autoscaler`: containers of engines on scaled instances, reached through the kept SSH connection of each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use config::Runner;
use connector::Client;
use gitlab_api::Features;
use taskscaler::{InstanceLine, Report};
use tokio::sync::watch;
use trace::JobLog;

use super::engine::{Endpoint, Engine, EngineError, Program, Way};
use super::environment::Ground;
use super::prepare::{self, Settings};
use super::{DockerParts, DockerStartError, StartError, features, replace, settings, tidy};
use crate::executor::{Executor, NoRoom, PrepareError, PrepareRequest, Reservation};
use crate::instance::{InstanceEnvironment, Need, SlotCgroups, run_command};
use crate::{Environment, Foreseen, InstanceExecutor, InstanceParts};

/// Time for an engine to say that it is there.
const PING_DEADLINE: Duration = Duration::from_secs(10);
const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";
/// Says what is wrong with the engine at a socket, and ends with 1; or it ends with 0.
const CAUSE: &str = "PATH=$PATH:/usr/sbin:/sbin; \
    if [ ! -S SOCKET ]; then \
        if command -v dockerd >/dev/null || command -v docker >/dev/null; then \
            echo \"it does not run: there is no socket SOCKET; have the instance start it, for example with systemctl enable docker\"; \
        else echo \"Docker is not installed there; install it in the image of the instances\"; fi; \
    elif [ ! -w SOCKET ]; then \
        echo \"the login $(id -un) may not use SOCKET; add it to the group docker\"; \
    else exit 0; fi; exit 1";

/// Runs jobs in containers of engines on the instances of one group.
pub struct DockerAutoscaler {
    instances: InstanceExecutor,
    settings: Arc<RwLock<Arc<Settings>>>,
    parts: DockerParts,
    /// By instance: jobs of one share its connections. An engine goes with its last job.
    engines: Mutex<BTreeMap<String, (Weak<Engine>, Client)>>,
}

/// An instance is ready when its engine answers through the connection to it.
struct AnsweringEngine {
    settings: Arc<RwLock<Arc<Settings>>>,
    system_id: String,
    short_token: String,
    /// Instances on which nothing of an earlier run of this manager is left, or is being removed.
    tidied: Mutex<BTreeSet<String>>,
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
        let settings = Arc::new(RwLock::new(Arc::new(settings)));
        let need: Arc<dyn Need> = Arc::new(AnsweringEngine {
            settings: Arc::clone(&settings),
            system_id: parts.system_id.clone(),
            short_token: runner.short_token().to_owned(),
            tidied: Mutex::default(),
        });
        let instances = InstanceExecutor::start_with(runner, instances, Some(need)).await;
        let instances = instances.map_err(StartError::Instance)?;
        Ok(Self { instances, settings, parts, engines: Mutex::new(BTreeMap::new()) })
    }

    /// The engine of an instance.
    fn engine(&self, ground: &InstanceEnvironment, settings: &Settings) -> Result<Arc<Engine>, PrepareError> {
        // That of the job's own machine, where it has one.
        let instance = ground.client().instance();
        let mut engines = self.engines.lock().unwrap_or_else(PoisonError::into_inner);
        // Where the connection broke, its last jobs hold an engine that nobody reaches any more.
        engines.retain(|_, (engine, client)| engine.strong_count() > 0 && !client.is_closed());
        if let Some(engine) = engines.get(instance).and_then(|(engine, _)| engine.upgrade()) {
            return Ok(engine);
        }
        let dial = Endpoint::tunnelled(&settings.config, ground.client().clone(), settings.way)
            .map_err(|error| PrepareError::Configuration(error.to_string()))?;
        let engine =
            Engine::new(dial, place(instance)).map_err(|error| PrepareError::System(error.to_string()))?;
        let engine = Arc::new(engine);
        engines.insert(instance.to_owned(), (Arc::downgrade(&engine), ground.client().clone()));
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

    fn time_to_save(&self) -> Duration {
        self.instances.time_to_save()
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
            why = Environment::lost(&*ground) => {
                ground.give_up();
                return Err(PrepareError::System(why));
            }
            taken = taken(&ground) => return Err(PrepareError::System(taken)),
        };
        match prepared {
            Ok(Ok(environment)) => Ok(Box::new(environment)),
            Ok(Err(error)) => Err(cause_of(error, &ground, &engine).await),
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

// === impl AnsweringEngine ===

impl AnsweringEngine {
    /// Removes what an earlier run of the manager left on an instance that this one has taken over; once, in the background.
    fn tidy(&self, instance: &str, engine: Engine) {
        if self.tidied.lock().unwrap_or_else(PoisonError::into_inner).insert(instance.to_owned()) {
            tidy(&Arc::new(engine), &self.system_id, &self.short_token);
        }
    }
}

#[async_trait]
impl Need for AnsweringEngine {
    async fn look(&self, client: &Client) -> Result<(), String> {
        let settings = Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner));
        let place = place(client.instance());
        let dial = Endpoint::tunnelled(&settings.config, client.clone(), settings.way)
            .map_err(|error| error.to_string())?;
        let engine = Engine::new(dial, place).map_err(|error| error.to_string())?;
        let asked = tokio::time::timeout(PING_DEADLINE, engine.api().ping()).await;
        let why = match asked {
            Ok(Ok(_)) => {
                self.tidy(client.instance(), engine);
                return Ok(());
            }
            Ok(Err(error)) => EngineError::from(error).to_string(),
            Err(_) => format!("no answer within {PING_DEADLINE:?}"),
        };
        Err(silent(&settings, client, &why).await)
    }

    fn forget(&self, instance: &str) {
        self.tidied.lock().unwrap_or_else(PoisonError::into_inner).remove(instance);
    }
}

/// That the engine of an instance does not answer, with the cause as far as it shows there.
pub(super) async fn silent(settings: &Settings, client: &Client, why: &str) -> String {
    let host = settings.config.host.as_deref().filter(|host| !host.is_empty());
    let cause = match host.unwrap_or(DEFAULT_HOST).strip_prefix("unix://") {
        Some(socket) => cause(client, socket).await,
        None => None,
    };
    let cause = match cause {
        None if settings.way != Way::Forward => Program::new(host).reaches(client).await.err().map(unreached),
        cause => cause,
    };
    let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{} does not answer{cause} ({why})", place(client.instance()))
}

/// What the engine's own client on an instance says, for people who did not ask for it.
fn unreached(said: String) -> String {
    match said.strip_prefix("exit code 127") {
        Some(_) => "its SSH server does not forward to it (AllowStreamLocalForwarding), and there is no `docker` program \
                    there for `docker system dial-stdio`"
            .to_owned(),
        None => format!("`docker` does not reach it there: {}", said.lines().last().unwrap_or_default()),
    }
}

/// Completes when the instance is about to be taken away.
async fn taken(ground: &InstanceEnvironment) -> String {
    match Environment::foreseen(ground) {
        Some(foreseen) => foreseen.taken(Duration::ZERO).await.to_string(),
        None => std::future::pending().await,
    }
}

/// What a failed preparation comes from: whatever was being done when an instance or its engine went away is not to blame.
async fn cause_of(error: PrepareError, ground: &InstanceEnvironment, engine: &Engine) -> PrepareError {
    match error {
        PrepareError::Configuration(_) | PrepareError::TimedOut(_) => return error,
        PrepareError::ImagePull(_) | PrepareError::ExternalDependency(_) | PrepareError::System(_) => {}
    }
    if ground.client().is_closed() {
        let why = Environment::lost(ground).await;
        ground.give_up();
        return PrepareError::System(why);
    }
    match tokio::time::timeout(PING_DEADLINE, engine.api().ping()).await {
        Ok(Ok(_)) => error,
        Ok(Err(_)) | Err(_) => PrepareError::System(format!("{} no longer answers: {error}", engine.place())),
    }
}

pub(super) fn place(instance: &str) -> String {
    format!("the Docker engine of instance {instance}")
}

/// Looks on the instance for why nothing answers at a socket: SSH servers do not say.
async fn cause(client: &Client, socket: &str) -> Option<String> {
    // A name with quotes would end the script.
    if !socket.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte)) {
        return None;
    }
    let script = CAUSE.replace("SOCKET", socket);
    let said =
        tokio::time::timeout(PING_DEADLINE, run_command(client, &format!("sh -c '{script}'"))).await.ok()?;
    let said = said.err()?;
    Some(said.strip_prefix("exit code 1: ")?.to_owned())
}

// === impl InstanceEnvironment ===

#[async_trait]
impl Ground for InstanceEnvironment {
    async fn lost(&self) -> String {
        Environment::lost(self).await
    }

    fn foreseen(&self) -> Option<Foreseen> {
        Environment::foreseen(self)
    }

    fn is_lost(&self) -> bool {
        self.client().is_closed()
    }

    fn give_up(&self) {
        Self::give_up(self);
    }

    fn cgroups(&self) -> Option<&SlotCgroups> {
        Self::cgroups(self)
    }
}
