//! How the process ends, and what it says when it failed.

use std::fmt;
use std::process::ExitCode;

/// The exit codes. They are part of the command line's promises: `docs/cli.md` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All is done.
    Success,
    /// What was asked for could not be done.
    Failed,
    /// The command line or the configuration is wrong; nothing was done. The argument parser ends with the same code.
    Usage,
    /// A forced shutdown ended before the jobs did.
    Unfinished,
}

/// Why a command failed, in the words for its user.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    error: anyhow::Error,
    hint: Option<String>,
}

// === impl Exit ===

impl Exit {
    /// Each code with its meaning, for `--help` and the reference page.
    pub(crate) const ALL: [(Self, &'static str); 4] = [
        (Self::Success, "done"),
        (Self::Failed, "what was asked for could not be done, or not all of it"),
        (Self::Usage, "the command line or the configuration is wrong"),
        (Self::Unfinished, "a forced shutdown ended before the jobs did"),
    ];

    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unfinished => 3,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

// === impl Failure ===

impl Failure {
    /// The command line or the configuration is wrong.
    pub(crate) fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self { exit: Exit::Usage, error: error.into(), hint: None }
    }

    /// The same, in words of its own.
    pub(crate) fn misuse(message: impl fmt::Display) -> Self {
        Self::usage(anyhow::anyhow!("{message}"))
    }

    /// What was asked for could not be done.
    pub(crate) fn message(message: impl fmt::Display) -> Self {
        anyhow::anyhow!("{message}").into()
    }

    /// Adds what the user can do.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { exit: Exit::Failed, error: error.into(), hint: None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.error.to_string();
        write!(f, "error: {}", said.trim_end())?;
        for cause in self.error.chain().skip(1) {
            // Libraries often repeat the cause in their own text.
            let cause = cause.to_string();
            if !said.ends_with(&cause) {
                write!(f, "\n  caused by: {}", cause.trim_end())?;
                said = cause;
            }
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn causes_and_hint_have_lines_of_their_own() {
        let cause = Err::<(), _>(std::io::Error::other("disk is full"));
        let error = cause.context("failed to save").unwrap_err();
        let failure = Failure::from(error).hint("make room");
        assert_eq!(failure.to_string(), "error: failed to save\n  caused by: disk is full\nhint: make room");
    }

    #[test]
    fn a_cause_that_was_said_is_not_repeated() {
        let cause = Err::<(), _>(std::io::Error::other("disk is full"));
        let error = cause.context("failed to save: disk is full").unwrap_err();
        assert_eq!(Failure::from(error).to_string(), "error: failed to save: disk is full");
    }

    #[test]
    fn every_code_is_listed_once_in_order() {
        let codes: Vec<u8> = Exit::ALL.iter().map(|(exit, _)| exit.code()).collect();
        assert_eq!(codes, [0, 1, 2, 3]);
    }
}
