//! Jobs as JSON: what GitLab's jobs API answers.

use serde_json::Value;

use super::{DURATION, Job, TIME, Trace, TraceError, span, span_of, time, waiting_since};

/// Gives the objects of a text one by one, whether in lists or alone, with the byte at which each begins.
struct Objects<'a> {
    text: &'a str,
    at: usize,
    in_list: bool,
}

pub(super) fn parse(text: &str, file: &str) -> Result<Trace, TraceError> {
    let mut objects = Objects { text, at: 0, in_list: false };
    let (mut jobs, mut skipped) = (Vec::new(), 0);
    loop {
        let (start, object) = match objects.next() {
            Ok(Some(found)) => found,
            Ok(None) => break,
            Err((at, found, expected)) => return Err(unexpected(text, file, at, found, &expected)),
        };
        let field = |name: &str| object.get(name).filter(|value| !value.is_null());
        let fault = |name: &str, value: &Value, expected: &str| {
            unexpected(text, file, start, format!("`{name}`: {value}"), expected)
        };
        let moment = |name: &str| match field(name) {
            None => Ok(None),
            Some(value) => value.as_str().and_then(time).map(Some).ok_or_else(|| fault(name, value, TIME)),
        };
        let length = |name: &str| match field(name) {
            None => Ok(None),
            Some(value) => (value.as_f64().and_then(span_of))
                .or_else(|| value.as_str().and_then(span))
                .map(Some)
                .ok_or_else(|| fault(name, value, DURATION)),
        };
        let (created, started) = (moment("created_at")?, moment("started_at")?);
        let (duration, queued) = (length("duration")?, length("queued_duration")?);
        let Some(duration) = duration else {
            if field("started_at").is_none() && created.is_some() || field("status").is_some() {
                skipped += 1;
                continue;
            }
            return Err(unexpected(text, file, start, "an object without `duration`".to_owned(), DURATION));
        };
        let Some(created) = waiting_since(created, started, queued) else {
            let found = "an object without `created_at` and `started_at`".to_owned();
            return Err(unexpected(text, file, start, found, TIME));
        };
        jobs.push(Job { created, duration });
    }
    Ok(Trace { skipped, ..Trace::new(jobs) })
}

// === impl Objects ===

type Fault = (usize, String, String);

impl Objects<'_> {
    fn next(&mut self) -> Result<Option<(usize, Value)>, Fault> {
        loop {
            self.skip_white_space();
            let Some(next) = self.text[self.at..].chars().next() else {
                if self.in_list {
                    return Err((self.at, "the end of the file".to_owned(), "`,` or `]`".to_owned()));
                }
                return Ok(None);
            };
            match next {
                '[' if !self.in_list => {
                    self.in_list = true;
                    self.at += 1;
                }
                ']' if self.in_list => {
                    self.in_list = false;
                    self.at += 1;
                }
                ',' => self.at += 1,
                '{' => return self.object().map(Some),
                other => {
                    let expected = "a list of jobs as GitLab's jobs API returns it".to_owned();
                    return Err((self.at, format!("`{other}`"), expected));
                }
            }
        }
    }

    fn object(&mut self) -> Result<(usize, Value), Fault> {
        let start = self.at;
        let mut reader = serde_json::Deserializer::from_str(&self.text[start..]).into_iter::<Value>();
        let first = reader.next();
        self.at = start + reader.byte_offset();
        match first {
            Some(Ok(value)) => Ok((start, value)),
            None => Err((start, "nothing".to_owned(), "an object".to_owned())),
            Some(Err(error)) => {
                let before = self.text[start..].split_inclusive('\n').take(error.line().saturating_sub(1));
                let at = start + before.map(str::len).sum::<usize>();
                Err((at, format!("broken JSON ({error})"), "an object that ends with `}`".to_owned()))
            }
        }
    }

    fn skip_white_space(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }
}

fn unexpected(text: &str, file: &str, at: usize, found: String, expected: &str) -> TraceError {
    let line =
        text.as_bytes().get(..at).unwrap_or_default().iter().filter(|byte| **byte == b'\n').count() + 1;
    TraceError::Unexpected { file: file.to_owned(), line, found, expected: expected.to_owned() }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    /// Two pages of `GET /projects/:id/jobs`, shortened, with a job that was never started.
    const PAGES: &str = r#"[
  {"id": 7, "status": "success", "stage": "test", "name": "rspec", "created_at": "2026-08-03T08:00:00.000Z",
   "started_at": "2026-08-03T08:10:05.500Z", "finished_at": "2026-08-03T08:10:35.500Z", "duration": 30.0, "queued_duration": 5.5},
  {"id": 8, "status": "skipped", "created_at": "2026-08-03T08:00:00.000Z", "started_at": null, "duration": null, "queued_duration": null}
]
[{"id": 6, "status": "failed", "created_at": "2026-08-03T07:59:59.000Z", "started_at": "2026-08-03T07:59:59.900Z", "duration": 0.125}]
"#;

    #[test]
    fn pages_of_the_jobs_api_are_read_one_after_the_other() {
        let trace = parse(PAGES, "jobs.json").unwrap();
        let seen: Vec<(String, u128)> =
            trace.jobs().iter().map(|job| (job.created.to_rfc3339(), job.duration.as_millis())).collect();
        let expected = [("2026-08-03T07:59:59+00:00", 125), ("2026-08-03T08:10:00+00:00", 30_000)];
        assert_eq!(seen, expected.map(|(at, millis)| (at.to_owned(), millis)));
        assert_eq!(trace.skipped(), 1);
    }

    #[test]
    fn one_object_a_line_is_read_too() {
        let text = "{\"started_at\":\"2026-08-03T08:00:00Z\",\"duration\":1}\n{\"started_at\":\"2026-08-03T08:00:01Z\",\"duration\":\"2s\"}\n";
        assert_eq!(parse(text, "jobs.json").unwrap().jobs().len(), 2);
    }

    #[test_case(
        "[\n{\"created_at\": 5, \"duration\": 1}]",
        "jobs.json:2: found `created_at`: 5, expected a time such as 2026-08-03T08:15:00Z or 2026-08-03 08:15:00 +0200"
    )]
    #[test_case(
        "[\n\n{\"started_at\": \"2026-08-03T08:00:00Z\", \"duration\": -1}]",
        "jobs.json:3: found `duration`: -1, expected seconds such as 312.5, or a duration such as 5m12s"
    )]
    #[test_case(
        "[\n{\"duration\": 1}]",
        "jobs.json:2: found an object without `created_at` and `started_at`, expected a time such as 2026-08-03T08:15:00Z or 2026-08-03 08:15:00 +0200"
    )]
    #[test_case("[\n5]", "jobs.json:2: found `5`, expected a list of jobs as GitLab's jobs API returns it")]
    #[test_case(
        "[{\"created_at\": \"2026-08-03T08:00:00Z\", \"duration\": 1}\n",
        "jobs.json:2: found the end of the file, expected `,` or `]`"
    )]
    #[test_case(
        "{\"message\": \"401 Unauthorized\"}",
        "jobs.json:1: found an object without `duration`, expected seconds such as 312.5, or a duration such as 5m12s"
    )]
    fn errors_name_the_line_and_what_was_expected(text: &str, message: &str) {
        assert_eq!(parse(text, "jobs.json").unwrap_err().to_string(), message);
    }

    #[test]
    fn broken_json_names_its_line() {
        let error = parse("[{\"a\": 1},\n{\"b\": }]", "jobs.json").unwrap_err().to_string();
        assert!(error.starts_with("jobs.json:"), "{error}");
    }
}
