//! A job's slot on an instance: stages are run over the instance's connection.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use connector::{ConnectionError, ExitStatus, Output, Process};
use job::Helper;
use session::Terminals;
use taskscaler::Acquisition;

use super::cgroups::SlotCgroups;
use super::machine::{Machine, Sent};
use super::machines::Machines;
use super::terminal::InstanceTerminals;
use super::vm::Vm;
use crate::Foreseen;
use crate::environment::{Environment, EnvironmentError, StageEvent, StageHandle, StageOutput, Stop};

/// A broken connection and a vanished instance are noticed in any order; the scaler knows more, so it gets this long.
const CAUSE_PATIENCE: Duration = Duration::from_secs(3);

/// Put before every script: the shell says its process id, which is how its process group is found when it must end. (OpenSSH
/// does not deliver SSH's own signals to every login.) The line is taken out of the output.
const SAY_PROCESS: &str = "echo \"$$\"\n";
/// A process id with its line end is no longer than this.
const PROCESS_LINE: usize = 21;
/// Time for the command that ends a stage.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// One slot, until it is closed.
pub(crate) struct InstanceEnvironment {
    place: String,
    acquisition: Arc<Acquisition>,
    machine: Arc<Machine>,
    /// That machine is one of the job's own, inside of the instance.
    vm: Option<Vm>,
    machines: Arc<Machines>,
    helper: Option<Helper>,
    cgroups: Option<SlotCgroups>,
    /// The stage that was started and is not attached to yet.
    started: Mutex<Option<(StageHandle, Running)>>,
}

struct Running {
    process: Option<Process>,
    machine: Arc<Machine>,
    shell: ShellProcess,
    /// Command and input, while nothing was heard from a shell that had waited for them.
    again: Option<(String, Bytes)>,
    /// Its process group, once it was signalled. Known by itself, because the group may outlive the shell.
    group: Option<String>,
}

/// What is known of the stage's shell.
enum ShellProcess {
    /// Nothing yet; the beginning of the output so far.
    Unheard(Vec<u8>),
    /// Its process id.
    Known(String),
    /// It did not say, so it is no POSIX shell, or there is none.
    Unknown,
}

// === impl InstanceEnvironment ===

impl InstanceEnvironment {
    pub(crate) fn new(
        acquisition: Arc<Acquisition>,
        machine: Arc<Machine>,
        vm: Option<Vm>,
        machines: Arc<Machines>,
        helper: Option<Helper>,
        cgroups: Option<SlotCgroups>,
    ) -> Self {
        let instance = acquisition.instance();
        let place = match &vm {
            Some(vm) => format!("virtual machine {} on instance {instance}", vm.id()),
            None => format!("instance {instance}"),
        };
        Self { place, acquisition, machine, vm, machines, helper, cgroups, started: Mutex::new(None) }
    }

    /// Control groups of the slot.
    pub(crate) fn cgroups(&self) -> Option<&SlotCgroups> {
        self.cgroups.as_ref()
    }

    /// The connection to where the job runs: the instance, or the job's own machine inside of it.
    pub(crate) fn client(&self) -> &connector::Client {
        self.machine.client()
    }

    /// No other job is to meet the instance.
    pub(crate) fn give_up(&self) {
        // One whose end is announced takes no other job already, and the jobs that are left there keep its connection.
        if self.acquisition.doom().borrow().is_some() && !self.host().is_closed() {
            return;
        }
        // A machine of the job's own is nobody else's.
        if self.vm.is_some() && !self.host().is_closed() {
            return;
        }
        self.machines.drop_connection(self.acquisition.instance().as_str());
        self.acquisition.report_unhealthy("a job lost its connection to the instance");
    }

    /// The connection to the instance itself.
    fn host(&self) -> &connector::Client {
        self.vm.as_ref().map_or_else(|| self.machine.client(), Vm::host)
    }
}

#[async_trait]
impl Environment for InstanceEnvironment {
    fn place(&self) -> &str {
        &self.place
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        self.cgroups.iter().map(SlotCgroups::variable).collect()
    }

    async fn start(
        &self,
        stage: &str,
        command: &str,
        script: Bytes,
    ) -> Result<StageHandle, EnvironmentError> {
        let mut input = BytesMut::with_capacity(SAY_PROCESS.len() + script.len());
        input.extend_from_slice(SAY_PROCESS.as_bytes());
        input.extend_from_slice(&script);
        let input = input.freeze();
        let Sent { process, waited } =
            self.machine.start(command, input.clone()).await.map_err(connection)?;
        let handle = StageHandle { stage: stage.to_owned(), id: self.acquisition.key().to_owned() };
        let running = Running {
            process: Some(process),
            machine: Arc::clone(&self.machine),
            shell: ShellProcess::Unheard(Vec::new()),
            again: waited.then(|| (command.to_owned(), input)),
            group: None,
        };
        *self.started.lock().unwrap_or_else(PoisonError::into_inner) = Some((handle.clone(), running));
        Ok(handle)
    }

