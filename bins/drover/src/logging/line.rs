//! The forms of a log line. They are those of GitLab Runner, which log pipelines and eyes are used to.

use std::fmt::{self, Write as _};

use chrono::{DateTime, SecondsFormat, Utc};
use tracing::Level;
use tracing::field::{Field, Visit};

/// The width of message and prefix in front of the fields.
const MESSAGE_WIDTH: usize = 50;

/// A form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// For people: the message, padded, then `name=value`.
    Runner { colour: bool },
    /// `time=".." level=info msg=".." name=value`.
    Text,
    /// One object per line with `level`, `msg`, `time` and the fields.
    Json,
}

/// The message and the other fields of an event or span; the fields are in their final form already.
#[derive(Debug, Clone)]
pub(super) struct Fields {
    style: Style,
    message: String,
    rest: String,
}

/// One event.
pub(super) struct Line<'a> {
    pub(super) level: Level,
    pub(super) fields: &'a Fields,
    pub(super) style: Style,
}

// === impl Fields ===

impl Fields {
    pub(super) fn new(style: Style) -> Self {
        Self { style, message: String::new(), rest: String::new() }
    }

    /// Adds the fields of a span around.
    pub(super) fn append(&mut self, outer: &Self) {
        self.rest.push_str(&outer.rest);
    }

    /// Adds a field whose value is text.
    fn text(&mut self, name: &str, value: &str) {
        match self.style {
            Style::Runner { .. } | Style::Text => {
                self.name(name);
                if needs_quotes(value) {
                    quote(value, &mut self.rest);
                } else {
                    self.rest.push_str(value);
                }
            }
            Style::Json => {
                self.name(name);
                json_text(value, &mut self.rest);
            }
        }
    }

    /// Adds a field whose value is a number or a truth value.
    fn plain(&mut self, name: &str, value: &dyn fmt::Display) {
        self.name(name);
        let _ = write!(self.rest, "{value}");
    }

    fn name(&mut self, name: &str) {
        match self.style {
            Style::Runner { .. } | Style::Text => {
                self.rest.push(' ');
                self.rest.push_str(name);
                self.rest.push('=');
            }
            Style::Json => {
                self.rest.push(',');
                json_text(name, &mut self.rest);
                self.rest.push(':');
            }
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message.push_str(value),
            name => self.text(name, value),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => {
                let _ = write!(self.message, "{value:?}");
            }
            name => self.text(name, &format!("{value:?}")),
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field.name(), &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field.name(), &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field.name(), &value);
    }
}

// === impl Line ===

impl Line<'_> {
    /// Appends the line and its end.
    pub(super) fn write(&self, now: DateTime<Utc>, out: &mut String) {
        match self.style {
            Style::Runner { colour } => self.runner(colour, out),
            Style::Text => self.logfmt(now, out),
            Style::Json => self.json(now, out),
        }
        out.push('\n');
    }

    fn runner(&self, colour: bool, out: &mut String) {
        let (on, off) = match (colour, self.colour()) {
            (true, Some(on)) => (on, "\x1b[0;m"),
            (true, None) | (false, _) => ("", ""),
        };
        let prefix = self.prefix();
        let _ = write!(out, "{on}{prefix}");
        let start = out.len();
        for c in self.fields.message.chars() {
            match c {
                // A message must not pass itself off as several, nor steer a terminal.
                c if c.is_control() => {
                    let _ = write!(out, "{}", c.escape_default());
                }
                c => out.push(c),
            }
        }
        if !self.fields.rest.is_empty() {
            let width = prefix.len() + out[start..].chars().count();
            out.extend(std::iter::repeat_n(' ', (MESSAGE_WIDTH + 1).saturating_sub(width)));
        }
        out.push_str(off);
        out.push_str(&self.fields.rest);
    }

    fn logfmt(&self, now: DateTime<Utc>, out: &mut String) {
        let time = now.to_rfc3339_opts(SecondsFormat::Secs, true);
        let _ = write!(out, "time=\"{time}\" level={} msg=", self.name());
        quote(&self.fields.message, out);
        out.push_str(&self.fields.rest);
    }

    fn json(&self, now: DateTime<Utc>, out: &mut String) {
        let _ = write!(out, "{{\"level\":\"{}\",\"msg\":", self.name());
        json_text(&self.fields.message, out);
        let time = now.to_rfc3339_opts(SecondsFormat::Secs, true);
        let _ = write!(out, ",\"time\":\"{time}\"{}}}", self.fields.rest);
    }

    fn name(&self) -> &'static str {
        match self.level {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        }
    }

    fn prefix(&self) -> &'static str {
        match self.level {
            Level::ERROR => "ERROR: ",
            Level::WARN => "WARNING: ",
            Level::INFO | Level::DEBUG | Level::TRACE => "",
        }
    }

    fn colour(&self) -> Option<&'static str> {
        match self.level {
            Level::ERROR => Some("\x1b[31;1m"),
            Level::WARN => Some("\x1b[0;33m"),
            Level::INFO => None,
            Level::DEBUG | Level::TRACE => Some("\x1b[37;1m"),
        }
    }
}

