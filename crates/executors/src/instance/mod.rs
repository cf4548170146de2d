//! The `instance` executor: jobs run directly on instances that are scaled for them.

mod cgroups;
mod environment;
mod examine;
mod helper;
mod isolation;
mod machine;
mod machines;
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
use job::log::LineKind;
use job::{Helper, Shell};
use taskscaler::{Acquisition, InstanceLine, Report, ScalerObserver, Settings, StartError, Taskscaler};
use taskscaler_core::Zone;
use tokio::sync::watch;
use tokio::time::Instant;
use trace::JobLog;

use crate::Foreseen;
use crate::environment::Environment;
use crate::executor::{Executor, NoRoom, PrepareError, PrepareRequest, Reservation};
pub(crate) use cgroups::SlotCgroups;
pub(crate) use environment::InstanceEnvironment;
use helper::{HelperError, Helpers};
use isolation::Isolation;
use machine::Machine;
use machines::{Machines, with_causes};
use vm::{NoVm, Order, Vm};

pub(crate) use machines::{Need, run as run_command};

pub(crate) use settings::key as read_key;

pub use examine::look_at_instances;
pub use settings::{SettingsError, group_owner};

/// How long a job that waits is told nothing new.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(30);
/// How long a job waits for what an instance had when it became ready, such as an engine that is restarted.
const NEED_PATIENCE: Duration = Duration::from_secs(10);
/// Instances that one job may try before it gives up.
const INSTANCES_TRIED: u32 = 3;

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

/// What a job needs besides a slot.
struct Wanted<'a> {
    /// Image of the job's own machine, where it gets one.
    image: Option<&'a str>,
    /// The job's helper must be there.
    program: bool,
    /// How long the machine may take to be made.
    patience: Duration,
}

/// What was opened for a job on an instance.
struct Opened {
    /// Where its scripts run.
    machine: Arc<Machine>,
    /// That is this machine, inside of the instance.
    vm: Option<Vm>,
    helper: Option<Helper>,
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