    async fn attach(
        &self,
        handle: &StageHandle,
        from_offset: u64,
    ) -> Result<Box<dyn StageOutput>, EnvironmentError> {
        let started = self.started.lock().unwrap_or_else(PoisonError::into_inner).take();
        match started {
            Some((known, running)) if known == *handle && from_offset == 0 => Ok(Box::new(running)),
            Some(_) | None => Err(EnvironmentError::NotResumable(from_offset)),
        }
    }

    fn helper(&self) -> Option<&Helper> {
        self.helper.as_ref()
    }

    async fn lost(&self) -> String {
        tokio::select! {
            cause = self.acquisition.lost() => cause.to_string(),
            error = self.machine.client().closed() => {
                match tokio::time::timeout(CAUSE_PATIENCE, self.acquisition.lost()).await {
                    Ok(cause) => cause.to_string(),
                    Err(_) => {
                        let instance = self.acquisition.instance();
                        let broke = || match &self.vm {
                            Some(vm) if vm.host().is_closed() => {
                                format!("the connection to instance {instance} broke, and with it that to {}", self.place)
                            }
                            Some(_) | None => format!("the connection to {} broke: {error}", self.place),
                        };
                        Foreseen::of(&self.acquisition).lost().unwrap_or_else(broke)
                    }
                }
            }
        }
    }

    fn foreseen(&self) -> Option<Foreseen> {
        Some(Foreseen::of(&self.acquisition))
    }

    fn terminals(&self, directory: &str) -> Option<Arc<dyn Terminals>> {
        Some(Arc::new(InstanceTerminals::new(self.machine.client().clone(), directory)))
    }

    async fn close(self: Box<Self>, healthy: bool) {
        if !healthy || self.machine.client().is_closed() {
            self.give_up();
        }
        let Self { vm, .. } = *self;
        if let Some(vm) = vm {
            vm.close().await;
        }
    }
}

// === impl Running ===

#[async_trait]
impl StageOutput for Running {
    async fn next(&mut self) -> Result<StageEvent, EnvironmentError> {
        loop {
            let Some(process) = self.process.as_mut() else {
                return Err(EnvironmentError::Lost("the stage has ended already".to_owned()));
            };
            match process.next().await.map_err(connection)? {
                Some(Output::Stdout(bytes)) => {
                    self.again = None;
                    let rest = self.shell.hear(bytes);
                    if !rest.is_empty() {
                        return Ok(StageEvent::Stdout(rest));
                    }
                }
                Some(Output::Stderr(bytes)) => {
                    self.again = None;
                    return Ok(StageEvent::Stderr(bytes));
                }
                None => {
                    let held_back = self.shell.give_up();
                    if !held_back.is_empty() {
                        return Ok(StageEvent::Stdout(held_back));
                    }
                    let Some(process) = self.process.take() else { continue };
                    let ended = process.wait().await;
                    if let Some((command, input)) = self.again.take()
                        && unread(&ended)
                    {
                        tracing::debug!(
                            command,
                            "the shell ended before the script reached it; another is started"
                        );
                        let started = self.machine.client().exec(&command, input).await;
                        self.process = Some(started.map_err(connection)?);
                        self.shell = ShellProcess::Unheard(Vec::new());
                        continue;
                    }
                    return Ok(StageEvent::Exited(ended.map_err(connection)?.code()));
                }
            }
        }
    }

