//! The `instance` executor: jobs run directly on instances that are scaled for them.

mod cgroups;
mod environment;
mod examine;
mod helper;
mod isolation;
mod machine;
mod machines;
mod place;
mod settings;
mod terminal;
mod vm;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use config::Runner;
use connector::DialOptions;
use fleeting::InstanceGroup;
use gitlab_api::Features;
use job::Shell;
use taskscaler::{InstanceLine, Report, ScalerObserver, Settings, StartError, Taskscaler};
use taskscaler_core::Zone;
use tokio::sync::watch;
use trace::JobLog;

use crate::environment::Environment;
use crate::executor::{Executor, NoRoom, PrepareError, PrepareRequest, Reservation};
pub(crate) use cgroups::SlotCgroups;
pub(crate) use environment::InstanceEnvironment;
use helper::Helpers;
use isolation::Isolation;
use machines::Machines;
pub(crate) use machines::{Need, run as run_command};
pub(crate) use settings::key as read_key;

pub use examine::look_at_instances;
pub use settings::{SettingsError, group_owner};

/// How long a job that waits is told nothing new.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(30);

/// The helper for each of these kinds of Linux machines (as `uname -m` says) that instances of an entry would be given, and
/// where they are looked for.
pub(crate) fn helper_binaries(
    runner: &Runner,
    base: &Path,
    machines: &[&str],
) -> (Vec<Option<PathBuf>>, String) {
    let helpers = Helpers::new(runner, base);
    (machines.iter().map(|machine| helpers.binary(machine)).collect(), helpers.places())
}

/// Runs jobs on the instances of one group.
pub struct InstanceExecutor {
    scaler: Taskscaler,
    machines: Arc<Machines>,
    helpers: Helpers,
    /// Jobs run in machines of their own inside of the instances.
    isolation: Option<Arc<Isolation>>,
    acquire_timeout: Duration,
    use_external_addr: bool,
    log_internal_ip: bool,
    log_external_ip: bool,
    delete_at_shutdown: bool,
    local: Zone,
    /// The entry as it is in force.
    entry: RwLock<Arc<Runner>>,
}

/// What an executor is made of besides its runner entry.
pub struct InstanceParts {
    /// The group, not yet initialised.
    pub group: Arc<dyn InstanceGroup>,
    /// Folder that relative paths of the entry start from.
    pub base: PathBuf,
    /// Zone of the host, for policies that name none.
    pub local: Zone,
    /// Jobs are given to instances only after a connectivity test (`FF_USE_FLEETING_ACQUIRE_HEARTBEATS`).
    pub heartbeats: bool,
    /// Identity of the manager and its host, for the mark of the group.
    pub manager: (String, String),
    /// Hears what the scaler does.
    pub observer: Option<Arc<dyn ScalerObserver>>,
}

/// Why an executor did not start.
#[derive(Debug, thiserror::Error)]
pub enum InstanceStartError {
    /// The entry.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The group.
    #[error("initializing taskscaler")]
    Scaler(#[source] StartError),
    /// The shell.
    #[error("{0}")]
    Shell(String),
}

#[derive(Debug)]
struct Seat(taskscaler::Reservation);

impl Reservation for Seat {
    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any + Send> {
        self
    }
}

// === impl InstanceExecutor ===

impl InstanceExecutor {
    /// Starts to scale the entry's group.
    ///
    /// # Errors
    /// [`InstanceStartError`]; the entry takes no jobs then.
    pub async fn start(runner: &Runner, parts: InstanceParts) -> Result<Self, InstanceStartError> {
        Self::start_with(runner, parts, None).await
    }

