//! How a manager is told to stop or to read its configuration again.

use std::sync::Arc;

use config::Loaded;
use tokio::sync::{mpsc, watch};

/// How far a shutdown has come. Only ever moves downwards in this list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Shutdown {
    /// Not asked for.
    #[default]
    None,
    /// No new jobs; running ones end in their own time (`SIGQUIT`).
    Graceful,
    /// Running jobs are stopped, for this signal (`SIGTERM`, `SIGINT`).
    Forceful(Arc<str>),
}

/// The remote control of a running manager.
#[derive(Debug, Clone)]
pub struct Control {
    shutdown: watch::Sender<Shutdown>,
    reloads: mpsc::UnboundedSender<Box<Loaded>>,
}

/// The manager's end of it.
#[derive(Debug)]
pub struct Controlled {
    pub(crate) shutdown: watch::Receiver<Shutdown>,
    pub(crate) reloads: mpsc::UnboundedReceiver<Box<Loaded>>,
}

/// A new remote control.
#[must_use]
pub fn control() -> (Control, Controlled) {
    let (shutdown, watched) = watch::channel(Shutdown::None);
    let (reloads, reloaded) = mpsc::unbounded_channel();
    (Control { shutdown, reloads }, Controlled { shutdown: watched, reloads: reloaded })
}

// === impl Control ===

impl Control {
    /// Takes no more jobs and ends after the last one.
    pub fn stop_gracefully(&self) {
        self.shutdown.send_if_modified(|state| {
            let first = *state == Shutdown::None;
            if first {
                *state = Shutdown::Graceful;
            }
            first
        });
    }

    /// Stops running jobs too.
    pub fn stop_forcefully(&self, signal: &str) {
        self.shutdown.send_if_modified(|state| match state {
            Shutdown::None | Shutdown::Graceful => {
                *state = Shutdown::Forceful(signal.into());
                true
            }
            Shutdown::Forceful(_) => false,
        });
    }

    /// Puts another configuration in force.
    pub fn reload(&self, loaded: Loaded) {
        // A manager that has ended needs no configuration.
        let _ = self.reloads.send(Box::new(loaded));
    }

    /// How far the shutdown has come.
    #[must_use]
    pub fn state(&self) -> Shutdown {
        self.shutdown.borrow().clone()
    }
}