    async fn stop(&mut self, how: Stop) {
        let name = match how {
            Stop::Terminate => "TERM",
            Stop::Kill => "KILL",
        };
        let ShellProcess::Known(id) = &self.shell else {
            if let Some(process) = self.process.as_ref()
                && let Err(error) = process.signal(name).await
            {
                tracing::debug!(%error, signal = name, "the stage cannot be signalled");
            }
            return;
        };
        let find = match &self.group {
            Some(group) => format!("g={group}"),
            None => format!("g=$(ps -o pgid= -p {id} 2>/dev/null | tr -d ' '); g=${{g:-{id}}}; echo \"$g\""),
        };
        let command = format!("{find}; kill -s {name} -- -\"$g\" 2>/dev/null || kill -s {name} {id}");
        let stopped = async {
            let mut process = self.machine.start("sh", Bytes::from(command)).await?.process;
            let mut said = Vec::new();
            while let Some(output) = process.next().await? {
                if let Output::Stdout(bytes) = output {
                    said.extend_from_slice(&bytes[..bytes.len().min(PROCESS_LINE)]);
                }
            }
            let group = std::str::from_utf8(&said).unwrap_or_default().trim();
            if !group.is_empty() && group.bytes().all(|byte| byte.is_ascii_digit()) {
                self.group = Some(group.to_owned());
            }
            process.wait().await
        };
        match tokio::time::timeout(STOP_PATIENCE, stopped).await {
            Ok(Ok(status)) => {
                tracing::debug!(process = id, signal = name, code = status.code(), "stage signalled")
            }
            Ok(Err(error)) => {
                tracing::debug!(process = id, signal = name, %error, "the stage cannot be signalled")
            }
            Err(_) => tracing::debug!(process = id, signal = name, "signalling the stage took too long"),
        }
    }
}

// === impl ShellProcess ===

impl ShellProcess {
    /// Takes the line with the process id out of the output; returns what is the stage's own.
    fn hear(&mut self, bytes: Bytes) -> Bytes {
        let Self::Unheard(heard) = self else { return bytes };
        let start = heard.len();
        heard.extend_from_slice(&bytes[..bytes.len().min(PROCESS_LINE)]);
        let Some(end) = heard.iter().position(|byte| *byte == b'\n') else {
            if heard.len() < PROCESS_LINE && heard.iter().all(u8::is_ascii_digit) {
                return Bytes::new();
            }
            return self.not_a_process(start, &bytes);
        };
        match std::str::from_utf8(&heard[..end]) {
            Ok(id) if !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()) => {
                let id = id.to_owned();
                *self = Self::Known(id);
                bytes.slice(end + 1 - start..)
            }
            Ok(_) | Err(_) => self.not_a_process(start, &bytes),
        }
    }

    /// The output began with something else, which must not get lost.
    fn not_a_process(&mut self, start: usize, bytes: &Bytes) -> Bytes {
        let Self::Unheard(heard) = std::mem::replace(self, Self::Unknown) else { return bytes.clone() };
        let mut all = BytesMut::from(&heard[..start]);
        all.extend_from_slice(bytes);
        all.freeze()
    }

    /// The output is over.
    fn give_up(&mut self) -> Bytes {
        match std::mem::replace(self, Self::Unknown) {
            Self::Unheard(heard) => Bytes::from(heard),
            known @ Self::Known(_) => {
                *self = known;
                Bytes::new()
            }
            Self::Unknown => Bytes::new(),
        }
    }
}

/// Whether a shell that had waited, and said nothing, ended without having read its script: the first thing that a script does
/// is to say something. So it can be started again without anything being done twice.
fn unread(ended: &Result<ExitStatus, ConnectionError>) -> bool {
    match ended {
        Ok(_) | Err(ConnectionError::NoExitStatus { .. }) => true,
        Err(_) => false,
    }
}

fn connection(error: ConnectionError) -> EnvironmentError {
    EnvironmentError::Lost(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(pieces: &[&str]) -> (String, Option<String>) {
        let mut shell = ShellProcess::Unheard(Vec::new());
        let mut out = Vec::new();
        for piece in pieces {
            out.extend_from_slice(&shell.hear(Bytes::copy_from_slice(piece.as_bytes())));
        }
        out.extend_from_slice(&shell.give_up());
        let id = match shell {
            ShellProcess::Known(id) => Some(id),
            ShellProcess::Unheard(_) | ShellProcess::Unknown => None,
        };
        (String::from_utf8(out).unwrap(), id)
    }

    #[test]
    fn the_process_id_is_taken_out_however_it_is_cut() {
        assert_eq!(hear(&["1234\nhello\n"]), ("hello\n".into(), Some("1234".into())));
        assert_eq!(hear(&["12", "34", "\n", "hello"]), ("hello".into(), Some("1234".into())));
        assert_eq!(hear(&["1234\n"]), (String::new(), Some("1234".into())));
    }

    #[test]
    fn other_output_is_kept_whole() {
        for pieces in [
            &["sh: not found\n"][..],
            &["12", "x\n"],
            &["123"],
            &["\n1\n"],
            &["123456789012345678901234\n"],
            &[],
        ] {
            assert_eq!(hear(pieces), (pieces.concat(), None));
        }
    }
}
