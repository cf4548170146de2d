//! A place for a job: a slot of a ready instance, the open connection to it, and what else the job needs there.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use fleeting::with_causes;
use job::Helper;
use job::log::LineKind;
use taskscaler::Acquisition;
use tokio::time::Instant;
use trace::JobLog;

use super::helper::HelperError;
use super::machine::Machine;
use super::vm::{NoVm, Order, Vm};
use super::{InstanceEnvironment, InstanceExecutor, PROGRESS_INTERVAL, Seat, SlotCgroups};
use crate::Foreseen;
use crate::executor::{PrepareError, PrepareRequest, Reservation};

/// How long a job waits for what an instance had when it became ready, such as an engine that is restarted.
const NEED_PATIENCE: Duration = Duration::from_secs(10);
/// Instances that one job may try before it gives up.
const INSTANCES_TRIED: u32 = 3;

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

impl InstanceExecutor {
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
