//! Values of flags and of the environment variables behind them. An empty variable means that it is not set.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;

use crate::Console;
use crate::archive::{Format, Level};

/// What Go and people write for true and false.
pub(crate) fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "t" | "true" | "yes" | "on" => Ok(true),
        "" | "0" | "f" | "false" | "no" | "off" => Ok(false),
        _ => Err(format!("`{text}` is neither true nor false")),
    }
}

pub(crate) fn one_hour(text: &str) -> Result<Duration, String> {
    or(text, Duration::from_secs(60 * 60))
}

pub(crate) fn ten_minutes(text: &str) -> Result<Duration, String> {
    or(text, Duration::from_secs(10 * 60))
}

pub(crate) fn one_second(text: &str) -> Result<Duration, String> {
    or(text, Duration::from_secs(1))
}

/// Zero means never.
pub(crate) fn never(text: &str) -> Result<Duration, String> {
    or(text, Duration::ZERO)
}

/// Whole minutes; ten if empty.
pub(crate) fn minutes(text: &str) -> Result<Duration, String> {
    let minutes: u64 = match text {
        "" => 10,
        text => text.parse().map_err(|_| format!("`{text}` is no number of minutes"))?,
    };
    Ok(Duration::from_secs(minutes.saturating_mul(60)))
}

pub(crate) fn format(text: &str) -> Result<Format, String> {
    Format::parse(text)
}

/// A format that caches can have; zip for every other word, as with GitLab Runner.
pub(crate) fn cache_format(text: &str) -> Result<Format, Infallible> {
    Ok(match text.to_ascii_lowercase().as_str() {
        "tarzstd" => Format::TarZstd,
        "zipzstd" => Format::ZipZstd,
        _ => Format::Zip,
    })
}

/// How hard to compress. A word that means nothing is no reason to lose files.
pub(crate) fn level(text: &str, console: &Console) -> Level {
    Level::parse(text).unwrap_or_else(|_| {
        console.warning(&format!("compression level {text:?} is invalid, falling back to default"));
        Level::Default
    })
}

/// Bytes; zero means no limit.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    match text {
        "" => Ok(0),
        text => text.parse().map_err(|_| format!("`{text}` is no number of bytes")),
    }
}

/// The number of a job; zero, which is none, if empty.
pub(crate) fn job_id(text: &str) -> Result<u64, String> {
    match text {
        "" => Ok(0),
        text => text.parse().map_err(|_| format!("`{text}` is no number of a job")),
    }
}

/// A path; the parser of the library refuses empty ones.
#[expect(clippy::unnecessary_wraps, reason = "that is what the argument parser calls")]
pub(crate) fn path(text: &str) -> Result<PathBuf, Infallible> {
    Ok(text.into())
}

fn or(text: &str, default: Duration) -> Result<Duration, String> {
    if text.is_empty() { Ok(default) } else { go_duration::parse(text).map_err(|error| error.to_string()) }
}
