//! The connections to the instances of one group: one each, kept, shared by the jobs that run there.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use connector::{Attempt, Client, DialError, DialOptions, Output};
use fleeting::{ConnectInfo, HeartbeatError, InstanceId};
use taskscaler::ReadyUp;

/// Time for the probe of an instance that should answer at once.
const PROBE_DEADLINE: Duration = Duration::from_secs(20);
/// How much of a failing ready command's output is kept for the message.
const OUTPUT_KEPT: usize = 2048;

/// Connections by instance. An instance is ready when it was dialled and the ready command, if there is one, succeeded.
pub(crate) struct Machines {
    clients: Mutex<BTreeMap<InstanceId, Client>>,
    options: DialOptions,
    ready_command: String,
    probes: bool,
}

impl Machines {
    pub(crate) fn new(options: DialOptions, ready_command: String, probes: bool) -> Self {
        Self { clients: Mutex::new(BTreeMap::new()), options, ready_command, probes }
    }

    /// The open connection to an instance, if there is one.
    pub(crate) fn open(&self, instance: &str) -> Option<Client> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let id = InstanceId::from(instance);
        let client = clients.get(&id)?;
        if client.is_closed() {
            clients.remove(&id);
            return None;
        }
        Some(client.clone())
    }

    /// Opens a connection and keeps it.
    pub(crate) async fn dial(
        &self,
        info: &ConnectInfo,
        on_retry: &mut (dyn FnMut(Attempt<'_>) + Send),
    ) -> Result<Client, DialError> {
        let client = connector::dial(info, &self.options, on_retry).await?;
        let id = InstanceId::from(info.instance.as_str());
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).insert(id, client.clone());
        Ok(client)
    }

    /// Lets go of a connection that does not work.
    pub(crate) fn drop_connection(&self, instance: &str) {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).remove(&InstanceId::from(instance));
    }
}

#[async_trait]
impl ReadyUp for Machines {
    async fn ready_up(&self, info: ConnectInfo) -> Result<(), String> {
        let mut on_retry = |attempt: Attempt<'_>| {
            tracing::debug!(instance = %info.instance, attempt = attempt.number, error = %attempt.error, "instance does not answer yet");
        };
        let client =
            self.dial(&info, &mut on_retry).await.map_err(|error| format!("dialing host: {error}"))?;
        if self.ready_command.is_empty() {
            return Ok(());
        }
        let ended = run(&client, &self.ready_command).await;
        ended.map_err(|why| {
            self.drop_connection(&info.instance);
            format!("ready command: {why}")
        })
    }

    async fn probe(&self, instance: &InstanceId) -> Result<(), HeartbeatError> {
        if !self.probes {
            return Ok(());
        }
        let Some(client) = self.open(instance.as_str()) else {
            return Err(HeartbeatError::Unknown("no connection is open".to_owned()));
        };
        match tokio::time::timeout(PROBE_DEADLINE, run(&client, "exit 0")).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(why)) => Err(HeartbeatError::Unhealthy(why)),
            Err(_) => {
                Err(HeartbeatError::Unhealthy(format!("`exit 0` did not end within {PROBE_DEADLINE:?}")))
            }
        }
    }

    fn forget(&self, instance: &InstanceId) {
        self.options.host_keys.forget(instance.as_str());
        let client = self.clients.lock().unwrap_or_else(PoisonError::into_inner).remove(instance);
        // Jobs that still run there hold clones; the connection closes with the last of them.
        drop(client);
    }
}

/// Runs a command to its end; anything but success is described with the end of what it said.
async fn run(client: &Client, command: &str) -> Result<(), String> {
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
