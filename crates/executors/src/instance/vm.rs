//! The virtual machine of one job, from the daemon that makes it to its end.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use connector::{Attempt, Client, ConnectionError, DialError, DialOptions};
use fleeting::{ConnectInfo, with_causes};
use job::log::LineKind;
use taskscaler::Acquisition;
use tokio::time::Instant;
use trace::JobLog;

use super::PROGRESS_INTERVAL;
use super::isolation::Isolation;
use super::machine::Machine;
use super::machines::Machines;

/// How long a machine may take to be removed; GitLab Runner's bound.
const END_DEADLINE: Duration = Duration::from_secs(60);
/// Tries to have a machine made, and the pause between them. All go to one host: machines are made where the slot is.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(3);

/// A machine. It is removed when this ends, and the slot stays taken until then.
pub(crate) struct Vm {
    id: String,
    host: Client,
    life: Option<Life>,
}

/// What is needed to remove a machine.
struct Life {
    id: String,
    host: Client,
    isolation: Arc<Isolation>,
    machines: Arc<Machines>,
    acquisition: Arc<Acquisition>,
}

/// What a machine is made of and for.
pub(crate) struct Order<'a> {
    pub(crate) isolation: &'a Arc<Isolation>,
    pub(crate) machines: &'a Arc<Machines>,
    /// The connection to the instance.
    pub(crate) host: &'a Client,
    pub(crate) acquisition: &'a Arc<Acquisition>,
    pub(crate) image: &'a str,
    /// How long its making may take.
    pub(crate) patience: Duration,
    pub(crate) log: &'a JobLog,
}

/// Why a job has no machine.
pub(crate) enum NoVm {
    /// The instance is of no use: gone, about to go, or without its daemon.
    Instance(String),
    /// The machine was not made, or is not as it should be; on another instance it would be the same.
    Machine(String),
}

enum NotMade {
    Refused(String),
    Unreached(String),
}

// === impl Vm ===

impl Vm {
    /// The daemon's name for it.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The connection to its host.
    pub(crate) fn host(&self) -> &Client {
        &self.host
    }

    /// Removes it. Goes on in the background when the future is dropped.
    pub(crate) async fn close(mut self) {
        if let Some(ending) = self.end() {
            // What goes wrong is logged there.
            let _ = ending.await;
        }
    }

    fn end(&mut self) -> Option<tokio::task::JoinHandle<()>> {
        let life = self.life.take()?;
        let runtime = tokio::runtime::Handle::try_current().ok()?;
        let endings = life.isolation.endings.clone();
        Some(endings.spawn_on(life.end(), &runtime))
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.end();
    }
}

// === impl Order ===

