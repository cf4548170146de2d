//! A stand-in for the daemon that makes virtual machines on a host, with slots and faults.
//!
//! [`NestingMock`] speaks the real protocol (gRPC over a unix socket or a port), and is strict: it wants its settings first, knows which machine
//! has which slot, refuses what the daemon would refuse, and makes no more machines at a time than a host can have. What stands
//! behind a machine is up to a [`Hypervisor`], for example a real SSH server.
//!
//! ```
//! use std::sync::Arc;
//! use drover_nesting_mock::{NestingMock, Nothing, Options};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! let folder = tempfile::tempdir()?;
//! let socket = folder.path().join("nesting.sock");
//! let daemon = NestingMock::start(&socket, Arc::new(Nothing), Options::default())?;
//! // A client that is connected to the socket makes machines there.
//! assert!(daemon.machines().is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! The messages are written down here a second time, so that a client that reads or writes them wrongly does not meet its like.

mod hypervisor;
mod server;
mod state;
mod wire;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use hypervisor::{Hypervisor, Nothing};
use server::Listener;
use state::State;
pub use state::{Fault, MachineView};

/// How the daemon is.
#[derive(Debug, Clone)]
pub struct Options {
    /// Somebody has initialised it already; default false.
    pub initialized: bool,
    /// It is from before there were slots: it ignores them, and answers in the older form; default false.
    pub without_slots: bool,
    /// Machines that a host can have at a time; default 2, as Apple allows.
    pub most: usize,
}

/// A running daemon. It ends with this value, and its machines with it.
pub struct NestingMock {
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

/// What all connections share.
struct Shared {
    options: Options,
    hypervisor: Arc<dyn Hypervisor>,
    state: Mutex<State>,
    /// Calls that are held wait until this is true.
    released: watch::Sender<bool>,
}

// === impl Options ===

impl Default for Options {
    fn default() -> Self {
        Self { initialized: false, without_slots: false, most: 2 }
    }
}

// === impl NestingMock ===

impl NestingMock {
    /// Listens at a unix socket, whose file is made anew.
    ///
    /// # Errors
    /// The system's, if the socket cannot be made.
    pub fn start(socket: &Path, hypervisor: Arc<dyn Hypervisor>, options: Options) -> io::Result<Self> {
        match std::fs::remove_file(socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(socket)?;
        Ok(Self::serve(Listener::Unix(listener), hypervisor, options))
    }

    /// Listens at a port of this machine.
    ///
    /// # Errors
    /// The system's, if the listener cannot be used.
    pub fn start_tcp(
        listener: std::net::TcpListener,
        hypervisor: Arc<dyn Hypervisor>,
        options: Options,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        Ok(Self::serve(Listener::Tcp(listener), hypervisor, options))
    }

    fn serve(listener: Listener, hypervisor: Arc<dyn Hypervisor>, options: Options) -> Self {
        let state = State { initialized: options.initialized, ..State::default() };
        let shared = Arc::new(Shared {
            options,
            hypervisor,
            state: Mutex::new(state),
            released: watch::Sender::new(false),
        });
        let serving = tokio::spawn(server::serve(listener, Arc::clone(&shared)));
        Self { shared, serving }
    }

    /// The machines that there are.
    #[must_use]
    pub fn machines(&self) -> Vec<MachineView> {
        self.shared.lock().machines.values().cloned().collect()
    }

    /// How often a method was called.
    #[must_use]
    pub fn calls_of(&self, method: &str) -> usize {
        self.shared.lock().calls.iter().filter(|call| *call == method).count()
    }

    /// The methods that were called, in their order.
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        self.shared.lock().calls.clone()
    }

    /// The settings that it was initialised with, in their order.
    #[must_use]
    pub fn settings(&self) -> Vec<String> {
        self.shared.lock().settings.clone()
    }

    /// Images of which machines were asked for, in their order.
    #[must_use]
    pub fn images(&self) -> Vec<String> {
        self.shared.lock().images.clone()
    }

    /// The next calls of a method end so.
    pub fn fault(&self, method: &str, fault: Fault, times: usize) {
        let faults = std::iter::repeat_n(fault, times);
        self.shared.lock().faults.entry(method.to_owned()).or_default().extend(faults);
    }

    /// Lets the calls go on that are held by [`Fault::Hold`], and those that will be.
    pub fn release(&self) {
        self.shared.released.send_replace(true);
    }

    /// Has a machine that nobody of this test asked for, in a slot.
    pub fn plant(&self, id: &str, slot: Option<i32>) {
        let machine =
            MachineView { id: id.to_owned(), image: "planted".to_owned(), addr: String::new(), slot };
        let mut state = self.shared.lock();
        state.machines.insert(id.to_owned(), machine);
        if let Some(slot) = slot {
            state.slots.insert(slot, id.to_owned());
        }
    }

    /// Has a machine that does not run, as after a restart of the host. The daemon lists none while there is one.
    pub fn plant_stopped(&self, id: &str) {
        self.shared.lock().without_address.insert(id.to_owned());
    }

    /// Removes a machine without the daemon, which goes on counting on it. Whether there was one of this id.
    #[must_use]
    pub fn vanish(&self, id: &str) -> bool {
        let known = self.shared.lock().machines.remove(id).is_some();
        if known {
            self.shared.hypervisor.end(id);
        }
        known
    }

    /// Ends what stands behind a machine, which the daemon does not notice. Whether there was one of this id.
    #[must_use]
    pub fn crash(&self, id: &str) -> bool {
        let known = self.shared.lock().machines.contains_key(id);
        if known {
            self.shared.hypervisor.end(id);
        }
        known
    }

    /// Forgets that it was initialised and which machine has which slot, as after a restart of the daemon.
    pub fn forget(&self) {
        let mut state = self.shared.lock();
        state.initialized = false;
        state.slots.clear();
    }
}

impl Drop for NestingMock {
    fn drop(&mut self) {
        self.serving.abort();
        let machines: BTreeMap<String, MachineView> = std::mem::take(&mut self.shared.lock().machines);
        for id in machines.into_keys() {
            self.shared.hypervisor.end(&id);
        }
    }
}

// === impl Shared ===

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
