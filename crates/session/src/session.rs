//! One job's session.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long somebody who connects waits for the job to have a place, as in GitLab Runner.
pub(crate) const WAIT_FOR_TERMINAL: Duration = Duration::from_secs(60);

/// A shell with a terminal of its own. Dropping it hangs up.
pub trait Terminal: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Terminal for T {}

/// Opens terminals where a job runs.
#[async_trait]
pub trait Terminals: Send + Sync + 'static {
    /// Opens one.
    ///
    /// # Errors
    /// [`TerminalError`], which the user sees.
    async fn open(&self) -> Result<Box<dyn Terminal>, TerminalError>;
}

/// Why there is no terminal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no terminal: {0}")]
pub struct TerminalError(pub String);

/// The sessions that GitLab may connect to.
#[derive(Default)]
pub(crate) struct Registry(Mutex<BTreeMap<String, Arc<State>>>);

/// One job's session. Its address stops to work when it is dropped, and a terminal that is open is closed.
pub struct Session {
    id: String,
    url: String,
    state: Arc<State>,
    registry: Weak<Registry>,
    timeout: Duration,
}

pub(crate) struct State {
    authorization: SecretString,
    terminals: watch::Sender<Option<Arc<dyn Terminals>>>,
    connected: watch::Sender<bool>,
    over: CancellationToken,
}

/// The right to be the one who is connected.
pub(crate) struct Seat(Arc<State>);

// === impl Registry ===

impl Registry {
    pub(crate) fn open(self: &Arc<Self>, base: &str, timeout: Duration) -> Session {
        let id = random();
        let state = Arc::new(State {
            authorization: random().into(),
            terminals: watch::Sender::new(None),
            connected: watch::Sender::new(false),
            over: CancellationToken::new(),
        });
        self.sessions().insert(id.clone(), Arc::clone(&state));
        Session { url: format!("{base}/session/{id}"), id, state, registry: Arc::downgrade(self), timeout }
    }

    pub(crate) fn find(&self, id: &str) -> Option<Arc<State>> {
        self.sessions().get(id).cloned()
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<State>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Session ===

impl Session {
    /// Where GitLab connects to.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What GitLab sends in the header `Authorization`.
    #[must_use]
    pub fn authorization(&self) -> &SecretString {
        &self.state.authorization
    }

    /// The job has a place: terminals can be opened from now on.
    pub fn offer(&self, terminals: Arc<dyn Terminals>) {
        self.state.terminals.send_replace(Some(terminals));
    }

    /// The job's work is done: waits for somebody who is connected, for at most the server's timeout. `say` gets lines for the
    /// job log, in GitLab Runner's words. Nobody can connect afterwards.
    pub async fn finished(&self, say: impl Fn(&str)) {
        let mut connected = self.state.connected.subscribe();
        if *connected.borrow() {
            let allowed = seconds(self.timeout);
            say(&format!("Terminal is connected, will time out in {allowed}..."));
            let gone = connected.wait_for(|connected| !connected);
            match tokio::time::timeout(self.timeout, gone).await {
                Ok(_) => say("Terminal disconnected"),
                Err(_) => say(&format!("Terminal session timed out (maximum time allowed - {allowed})")),
            }
        }
        self.state.over.cancel();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.state.over.cancel();
        if let Some(registry) = self.registry.upgrade() {
            registry.sessions().remove(&self.id);
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

// === impl State ===

impl State {
    /// Whether the caller knows the secret. Takes as long for every guess of the same length.
    pub(crate) fn admits(&self, presented: Option<&[u8]>) -> bool {
        let expected = self.authorization.expose_secret().as_bytes();
        let Some(presented) = presented.filter(|presented| presented.len() == expected.len()) else {
            return false;
        };
        expected.iter().zip(presented).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
    }

    /// Takes the one seat.
    pub(crate) fn sit(self: &Arc<Self>) -> Option<Seat> {
        let free = self.connected.send_if_modified(|connected| !std::mem::replace(connected, true));
        (free && !self.over.is_cancelled()).then(|| Seat(Arc::clone(self)))
    }

    /// Waits for the job's place.
    pub(crate) async fn terminals(&self) -> Option<Arc<dyn Terminals>> {
        let mut offered = self.terminals.subscribe();
        let offered = offered.wait_for(Option::is_some);
        tokio::select! {
            () = self.over.cancelled() => None,
            found = tokio::time::timeout(WAIT_FOR_TERMINAL, offered) => found.ok()?.ok()?.clone(),
        }
    }

    /// Completes when the session ends.
    pub(crate) async fn over(&self) {
        self.over.cancelled().await;
    }
}

// === impl Seat ===

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.connected.send_replace(false);
    }
}

/// 64 hexadecimal digits that nobody can guess.
fn random() -> String {
    hex::encode(rand::random::<[u8; 32]>())
}

/// `30m0s`, as Go writes it.
fn seconds(duration: Duration) -> String {
    let all = duration.as_secs();
    let (hours, minutes, seconds) = (all / 3600, all / 60 % 60, all % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_secret_is_admitted() {
        let registry = Arc::new(Registry::default());
        let session = registry.open("https://runner.test", Duration::from_secs(1));
        let secret = session.authorization().expose_secret().to_owned();
        let state = registry.find(&session.id).unwrap();
        assert!(state.admits(Some(secret.as_bytes())));
        assert!(!state.admits(None));
        assert!(!state.admits(Some(b"")));
        assert!(!state.admits(Some(&secret.as_bytes()[1..])));
        assert!(!state.admits(Some("0".repeat(64).as_bytes())));
    }

    #[test]
    fn a_session_that_is_dropped_is_not_found_any_more() {
        let registry = Arc::new(Registry::default());
        let session = registry.open("https://runner.test", Duration::from_secs(1));
        let id = session.id.clone();
        assert!(session.url().ends_with(&id));
        drop(session);
        assert!(registry.find(&id).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_job_waits_for_who_is_connected_but_not_for_ever() {
        let registry = Arc::new(Registry::default());
        let session = registry.open("https://runner.test", Duration::from_secs(90));
        let seat = registry.find(&session.id).unwrap().sit().unwrap();
        let said = Mutex::new(Vec::new());
        session.finished(|line| said.lock().unwrap().push(line.to_owned())).await;
        assert_eq!(
            *said.lock().unwrap(),
            [
                "Terminal is connected, will time out in 1m30s...",
                "Terminal session timed out (maximum time allowed - 1m30s)"
            ]
        );
        drop(seat);
        assert!(registry.find(&session.id).unwrap().sit().is_none(), "nobody connects after the end");
    }

    #[tokio::test]
    async fn only_one_can_be_connected() {
        let registry = Arc::new(Registry::default());
        let session = registry.open("https://runner.test", Duration::from_secs(90));
        let state = registry.find(&session.id).unwrap();
        let seat = state.sit().unwrap();
        assert!(state.sit().is_none());
        drop(seat);
        assert!(state.sit().is_some());
    }
}