    /// The same for instances that are ready only when they have something more.
    pub(crate) async fn start_with(
        runner: &Runner,
        parts: InstanceParts,
        need: Option<Arc<dyn Need>>,
    ) -> Result<Self, InstanceStartError> {
        let autoscaler = runner.autoscaler.as_ref().ok_or(SettingsError::NoAutoscaler)?;
        let isolation = Isolation::of(runner, autoscaler, &parts.base, need.clone())?;
        // What jobs need is needed where they run.
        let need = match &isolation {
            Some(isolation) => Some(Arc::clone(isolation) as Arc<dyn Need>),
            None => need,
        };
        let shell: Shell = runner
            .shell()
            .as_str()
            .parse()
            .map_err(|error: job::ShellError| InstanceStartError::Shell(error.to_string()))?;
        let connector = autoscaler.connector_config();
        let key =
            connector.key_path.as_ref().map(|path| settings::key(&parts.base.join(path))).transpose()?;
        let connector = connector.settings(key);
        let options =
            DialOptions { use_external_addr: connector.use_external_addr, ..DialOptions::default() };
        let ready_command = autoscaler.instance_ready_command.clone().unwrap_or_default();
        let machines = Arc::new(Machines::new(options, ready_command, parts.heartbeats, shell, need));
        let use_external_addr = connector.use_external_addr;
        let defaults = Settings::default();
        let settings = Settings {
            observer: parts.observer.unwrap_or_else(|| Arc::clone(&defaults.observer)),
            runner: runner.label().into(),
            key_prefix: runner.short_token().into(),
            core: settings::core(autoscaler, parts.local)?,
            connector,
            update_interval: autoscaler.update_interval(),
            update_interval_when_expecting: autoscaler.update_interval_when_expecting(),
            shutdown_deletion_interval: autoscaler.shutdown_deletion_interval(),
            shutdown_deletion_retries: autoscaler.shutdown_deletion_retries(),
            ready: Arc::clone(&machines) as Arc<dyn taskscaler::ReadyUp>,
            store: settings::store(runner, autoscaler, &parts.base),
            lease: settings::lease(runner, &parts.manager.0, &parts.manager.1),
            ..defaults
        };
        let scaler = Taskscaler::start(settings, parts.group).await.map_err(InstanceStartError::Scaler)?;
        Ok(Self {
            scaler,
            machines,
            helpers: Helpers::new(runner, &parts.base),
            isolation,
            acquire_timeout: autoscaler.instance_acquire_timeout(),
            use_external_addr,
            log_internal_ip: autoscaler.log_internal_ip,
            log_external_ip: autoscaler.log_external_ip,
            delete_at_shutdown: autoscaler.delete_instances_on_shutdown,
            local: parts.local,
            entry: RwLock::new(Arc::new(runner.clone())),
        })
    }

    /// The scaler, for embedders that look at it.
    #[must_use]
    pub fn scaler(&self) -> &Taskscaler {
        &self.scaler
    }
}

#[async_trait]
impl Executor for InstanceExecutor {
    fn kind(&self) -> &'static str {
        "instance"
    }

    fn features(&self) -> Features {
        // No secrets provider is built in, so GitLab must not send jobs that need one.
        Features { vault_secrets: false, terminal: true, session: true, ..Features::INSTANCE }
    }

    fn reserve(&self) -> Result<Box<dyn Reservation>, NoRoom> {
        match self.scaler.reserve() {
            Ok(reservation) => Ok(Box::new(Seat(reservation))),
            Err(why) => Err(NoRoom(why.to_string())),
        }
    }

    fn capacity(&self) -> watch::Receiver<u64> {
        self.scaler.capacity()
    }

    async fn prepare(
        &self,
        reservation: Box<dyn Reservation>,
        request: &PrepareRequest<'_>,
        log: &JobLog,
    ) -> Result<Box<dyn Environment>, PrepareError> {
        let placed = self.place(reservation, request, log, request.context.needs_helper()).await?;
        Ok(Box::new(placed))
    }

    fn time_to_save(&self) -> Duration {
        let entry = self.entry.read().unwrap_or_else(PoisonError::into_inner);
        entry.autoscaler.as_ref().map_or(Duration::ZERO, config::Autoscaler::save_before_end)
    }

    fn report(&self) -> Option<watch::Receiver<Option<Arc<Report>>>> {
        Some(self.scaler.report())
    }

    fn instances(&self) -> Vec<InstanceLine> {
        self.scaler.instances()
    }

    fn scaling(&self) -> Option<status::Scaling> {
        self.scaler.scaling()
    }

    fn configure(&self, runner: &Runner) {
        *self.entry.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(runner.clone());
        let Some(autoscaler) = runner.autoscaler.as_ref() else { return };
        match settings::core(autoscaler, self.local) {
            Ok(core) => self.scaler.configure(core),
            Err(error) => {
                tracing::warn!(runner = runner.label(), %error, "the changed policies are not in force");
            }
        }
    }

    async fn shutdown(&self) -> Vec<String> {
        if let Some(isolation) = &self.isolation {
            // The machines of the last jobs go first: later, nobody could reach them. Each has its own bound.
            isolation.endings.close();
            isolation.endings.wait().await;
        }
        let leftover = self.scaler.shutdown(self.delete_at_shutdown).await;
        leftover.instances.iter().map(|id| format!("instance {id} was not deleted")).collect()
    }
}
