//! The runner's own words in a job log.

use std::fmt::Display;
use std::io::Write as _;

/// How a line of the runner looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineKind {
    /// No colour.
    Plain,
    /// Bold green.
    Info,
    /// Yellow, begins with `WARNING: `.
    Warning,
    /// Bold red, begins with `ERROR: `.
    Error,
    /// Bold cyan: the title of a section.
    Title,
}

const RESET: &str = "\x1b[0;m";
const CLEAR: &str = "\x1b[0K";

/// Appends a line of the runner, with colour, reset and line end. The forms are GitLab Runner's.
pub fn runner_line(kind: LineKind, text: impl Display, out: &mut Vec<u8>) {
    let prefix = match kind {
        LineKind::Plain => CLEAR,
        LineKind::Info => "\x1b[32;1m",
        LineKind::Warning => "\x1b[0;33mWARNING: ",
        LineKind::Error => "\x1b[31;1mERROR: ",
        LineKind::Title => "\x1b[0K\x1b[36;1m",
    };
    append(out, format_args!("{prefix}{text}{RESET}\n"));
}

/// Appends the beginning of a section that the reader of the log can fold. A title line follows.
///
/// Only for servers that ask for it (`features.trace_sections`). `at` is in seconds since 1970; `name` may carry options
/// in brackets (`step[collapsed=true]`), the end of the section must not.
pub fn section_start(at: i64, name: &str, out: &mut Vec<u8>) {
    append(out, format_args!("section_start:{at}:{name}\r{CLEAR}"));
}

/// Appends the end of a section.
pub fn section_end(at: i64, name: &str, out: &mut Vec<u8>) {
    append(out, format_args!("section_end:{at}:{name}\r{CLEAR}"));
}

fn append(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a vector cannot fail; an error could only come from the argument's own `Display`.
    let _ = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case(LineKind::Plain, "\x1b[0Khello\x1b[0;m\n"; "plain")]
    #[test_case(LineKind::Info, "\x1b[32;1mhello\x1b[0;m\n"; "info")]
    #[test_case(LineKind::Warning, "\x1b[0;33mWARNING: hello\x1b[0;m\n"; "warning")]
    #[test_case(LineKind::Error, "\x1b[31;1mERROR: hello\x1b[0;m\n"; "error")]
    #[test_case(LineKind::Title, "\x1b[0K\x1b[36;1mhello\x1b[0;m\n"; "title")]
    fn lines_carry_their_colour(kind: LineKind, line: &str) {
        let mut out = Vec::new();
        runner_line(kind, "hello", &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), line);
    }

    #[test]
    fn sections_carry_time_and_name() {
        let mut out = Vec::new();
        section_start(1_787_393_730, "get_sources", &mut out);
        section_end(1_787_393_731, "get_sources", &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "section_start:1787393730:get_sources\r\x1b[0Ksection_end:1787393731:get_sources\r\x1b[0K"
        );
    }
}
