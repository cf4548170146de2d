//! Shells that job scripts are written for.

pub(crate) mod announce;
pub(crate) mod export;
pub(crate) mod posix;
pub(crate) mod pwsh;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

use crate::stage::Stage;

/// A shell that jobs are written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shell {
    /// bash; the runner's own stages need no more than `sh`.
    #[default]
    Bash,
    /// Any POSIX shell: dash, busybox, ksh.
    Sh,
    /// PowerShell 7 on Linux, for the job's own commands; the runner's own stages are for `sh` all the same.
    Pwsh,
}

/// A `shell` setting that cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShellError {
    /// Known, but scripts are not generated for it.
    #[error("shell `{0}` is not supported yet: use `bash`, `sh` or `pwsh`")]
    Unsupported(String),
    /// No shell at all.
    #[error("shell `{0}` is not known: use `bash`, `sh` or `pwsh`")]
    Unknown(String),
}

/// Program that a script is fed to on standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interpreter {
    /// bash.
    Bash,
    /// `sh`, whatever it is.
    Sh,
    /// PowerShell 7.
    Pwsh,
}

/// The script of one stage.
///
/// It is to be sent to the standard input of [`Interpreter::command`]. The interpreter has read all of it before the first
/// command runs, and the commands themselves have an empty standard input. It holds secrets: `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Script {
    /// Stage that it runs.
    pub stage: Stage,
    /// What must interpret it.
    pub interpreter: Interpreter,
    /// Its text, in UTF-8.
    pub bytes: Bytes,
}

// === impl Shell ===

impl Shell {
    /// Name as in `config.toml`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Sh => "sh",
            Self::Pwsh => "pwsh",
        }
    }
}

impl FromStr for Shell {
    type Err = ShellError;

    fn from_str(name: &str) -> Result<Self, ShellError> {
        match name {
            "" | "bash" => Ok(Self::Bash),
            "sh" => Ok(Self::Sh),
            "pwsh" => Ok(Self::Pwsh),
            "powershell" | "cmd" => Err(ShellError::Unsupported(name.to_owned())),
            _ => Err(ShellError::Unknown(name.to_owned())),
        }
    }
}

// === impl Interpreter ===

impl Interpreter {
    /// The one that can run every script of a job that is written for `shell`.
    #[must_use]
    pub fn of(shell: Shell) -> Self {
        match shell {
            Shell::Bash => Self::Bash,
            Shell::Sh => Self::Sh,
            Shell::Pwsh => Self::Pwsh,
        }
    }

    /// Command line that takes a script on standard input.
    ///
    /// bash reads a script from a pipe byte by byte, with one system call each, but a sourced pipe in blocks; a standard
    /// input that cannot be opened again, such as a socket, takes the slow way.
    ///
    /// PowerShell would run a script on its standard input line by line, and lose exit codes other than 1: here a command
    /// reads the whole of it and runs it as one block. The text names nothing that makes PowerShell itself read the input.
    #[must_use]
    pub fn command(self) -> &'static str {
        match self {
            Self::Bash => "bash -c 'if [ -p /dev/stdin ]; then . /dev/stdin; else exec bash; fi'",
            Self::Sh => "sh",
            Self::Pwsh => {
                "pwsh -NoLogo -NoProfile -NonInteractive -OutputFormat Text -Command '$OutputEncoding = \
                 [Console]::OutputEncoding = [Text.UTF8Encoding]::new($false); & ([ScriptBlock]::Create(\
                 [IO.StreamReader]::new([Console]::OpenStandardInput()).ReadToEnd()))'"
            }
        }
    }

    /// Command line that looks for a shell where it is not known which one is there, as in a job's image: bash first, then
    /// `sh`, in the places and the order of GitLab Runner.
    #[must_use]
    pub fn detect() -> &'static [&'static str] {
        &[
            "sh",
            "-c",
            "for s in /usr/local/bin/bash /usr/bin/bash /bin/bash /usr/local/bin/sh /usr/bin/sh /bin/sh /busybox/sh; do \
             if [ -x \"$s\" ]; then exec \"$s\"; fi; done; echo shell not found; exit 1",
        ]
    }
}

// === impl Script ===

impl Script {
    /// The text, for people.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.bytes)
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script")
            .field("stage", &self.stage)
            .field("interpreter", &self.interpreter)
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}
