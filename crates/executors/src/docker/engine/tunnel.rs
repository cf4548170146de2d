//! The way to an engine on an instance: through the kept SSH connection to it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use connector::{Client, ConnectionError};

use super::endpoint::Address;
use super::transport::{Dial, Stream};
use crate::instance::run_command;
use crate::words::quoted;

/// Time for a session of the SSH connection to become free.
const SESSION_PATIENCE: Duration = Duration::from_secs(30);
/// Time for the engine's own client to say whether it reaches the engine.
const CLIENT_PATIENCE: Duration = Duration::from_secs(10);

/// How the engine's socket is reached on the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// The SSH server forwards to it (`FF_USE_DOCKER_AUTOSCALER_DIAL_STDIO` is off).
    Forward,
    /// `docker system dial-stdio` runs there for each connection (the flag is on).
    Stdio,
    /// The first that works: nothing is said.
    Either,
}

/// The engine's own client on the instance.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    host: Option<String>,
}

/// Dials from an instance.
pub(crate) struct Tunnelled {
    pub(crate) client: Client,
    pub(crate) address: Address,
    pub(crate) program: Program,
    pub(crate) way: Way,
    /// Forwarding was refused, and the engine's own client reaches it.
    by_program: AtomicBool,
}

// === impl Way ===

impl Way {
    /// What the entry's feature flag says.
    pub(crate) fn of(flag: Option<bool>) -> Self {
        match flag {
            Some(true) => Self::Stdio,
            Some(false) => Self::Forward,
            None => Self::Either,
        }
    }
}

// === impl Program ===

impl Program {
    /// For the engine that the entry names; none is the one that the instance's login uses.
    pub(crate) fn new(host: Option<&str>) -> Self {
        Self { host: host.map(str::to_owned) }
    }

    /// A command line of it.
    pub(crate) fn command(&self, words: &str) -> String {
        match &self.host {
            Some(host) => format!("docker -H {} {words}", word(host)),
            None => format!("docker {words}"),
        }
    }

    /// Whether it reaches the engine; else what it says.
    pub(crate) async fn reaches(&self, client: &Client) -> Result<(), String> {
        let command = self.command("version --format {{.Server.Version}}");
        match tokio::time::timeout(CLIENT_PATIENCE, run_command(client, &command)).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {CLIENT_PATIENCE:?}")),
        }
    }
}

// === impl Tunnelled ===

impl Tunnelled {
    pub(crate) fn new(client: Client, address: Address, program: Program, way: Way) -> Self {
        Self { client, address, program, way, by_program: AtomicBool::new(false) }
    }

    async fn forward(&self) -> Result<Box<dyn Stream>, ConnectionError> {
        let tunnel = match &self.address {
            Address::Unix(path) => self.client.connect_unix(path).await?,
            Address::Tcp { host, port } => self.client.connect_tcp(host, *port).await?,
        };
        Ok(Box::new(tunnel))
    }

    /// Each takes one of the sessions that the SSH server allows, so it may have to wait for one.
    async fn pipe(&self) -> io::Result<Box<dyn Stream>> {
        let command = self.program.command("system dial-stdio");
        match tokio::time::timeout(SESSION_PATIENCE, self.client.pipe(&command)).await {
            Ok(Ok(tunnel)) => Ok(Box::new(tunnel)),
            Ok(Err(error)) => Err(io::Error::other(error)),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!(
                    "no session of the SSH connections to instance {} became free within {} seconds for `docker system dial-stdio`, \
                     of which every connection to the engine takes one: raise MaxSessions in the sshd of the instances, let it forward \
                     (AllowStreamLocalForwarding yes), or lower capacity_per_instance",
                    self.client.instance(),
                    SESSION_PATIENCE.as_secs()
                ),
            )),
        }
    }

    /// An SSH server says the same of a socket that it may not forward to and of one that nobody listens at. If the engine's own
    /// client reaches the engine, it was the former.
    async fn instead(&self, refusal: ConnectionError) -> io::Result<Box<dyn Stream>> {
        match self.program.reaches(&self.client).await {
            Ok(()) => {
                tracing::info!(
                    instance = self.client.instance(),
                    "the SSH server does not forward to the engine's socket: `docker system dial-stdio` is used"
                );
                self.by_program.store(true, Ordering::Release);
                self.pipe().await
            }
            Err(why) => {
                tracing::debug!(instance = self.client.instance(), %why, "the engine's client does not reach it either");
                Err(io::Error::other(refusal))
            }
        }
    }
}

#[async_trait]
impl Dial for Tunnelled {
    async fn dial(&self) -> io::Result<Box<dyn Stream>> {
        match self.way {
            Way::Stdio => self.pipe().await,
            Way::Either if self.by_program.load(Ordering::Acquire) => self.pipe().await,
            Way::Forward => self.forward().await.map_err(io::Error::other),
            Way::Either => match self.forward().await {
                Ok(stream) => Ok(stream),
                Err(refusal @ ConnectionError::TunnelRefused { .. }) => self.instead(refusal).await,
                Err(error) => Err(io::Error::other(error)),
            },
        }
    }
}

/// One word for the shell of the login, whichever that is: quotes only where they are needed.
fn word(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-:[]@".contains(&byte);
    if text.bytes().all(plain) { text.to_owned() } else { quoted(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_is_named_where_the_entry_names_one() {
        let line = |host| Program::new(host).command("system dial-stdio");
        assert_eq!(line(None), "docker system dial-stdio");
        assert_eq!(line(Some("unix:///run/e.sock")), "docker -H unix:///run/e.sock system dial-stdio");
        assert_eq!(line(Some("unix:///a b;c")), "docker -H 'unix:///a b;c' system dial-stdio");
    }
}
