//! Web terminals into the build container of a running job.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bollard::exec::ResizeExecOptions;
use bollard::models::ExecConfig;
use bollard::query_parameters::{InspectContainerOptionsBuilder, WaitContainerOptionsBuilder};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::StreamExt as _;
use session::{Terminal, TerminalError, Terminals};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::engine::{Engine, EngineError, Raw};
use super::prepare::SHELLS;
use super::stage::detached;
use crate::words::quoted;

/// How long somebody who connects waits for the build container to run, as in GitLab Runner.
const WAIT_FOR_CONTAINER: Duration = Duration::from_secs(15);
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// Time for the engine to start a shell, and to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// GitLab's web terminal does not say how large it is.
const SIZE: ResizeExecOptions = ResizeExecOptions { height: 40, width: 120 };
/// The shells of a container end a moment before it does.
const CONTAINER_FOLLOWS: Duration = Duration::from_secs(1);
/// A shell says no more than this before it says its process id.
const FIRST_WORDS: usize = 4096;
/// What is shown last where the container has ended under the shell, in GitLab Runner's words.
const CONTAINER_EXITED: &[u8] = b"\r\nbuild container exited\r\n";

/// Opens shells in the build container of one job.
pub(super) struct ContainerTerminals {
    engine: Arc<Engine>,
    container: String,
    command: String,
}

/// A shell with a terminal of its own. The engine does not end what it runs when the connection to it ends, so that is done here.
struct Shell {
    engine: Arc<Engine>,
    container: String,
    /// Its process, as the container counts.
    process: String,
    stream: Raw,
    state: State,
}

enum State {
    /// What came with the shell's process id, and then what it shows.
    Open(Bytes),
    /// It has ended: has the container, too?
    Ending(Pin<Box<dyn Future<Output = Bytes> + Send>>),
    /// Last words.
    Ended(Bytes),
}

// === impl ContainerTerminals ===

impl ContainerTerminals {
    pub(super) fn new(engine: Arc<Engine>, container: &str, directory: &str) -> Self {
        let folder = quoted(directory);
        // The first line is for `open`; the shell has the same process.
        let command = format!(
            "echo \"$$\"; cd -- {folder} 2>/dev/null; export TERM=xterm-256color; for s in {}; do \
             if [ -x \"$s\" ]; then exec \"$s\" -i; fi; done; exec sh -i",
            SHELLS
        );
        Self { engine, container: container.to_owned(), command }
    }

    async fn wait(&self) -> Result<(), TerminalError> {
        let end = Instant::now() + WAIT_FOR_CONTAINER;
        loop {
            match is_running(&self.engine, &self.container).await {
                Ok(true) => return Ok(()),
                Ok(false) | Err(EngineError::NotFound(_)) if Instant::now() < end => {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                Ok(false) | Err(EngineError::NotFound(_)) => {
                    return Err(TerminalError("timed out waiting for the build container to run".to_owned()));
                }
                Err(error) => return Err(TerminalError(error.to_string())),
            }
        }
    }

    async fn start(&self) -> Result<Shell, EngineError> {
        let config = ExecConfig {
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            tty: Some(true),
            cmd: Some(["sh", "-c", &self.command].map(str::to_owned).into()),
            ..ExecConfig::default()
        };
        let exec = self.engine.api().create_exec(&self.container, config).await?.id;
        let body = serde_json::json!({ "Detach": false, "Tty": true });
        let mut stream = self.engine.upgrade(&format!("/exec/{exec}/start"), &body).await?;
        let (process, rest) = first_line(&mut stream).await?;
        // A shell that is not told has a terminal of no size, and asks nobody for another.
        if let Err(error) = self.engine.api().resize_exec(&exec, SIZE).await {
            tracing::debug!(container = self.container, %error, "a terminal keeps the engine's size");
        }
        Ok(Shell {
            engine: Arc::clone(&self.engine),
            container: self.container.clone(),
            process,
            stream,
            state: State::Open(rest),
        })
    }
}

#[async_trait]
impl Terminals for ContainerTerminals {
    async fn open(&self) -> Result<Box<dyn Terminal>, TerminalError> {
        self.wait().await?;
        match tokio::time::timeout(PATIENCE, self.start()).await {
            Ok(Ok(shell)) => Ok(Box::new(shell)),
            Ok(Err(error)) => Err(TerminalError(error.to_string())),
            Err(_) => Err(TerminalError(format!("no shell within {PATIENCE:?}"))),
        }
    }
}

/// Reads the line that is the process id of a shell; returns it, and what came behind it.
async fn first_line(stream: &mut Raw) -> Result<(String, Bytes), EngineError> {
    let mut said = BytesMut::new();
    while said.len() < FIRST_WORDS {
        let read =
            stream.read_buf(&mut said).await.map_err(|error| EngineError::Unreachable(error.to_string()))?;
        if let Some(end) = said.iter().position(|byte| *byte == b'\n') {
            let line = said.split_to(end + 1);
            let line = String::from_utf8_lossy(&line);
            let line = line.trim();
            if !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_digit()) {
                return Ok((line.to_owned(), said.freeze()));
            }
            return Err(EngineError::Failed(line.to_owned()));
        }
        if read == 0 {
            break;
        }
    }
    Err(EngineError::Failed(format!("no shell starts there: {}", String::from_utf8_lossy(&said).trim())))
}

async fn is_running(engine: &Engine, container: &str) -> Result<bool, EngineError> {
    let options = InspectContainerOptionsBuilder::default().build();
    let inspected = engine.api().inspect_container(container, Some(options)).await?;
    Ok(inspected.state.and_then(|state| state.running).unwrap_or(false))
}

// === impl Shell ===

impl Shell {
    /// The words that explain the end of the shell; none where its user has ended it.
    fn last_words(&self) -> Pin<Box<dyn Future<Output = Bytes> + Send>> {
        let (engine, container) = (Arc::clone(&self.engine), self.container.clone());
        Box::pin(async move {
            let options = WaitContainerOptionsBuilder::default().condition("not-running").build();
            let mut ended = engine.api().wait_container(&container, Some(options));
            match tokio::time::timeout(CONTAINER_FOLLOWS, ended.next()).await {
                // Whatever the answer is, it does not run any more.
                Ok(_) => Bytes::from_static(CONTAINER_EXITED),
                Err(_) => Bytes::new(),
            }
        })
    }
}

impl AsyncRead for Shell {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            match &mut self.state {
                State::Open(rest) | State::Ended(rest) if !rest.is_empty() => {
                    let length = rest.len().min(buf.remaining());
                    buf.put_slice(&rest[..length]);
                    rest.advance(length);
                    return Poll::Ready(Ok(()));
                }
                State::Open(_) => {
                    let before = buf.filled().len();
                    let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
                    if read.is_ok() && buf.filled().len() > before {
                        return Poll::Ready(Ok(()));
                    }
                    self.state = State::Ending(self.last_words());
                }
                State::Ending(looking) => {
                    let words = ready!(looking.as_mut().poll(cx));
                    self.state = State::Ended(words);
                }
                State::Ended(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl AsyncWrite for Shell {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for Shell {
    /// Hangs up. What runs in the foreground loses its terminal with the shell.
    fn drop(&mut self) {
        if matches!(self.state, State::Ended(_)) {
            return;
        }
        let (engine, container) = (Arc::clone(&self.engine), self.container.clone());
        let script = format!("kill -s HUP -- -{0} 2>/dev/null || kill -s HUP {0}", self.process);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = detached(&engine, &container, &script).await {
                    tracing::debug!(container, %error, "a terminal's shell was not hung up");
                }
            });
        }
    }
}
