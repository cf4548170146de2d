//! The connections to the instances of one group: one each, kept, shared by the jobs that run there.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use connector::{Attempt, Client, ConnectionError, DialError, DialOptions, Output};
use fleeting::{ByteStream, ConnectInfo, HeartbeatError, InstanceId, Reach, ReachError, with_causes};
use job::Shell;
use taskscaler::ReadyUp;
use tokio::time::Instant;

use super::machine::Machine;

/// Time for the probe of an instance that should answer at once.
const PROBE_DEADLINE: Duration = Duration::from_secs(20);
/// Between two looks for what an instance needs.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// How much of a failing ready command's output is kept for the message.
const OUTPUT_KEPT: usize = 2048;

/// What the instances of a group need besides their SSH server.
#[async_trait]
pub(crate) trait Need: Send + Sync + 'static {
    /// Looks for it once.
    ///
    /// # Errors
    /// What is missing and what to do, for people.
    async fn look(&self, client: &Client) -> Result<(), String>;

    /// Puts an instance in order on which no job runs yet.
    ///
    /// # Errors
    /// Why that cannot be done, for people.
    async fn settle(&self, client: &Client) -> Result<(), String> {
        let _ = client;
        Ok(())
    }

    /// An instance is gone.
    fn forget(&self, instance: &str);
}

/// Connections by instance. An instance is ready when it was dialled and the ready command, if there is one, succeeded.
pub(crate) struct Machines {
    connected: Mutex<BTreeMap<InstanceId, Arc<Machine>>>,
    options: DialOptions,
    ready_command: String,
    probes: bool,
    /// Shell of the jobs.
    shell: Shell,
    need: Option<Arc<dyn Need>>,
}

/// Reaches what an instance reaches, through its connection.
struct Through(Client);

impl Machines {
    pub(crate) fn new(
        options: DialOptions,
        ready_command: String,
        probes: bool,
        shell: Shell,
        need: Option<Arc<dyn Need>>,
    ) -> Self {
        Self { connected: Mutex::new(BTreeMap::new()), options, ready_command, probes, shell, need }
    }

    /// Waits until the instance has what it needs.
    pub(crate) async fn provided(&self, client: &Client, patience: Duration) -> Result<(), String> {
        match &self.need {
            Some(need) => provided(&**need, client, patience).await,
            None => Ok(()),
        }
    }

    /// What is reached through an instance, to run scripts on. It is not kept here: it goes with the job. `warm` has shells wait.
    pub(crate) fn inside(&self, client: Client, warm: bool) -> Arc<Machine> {
        let machine = Machine::new(client, self.shell);
        if warm {
            machine.warm_up();
        }
        machine
    }

    /// Has shells wait for scripts, where scripts run on the instance itself.
    pub(crate) fn warm_up(&self, machine: &Arc<Machine>) {
        if self.need.is_none() {
            machine.warm_up();
        }
    }

    /// The connected instance of this name, if it is connected.
    pub(crate) fn open(&self, instance: &str) -> Option<Arc<Machine>> {
        let mut connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        let id = InstanceId::from(instance);
        let machine = connected.get(&id)?;
        if machine.client().is_closed() {
            connected.remove(&id);
            return None;
        }
        Some(Arc::clone(machine))
    }

    /// Opens a connection and keeps it.
    pub(crate) async fn dial(
        &self,
        info: &ConnectInfo,
        on_retry: &mut (dyn FnMut(Attempt<'_>) + Send),
    ) -> Result<Arc<Machine>, DialError> {
        let client = connector::dial(info, &self.options, on_retry).await?;
        let machine = Machine::new(client, self.shell);
        let id = InstanceId::from(info.instance.as_str());
        self.connected.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(&machine));
        Ok(machine)
    }

    /// Lets go of a connection that does not work.
    pub(crate) fn drop_connection(&self, instance: &str) {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner).remove(&InstanceId::from(instance));
    }
}

