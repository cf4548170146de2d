//! Values as GitLab Runner's command line takes them.

use config::{LogFormat, LogLevel};

/// A switch that also takes `=value`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Flag(pub(crate) bool);

/// A switch that may be left open; an empty variable leaves it so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Switch(pub(crate) Option<bool>);

/// A number that may be left open; an empty variable leaves it so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Number(pub(crate) Option<i64>);

/// A log level; an empty one is none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Level(pub(super) Option<LogLevel>);

/// A form of log lines; an empty one is none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Format(pub(super) Option<LogFormat>);

/// Reads a switch: the words of Go's `strconv.ParseBool`, and nothing at all, which an empty variable is.
pub(crate) fn flag(text: &str) -> Result<Flag, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Flag(true)),
        "" | "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Flag(false)),
        _ => Err("expected true or false".to_owned()),
    }
}

/// Reads a switch that may be left open.
pub(crate) fn switch(text: &str) -> Result<Switch, String> {
    if text.is_empty() { Ok(Switch(None)) } else { flag(text).map(|flag| Switch(Some(flag.0))) }
}

/// Reads a number that may be left open.
pub(crate) fn number(text: &str) -> Result<Number, String> {
    match text {
        "" => Ok(Number(None)),
        _ => {
            text.parse().map(|number| Number(Some(number))).map_err(|_| "expected a whole number".to_owned())
        }
    }
}

/// Reads a log level.
pub(crate) fn level(text: &str) -> Result<Level, String> {
    match (text, LogLevel::from_name(&text.to_ascii_lowercase())) {
        ("", _) => Ok(Level(None)),
        (_, Some(level)) => Ok(Level(Some(level))),
        (_, None) => Err(format!("expected one of {}", LogLevel::NAMES.join(", "))),
    }
}

/// Reads a form of log lines.
pub(crate) fn format(text: &str) -> Result<Format, String> {
    match (text, LogFormat::from_name(text)) {
        ("", _) => Ok(Format(None)),
        (_, Some(format)) => Ok(Format(Some(format))),
        (_, None) => Err(format!("expected one of {}", LogFormat::NAMES.join(", "))),
    }
}

/// Text that says something: an empty flag or variable is as good as none.
pub(crate) fn filled(text: Option<&String>) -> Option<&str> {
    text.map(String::as_str).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_take_the_words_of_go_and_empty_variables() {
        for (text, expected) in
            [("true", true), ("1", true), ("T", true), ("false", false), ("0", false), ("", false)]
        {
            assert_eq!(flag(text), Ok(Flag(expected)), "{text}");
        }
        assert!(flag("yes").is_err());
    }
}
