//! What the job log is told.

use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// Width to which a message is filled up before its fields (GitLab Runner's).
const WIDTH: usize = 50;
const RESET: &str = "\x1b[0;m";

/// Writes lines in the format of GitLab Runner's helper. Cheap to clone; clones write to the same place.
#[derive(Clone)]
pub struct Console {
    out: Arc<Mutex<dyn Write + Send>>,
    colour: bool,
}

/// How bad a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Plain.
    Info,
    /// `WARNING: `, yellow.
    Warning,
    /// `ERROR: `, red.
    Error,
    /// `FATAL: `, red; the command ends with it.
    Fatal,
}

/// What a memory console has been told.
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<Vec<u8>>>);

// === impl Console ===

impl Console {
    /// Writes to standard error, in colour unless `NO_COLOR` is set: the job log shows colours, although it is no terminal.
    #[must_use]
    pub fn stderr() -> Self {
        let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { out: Arc::new(Mutex::new(io::stderr())), colour }
    }

    /// Keeps what is written, without colours.
    #[must_use]
    pub fn memory() -> (Self, Memory) {
        let memory = Memory::default();
        (Self { out: Arc::new(Mutex::new(memory.clone())), colour: false }, memory)
    }

    /// A plain line.
    pub fn info(&self, text: &str) {
        self.line(Severity::Info, text, &[]);
    }

    /// A warning.
    pub fn warning(&self, text: &str) {
        self.line(Severity::Warning, text, &[]);
    }

    /// An error after which the command goes on.
    pub fn error(&self, text: &str) {
        self.line(Severity::Error, text, &[]);
    }

    /// The reason why the command ends.
    pub fn fatal(&self, text: &str) {
        self.line(Severity::Fatal, text, &[]);
    }

    /// A line with fields behind it, which should be in the order of their names.
    pub fn line(&self, severity: Severity, text: &str, fields: &[(&str, &str)]) {
        let (colour, prefix) = match severity {
            Severity::Info => ("", ""),
            Severity::Warning => ("\x1b[0;33m", "WARNING: "),
            Severity::Error => ("\x1b[31;1m", "ERROR: "),
            Severity::Fatal => ("\x1b[31;1m", "FATAL: "),
        };
        let colour = if self.colour { colour } else { "" };
        let reset = if self.colour { RESET } else { "" };
        let mut line = format!("{colour}{prefix}{text}");
        if !fields.is_empty() {
            let width = WIDTH.saturating_sub(prefix.len());
            let missing = width.saturating_sub(text.chars().count());
            line.extend(std::iter::repeat_n(' ', missing));
        }
        line.push_str(if colour.is_empty() { "" } else { reset });
        if !fields.is_empty() {
            line.push(' ');
        }
        for (name, value) in fields {
            // Writing to a string does not fail.
            let _ = write!(line, " {colour}{name}{}={value}", if colour.is_empty() { "" } else { reset });
        }
        line.push('\n');
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        // Where the log cannot be written there is nobody to tell.
        let _ = out.write_all(line.as_bytes());
    }
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console").field("colour", &self.colour).finish_non_exhaustive()
    }
}

// === impl Memory ===

impl Memory {
    /// All lines so far.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Memory").field(&self.text()).finish()
    }
}

/// An error with its causes on one line, each once.
pub(crate) fn report(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Libraries often repeat the cause in their own text.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_look_as_the_job_log_knows_them() {
        let memory = Memory::default();
        let console = Console { out: Arc::new(Mutex::new(memory.clone())), colour: true };
        console.warning("out/: no matching files");
        console.line(Severity::Info, "Uploading... ok", &[("id", "1"), ("token", "64_x")]);
        console.line(Severity::Error, "no", &[("id", "1")]);
        let expected = format!(
            "\x1b[0;33mWARNING: out/: no matching files\x1b[0;m\n{:50}  id=1 token=64_x\n\x1b[31;1mERROR: {:43}\x1b[0;m  \x1b[31;1mid\x1b[0;m=1\n",
            "Uploading... ok", "no"
        );
        assert_eq!(memory.text(), expected);
    }
}
