//! From the bytes of an answer to a job.

use std::fmt::Write as _;

use serde::Deserialize as _;
use serde_json::Value;

use crate::lenient::{Lenient as _, Notes};
use crate::{Job, Token};

/// Why an answer is not a job at all.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// Not JSON, even after bad characters were replaced.
    #[error("the job is not JSON")]
    NotJson(#[source] serde_json::Error),
    /// JSON, but not an object.
    #[error("the job is not a JSON object")]
    NotAnObject,
    /// Without id and token the job can neither be run nor be failed.
    #[error("the job has no usable `{0}`, so it can neither be run nor be reported as failed")]
    Missing(&'static str),
}

// === impl Job ===

impl Job {
    /// Decodes the body of a `201` answer to `POST jobs/request`.
    ///
    /// Text that JSON does not allow (bytes that are not UTF-8, halves of surrogate pairs, control characters) is replaced and
    /// noted in [`Job::oddities`], as Go's decoder does for the first two.
    ///
    /// # Errors
    /// [`PayloadError`] only if the body is no JSON object, is nested deeper than 127 levels, or lacks a usable `id` or `token`.
    /// [`dig_credentials`] may still find whose job it is.
    pub fn from_json(body: &[u8]) -> Result<Self, PayloadError> {
        let mut notes = Notes::default();
        let mut value: Value = match serde_json::from_slice(body) {
            Ok(value) => value,
            Err(_) => {
                let value = serde_json::from_str(&repaired(body)).map_err(PayloadError::NotJson)?;
                notes.odd.push("characters that JSON does not allow were replaced".to_owned());
                value
            }
        };
        let Value::Object(members) = &mut value else { return Err(PayloadError::NotAnObject) };
        // Steps are JSON text inside JSON; a server that sends them unwrapped means the same.
        for (name, value) in members.iter_mut() {
            if name.eq_ignore_ascii_case("run") && (value.is_array() || value.is_object()) {
                *value = Value::String(value.to_string());
            }
        }
        let mut job = Self::take(value, &mut notes).ok_or(PayloadError::NotAnObject)?;
        job.oddities = notes.odd;
        if job.id == 0 {
            return Err(PayloadError::Missing("id"));
        }
        if job.token.expose().is_empty() {
            return Err(PayloadError::Missing("token"));
        }
        Ok(job)
    }
}

/// Finds `id` and `token` in the text of a job that [`Job::from_json`] refuses, for example because it breaks off, so that the
/// job can be reported as failed.
#[must_use]
pub fn dig_credentials(body: &[u8]) -> Option<(u64, Token)> {
    let text = repaired(body);
    let (mut id, mut token) = (None, None);
    let mut depth = 0_u32;
    let mut at = 0;
    while let Some(&byte) = text.as_bytes().get(at) {
        at += 1;
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                let Some(length) = closing_quote(&text.as_bytes()[at..]) else { break };
                let end = at + length;
                let name = &text[at..end];
                at = end + 1;
                let Some(after) = text[at..].trim_start().strip_prefix(':').filter(|_| depth == 1) else {
                    continue;
                };
                let value = || {
                    let mut input = serde_json::Deserializer::from_str(after);
                    Value::deserialize(&mut input).ok()
                };
                if name.eq_ignore_ascii_case("id") {
                    id = value().and_then(|value| u64::take(value, &mut Notes::default())).or(id);
                } else if name.eq_ignore_ascii_case("token") {
                    token = value().and_then(|value| Token::take(value, &mut Notes::default())).or(token);
                }
            }
            _ => {}
        }
    }
    Some((id.filter(|id| *id != 0)?, token.filter(|token| !token.expose().is_empty())?))
}

/// Where the string ends that begins here.
fn closing_quote(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match bytes.get(at)? {
            b'\\' => at += 2,
            b'"' => return Some(at),
            _ => at += 1,
        }
    }
}

/// The text with everything replaced that JSON allows in no string.
fn repaired(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let mut fixed = String::with_capacity(text.len());
    let mut rest = text.trim_start_matches('\u{feff}');
    let mut in_string = false;
    while let Some(c) = rest.chars().next() {
        let mut taken = c.len_utf8();
        match c {
            '"' => {
                in_string = !in_string;
                fixed.push(c);
            }
            '\\' if in_string => match (escaped_unit(rest), rest.get(6..).and_then(escaped_unit)) {
                (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => {
                    taken = 12;
                    fixed.push_str(&rest[..taken]);
                }
                (Some(0xd800..=0xdfff), _) => {
                    taken = 6;
                    fixed.push_str("\\ufffd");
                }
                _ => {
                    taken += rest[1..].chars().next().map_or(0, char::len_utf8);
                    fixed.push_str(&rest[..taken]);
                }
            },
            control if in_string && u32::from(control) < 0x20 => {
                // Writing to a string cannot fail.
                let _ = write!(fixed, "\\u{:04x}", u32::from(control));
            }
            other => fixed.push(other),
        }
        rest = &rest[taken..];
    }
    fixed
}

/// The UTF-16 unit of `\uXXXX` at the start.
fn escaped_unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    digits
        .bytes()
        .all(|byte| byte.is_ascii_hexdigit())
        .then(|| u16::from_str_radix(digits, 16).ok())
        .flatten()
}
