//! The configuration file while the manager runs.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use config::{Diagnostic, Invalid, LoadError, Loaded, LogLevel};
use manager::BuiltIn;
use metrics::Metrics;

use crate::failure::Failure;
use crate::identity;
use crate::logging::Logging;

/// What the command line says in the file's place.
pub(super) struct Overrides {
    pub(super) level: Option<LogLevel>,
    pub(super) listen_address: Option<String>,
}

/// The file, and its state when it was read last.
pub(super) struct Watched {
    path: PathBuf,
    overrides: Overrides,
    seen: Option<Stamp>,
}

/// The configuration at the start.
pub(super) struct First {
    pub(super) loaded: Loaded,
    /// There is no file, and the configuration is an empty one.
    pub(super) missing: bool,
}

/// What tells two versions of a file apart without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: SystemTime,
    length: u64,
    inode: u64,
}

// === impl Watched ===

impl Watched {
    /// Reads the file for the first time. A missing file is as good as an empty one: GitLab Runner waits for the first
    /// registration too.
    pub(super) fn open(path: PathBuf, overrides: Overrides) -> Result<(Self, First), Failure> {
        let mut file = Self { path, overrides, seen: None };
        file.seen = Stamp::of(&file.path);
        let first = match file.load() {
            Ok(loaded) => First { loaded, missing: false },
            Err(LoadError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                First { loaded: file.empty().map_err(Failure::usage)?, missing: true }
            }
            Err(error) => {
                return Err(Failure::usage(error));
            }
        };
        Ok((file, first))
    }

    /// The new configuration, if there is one: the file changed since it was read last, or `asked` says to read it in any
    /// case. A bad file is reported once for each of its versions, and what is in force stays.
    pub(super) fn poll(&mut self, asked: bool, logging: &Logging, metrics: &Metrics) -> Option<Loaded> {
        // One look at the file every few seconds costs less than a thread for it.
        let stamp = Stamp::of(&self.path);
        if !asked && stamp == self.seen {
            return None;
        }
        // Taken before the file is read, so that a change in between is seen the next time.
        self.seen = stamp;
        match self.load() {
            Ok(loaded) => {
                report(&self.path, &loaded.diagnostics);
                if self.overrides.level.is_none() {
                    logging.set_level(loaded.config.log_level());
                }
                Some(loaded)
            }
            Err(error) => {
                metrics.configuration_refused();
                match &error {
                    LoadError::Invalid(invalid) => {
                        invalid.diagnostics.iter().for_each(|found| log(&self.path, found));
                    }
                    LoadError::Read { path, source } => {
                        tracing::error!(file = %path.display(), error = %source, "failed to read the configuration");
                    }
                }
                tracing::error!(file = %self.path.display(), "The configuration in force stays until the file is good again");
                None
            }
        }
    }

    fn load(&self) -> Result<Loaded, LoadError> {
        let mut loaded = config::load(&self.path)?;
        let base = identity::directory(&self.path);
        loaded.check_files(&base);
        manager::verify(&mut loaded, &BuiltIn, Some(&base));
        Ok(self.adjusted(loaded))
    }

    fn empty(&self) -> Result<Loaded, Invalid> {
        let mut loaded = config::parse("", &self.path.display().to_string(), &|_| None)?;
        loaded.diagnostics.clear();
        Ok(self.adjusted(loaded))
    }

    fn adjusted(&self, mut loaded: Loaded) -> Loaded {
        if let Some(address) = &self.overrides.listen_address {
            loaded.config.listen_address = Some(address.clone());
        }
        loaded
    }
}

/// Logs what is to be said about a file that comes into force. The first error of a runner entry is why the manager refuses
/// it, and the manager says so.
pub(super) fn report(path: &Path, diagnostics: &[Diagnostic]) {
    let mut refused = BTreeSet::new();
    for found in diagnostics {
        if !(found.is_error() && found.runner.is_some_and(|runner| refused.insert(runner))) {
            log(path, found);
        }
    }
}

fn log(path: &Path, found: &Diagnostic) {
    let place = match found.line {
        Some(line) => format!("{}:{line}", path.display()),
        None => path.display().to_string(),
    };
    let key = Some(found.key.as_str()).filter(|key| !key.is_empty());
    let (hint, message) = (found.hint.as_deref(), &found.message);
    if found.is_error() {
        tracing::error!(file = place, key, hint, "Configuration: {message}");
    } else {
        tracing::warn!(file = place, key, hint, "Configuration: {message}");
    }
}

// === impl Stamp ===

impl Stamp {
    /// Nothing when the file cannot be looked at.
    fn of(path: &Path) -> Option<Self> {
        let found = std::fs::metadata(path).ok()?;
        Some(Self { modified: found.modified().ok()?, length: found.len(), inode: found.ino() })
    }
}