    /// A connection to the instance of a slot: the kept one, or a new one with progress in the job's log.
    async fn connect(&self, acquisition: &Acquisition, log: &JobLog) -> Result<Arc<Machine>, String> {
        let id = acquisition.instance().as_str();
        if let Some(machine) = self.machines.open(id) {
            return Ok(machine);
        }
        let info = acquisition
            .connect_info()
            .await
            .map_err(|error| format!("getting instance connect info: {error}"))?;
        let mut said = Instant::now();
        let mut on_retry = |attempt: connector::Attempt<'_>| {
            if said.elapsed() >= PROGRESS_INTERVAL {
                said = Instant::now();
                log.line(
                    LineKind::Plain,
                    format_args!(
                        "Still dialing instance {id} at {}:{} (attempt {}): {}",
                        attempt.target.host,
                        attempt.target.port,
                        attempt.number,
                        with_causes(attempt.error)
                    ),
                );
            }
        };
        tokio::select! {
            dialled = self.machines.dial(&info, &mut on_retry) => {
                let machine = dialled
                    .map_err(|error| format!("creating instance environment: {}", with_causes(&error)))?;
                self.machines.warm_up(&machine);
                Ok(machine)
            }
            cause = acquisition.lost() => Err(cause.to_string()),
        }
    }

    /// The helper of a connected instance, for a job that needs one. Without it, the job's scripts say what they cannot do.
    async fn helper(&self, machine: &Arc<Machine>, log: &JobLog) -> Result<Option<Helper>, String> {
        let say = |line: String| log.line(LineKind::Plain, line);
        match machine.helper(&self.helpers, &say).await {
            Ok(helper) => Ok(helper),
            Err(HelperError::Lost(error)) => Err(format!("looking for the helper: {error}")),
            Err(HelperError::Failed { why, instead }) => {
                let instance = machine.client().instance();
                tracing::warn!(instance, %why, "drover-helper cannot be installed");
                let then = instead.as_ref().map(|helper| format!("; {} is used", helper.command));
                log.line(
                    LineKind::Warning,
                    format_args!(
                        "drover-helper cannot be installed on instance {instance}: {why}{}",
                        then.unwrap_or_default()
                    ),
                );
                Ok(instead)
            }
        }
    }

    async fn say_dialing(&self, acquisition: &Acquisition, log: &JobLog) {
        let mut line = format!("Dialing instance {}", acquisition.instance());
        if (self.log_internal_ip || self.log_external_ip)
            && let Ok(info) = acquisition.connect_info().await
        {
            let shown = [
                ("internal", info.internal_addr, self.log_internal_ip),
                ("external", info.external_addr, self.log_external_ip),
            ];
            for (which, address, wanted) in shown {
                if let Some(address) = address.filter(|_| wanted) {
                    line.push_str(", ");
                    line.push_str(which);
                    line.push_str(" ip: ");
                    line.push_str(&address);
                }
            }
        }
        line.push_str("...");
        log.line(LineKind::Plain, line);
        tracing::debug!(
            instance = %acquisition.instance(),
            slot = acquisition.slot(),
            key = acquisition.key(),
            use_external_address = self.use_external_addr,
            "dialing instance"
        );
    }

    /// Waits for a slot; says now and then what for.
    async fn acquire(
        &self,
        reservation: taskscaler::Reservation,
        timeout: Duration,
        log: &JobLog,
    ) -> Result<Acquisition, PrepareError> {
        let acquiring = self.scaler.acquire(reservation, timeout);
        tokio::pin!(acquiring);
        let mut ticks = tokio::time::interval_at(Instant::now() + PROGRESS_INTERVAL, PROGRESS_INTERVAL);
        loop {
            tokio::select! {
                acquired = &mut acquiring => {
                    return acquired.map_err(|error| PrepareError::System(error.to_string()));
                }
                _ = ticks.tick() => {
                    let why = self.scaler.report().borrow().as_deref().map(status::words::waiting);
                    log.line(LineKind::Plain, format_args!("Waiting for an instance: {}", why.unwrap_or_default()));
                }
            }
        }
    }

    /// A place on an instance: a slot, and the open connection to it. `program` says whether the job's helper must be there.
    pub(crate) async fn place(
        &self,
        reservation: Box<dyn Reservation>,
        request: &PrepareRequest<'_>,
        log: &JobLog,
        program: bool,
    ) -> Result<InstanceEnvironment, PrepareError> {
        let bound = request.timeout.min(self.acquire_timeout);
        let end = Instant::now() + bound;
        let Ok(seat) = reservation.into_any().downcast::<Seat>() else {
            return Err(PrepareError::System("the reservation is of another executor".to_owned()));
        };
        let mut reservation = seat.0;
        let entry = Arc::clone(&self.entry.read().unwrap_or_else(PoisonError::into_inner));
        let image = match &self.isolation {
            Some(isolation) => Some(isolation.image(&entry, request.context, log)?),
            None => None,
        };
        let wanted = Wanted { image: image.as_deref(), program, patience: request.timeout };
        log.line(LineKind::Plain, "Preparing instance...");
        let mut tried = 1;
        loop {
            // The bound as it is set is what people recognise.
            let left = if tried == 1 { bound } else { end.saturating_duration_since(Instant::now()) };
            let acquisition = Arc::new(self.acquire(reservation, left, log).await?);
            self.say_dialing(&acquisition, log).await;
            let why = match self.open(&acquisition, &wanted, log).await {
                Ok(Opened { machine, vm, helper }) => {
                    let machines = Arc::clone(&self.machines);
                    let cgroups = SlotCgroups::of(&entry, acquisition.slot());
                    return Ok(InstanceEnvironment::new(acquisition, machine, vm, machines, helper, cgroups));
                }
                Err(NoVm::Machine(why)) => return Err(PrepareError::System(why)),
                Err(NoVm::Instance(why)) => why,
            };
            if tried >= INSTANCES_TRIED || Instant::now() >= end {
                acquisition.report_unhealthy(&why);
                return Err(PrepareError::System(why));
            }
            tried += 1;
            tracing::warn!(job = request.job, instance = %acquisition.instance(), %why, "the instance cannot be used; another one is taken");
            log.line(
                LineKind::Warning,
                format_args!(
                    "Preparation failed: {why}. Instance {} is given up; another one is taken.",
                    acquisition.instance()
                ),
            );
            // A machine that was made there has ended, and nobody else holds the slot.
            let Some(acquisition) = Arc::into_inner(acquisition) else {
                return Err(PrepareError::System(why));
            };
            reservation = acquisition.exchange(&why);
        }
    }

    /// What a job needs on the instance of its slot.
    async fn open(
        &self,
        acquisition: &Arc<Acquisition>,
        wanted: &Wanted<'_>,
        log: &JobLog,
    ) -> Result<Opened, NoVm> {
        let foreseen = Foreseen::of(acquisition);
        let connected = async {
            let machine = self.connect(acquisition, log).await?;
            self.machines.provided(machine.client(), NEED_PATIENCE).await?;
            log.line(LineKind::Plain, format_args!("Instance {} connected", acquisition.instance()));
            Ok(machine)
        };
        let host = tokio::select! {
            biased;
            why = foreseen.leaving() => Err(why),
            connected = connected => connected,
        };
        let host = host.map_err(NoVm::Instance)?;
        let (machine, vm) = match (&self.isolation, wanted.image) {
            (Some(isolation), Some(image)) => {
                let (host, machines, patience) = (host.client(), &self.machines, wanted.patience);
                let order = Order { isolation, machines, host, acquisition, image, patience, log };
                let over = async {
                    tokio::select! {
                        cause = acquisition.lost() => cause.to_string(),
                        why = foreseen.leaving() => why,
                    }
                };
                let (vm, machine) = order.fill(over).await?;
                (machine, Some(vm))
            }
            (Some(_) | None, _) => (host, None),
        };
        let helper = async {
            match wanted.program {
                true => self.helper(&machine, log).await,
                false => Ok(None),
            }
        };
        let helper = tokio::select! {
            biased;
            why = foreseen.leaving() => Err(why),
            helper = helper => helper,
        };
        match (helper, vm) {
            (Ok(helper), vm) => Ok(Opened { machine, vm, helper }),
            (Err(why), None) => Err(NoVm::Instance(why)),
            (Err(why), Some(vm)) => {
                let alone = !vm.host().is_closed() && machine.client().is_closed();
                vm.close().await;
                Err(if alone { NoVm::Machine(why) } else { NoVm::Instance(why) })
            }
        }
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
