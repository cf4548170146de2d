//! Connecting to an instance, again and again while it boots.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use connect_info::{ConnectInfo, Protocol, Renewal, Target};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use crate::auth::{Credentials, LoginError};
use crate::client::Client;
use crate::error::DialError;
use crate::host_key::HostKeys;
use crate::link::{self, Events, HostKeyCheck, KEEPALIVE_MISSES, Link};
use crate::sessions::Sessions;
use crate::table::{Holding, Table};
use crate::wire::{ByteStream, Wire};

/// How long one attempt waits for a TCP connection. An address that does not exist yet answers nothing at all; then asking
/// again finds the instance sooner than the system's own repetitions, whose gaps double.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one attempt waits for the SSH handshake and the login together.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// Credentials that expire sooner than this are renewed first: a login takes some of that time.
const EXPIRY_MARGIN: Duration = Duration::from_secs(10);

/// The gap after the first attempt: local instances boot in milliseconds.
const FIRST_GAP: Duration = Duration::from_millis(50);

/// From here on the gap grows slowly instead of doubling.
const SLOW_GAP: Duration = Duration::from_secs(1);

/// The largest gap between attempts.
const MAX_GAP: Duration = Duration::from_secs(5);

/// How an instance is dialled.
#[derive(Debug, Clone)]
pub struct DialOptions {
    /// Dial the external address where there is one.
    pub use_external_addr: bool,
    /// Session channels that are opened ahead, so that the next command need not wait for it; default 1.
    pub spare_sessions: usize,
    /// The memory of host keys; share one among all dials.
    pub host_keys: HostKeys,
    /// How often a refused login is tried again; default 20, which takes about a minute. An instance that boots accepts
    /// connections before cloud-init has written the key, but a wrong key should not use up the whole timeout.
    pub login_retries: u32,
    /// Bytes of output per command or tunnel that may wait on disk for a reader that lags while others use the connection;
    /// default 4 GiB. See the crate's documentation on back-pressure.
    pub unread_limit: u64,
    /// Folder for such output, in unnamed files; the system's folder for temporary files if absent.
    pub spill_folder: Option<PathBuf>,
    /// The instance from whose network the address is dialled, as for a virtual machine inside it; absent is this machine's own
    /// network. The new client keeps that connection open, and is lost with it.
    pub through: Option<Client>,
}

/// A failed attempt after which another one follows.
#[derive(Debug)]
pub struct Attempt<'a> {
    /// Counts from 1.
    pub number: u32,
    /// Time since the dial began.
    pub elapsed: Duration,
    /// Where it went.
    pub target: &'a Target,
    /// Why it failed.
    pub error: &'a DialError,
}

