//! A connected instance.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::error::ConnectionError;
use crate::link::{Lane, OpenError};
use crate::prepared::Prepared;
use crate::process::{Process, ProcessStdin};
use crate::sessions::Sessions;
use crate::tunnel::Tunnel;

/// Columns and rows of a terminal; GitLab's web terminal does not say how large it is.
const TERMINAL_SIZE: (u32, u32) = (120, 40);

/// One instance that is logged into. Clones are the same connection; it is closed when the last clone and the last thing
/// started through it are dropped.
///
/// Behind it is one SSH connection, and more of them, up to 8, while commands need more sessions than the server allows on one
/// (`MaxSessions` of `sshd`). A command for which there is no session left waits until another one ends.
#[derive(Clone)]
pub struct Client {
    sessions: Arc<Sessions>,
}

// === impl Client ===

impl Client {
    pub(crate) fn new(sessions: Arc<Sessions>) -> Self {
        Self { sessions }
    }

    /// Name of the instance.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.sessions.primary.table.instance
    }

    /// Starts a command in the login's shell with `stdin` as all of its input. The command, its input and its end are sent
    /// without waiting for replies: with a spare session at hand the first output arrives after one round trip. Input costs a
    /// second one on servers that allow none before the command has started, as OpenSSH does (its window is 0 until then).
    ///
    /// # Errors
    /// [`ConnectionError::Lost`], [`ConnectionError::Closed`], [`ConnectionError::SessionRefused`]. A refusal to run the
    /// command comes from [`Process::wait`].
    pub async fn exec(&self, command: &str, stdin: Bytes) -> Result<Process, ConnectionError> {
        let lane = self.sessions.session().await?;
        Process::start(self.sessions.clone(), lane, command, Some(stdin)).await
    }

    /// Starts a command whose input is written while it runs. Read its output at the same time: a command that cannot write
    /// stops reading.
    ///
    /// # Errors
    /// As [`exec`](Self::exec).
    pub async fn exec_piped(&self, command: &str) -> Result<(ProcessStdin, Process), ConnectionError> {
        let lane = self.sessions.session().await?;
        let process = Process::start(self.sessions.clone(), lane, command, None).await?;
        Ok((process.stdin(), process))
    }

    /// Starts a command whose input is not known yet. Once it is, the first output comes after one round trip, also on servers
    /// that allow no input before the command has started; and the command has loaded by then.
    ///
    /// It holds one of the sessions that the server allows, so it is for an instance that has some to spare:
    /// [`connections`](Self::connections) above 1 says that it has not.
    ///
    /// # Errors
    /// As [`exec`](Self::exec).
    pub async fn prepare(&self, command: &str) -> Result<Prepared, ConnectionError> {
        let lane = self.sessions.session().await?;
        Ok(Prepared::new(Process::idle(self.sessions.clone(), lane, command).await?))
    }

    /// Starts a command with a terminal of its own, for a person: what is written is typed, what is read is shown. Dropping it hangs
    /// up.
    ///
    /// # Errors
    /// As [`exec`](Self::exec). A refusal to run the command ends the stream.
    pub async fn terminal(&self, command: &str) -> Result<Tunnel, ConnectionError> {
        let lane = self.sessions.session().await?;
        lane.occupy();
        let (columns, rows) = TERMINAL_SIZE;
        let asked = lane.writer.request_pty(true, "xterm-256color", columns, rows, 0, 0, &[]).await;
        if asked.is_err() || lane.writer.exec(true, command).await.is_err() {
            return Err(lane.over().await);
        }
        Ok(Tunnel::new(self.sessions.clone(), lane))
    }

    /// Starts a command whose standard input and output are a byte stream. Shutting the stream down ends the input; standard error
    /// is dropped. It holds one of the sessions that the server allows.
    ///
    /// # Errors
    /// As [`exec`](Self::exec). A refusal to run the command ends the stream.
    pub async fn pipe(&self, command: &str) -> Result<Tunnel, ConnectionError> {
        let lane = self.sessions.session().await?;
        lane.occupy();
        if lane.writer.exec(true, command).await.is_err() {
            return Err(lane.over().await);
        }
        Ok(Tunnel::new(self.sessions.clone(), lane))
    }

    /// Opens a tunnel to a TCP port as the instance sees it (`direct-tcpip`).
    ///
    /// # Errors
    /// [`ConnectionError::TunnelRefused`] if the instance cannot or may not connect there; [`ConnectionError::Lost`].
    pub async fn connect_tcp(&self, host: &str, port: u16) -> Result<Tunnel, ConnectionError> {
        let target = format!("{host}:{port}");
        let (link, host) = (self.sessions.primary.clone(), host.to_owned());
        self.tunnel(&target, async move { link.open_tcp(host, port).await }).await
    }

    /// Opens a tunnel to a unix socket on the instance (`direct-streamlocal@openssh.com`).
    ///
    /// # Errors
    /// As [`connect_tcp`](Self::connect_tcp).
    pub async fn connect_unix(&self, path: &str) -> Result<Tunnel, ConnectionError> {
        let (link, socket) = (self.sessions.primary.clone(), path.to_owned());
        self.tunnel(path, async move { link.open_unix(socket).await }).await
    }

    /// True once the connection is lost or closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.sessions.primary.table.is_gone()
    }

    /// Waits until the connection is lost or closed.
    pub async fn closed(&self) -> ConnectionError {
        self.sessions.primary.table.gone().await
    }

    /// Closes the connection; everything pending on it fails with [`ConnectionError::Closed`].
    pub async fn close(&self) {
        self.sessions.close().await;
    }

    /// SSH connections that are open to the instance; more than one while one does not hold all sessions.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.sessions.connections()
    }

    /// Awaits `open` in a task of its own, because an open that is dropped half-way would leave the channel open on the server.
    async fn tunnel(
        &self,
        target: &str,
        open: impl Future<Output = Result<Lane, OpenError>> + Send + 'static,
    ) -> Result<Tunnel, ConnectionError> {
        let (sender, receiver) = oneshot::channel();
        tokio::spawn(async move {
            // A lane that nobody takes is closed by being dropped.
            let _ = sender.send(open.await);
        });
        let instance = &self.sessions.primary.table.instance;
        match receiver.await {
            Ok(Ok(lane)) => {
                lane.occupy();
                Ok(Tunnel::new(self.sessions.clone(), lane))
            }
            Ok(Err(OpenError::Over(error))) => Err(error),
            Ok(Err(OpenError::Refused(reason))) => Err(ConnectionError::TunnelRefused {
                instance: instance.clone(),
                target: target.into(),
                reason,
            }),
            Err(_) => Err(ConnectionError::Closed { instance: instance.clone() }),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("instance", &self.instance()).finish_non_exhaustive()
    }
}
