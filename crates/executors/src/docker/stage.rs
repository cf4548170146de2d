//! The stages of a job as they run: in the build container, inside of the helper container, or nowhere.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bollard::container::LogOutput;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::ExecConfig;
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, InspectContainerOptionsBuilder, KillContainerOptionsBuilder,
    WaitContainerOptionsBuilder,
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::engine::{Engine, EngineError};
use crate::environment::{EnvironmentError, StageEvent, StageOutput, Stop};

/// An exit code follows the end of the output after a moment.
const STATUS_TRIES: u32 = 200;
const STATUS_PAUSE: Duration = Duration::from_millis(10);
/// Time for a call that stops something.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// Exit code after `KILL`, which is also what the kernel sends when memory runs out.
const KILLED: i64 = 137;
/// Where a stage in the helper notes its process group.
const GROUP_FILE: &str = "/tmp/.drover-stage";

/// Ends every process of a container from `FIRST` on, shells before what they wait for: a shell whose child has ended, and that
/// has not heard anything itself, would go on with the next command. Numbers of processes rise, so parents come first; those of one
/// length are in order.
const TERMINATE: &str = "for p in /proc/[0-9] /proc/[0-9][0-9] /proc/[0-9][0-9][0-9] /proc/[0-9][0-9][0-9][0-9] \
                         /proc/[0-9][0-9][0-9][0-9][0-9]*; do p=${p#/proc/}; \
                         if [ \"$p\" != \"$$\" ] && [ \"$p\" -ge FIRST ] 2>/dev/null; then \
                         kill -s TERM \"$p\" 2>/dev/null; fi; done";

type Pieces = Pin<Box<dyn Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send>>;

/// The stream is read by its owner only; the lock is there so that the owner can be shared.
pub(crate) struct Output(Mutex<Pieces>);
pub(crate) type Input = Pin<Box<dyn AsyncWrite + Send>>;

/// A stage that is done before it begins: what it would say is known.
pub(crate) struct Said(VecDeque<StageEvent>);

/// A stage that is the main process of a container.
pub(crate) struct Attached {
    engine: Arc<Engine>,
    container: String,
    output: Output,
    /// Events that come before the next piece of output.
    due: VecDeque<StageEvent>,
    asking: Asking,
    /// Limit of memory as it is set, for the message about its end.
    memory: Option<i64>,
}

/// How the processes of a container are asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asking {
    /// Each of them.
    All,
    /// Each but the first, which is an init: it would pass the signal on to one that has got it.
    BelowInit,
    /// The first one, by the engine's own stop: the processes are not the container's alone, or the job wants it so
    /// (`FF_USE_NATIVE_CONTAINER_STOP`).
    Engine,
}

/// A stage inside of a running container.
pub(crate) struct Inside {
    engine: Arc<Engine>,
    container: String,
    exec: String,
    output: Output,
}

// === impl Output ===

impl Output {
    pub(crate) async fn next(&mut self) -> Option<Result<LogOutput, bollard::errors::Error>> {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner).next().await
    }
}

// === impl Said ===

impl Said {
    pub(crate) fn new(text: Bytes) -> Self {
        let mut events = VecDeque::new();
        if !text.is_empty() {
            events.push_back(StageEvent::Stdout(text));
        }
        events.push_back(StageEvent::Exited(0));
        Self(events)
    }
}

#[async_trait]
impl StageOutput for Said {
    async fn next(&mut self) -> Result<StageEvent, EnvironmentError> {
        self.0.pop_front().ok_or_else(ended_already)
    }

    async fn stop(&mut self, _: Stop) {}
}

// === impl Attached ===

impl Attached {
    /// Starts a container that was created, with this script as all of its input.
    pub(crate) async fn start(
        engine: &Arc<Engine>,
        container: &str,
        script: Bytes,
        asking: Asking,
        memory: Option<i64>,
    ) -> Result<Self, EngineError> {
        let (output, input) = attach(engine, container).await?;
        engine.api().start_container(container, None).await?;
        feed(input, script);
        Ok(Self {
            engine: Arc::clone(engine),
            container: container.to_owned(),
            output,
            due: VecDeque::new(),
            asking,
            memory,
        })
    }

    /// The container's exit code, and why it ended where that is worth a word.
    async fn status(&mut self) -> Result<StageEvent, EnvironmentError> {
        let options = WaitContainerOptionsBuilder::default().condition("not-running").build();
        let waited = self.engine.api().wait_container(&self.container, Some(options)).next().await;
        let code = match waited {
            Some(Ok(ended)) => ended.status_code,
            Some(Err(bollard::errors::Error::DockerContainerWaitError { code, error }))
                if error.is_empty() =>
            {
                code
            }
            Some(Err(error)) => return Err(self.failed(error.into())),
            None => {
                return Err(EnvironmentError::Lost(format!(
                    "{} did not say how the container ended",
                    self.engine.place()
                )));
            }
        };
        let exited = StageEvent::Exited(exit_code(code));
        if code == KILLED
            && let Some(words) = self.out_of_memory().await
        {
            self.due.push_back(exited);
            return Ok(StageEvent::Stderr(Bytes::from(words)));
        }
        Ok(exited)
    }

