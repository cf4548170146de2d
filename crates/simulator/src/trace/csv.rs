//! Jobs as comma-separated values.

use chrono::{DateTime, Utc};

use super::{DURATION, Job, TIME, Trace, TraceError, span, time, waiting_since};

struct Columns {
    created: Option<usize>,
    started: Option<usize>,
    duration: usize,
    queued: Option<usize>,
}

pub(super) fn parse(text: &str, file: &str) -> Result<Trace, TraceError> {
    let mut lines = text.lines().enumerate().filter(|(_, line)| {
        let line = line.trim();
        !line.is_empty() && !line.starts_with('#')
    });
    let Some((first, header)) = lines.next() else {
        return Err(TraceError::Empty { file: file.to_owned() });
    };
    let unexpected = |line: usize, found: String, expected: &str| TraceError::Unexpected {
        file: file.to_owned(),
        line: line + 1,
        found,
        expected: expected.to_owned(),
    };
    let columns = Columns::of(&cells(header)).ok_or_else(|| {
        unexpected(
            first,
            format!("the header `{}`", header.trim()),
            "the columns `created_at` or `started_at`, and `duration`",
        )
    })?;
    let (mut jobs, mut skipped) = (Vec::new(), 0);
    for (line, row) in lines {
        let cells = cells(row);
        let cell = |column: usize| cells.get(column).map(String::as_str).unwrap_or_default();
        let moment = |column: Option<usize>| -> Result<Option<DateTime<Utc>>, TraceError> {
            match column.map(cell) {
                None | Some("") => Ok(None),
                Some(text) => time(text).map(Some).ok_or_else(|| unexpected(line, format!("`{text}`"), TIME)),
            }
        };
        let (created, started) = (moment(columns.created)?, moment(columns.started)?);
        let length = cell(columns.duration);
        if length.is_empty() && started.is_none() {
            skipped += 1;
            continue;
        }
        let duration = span(length).ok_or_else(|| unexpected(line, format!("`{length}`"), DURATION))?;
        let queued = match columns.queued.map(cell) {
            None | Some("") => None,
            Some(text) => Some(span(text).ok_or_else(|| unexpected(line, format!("`{text}`"), DURATION))?),
        };
        let created = waiting_since(created, started, queued)
            .ok_or_else(|| unexpected(line, "no time".to_owned(), TIME))?;
        jobs.push(Job { created, duration });
    }
    Ok(Trace { skipped, ..Trace::new(jobs) })
}

/// The cells of a row. A cell in quotes may hold commas, and quotes written twice.
fn cells(row: &str) -> Vec<String> {
    let mut cells = vec![String::new()];
    let mut quoted = false;
    let mut characters = row.trim().chars().peekable();
    while let Some(character) = characters.next() {
        let Some(cell) = cells.last_mut() else { break };
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                cell.push('"');
                characters.next();
            }
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(String::new()),
            other => cell.push(other),
        }
    }
    cells.into_iter().map(|cell| cell.trim().to_owned()).collect()
}

// === impl Columns ===

impl Columns {
    fn of(header: &[String]) -> Option<Self> {
        let at = |name: &str| header.iter().position(|cell| cell.eq_ignore_ascii_case(name));
        let columns = Self {
            created: at("created_at"),
            started: at("started_at"),
            duration: at("duration")?,
            queued: at("queued_duration"),
        };
        (columns.created.is_some() || columns.started.is_some()).then_some(columns)
    }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test]
    fn columns_may_be_in_any_order_and_others_are_ignored() {
        let text = "id,duration,name,started_at\n1,30,\"a, \"\"b\"\"\",2026-08-03T08:15:00Z\n\n# later\n2,1m,c,2026-08-03T08:10:00Z\n";
        let trace = parse(text, "jobs.csv").unwrap();
        let millis: Vec<u128> = trace.jobs().iter().map(|job| job.duration.as_millis()).collect();
        assert_eq!(millis, [60_000, 30_000]);
    }

    #[test]
    fn waiting_begins_before_the_start_by_the_time_in_the_queue() {
        let text = "created_at,started_at,queued_duration,duration\n2026-08-03T08:00:00Z,2026-08-03T08:15:00Z,60,1\n";
        let trace = parse(text, "jobs.csv").unwrap();
        assert_eq!(trace.jobs()[0].created.to_rfc3339(), "2026-08-03T08:14:00+00:00");
    }

    #[test]
    fn jobs_that_never_ran_are_counted_and_left_out() {
        let trace = parse("created_at,started_at,duration\n2026-08-03T08:00:00Z,,\n", "jobs.csv").unwrap();
        assert_eq!((trace.jobs().len(), trace.skipped()), (0, 1));
    }

    #[test_case(
        "a,b\n",
        "jobs.csv:1: found the header `a,b`, expected the columns `created_at` or `started_at`, and `duration`"
    )]
    #[test_case(
        "created_at,duration\nyesterday,5\n",
        "jobs.csv:2: found `yesterday`, expected a time such as 2026-08-03T08:15:00Z or 2026-08-03 08:15:00 +0200"
    )]
    #[test_case(
        "created_at,duration\n\n2026-08-03T08:00:00Z,long\n",
        "jobs.csv:3: found `long`, expected seconds such as 312.5, or a duration such as 5m12s"
    )]
    #[test_case(
        "created_at,duration\n,5\n",
        "jobs.csv:2: found no time, expected a time such as 2026-08-03T08:15:00Z or 2026-08-03 08:15:00 +0200"
    )]
    fn errors_name_the_line_and_what_was_expected(text: &str, message: &str) {
        assert_eq!(parse(text, "jobs.csv").unwrap_err().to_string(), message);
    }
}