impl Order<'_> {
    /// Has the machine made and logs in to it. `over` completes when the instance goes, with the reason.
    pub(crate) async fn fill(&self, over: impl Future<Output = String>) -> Result<(Vm, Arc<Machine>), NoVm> {
        let Self { isolation, host, acquisition, log, .. } = self;
        tokio::pin!(over);
        log.line(LineKind::Plain, "Enforcing VM Isolation");
        log.line(LineKind::Plain, "Dialing nesting daemon");
        log.line(LineKind::Plain, "Creating nesting VM tunnel");
        let (vm, addr) = self.make(&mut over).await?;
        let opened = tokio::select! {
            biased;
            why = &mut over => Err(NoVm::Instance(why)),
            opened = self.log_in(&vm, addr) => opened.map_err(|why| {
                if host.is_closed() { NoVm::Instance(why) } else { NoVm::Machine(why) }
            }),
        };
        match opened {
            Ok(machine) => {
                isolation.worked(acquisition.instance().as_str());
                Ok((vm, machine))
            }
            Err(why) => {
                vm.close().await;
                Err(self.noted(why))
            }
        }
    }

    /// The machine, and its address on the host.
    async fn make(&self, over: &mut (impl Future<Output = String> + Unpin)) -> Result<(Vm, String), NoVm> {
        let (image, log) = (self.image, self.log);
        let mut attempt = 1;
        loop {
            log.line(LineKind::Plain, format_args!("Creating nesting VM {image}"));
            // In a task of its own: a machine that is made for a job that is no longer there has to be removed.
            let mut making = tokio::spawn(create(
                Arc::clone(self.isolation),
                Arc::clone(self.machines),
                self.host.clone(),
                Arc::clone(self.acquisition),
                image.to_owned(),
                self.patience,
            ));
            let made = tokio::select! {
                biased;
                why = &mut *over => {
                    making.abort();
                    if let Ok(Ok((vm, _))) = making.await {
                        vm.close().await;
                    }
                    return Err(NoVm::Instance(why));
                }
                made = &mut making => made.unwrap_or_else(|error| Err(NotMade::Unreached(error.to_string()))),
            };
            let why = match made {
                Ok((vm, created)) => {
                    let nesting::VirtualMachine { id, addr, .. } = created.machine;
                    log.line(LineKind::Info, format_args!("Created nesting VM {id} {addr}"));
                    if let Some(stomped) = created.stomped {
                        log.line(LineKind::Info, format_args!("Stomped nesting VM: {stomped}"));
                    }
                    return Ok((vm, addr));
                }
                Err(NotMade::Unreached(why)) => return Err(NoVm::Instance(named(&why))),
                Err(NotMade::Refused(why)) => why,
            };
            if attempt >= TRIES {
                return Err(self.noted(NoVm::Machine(named(&why))));
            }
            attempt += 1;
            log.line(LineKind::Warning, format_args!("Preparation failed: {}", named(&why)));
            log.line(LineKind::Plain, format_args!("Will be retried in {} seconds ...", PAUSE.as_secs()));
            tokio::select! {
                biased;
                why = &mut *over => return Err(NoVm::Instance(why)),
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// A connection to the machine, through the one to its host.
    async fn log_in(&self, vm: &Vm, addr: String) -> Result<Arc<Machine>, String> {
        let Self { isolation, machines, host, log, .. } = self;
        let name = format!("{} (VM {})", host.instance(), vm.id());
        let mut info = ConnectInfo::new(&name, isolation.connector.clone());
        info.internal_addr = Some(addr);
        let options = DialOptions { through: Some((*host).clone()), ..DialOptions::default() };
        let end = Instant::now() + info.settings.timeout();
        let mut said = Instant::now();
        let mut on_retry = |attempt: Attempt<'_>| {
            if said.elapsed() >= PROGRESS_INTERVAL {
                said = Instant::now();
                let Attempt { number, target, error, .. } = attempt;
                let why = with_causes(error);
                log.line(
                    LineKind::Plain,
                    format_args!(
                        "Still dialing nesting VM {} at {}:{} (attempt {number}): {why}",
                        vm.id(),
                        target.host,
                        target.port
                    ),
                );
            }
        };
        let dialled = connector::dial(&info, &options, &mut on_retry).await;
        let client = dialled.map_err(|error| unreached(vm, &error))?;
        if let Some(need) = &isolation.need {
            let left = end.saturating_duration_since(Instant::now());
            let provided = super::machines::provided(&**need, &client, left).await;
            need.forget(client.instance());
            provided?;
        }
        Ok(machines.inside(client, isolation.need.is_none()))
    }

    /// Counts a failure that may be the instance's.
    fn noted(&self, why: NoVm) -> NoVm {
        if let NoVm::Machine(why) = &why
            && self.isolation.failed(self.acquisition.instance().as_str())
        {
            self.acquisition.report_unhealthy(why);
        }
        why
    }
}

// === impl Life ===

impl Life {
    async fn end(self) {
        let (instance, vm) = (self.acquisition.instance().as_str(), self.id.as_str());
        if self.acquisition.lost_now().is_some() {
            return;
        }
        let removed = tokio::select! {
            removed = tokio::time::timeout(END_DEADLINE, self.remove()) => removed,
            // It goes with its host.
            _ = self.acquisition.lost() => return,
        };
        let why = match removed {
            Ok(Ok(())) => {
                tracing::debug!(instance, vm, "the virtual machine was removed");
                return;
            }
            Ok(Err(why)) => why,
            Err(_) => format!("it took longer than {END_DEADLINE:?}"),
        };
        tracing::warn!(instance, vm, %why, "the virtual machine was not removed; the next job in its slot takes its place");
    }

    /// The connection that the job had may be broken while the host is well.
    async fn remove(&self) -> Result<(), String> {
        let machine;
        let host = if self.host.is_closed() {
            machine = match self.machines.open(self.acquisition.instance().as_str()) {
                Some(machine) => machine,
                None => self.dial().await?,
            };
            machine.client()
        } else {
            &self.host
        };
        let daemon = self.isolation.daemon(host, Duration::ZERO).await?;
        daemon.delete(&self.id).await.map_err(|error| with_causes(&error).to_string())
    }

    async fn dial(&self) -> Result<Arc<Machine>, String> {
        let info = self.acquisition.connect_info().await.map_err(|error| with_causes(&error).to_string())?;
        self.machines.dial(&info, &mut |_| ()).await.map_err(|error| with_causes(&error).to_string())
    }
}

async fn create(
    isolation: Arc<Isolation>,
    machines: Arc<Machines>,
    host: Client,
    acquisition: Arc<Acquisition>,
    image: String,
    patience: Duration,
) -> Result<(Vm, nesting::Created), NotMade> {
    let daemon = isolation.daemon(&host, patience).await.map_err(NotMade::Unreached)?;
    let made = match daemon.create(&image, Some(acquisition.slot())).await {
        Err(error) if error.is_of_slot() => {
            let (instance, error) = (acquisition.instance().as_str(), with_causes(&error));
            tracing::warn!(
                instance,
                slot = acquisition.slot(),
                error,
                "the nesting daemon is asked for a virtual machine without a slot"
            );
            daemon.create(&image, None).await
        }
        made => made,
    };
    let created = match made {
        Ok(created) => created,
        Err(error) => {
            let on = acquisition.instance();
            let why =
                format!("creating nesting vm: image \"{image}\" on instance {on}: {}", with_causes(&error));
            return Err(if error.is_refusal() { NotMade::Refused(why) } else { NotMade::Unreached(why) });
        }
    };
    let id = created.machine.id.clone();
    let life = Life { id: id.clone(), host: host.clone(), isolation, machines, acquisition };
    Ok((Vm { id, host, life: Some(life) }, created))
}

fn named(why: &str) -> String {
    format!("creating instance environment: creating vm tunnel: {why}")
}

/// What a login that did not work means.
fn unreached(vm: &Vm, error: &DialError) -> String {
    let on = vm.host().instance();
    let hint = if matches!(error, DialError::Authentication { .. }) {
        ": see that vm_isolation.connector_config has the login of the image"
    } else if matches!(error, DialError::TimedOut { .. }) {
        ": see that the image starts an SSH server, and that vm_isolation.connector_config has its login, and a timeout that is \
         long enough for it to boot"
    } else if matches!(error, DialError::Through { source: ConnectionError::TunnelRefused { .. }, .. }) {
        ": let the SSH server of the instance forward to it (AllowTcpForwarding)"
    } else {
        ""
    };
    let why = with_causes(error as &(dyn Error + 'static));
    named(&format!("dialing nesting vm: {} on instance {on}: {why}{hint}", vm.id()))
}
