//! The text of a POSIX shell script: quoting, coloured lines, and the frame around it all.

use std::borrow::Cow;
use std::fmt::Write as _;

use bytes::Bytes;

use crate::variables::START_DIR;

const GREEN: &str = r"\033[32;1m";
const YELLOW: &str = r"\033[0;33m";
const RED: &str = r"\033[31;1m";
const RESET: &str = r"\033[0;m";

/// The commands of one stage.
#[derive(Debug, Default)]
pub(super) struct Writer {
    /// Comes before the body, and is quoted already: what all stages have in common is quoted once for all of them.
    prelude: Option<Bytes>,
    /// Comes before the prelude.
    head: String,
    body: String,
}

// === impl Writer ===

impl Writer {
    /// Puts these in front of the body: lines, and what [`as_prelude`](Self::as_prelude) made.
    pub(super) fn set_prelude(&mut self, head: String, prelude: &Bytes) {
        self.head = head;
        self.prelude = Some(prelude.clone());
    }

    /// The body as text that can be a prelude.
    pub(super) fn as_prelude(&self) -> String {
        let mut text = String::with_capacity(self.body.len() + self.body.len() / 8);
        escape_into(&self.body, &mut text);
        text
    }

    /// One or more lines of shell.
    pub(super) fn line(&mut self, line: impl AsRef<str>) {
        self.body.push_str(line.as_ref());
        self.body.push('\n');
    }

    /// A command with its arguments, each quoted.
    pub(super) fn command<'a>(&mut self, words: impl IntoIterator<Item = &'a str>) {
        self.line(command(words));
    }

    /// Shows a line as it is.
    pub(super) fn print(&mut self, text: &str) {
        let _ = writeln!(self.body, "printf '%s\\n' {}", quote(text));
    }

    /// Shows a bold green line.
    pub(super) fn notice(&mut self, text: &str) {
        self.coloured(GREEN, text);
    }

    /// Shows a yellow line.
    pub(super) fn warning(&mut self, text: &str) {
        self.coloured(YELLOW, text);
    }

    /// Shows a bold red line.
    pub(super) fn error(&mut self, text: &str) {
        self.coloured(RED, text);
    }

    fn coloured(&mut self, colour: &str, text: &str) {
        let _ = writeln!(self.body, "printf '{colour}%s{RESET}\\n' {}", quote(text));
    }

    /// The whole script.
    ///
    /// The body is one quoted string, so that the shell has read all of it before it runs the first command, and a syntax
    /// error in it fails the stage as a whole. It is evaluated in the shell itself: no child process has the body as its
    /// command, so that a killed shell has nothing to print but the command at hand; and the trap keeps bash from
    /// printing even that. `exec` comes after the braces are read, and nothing is read from standard input after them.
    ///
    /// `options` are commands that come first in the body: a shell that traces its commands must not show the body as one.
    pub(super) fn into_script(self, interpreter: &str, options: &[&str]) -> Bytes {
        let prelude = self.prelude.unwrap_or_default();
        let mut text = String::with_capacity(prelude.len() + self.body.len() + self.body.len() / 8 + 200);
        text.push_str("#!/usr/bin/env ");
        text.push_str(interpreter);
        text.push_str("\n{ trap 'exit 1' TERM; set +C; set -e; exec </dev/null; eval '");
        for option in options {
            escape_into(option, &mut text);
            text.push('\n');
        }
        escape_into(&self.head, &mut text);
        let mut text = text.into_bytes();
        text.extend_from_slice(&prelude);
        let mut body = String::with_capacity(self.body.len() + self.body.len() / 8 + 16);
        escape_into(&self.body, &mut body);
        body.push_str("'; exit 0; }\n");
        text.extend_from_slice(body.as_bytes());
        Bytes::from(text)
    }
}

/// Words of a command, each quoted, joined by blanks.
pub(super) fn command<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let mut line = String::new();
    for word in words {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(&quote(word));
    }
    line
}

/// Removes a folder if it is there, also one with folders in it that their owner may not write to, as package managers make them.
pub(super) fn remove_folder(path: &str) -> String {
    let path = quote(path);
    format!(
        "if [ -e {path} ]; then rm -rf {path} 2>/dev/null || {{ chmod -R u+rwX {path}; rm -rf {path}; }}; fi"
    )
}

/// `text` as one word of a POSIX shell. Bare if nothing in it means anything to a shell, else in single quotes, in which
/// every character stands for itself in every shell. The mark of the shell's first folder becomes `"$DROVER_START"`.
pub(super) fn quote(text: &str) -> Cow<'_, str> {
    if is_bare(text) {
        return Cow::Borrowed(text);
    }
    if !text.contains(START_DIR) {
        return Cow::Owned(single_quoted(text));
    }
    let mut out = String::with_capacity(text.len() + 20);
    for (index, piece) in text.split(START_DIR).enumerate() {
        if index > 0 {
            out.push_str("\"$DROVER_START\"");
        }
        if is_bare(piece) {
            out.push_str(piece);
        } else if !piece.is_empty() {
            out.push_str(&single_quoted(piece));
        }
    }
    Cow::Owned(out)
}

fn is_bare(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| {
            byte.is_ascii_alphanumeric()
                || matches!(byte, b'_' | b',' | b'-' | b'.' | b'/' | b'@' | b':' | b'+' | b'%')
        })
}

fn single_quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('\'');
    escape_into(text, &mut out);
    out.push('\'');
    out
}

/// The inside of single quotes.
fn escape_into(text: &str, out: &mut String) {
    for (index, piece) in text.split('\'').enumerate() {
        if index > 0 {
            out.push_str(r"'\''");
        }
        out.push_str(piece);
    }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("", "''"; "empty")]
    #[test_case("a-Z_0.9/@:+,%", "a-Z_0.9/@:+,%"; "bare")]
    #[test_case("a b", "'a b'"; "blank")]
    #[test_case("~", "'~'"; "tilde")]
    #[test_case("it's $HOME", r"'it'\''s $HOME'"; "quote")]
    #[test_case("a\nb", "'a\nb'"; "newline")]
    #[test_case("\0/builds/a b", "\"$DROVER_START\"'/builds/a b'"; "first folder")]
    #[test_case("PATH:\0/bin", "PATH:\"$DROVER_START\"/bin"; "first folder inside")]
    fn words_are_quoted_so_that_every_shell_reads_them_back(text: &str, word: &str) {
        assert_eq!(quote(text), word);
    }
}
