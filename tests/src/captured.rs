//! The manager's log, kept for the test that it belongs to.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::subscriber::DefaultGuard;
use tracing_subscriber::EnvFilter;

/// What was logged on the thread of one test. A test of `#[tokio::test]` has a thread, and with it a log, of its own.
#[derive(Clone, Default)]
pub struct Captured(Arc<Mutex<Vec<u8>>>);

/// Appends to it.
struct Writer(Captured);

// === impl Captured ===

impl Captured {
    /// Logs of this thread go here until the guard is dropped.
    pub(crate) fn start() -> (Self, DefaultGuard) {
        let captured = Self::default();
        let writer = captured.clone();
        let filter = EnvFilter::new("warn,drover=debug,drover_gitlab_mock=warn");
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(false)
            .with_writer(move || Writer(writer.clone()))
            .finish();
        (captured, tracing::subscriber::set_default(subscriber))
    }

    pub(crate) fn push(&self, bytes: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
    }

    /// All of it.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Whether a line holds all of these texts.
    #[must_use]
    pub fn has_line(&self, texts: &[&str]) -> bool {
        self.text().lines().any(|line| texts.iter().all(|text| line.contains(text)))
    }
}

// === impl Writer ===

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