/// Connects to the instance in `info` and logs in.
///
/// While the instance may still be booting, attempts are repeated until [`ConnectorSettings::timeout`] is over: after 50 ms,
/// then with growing gaps up to 5 s. `on_retry` is called after each failed attempt that will be followed by another. Dropping
/// the future gives up at once.
///
/// # Errors
/// Mistakes in the settings (address, protocol, credentials, a host key that is not the expected one) at once; a refused login
/// after [`DialOptions::login_retries`]; [`DialError::TimedOut`] for everything else.
///
/// [`ConnectorSettings::timeout`]: connect_info::ConnectorSettings::timeout
pub async fn dial(
    info: &ConnectInfo,
    options: &DialOptions,
    on_retry: &mut (dyn FnMut(Attempt<'_>) + Send),
) -> Result<Client, DialError> {
    let dialer = Dialer::new(info, options)?;
    let total = info.settings.timeout();
    let started = Instant::now();
    let deadline = started + total;
    let (mut gap, mut number, mut refusals) = (FIRST_GAP, 0, 0);
    let mut last = None;
    loop {
        number += 1;
        let error = match timeout_at(deadline, dialer.connect()).await {
            Ok(Ok(link)) => return Ok(Client::new(Sessions::new(dialer, link))),
            Ok(Err(error)) => error,
            Err(_) => return Err(DialError::TimedOut { attempts: number, timeout: total, last }),
        };
        if !error.may_pass() {
            return Err(error);
        }
        if matches!(error, DialError::Authentication { .. }) {
            refusals += 1;
            if refusals > options.login_retries {
                return Err(error);
            }
        }
        if Instant::now() + gap >= deadline {
            return Err(DialError::TimedOut {
                attempts: number,
                timeout: total,
                last: Some(Box::new(error)),
            });
        }
        on_retry(Attempt { number, elapsed: started.elapsed(), target: &dialer.target, error: &error });
        last = Some(Box::new(error));
        tokio::time::sleep(gap).await;
        gap = next_gap(gap);
    }
}

/// Everything that is needed to open one more connection to the same instance.
pub(crate) struct Dialer {
    instance: Arc<str>,
    target: Target,
    credentials: Credentials,
    /// How the credentials are made to work again, and until when they work. Held while they are renewed, so that
    /// connections that are opened together renew them once.
    renewal: Option<(Renewal, tokio::sync::Mutex<Option<SystemTime>>)>,
    keepalive: Duration,
    host_key: Option<String>,
    options: DialOptions,
}

// === impl DialOptions ===

impl Default for DialOptions {
    fn default() -> Self {
        Self {
            use_external_addr: false,
            spare_sessions: 1,
            host_keys: HostKeys::default(),
            login_retries: 20,
            unread_limit: 4 << 30,
            spill_folder: None,
            through: None,
        }
    }
}

// === impl Dialer ===

impl Dialer {
    fn new(info: &ConnectInfo, options: &DialOptions) -> Result<Self, DialError> {
        let target = info.target(options.use_external_addr)?;
        match target.protocol {
            Protocol::Ssh => {}
            protocol @ (Protocol::Winrm | Protocol::WinrmHttps) => {
                return Err(DialError::UnsupportedProtocol { instance: info.instance.clone(), protocol });
            }
        }
        if target.fell_back_to_external {
            tracing::warn!(instance = %info.instance, "no internal address is known; dialling the external one");
        }
        let credentials = Credentials::read(info)?;
        let host_key = info.settings.host_key.clone();
        options.host_keys.expected(&info.instance, host_key.as_deref())?;
        Ok(Self {
            instance: info.instance.as_str().into(),
            target,
            credentials,
            renewal: info.renewal.clone().map(|renewal| (renewal, tokio::sync::Mutex::new(info.expires))),
            keepalive: info.settings.keepalive(),
            host_key,
            options: options.clone(),
        })
    }

    pub(crate) fn instance(&self) -> Arc<str> {
        self.instance.clone()
    }

    pub(crate) fn spare_sessions(&self) -> usize {
        self.options.spare_sessions
    }

    /// Connects and logs in, once. Dropping the future cuts the connection.
    pub(crate) async fn connect(&self) -> Result<Link, DialError> {
        let (host, port) = (self.target.host.as_str(), self.target.port);
        if let Some(client) = &self.options.through {
            let tunnel = self.reach(client.connect_tcp(host, port)).await?;
            let tunnel = tunnel.map_err(|source| DialError::Through { address: self.address(), source })?;
            return self.log_in(tunnel).await;
        }
        let stream = self.reach(TcpStream::connect((host, port))).await?;
        let stream = stream.map_err(|source| DialError::Connect { address: self.address(), source })?;
        // Only delays what is sent if it fails.
        let _ = stream.set_nodelay(true);
        self.log_in(stream).await
    }

    /// Waits for a stream to the address, for as long as one attempt may take.
    async fn reach<T>(&self, connecting: impl Future<Output = T>) -> Result<T, DialError> {
        timeout(CONNECT_TIMEOUT, connecting).await.map_err(|_| {
            let source = std::io::Error::new(std::io::ErrorKind::TimedOut, "i/o timeout");
            DialError::Connect { address: self.address(), source }
        })
    }

    async fn log_in(&self, stream: impl ByteStream) -> Result<Link, DialError> {
        self.renew().await?;
        match timeout(HANDSHAKE_TIMEOUT, self.handshake(stream)).await {
            Ok(done) => done,
            Err(_) => Err(DialError::HandshakeTimeout { address: self.address(), after: HANDSHAKE_TIMEOUT }),
        }
    }

    /// Has expired credentials accepted again. Only once the port answers: an instance that boots for long would use up
    /// renewals that last a minute each.
    async fn renew(&self) -> Result<(), DialError> {
        let Some((renewal, expires)) = &self.renewal else { return Ok(()) };
        let mut expires = expires.lock().await;
        if expires.is_none_or(|end| end > SystemTime::now() + EXPIRY_MARGIN) {
            return Ok(());
        }
        match renewal.renew().await {
            Ok(end) => {
                *expires = Some(end);
                Ok(())
            }
            Err(source) => Err(DialError::Renewal { instance: self.instance.to_string(), source }),
        }
    }

    async fn handshake(&self, stream: impl ByteStream) -> Result<Link, DialError> {
        let expected = self.options.host_keys.expected(&self.instance, self.host_key.as_deref())?;
        let config = link::config(self.keepalive, expected.algorithms());
        let host_key = Arc::new(HostKeyCheck { expected, presented: Mutex::default() });
        let holding = Holding {
            spill_folder: self.options.spill_folder.clone(),
            unread_limit: self.options.unread_limit,
        };
        let table = Arc::new(Table::new(self.instance.clone(), holding));
        let (cut, guard) = link::cutter();
        let wire = Wire::new(stream, cut, self.keepalive * (KEEPALIVE_MISSES + 1));
        let events = Events::new(table.clone(), host_key.clone());
        let presented = || *host_key.presented.lock().unwrap_or_else(PoisonError::into_inner);
        let broken =
            |source: russh::Error| DialError::Handshake { address: self.address(), source: source.into() };

        let mut handle = match russh::client::connect_stream(config, wire, events).await {
            Ok(handle) => handle,
            Err(error) => {
                if let Some(key) = presented() {
                    host_key.expected.check(&self.instance, key)?;
                }
                return Err(broken(error));
            }
        };
        match self.credentials.login(&mut handle).await {
            Ok(()) => {}
            Err(LoginError::Broken(error)) => return Err(broken(error)),
            Err(LoginError::Refused(tried)) => {
                return Err(DialError::Authentication { user: self.credentials.user.clone(), tried });
            }
        }
        if let Some(key) = presented() {
            self.options.host_keys.remember(&self.instance, key);
        }
        Ok(Link::new(handle, table, guard))
    }

    fn address(&self) -> String {
        let Target { host, port, .. } = &self.target;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

/// The gap after `gap`: doubled up to a second, then half as much again up to five.
fn next_gap(gap: Duration) -> Duration {
    if gap < SLOW_GAP { (gap * 2).min(SLOW_GAP) } else { (gap * 3 / 2).min(MAX_GAP) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_start_short_and_end_at_five_seconds() {
        let gaps: Vec<u128> = std::iter::successors(Some(FIRST_GAP), |gap| Some(next_gap(*gap)))
            .take(12)
            .map(|gap| gap.as_millis())
            .collect();
        assert_eq!(gaps, [50, 100, 200, 400, 800, 1000, 1500, 2250, 3375, 5000, 5000, 5000]);
    }
}
