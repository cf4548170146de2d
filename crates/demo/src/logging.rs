//! The log of the manager goes to a file, so that the screen stays clean.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;

/// Writes what this process logs to a file, unless the program has arranged for its log already.
pub(crate) fn to_file(path: &Path) -> io::Result<()> {
    let file = File::create(path)?;
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_env_filter(EnvFilter::new("info"))
        .with_writer(Mutex::new(file))
        .finish();
    // An error says that somebody listens already, and that is as good.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}
