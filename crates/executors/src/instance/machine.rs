//! One instance that is connected: its connection, shells that wait for their scripts, and its helper.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use connector::{Client, ConnectionError, Prepared, Process};
use job::{Helper, Interpreter, Shell};
use tokio::sync::OnceCell;

use super::helper::{HelperError, Helpers};

/// A connected instance. Shared by the jobs that run there.
pub(crate) struct Machine {
    client: Client,
    seats: Vec<Seat>,
    helper: OnceCell<Option<Helper>>,
}

/// A place for one shell that waits for a script.
///
/// A stage that finds its shell waiting needs one round trip to the instance and no start of a process; without, two, because
/// OpenSSH takes no input of a command that has not started.
struct Seat {
    command: &'static str,
    waiting: Mutex<Waiting>,
}

enum Waiting {
    Nobody,
    /// One is being started.
    Coming,
    Ready(Prepared),
}

/// A script that was sent to a shell.
pub(crate) struct Sent {
    pub(crate) process: Process,
    /// The shell had been waiting: it may have ended before the script reached it.
    pub(crate) waited: bool,
}

// === impl Machine ===

impl Machine {
    /// A connected instance on which jobs for `shell` will run.
    pub(crate) fn new(client: Client, shell: Shell) -> Arc<Self> {
        let mut commands = vec![Interpreter::Sh.command(), Interpreter::of(shell).command()];
        commands.dedup();
        let seats = commands
            .into_iter()
            .map(|command| Seat { command, waiting: Mutex::new(Waiting::Nobody) })
            .collect();
        Arc::new(Self { client, seats, helper: OnceCell::new() })
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Starts the shells that are to wait. Only on an instance that has sessions to spare: more than one connection means that
    /// its server allows too few.
    pub(crate) fn warm_up(self: &Arc<Self>) {
        for index in 0..self.seats.len() {
            self.fill(index);
        }
    }

    /// Runs a shell with a script on its standard input.
    pub(crate) async fn start(
        self: &Arc<Self>,
        command: &str,
        script: Bytes,
    ) -> Result<Sent, ConnectionError> {
        let seat = self.seats.iter().position(|seat| seat.command == command);
        let waiting = seat.and_then(|index| self.seats[index].take());
        if self.client.connections() > 1 {
            for seat in &self.seats {
                seat.take();
            }
        } else if let Some(index) = seat {
            self.fill(index);
        }
        match waiting {
            Some(shell) => Ok(Sent { process: shell.start(script).await?, waited: true }),
            None => Ok(Sent { process: self.client.exec(command, script).await?, waited: false }),
        }
    }

    /// The helper of this instance, looked for or installed once, whoever asks first. `say` hears what the job's log is told.
    pub(crate) async fn helper(
        self: &Arc<Self>,
        helpers: &Helpers,
        say: &(dyn Fn(String) + Sync),
    ) -> Result<Option<Helper>, HelperError> {
        self.helper.get_or_try_init(|| helpers.provide(self, say)).await.cloned()
    }

    /// Has a shell come to an empty seat.
    fn fill(self: &Arc<Self>, index: usize) {
        let seat = &self.seats[index];
        if self.client.connections() > 1 {
            return;
        }
        let mut waiting = seat.lock();
        match &*waiting {
            Waiting::Coming => return,
            Waiting::Ready(shell) if shell.is_open() => return,
            Waiting::Ready(_) | Waiting::Nobody => *waiting = Waiting::Coming,
        }
        drop(waiting);
        let (machine, client, command) = (Arc::downgrade(self), self.client.clone(), seat.command);
        tokio::spawn(async move {
            let prepared = client.prepare(command).await;
            let Some(machine) = machine.upgrade() else { return };
            *machine.seats[index].lock() = match prepared {
                Ok(shell) => Waiting::Ready(shell),
                Err(error) => {
                    tracing::debug!(%error, command, "no shell waits for the next script");
                    Waiting::Nobody
                }
            };
        });
    }
}

// === impl Seat ===

impl Seat {
    /// Takes the shell that waits. One that has ended meanwhile, as when a job kills all that its user runs, is none.
    fn take(&self) -> Option<Prepared> {
        let mut waiting = self.lock();
        match std::mem::replace(&mut *waiting, Waiting::Nobody) {
            Waiting::Ready(shell) => Some(shell).filter(Prepared::is_open),
            Waiting::Coming => {
                *waiting = Waiting::Coming;
                None
            }
            Waiting::Nobody => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
