//! Questions to the person at the terminal.

use std::io::{self, BufRead as _, Write as _};

use anyhow::{Context as _, Result};
use config::SecretString;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

/// Asks, if there is somebody to ask.
pub(super) struct Prompt {
    somebody: bool,
}

/// Input is not shown while this lives.
struct Hidden {
    before: Termios,
}

// === impl Prompt ===

impl Prompt {
    pub(super) fn new(somebody: bool) -> Self {
        Self { somebody }
    }

    /// The answer, or `default` for an empty one. Nothing when nobody is there, or nothing was said.
    pub(super) fn text(&mut self, question: &str, default: &str) -> Result<Option<String>> {
        if !self.somebody {
            return Ok(Some(default.to_owned()).filter(|text| !text.is_empty()));
        }
        let shown = if default.is_empty() { String::new() } else { format!(" [{default}]") };
        let answer = ask(&format!("{question}{shown}: "))?;
        let answer = if answer.is_empty() { default.to_owned() } else { answer };
        Ok(Some(answer).filter(|text| !text.is_empty()))
    }

    /// The same, without showing what is typed.
    pub(super) fn secret(&mut self, question: &str) -> Result<Option<SecretString>> {
        if !self.somebody {
            return Ok(None);
        }
        let hidden = Hidden::begin();
        let answer = ask(&format!("{question}: "))?;
        drop(hidden);
        // The line end was not shown either.
        let _ = writeln!(io::stderr());
        Ok(Some(answer).filter(|text| !text.is_empty()).map(SecretString::from))
    }
}

fn ask(question: &str) -> Result<String> {
    let mut stderr = io::stderr().lock();
    let _ = write!(stderr, "{question}");
    let _ = stderr.flush();
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).context("failed to read the answer")?;
    Ok(line.trim().to_owned())
}

// === impl Hidden ===

impl Hidden {
    /// Nothing where the terminal cannot do it.
    fn begin() -> Option<Self> {
        let before = tcgetattr(io::stdin()).ok()?;
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(io::stdin(), SetArg::TCSANOW, &quiet).ok()?;
        Some(Self { before })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.before);
    }
}