#[async_trait]
impl ReadyUp for Machines {
    async fn ready_up(&self, info: ConnectInfo) -> Result<(), String> {
        let mut on_retry = |attempt: Attempt<'_>| {
            tracing::debug!(
                instance = %info.instance,
                attempt = attempt.number,
                error = attempt.error as &dyn Error,
                "instance does not answer yet"
            );
        };
        let end = Instant::now() + info.settings.timeout();
        let dialled = self.dial(&info, &mut on_retry).await;
        let machine = dialled.map_err(|error| format!("dialing host: {}", with_causes(&error)))?;
        if !self.ready_command.is_empty() {
            let ended = run(machine.client(), &self.ready_command).await;
            ended.map_err(|why| {
                self.drop_connection(&info.instance);
                format!("ready command: {why}")
            })?;
        }
        let left = end.saturating_duration_since(Instant::now());
        let settled = async {
            self.provided(machine.client(), left).await?;
            match &self.need {
                Some(need) => need.settle(machine.client()).await,
                None => Ok(()),
            }
        };
        settled.await.inspect_err(|_| self.drop_connection(&info.instance))?;
        self.warm_up(&machine);
        Ok(())
    }

    async fn probe(&self, instance: &InstanceId) -> Result<(), HeartbeatError> {
        if !self.probes {
            return Ok(());
        }
        let Some(machine) = self.open(instance.as_str()) else {
            return Err(HeartbeatError::Unknown("no connection is open".to_owned()));
        };
        match tokio::time::timeout(PROBE_DEADLINE, run(machine.client(), "exit 0")).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(why)) => Err(HeartbeatError::Unhealthy(why)),
            Err(_) => {
                Err(HeartbeatError::Unhealthy(format!("`exit 0` did not end within {PROBE_DEADLINE:?}")))
            }
        }
    }

    fn reach(&self, instance: &InstanceId) -> Option<Arc<dyn Reach>> {
        let machine = self.open(instance.as_str())?;
        Some(Arc::new(Through(machine.client().clone())))
    }

    fn forget(&self, instance: &InstanceId) {
        self.options.host_keys.forget(instance.as_str());
        if let Some(need) = &self.need {
            need.forget(instance.as_str());
        }
        let machine = self.connected.lock().unwrap_or_else(PoisonError::into_inner).remove(instance);
        // Jobs that still run there hold it; the connection closes with the last of them.
        drop(machine);
    }
}

#[async_trait]
impl Reach for Through {
    async fn connect(&self, host: &str, port: u16) -> Result<Box<dyn ByteStream>, ReachError> {
        match self.0.connect_tcp(host, port).await {
            Ok(tunnel) => Ok(Box::new(tunnel)),
            Err(error @ ConnectionError::TunnelRefused { .. }) => Err(ReachError::Refused(error.to_string())),
            Err(error) => Err(ReachError::Lost(error.to_string())),
        }
    }
}

/// Waits until what an instance needs is there.
pub(crate) async fn provided(need: &dyn Need, client: &Client, patience: Duration) -> Result<(), String> {
    let end = Instant::now() + patience;
    loop {
        let Err(why) = need.look(client).await else { return Ok(()) };
        if Instant::now() >= end || client.is_closed() {
            return Err(why);
        }
        tracing::debug!(instance = client.instance(), %why, "the instance is not ready yet");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Runs a command to its end; anything but success is described with the end of what it said.
pub(crate) async fn run(client: &Client, command: &str) -> Result<(), String> {
    let mut process = client.exec(command, Bytes::new()).await.map_err(|error| error.to_string())?;
    let mut said = Vec::new();
    while let Some(output) = process.next().await.map_err(|error| error.to_string())? {
        let (Output::Stdout(bytes) | Output::Stderr(bytes)) = output;
        said.extend_from_slice(&bytes);
        if said.len() > 2 * OUTPUT_KEPT {
            said.drain(..said.len() - OUTPUT_KEPT);
        }
    }
    let status = process.wait().await.map_err(|error| error.to_string())?;
    if status.success() {
        return Ok(());
    }
    let mut why = format!("exit code {}", status.code());
    let tail = String::from_utf8_lossy(&said[said.len().saturating_sub(OUTPUT_KEPT)..]);
    if !tail.trim().is_empty() {
        // Writing to a string cannot fail.
        let _ = write!(why, ": {}", tail.trim());
    }
    Err(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_shown_with_its_causes_once() {
        let source = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let refused = DialError::Connect { address: "10.0.0.7:22".to_owned(), source };
        let error = DialError::TimedOut {
            attempts: 3,
            timeout: Duration::from_secs(600),
            last: Some(Box::new(refused)),
        };
        assert_eq!(
            with_causes(&error),
            "dial ssh: after retrying 3 times during 10m0s timeout: dial tcp 10.0.0.7:22: connection refused"
        );
    }
}
