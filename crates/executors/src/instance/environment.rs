//! A job's slot on an instance: stages are run over the instance's connection.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use connector::{Client, ConnectionError, Output, Process};
use taskscaler::Acquisition;

use super::machines::Machines;
use crate::environment::{Environment, EnvironmentError, StageEvent, StageHandle, StageOutput, Stop};

/// A broken connection and a vanished instance are noticed in any order; the scaler knows more, so it gets this long.
const CAUSE_PATIENCE: Duration = Duration::from_secs(3);

/// One slot, until it is closed.
pub(crate) struct InstanceEnvironment {
    place: String,
    acquisition: Acquisition,
    client: Client,
    machines: Arc<Machines>,
    /// The stage that was started and is not attached to yet.
    started: Mutex<Option<(StageHandle, Process)>>,
}

struct Running {
    process: Option<Process>,
}

// === impl InstanceEnvironment ===

impl InstanceEnvironment {
    pub(crate) fn new(acquisition: Acquisition, client: Client, machines: Arc<Machines>) -> Self {
        let place = format!("instance {}", acquisition.instance());
        Self { place, acquisition, client, machines, started: Mutex::new(None) }
    }
}

#[async_trait]
impl Environment for InstanceEnvironment {
    fn place(&self) -> &str {
        &self.place
    }

    async fn start(
        &self,
        stage: &str,
        command: &str,
        script: Bytes,
    ) -> Result<StageHandle, EnvironmentError> {
        let process = self.client.exec(command, script).await.map_err(connection)?;
        let handle = StageHandle { stage: stage.to_owned(), id: self.acquisition.key().to_owned() };
        *self.started.lock().unwrap_or_else(PoisonError::into_inner) = Some((handle.clone(), process));
        Ok(handle)
    }

    async fn attach(
        &self,
        handle: &StageHandle,
        from_offset: u64,
    ) -> Result<Box<dyn StageOutput>, EnvironmentError> {
        let started = self.started.lock().unwrap_or_else(PoisonError::into_inner).take();
        match started {
            Some((known, process)) if known == *handle && from_offset == 0 => {
                Ok(Box::new(Running { process: Some(process) }))
            }
            Some(_) | None => Err(EnvironmentError::NotResumable(from_offset)),
        }
    }

    async fn lost(&self) -> String {
        tokio::select! {
            cause = self.acquisition.lost() => cause.to_string(),
            error = self.client.closed() => {
                match tokio::time::timeout(CAUSE_PATIENCE, self.acquisition.lost()).await {
                    Ok(cause) => cause.to_string(),
                    Err(_) => format!("the connection to {} broke: {error}", self.place),
                }
            }
        }
    }

    async fn close(self: Box<Self>, healthy: bool) {
        if !healthy || self.client.is_closed() {
            self.machines.drop_connection(self.acquisition.instance().as_str());
            self.acquisition.report_unhealthy("a job lost its connection to the instance");
        }
    }
}

// === impl Running ===

#[async_trait]
impl StageOutput for Running {
    async fn next(&mut self) -> Result<StageEvent, EnvironmentError> {
        let Some(process) = self.process.as_mut() else {
            return Err(EnvironmentError::Lost("the stage has ended already".to_owned()));
        };
        match process.next().await.map_err(connection)? {
            Some(Output::Stdout(bytes)) => Ok(StageEvent::Stdout(bytes)),
            Some(Output::Stderr(bytes)) => Ok(StageEvent::Stderr(bytes)),
            None => {
                let Some(process) = self.process.take() else {
                    return Err(EnvironmentError::Lost("the stage has ended already".to_owned()));
                };
                let status = process.wait().await.map_err(connection)?;
                Ok(StageEvent::Exited(status.code()))
            }
        }
    }

    async fn stop(&mut self, how: Stop) {
        let Some(process) = self.process.as_mut() else { return };
        let name = match how {
            Stop::Terminate => "TERM",
            Stop::Kill => "KILL",
        };
        if let Err(error) = process.signal(name).await {
            tracing::debug!(%error, signal = name, "the stage cannot be signalled");
        }
    }
}

fn connection(error: ConnectionError) -> EnvironmentError {
    EnvironmentError::Lost(error.to_string())
}