/// Values of these characters alone stand as they are.
fn needs_quotes(value: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || "-._/@^+:,()[]{}<>#*%$!?;&~'|".contains(c);
    value.is_empty() || !value.chars().all(plain)
}

fn quote(value: &str, out: &mut String) {
    out.push('"');
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => {
                let _ = write!(out, "{}", c.escape_default());
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

fn json_text(value: &str, out: &mut String) {
    // Encoding text cannot fail.
    out.push_str(&serde_json::to_string(value).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_get_the_message_padded_and_the_fields_behind_it() {
        let line = line(Style::Runner { colour: false }, Level::INFO, "Checking for jobs... received");
        assert_eq!(line, "Checking for jobs... received                       job=7 why=\"no room\"\n");
        assert_eq!(line.find("job="), Some(MESSAGE_WIDTH + 2));
    }

    #[test]
    fn a_warning_begins_with_its_level_at_the_same_width() {
        let line = line(Style::Runner { colour: false }, Level::WARN, "late");
        assert!(line.starts_with("WARNING: late  "));
        assert_eq!(line.find("job="), Some(MESSAGE_WIDTH + 2));
    }

    #[test]
    fn colours_surround_the_message() {
        let line = line(Style::Runner { colour: true }, Level::ERROR, "lost");
        assert!(line.starts_with("\x1b[31;1mERROR: lost"));
        assert!(line.contains("\x1b[0;m job=7"));
    }

    #[test]
    fn a_message_cannot_pass_itself_off_as_two_lines() {
        let line = line(Style::Runner { colour: false }, Level::INFO, "a\nERROR: b\x1b[2J");
        assert!(line.starts_with("a\\nERROR: b\\u{1b}[2J"));
        assert_eq!(line.lines().count(), 1);
    }

    #[test]
    fn text_is_key_and_value() {
        assert_eq!(
            line(Style::Text, Level::WARN, "a \"b\""),
            "time=\"2026-01-02T03:04:05Z\" level=warning msg=\"a \\\"b\\\"\" job=7 why=\"no room\"\n"
        );
    }

    #[test]
    fn json_is_one_object_with_numbers_as_numbers() {
        let line = line(Style::Json, Level::ERROR, "a\nb");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        let expected = serde_json::json!({
            "level": "error", "msg": "a\nb", "time": "2026-01-02T03:04:05Z", "job": 7, "why": "no room",
        });
        assert_eq!(value, expected);
    }

    fn line(style: Style, level: Level, message: &str) -> String {
        let mut fields = Fields::new(style);
        fields.message.push_str(message);
        fields.plain("job", &7);
        fields.text("why", "no room");
        let mut out = String::new();
        let now = DateTime::parse_from_rfc3339("2026-01-02T03:04:05Z").unwrap().to_utc();
        Line { level, fields: &fields, style }.write(now, &mut out);
        out
    }
}