    async fn out_of_memory(&self) -> Option<String> {
        let options = InspectContainerOptionsBuilder::default().build();
        let inspected = self.engine.api().inspect_container(&self.container, Some(options)).await.ok()?;
        let killed = inspected.state?.oom_killed.unwrap_or(false);
        killed.then(|| {
            let limit = match self.memory {
                Some(bytes) => format!(
                    "the container's limit of {} MiB was reached (`memory` in [runners.docker])",
                    bytes >> 20
                ),
                None => "the machine's memory ran out".to_owned(),
            };
            format!("\nA process of the job was killed because {limit}.\n")
        })
    }

    fn failed(&self, error: EngineError) -> EnvironmentError {
        match error {
            EngineError::NotFound(_) => EnvironmentError::Vanished(format!(
                "the container {} was removed while the job ran in it",
                self.container
            )),
            other @ (EngineError::Conflict(_)
            | EngineError::BadRequest(_)
            | EngineError::Failed(_)
            | EngineError::Unreachable(_)) => broken(&self.engine, other),
        }
    }

    async fn terminate(&self, script: &str) -> Result<(), EngineError> {
        match detached(&self.engine, &self.container, script).await {
            // An image without a shell has its first process only.
            Err(EngineError::Failed(_) | EngineError::BadRequest(_)) => self.signal("TERM").await,
            result => result,
        }
    }

    /// The call answers when the container has ended, and its last words are to be read before that. It knows the signal that the
    /// image wants, and how long it is given.
    fn stop_by_engine(&self) {
        let (engine, container) = (Arc::clone(&self.engine), self.container.clone());
        tokio::spawn(async move {
            let stopped = engine.api().stop_container(&container, None).await;
            report_stop(&container, Ok(stopped.map_err(EngineError::from)));
        });
    }

    async fn signal(&self, name: &str) -> Result<(), EngineError> {
        let options = KillContainerOptionsBuilder::default().signal(name).build();
        Ok(self.engine.api().kill_container(&self.container, Some(options)).await?)
    }
}

#[async_trait]
impl StageOutput for Attached {
    async fn next(&mut self) -> Result<StageEvent, EnvironmentError> {
        if let Some(event) = self.due.pop_front() {
            return Ok(event);
        }
        match self.output.next().await {
            Some(Ok(piece)) => Ok(event(piece)),
            Some(Err(error)) => {
                let error = EngineError::from(error);
                tracing::debug!(container = self.container, %error, "the container's output broke off");
                Err(self.failed(error))
            }
            None => self.status().await,
        }
    }

    async fn stop(&mut self, how: Stop) {
        let stopping = async {
            match (how, self.asking) {
                (Stop::Terminate, Asking::All) => self.terminate(&TERMINATE.replace("FIRST", "1")).await,
                (Stop::Terminate, Asking::BelowInit) => {
                    self.terminate(&TERMINATE.replace("FIRST", "2")).await
                }
                (Stop::Terminate, Asking::Engine) => {
                    self.stop_by_engine();
                    Ok(())
                }
                (Stop::Kill, _) => self.signal("KILL").await,
            }
        };
        report_stop(&self.container, tokio::time::timeout(STOP_PATIENCE, stopping).await);
    }
}

// === impl Inside ===

impl Inside {
    /// Runs a command in a container, with this script as all of its input.
    pub(crate) async fn start(
        engine: &Arc<Engine>,
        container: &str,
        command: Vec<String>,
        environment: Vec<String>,
        script: Bytes,
    ) -> Result<Self, EngineError> {
        let config = ExecConfig {
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            env: (!environment.is_empty()).then_some(environment),
            cmd: Some(command),
            ..ExecConfig::default()
        };
        let exec = engine.api().create_exec(container, config).await?.id;
        let options = StartExecOptions { detach: false, ..StartExecOptions::default() };
        match engine.api().start_exec(&exec, Some(options)).await? {
            StartExecResults::Attached { output, input } => {
                feed(input, script);
                Ok(Self {
                    engine: Arc::clone(engine),
                    container: container.to_owned(),
                    exec,
                    output: Output(Mutex::new(output)),
                })
            }
            StartExecResults::Detached => {
                Err(EngineError::Failed("the engine did not attach to a command".to_owned()))
            }
        }
    }

    /// The command of a stage.
    pub(crate) fn stage_command(command: &str) -> Vec<String> {
        ["sh".to_owned(), "-c".to_owned(), Self::stage_line(command)].into()
    }

    /// The line of shell that starts a stage, and notes its process group so that it can be stopped.
    pub(crate) fn stage_line(command: &str) -> String {
        format!(
            "echo \"$$\" >{GROUP_FILE}; if command -v {} >/dev/null 2>&1; then exec {command}; else exec sh; fi",
            command.split(' ').next().unwrap_or("sh")
        )
    }

