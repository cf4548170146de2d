//! The text of a PowerShell script: quoting, coloured lines, and the frame around it all.

use std::fmt::Write as _;

use bytes::Bytes;

use crate::variables::START_DIR;

const GREEN: &str = "`e[32;1m";
const RESET: &str = "`e[0;m";

/// Ends the script with the status of the command before, if that failed.
const CHECK: &str = "if (-not $?) { exit $(if ($LASTEXITCODE) { $LASTEXITCODE } else { 1 }) }";

/// The commands of one stage.
#[derive(Debug, Default)]
pub(super) struct Writer {
    body: String,
}

// === impl Writer ===

impl Writer {
    /// One or more lines that cannot fail, or end the script themselves when they do.
    pub(super) fn line(&mut self, line: impl AsRef<str>) {
        self.body.push_str(line.as_ref());
        self.body.push('\n');
    }

    /// A command, whose failure ends the script.
    pub(super) fn checked(&mut self, command: impl AsRef<str>) {
        self.line(command);
        self.line(CHECK);
    }

    /// Shows an empty line.
    pub(super) fn blank(&mut self) {
        self.line("[Console]::WriteLine()");
    }

    /// Shows a bold green line. Not by `Write-Host`, which may take the colours out where its output is no terminal.
    pub(super) fn notice(&mut self, text: &str) {
        let _ = writeln!(self.body, "[Console]::WriteLine(\"{GREEN}\" + {} + \"{RESET}\")", quote(text));
    }

    /// The whole script.
    ///
    /// A terminating error ends it with 1. What a program ends with is looked at after each command, so that the status is
    /// not lost in an error.
    pub(super) fn into_script(self, trace: bool) -> Bytes {
        let mut text = String::with_capacity(self.body.len() + 160);
        text.push_str("#!/usr/bin/env pwsh\n$ErrorActionPreference = 'Stop'\n");
        text.push_str("$PSNativeCommandUseErrorActionPreference = $false\n");
        if trace {
            text.push_str("Set-PSDebug -Trace 2\n");
        }
        text.push_str(&self.body);
        text.push_str("exit 0\n");
        Bytes::from(text)
    }
}

/// `text` as one expression: a literal in single quotes, in which PowerShell replaces nothing. The mark of the shell's first
/// folder becomes `$DroverStart`.
pub(super) fn quote(text: &str) -> String {
    if !text.contains(START_DIR) {
        return literal(text);
    }
    let mut out = "(''".to_owned();
    for (index, piece) in text.split(START_DIR).enumerate() {
        if index > 0 {
            out.push_str(" + $DroverStart");
        }
        if !piece.is_empty() {
            out.push_str(" + ");
            out.push_str(&literal(piece));
        }
    }
    out.push(')');
    out
}

/// PowerShell takes typographic quotes for straight ones, so each is doubled.
fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('\'');
    for c in text.chars() {
        if matches!(c, '\'' | '\u{2018}' | '\u{2019}' | '\u{201a}' | '\u{201b}') {
            out.push(c);
        }
        out.push(c);
    }
    out.push('\'');
    out
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("", "''"; "empty")]
    #[test_case("a $b `c \"d\"", "'a $b `c \"d\"'"; "nothing is replaced in single quotes")]
    #[test_case("it's", "'it''s'"; "straight quote")]
    #[test_case("it\u{2019}s \u{2018}x\u{201b} \u{201a}", "'it\u{2019}\u{2019}s \u{2018}\u{2018}x\u{201b}\u{201b} \u{201a}\u{201a}'"; "typographic quotes")]
    #[test_case("\u{201c}double\u{201d}", "'\u{201c}double\u{201d}'"; "double quotes mean nothing in single ones")]
    #[test_case("a\nb", "'a\nb'"; "newline")]
    #[test_case("\0/builds/a b", "('' + $DroverStart + '/builds/a b')"; "first folder")]
    #[test_case("x:\0", "('' + 'x:' + $DroverStart)"; "first folder inside")]
    fn text_is_quoted_so_that_powershell_reads_it_back(text: &str, expected: &str) {
        assert_eq!(quote(text), expected);
    }
}
