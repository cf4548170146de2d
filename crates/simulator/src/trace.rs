//! The jobs that are replayed, and the files they come from.

mod csv;
mod json;

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

/// One job as GitLab knew it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Job {
    /// When it began to wait for a runner.
    pub created: DateTime<Utc>,
    /// How long it keeps a slot busy.
    pub duration: Duration,
}

/// Jobs in the order in which they came.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trace {
    jobs: Vec<Job>,
    /// Entries of the file that are no load: jobs that never ran.
    skipped: usize,
}

/// Why a file of jobs cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// Something in it is not what it should be.
    #[error("{file}:{line}: found {found}, expected {expected}")]
    Unexpected {
        /// Name of the file.
        file: String,
        /// Which line, from 1.
        line: usize,
        /// What is there.
        found: String,
        /// What should be there.
        expected: String,
    },
    /// It holds no job that ran.
    #[error("{file}: holds no job that ran; expected rows or objects with a time and a duration")]
    Empty {
        /// Name of the file.
        file: String,
    },
}

/// What a text is expected to hold, for messages.
pub(crate) const TIME: &str = "a time such as 2026-08-03T08:15:00Z or 2026-08-03 08:15:00 +0200";
pub(crate) const DURATION: &str = "seconds such as 312.5, or a duration such as 5m12s";

// === impl Trace ===

impl Trace {
    /// Jobs in any order.
    #[must_use]
    pub fn new(mut jobs: Vec<Job>) -> Self {
        jobs.sort_unstable();
        Self { jobs, skipped: 0 }
    }

    /// Reads CSV with a header, or JSON: a list of objects, several lists one after the other (pages of GitLab's jobs API),
    /// or one object per line. `file` names the text in messages.
    ///
    /// CSV needs the columns `created_at` or `started_at`, and `duration`. JSON objects have the fields of GitLab's jobs API:
    /// `created_at`, `started_at`, `duration`, `queued_duration`. A job began to wait at `started_at - queued_duration` where
    /// both are known: `created_at` is when its pipeline was made, which may be long before its stage began.
    ///
    /// # Errors
    /// [`TraceError`] names file, line and what was expected.
    pub fn parse(text: &str, file: &str) -> Result<Self, TraceError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let trace = match text.trim_start().chars().next() {
            Some('[' | '{') => json::parse(text, file)?,
            Some(_) | None => csv::parse(text, file)?,
        };
        if trace.jobs.is_empty() {
            return Err(TraceError::Empty { file: file.to_owned() });
        }
        Ok(trace)
    }

    /// The jobs, by time.
    #[must_use]
    pub fn jobs(&self) -> &[Job] {
        &self.jobs
    }

    /// How many entries of the file were left out because they never ran.
    #[must_use]
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// The trace as CSV that [`parse`](Self::parse) reads back.
    pub fn write_csv(&self, to: &mut impl std::io::Write) -> std::io::Result<()> {
        writeln!(to, "created_at,duration")?;
        for job in &self.jobs {
            let created = job.created.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
            writeln!(to, "{created},{}", job.duration.as_secs_f64())?;
        }
        Ok(())
    }
}

/// When a job began to wait, by what is known of it.
fn waiting_since(
    created: Option<DateTime<Utc>>,
    started: Option<DateTime<Utc>>,
    queued: Option<Duration>,
) -> Option<DateTime<Utc>> {
    let queued = queued.and_then(|queued| TimeDelta::from_std(queued).ok());
    match (started, queued) {
        (Some(started), Some(queued)) => started.checked_sub_signed(queued),
        (started, _) => created.or(started),
    }
}

/// A time as GitLab's API, spreadsheets and databases write it, in whole milliseconds.
fn time(text: &str) -> Option<DateTime<Utc>> {
    let text = text.trim();
    let at = DateTime::parse_from_rfc3339(text)
        .or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f %z"))
        .map(|at| at.to_utc())
        .ok()
        .or_else(|| {
            let text = text.strip_suffix(" UTC").unwrap_or(text);
            let naive = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"]
                .into_iter()
                .find_map(|form| chrono::NaiveDateTime::parse_from_str(text, form).ok())?;
            Some(naive.and_utc())
        })?;
    DateTime::from_timestamp_millis(at.timestamp_millis())
}

/// A span, written as seconds or as Go writes durations.
fn span(text: &str) -> Option<Duration> {
    let text = text.trim();
    match text.parse::<f64>() {
        Ok(seconds) => span_of(seconds),
        Err(_) => go_duration::parse(text).ok(),
    }
}

fn span_of(seconds: f64) -> Option<Duration> {
    (0.0..366.0 * 86_400.0).contains(&seconds).then(|| crate::random::seconds(seconds))
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("2026-08-03T08:15:00Z" => Some(1_785_744_900_000))]
    #[test_case("2026-08-03T10:15:00.5+02:00" => Some(1_785_744_900_500))]
    #[test_case("2026-08-03 10:15:00 +0200" => Some(1_785_744_900_000))]
    #[test_case("2026-08-03 08:15:00 UTC" => Some(1_785_744_900_000))]
    #[test_case("2026-08-03" => None)]
    #[test_case("" => None)]
    fn times(text: &str) -> Option<i64> {
        time(text).map(|at| at.timestamp_millis())
    }

    #[test_case("12.5" => Some(12_500))]
    #[test_case("1m30s" => Some(90_000))]
    #[test_case("-1" => None)]
    #[test_case("nan" => None)]
    #[test_case("soon" => None)]
    fn spans(text: &str) -> Option<u128> {
        span(text).map(|span| span.as_millis())
    }

    #[test]
    fn what_is_written_is_read_back() {
        let job =
            |at: &str, millis| Job { created: time(at).unwrap(), duration: Duration::from_millis(millis) };
        let trace = Trace::new(vec![job("2026-08-03T08:15:01Z", 1_500), job("2026-08-03T08:15:00.25Z", 7)]);
        let mut text = Vec::new();
        trace.write_csv(&mut text).unwrap();
        assert_eq!(Trace::parse(std::str::from_utf8(&text).unwrap(), "x").unwrap(), trace);
    }
}