    /// Signals the stage that noted its group last.
    pub(crate) async fn signal(engine: &Engine, container: &str, how: Stop) {
        let signal = match how {
            Stop::Terminate => "TERM",
            Stop::Kill => "KILL",
        };
        let script = format!(
            "g=$(cat {GROUP_FILE}); kill -s {signal} -- -\"$g\" 2>/dev/null || kill -s {signal} \"$g\""
        );
        let stopping = detached(engine, container, &script);
        report_stop(container, tokio::time::timeout(STOP_PATIENCE, stopping).await);
    }

    async fn status(&self) -> Result<i32, EngineError> {
        for _ in 0..STATUS_TRIES {
            let inspected = self.engine.api().inspect_exec(&self.exec).await?;
            match (inspected.running, inspected.exit_code) {
                (Some(false), Some(code)) => return Ok(exit_code(code)),
                _ => tokio::time::sleep(STATUS_PAUSE).await,
            }
        }
        Err(EngineError::Failed("the engine did not say how a command ended".to_owned()))
    }
}

#[async_trait]
impl StageOutput for Inside {
    async fn next(&mut self) -> Result<StageEvent, EnvironmentError> {
        match self.output.next().await {
            Some(Ok(piece)) => Ok(event(piece)),
            Some(Err(error)) => Err(broken(&self.engine, error.into())),
            None => match self.status().await {
                Ok(code) => Ok(StageEvent::Exited(code)),
                Err(error) => Err(broken(&self.engine, error)),
            },
        }
    }

    async fn stop(&mut self, how: Stop) {
        Self::signal(&self.engine, &self.container, how).await;
    }
}

/// Attaches to a container that is not started yet, so that nothing that is said gets lost.
pub(crate) async fn attach(engine: &Engine, container: &str) -> Result<(Output, Input), EngineError> {
    let options =
        AttachContainerOptionsBuilder::default().stream(true).stdin(true).stdout(true).stderr(true).build();
    let attached = engine.api().attach_container(container, Some(options)).await?;
    Ok((Output(Mutex::new(attached.output)), attached.input))
}

/// Runs a shell command in a container without waiting for it.
pub(crate) async fn detached(engine: &Engine, container: &str, script: &str) -> Result<(), EngineError> {
    let config = ExecConfig {
        cmd: Some(["sh", "-c", script].map(str::to_owned).into()),
        user: Some("0".to_owned()),
        ..ExecConfig::default()
    };
    let exec = engine.api().create_exec(container, config).await?.id;
    let options = StartExecOptions { detach: true, ..StartExecOptions::default() };
    engine.api().start_exec(&exec, Some(options)).await?;
    Ok(())
}

fn report_stop(container: &str, stopped: Result<Result<(), EngineError>, tokio::time::error::Elapsed>) {
    match stopped {
        // It has ended by itself.
        Ok(Ok(()) | Err(EngineError::Conflict(_) | EngineError::NotFound(_))) => {}
        Ok(Err(error)) => tracing::debug!(container, %error, "a stage cannot be signalled"),
        Err(_) => tracing::debug!(container, "signalling a stage took too long"),
    }
}

/// Writes a script and ends the input, beside reading the output: an entrypoint may talk before it listens.
fn feed(mut input: Input, script: Bytes) {
    tokio::spawn(async move {
        // A process that does not want its input ends without it; what it does is its exit code's to say.
        let fed = async {
            input.write_all(&script).await?;
            input.flush().await?;
            input.shutdown().await
        };
        if let Err(error) = fed.await {
            tracing::debug!(%error, "a script was not read to its end");
        }
    });
}

fn event(piece: LogOutput) -> StageEvent {
    match piece {
        LogOutput::StdErr { message } => StageEvent::Stderr(message),
        LogOutput::StdOut { message } | LogOutput::Console { message } | LogOutput::StdIn { message } => {
            StageEvent::Stdout(message)
        }
    }
}

pub(crate) fn broken(engine: &Engine, error: EngineError) -> EnvironmentError {
    match error {
        EngineError::Unreachable(why) => {
            EnvironmentError::Lost(format!("the connection to {} broke: {why}", engine.place()))
        }
        EngineError::NotFound(why) => {
            EnvironmentError::Vanished(format!("Error response from daemon: {why}"))
        }
        EngineError::Conflict(why) | EngineError::BadRequest(why) | EngineError::Failed(why) => {
            EnvironmentError::Refused(format!("Error response from daemon: {why}"))
        }
    }
}

/// Codes are 32 bits wide and signed, as GitLab shows them.
#[expect(clippy::cast_possible_truncation, reason = "what is cut off carries no meaning")]
pub(crate) fn exit_code(code: i64) -> i32 {
    code as i32
}

pub(crate) fn ended_already() -> EnvironmentError {
    EnvironmentError::Lost("the stage has ended already".to_owned())
}
