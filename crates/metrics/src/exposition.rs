//! The text that is scraped: Prometheus' text format 0.0.4.
//!
//! `OpenMetrics` cannot carry GitLab Runner's names: there, the gauge `gitlab_runner_jobs` and the counter
//! `gitlab_runner_jobs_total` are one family of two types.

use std::fmt::{Display, Write as _};

use crate::cells::Histogram;
use crate::table::{Id, Scope, TABLE};

/// Value of the `Content-Type` header.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Labels that name a runner entry, escaped once.
#[derive(Debug, Clone, Default)]
pub(crate) struct EntryLabels {
    runner: String,
    token: String,
    name: String,
}

/// Rows in any order, to be shown in the order of the table.
#[derive(Debug)]
pub(crate) struct Exposition {
    rows: Vec<String>,
}

// === impl EntryLabels ===

impl EntryLabels {
    /// `token` is the part of the runner's token that may be shown.
    pub(crate) fn new(token: &str, name: &str, system_id: &str) -> Self {
        let make = |scope: Scope| {
            let mut text = String::new();
            for label in scope.labels() {
                let value = match *label {
                    "runner" => token,
                    "runner_name" => name,
                    _ => system_id,
                };
                push_label(&mut text, label, value);
            }
            text
        };
        Self { runner: make(Scope::Runner), token: make(Scope::Token), name: make(Scope::Name) }
    }

    fn of(&self, scope: Scope) -> &str {
        match scope {
            Scope::Process => "",
            Scope::Runner => &self.runner,
            Scope::Token => &self.token,
            Scope::Name => &self.name,
        }
    }
}

// === impl Exposition ===

impl Exposition {
    pub(crate) fn new() -> Self {
        Self { rows: vec![String::new(); TABLE.len()] }
    }

    /// One row; `values` are those of the definition's labels.
    pub(crate) fn row(&mut self, id: Id, entry: &EntryLabels, values: &[&str], value: impl Display) {
        let labels = labels(id, entry, values);
        self.line(id, "", &labels, value);
    }

    /// One row of a metric of the process.
    pub(crate) fn process(&mut self, id: Id, values: &[&str], value: impl Display) {
        self.row(id, &EntryLabels::default(), values, value);
    }

    /// The rows of one histogram.
    pub(crate) fn histogram(&mut self, id: Id, entry: &EntryLabels, values: &[&str], histogram: &Histogram) {
        let mut labels = labels(id, entry, values);
        let length = labels.len();
        let mut count = 0;
        for (bound, up_to) in histogram.cumulative() {
            let bound = if bound.is_finite() { bound.to_string() } else { "+Inf".to_owned() };
            push_label(&mut labels, "le", &bound);
            self.line(id, "_bucket", &labels, up_to);
            labels.truncate(length);
            count = up_to;
        }
        self.line(id, "_sum", &labels, histogram.sum());
        self.line(id, "_count", &labels, count);
    }

    /// The whole text.
    pub(crate) fn finish(self) -> String {
        let mut text = String::with_capacity(self.rows.iter().map(|rows| rows.len() + 200).sum());
        for (definition, rows) in TABLE.iter().zip(self.rows) {
            if rows.is_empty() {
                continue;
            }
            text.push_str("# HELP ");
            text.push_str(definition.name);
            text.push(' ');
            escape(&mut text, definition.help, false);
            // Writing to a string cannot fail.
            let _ = writeln!(text, "\n# TYPE {} {}", definition.name, definition.kind.name());
            text.push_str(&rows);
        }
        text
    }

    fn line(&mut self, id: Id, suffix: &str, labels: &str, value: impl Display) {
        let rows = &mut self.rows[id as usize];
        let name = id.definition().name;
        // Writing to a string cannot fail.
        let _ = if labels.is_empty() {
            writeln!(rows, "{name}{suffix} {value}")
        } else {
            writeln!(rows, "{name}{suffix}{{{labels}}} {value}")
        };
    }
}

// === helpers ===

fn labels(id: Id, entry: &EntryLabels, values: &[&str]) -> String {
    let definition = id.definition();
    debug_assert_eq!(definition.labels.len(), values.len(), "{}", definition.name);
    let mut text = entry.of(definition.scope).to_owned();
    for (label, value) in definition.labels.iter().zip(values) {
        push_label(&mut text, label, value);
    }
    text
}

fn push_label(text: &mut String, label: &str, value: &str) {
    if !text.is_empty() {
        text.push(',');
    }
    text.push_str(label);
    text.push_str("=\"");
    escape(text, value, true);
    text.push('"');
}

/// Escapes as the format wants it: label values also their quotes.
fn escape(text: &mut String, value: &str, quotes: bool) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '"' if quotes => text.push_str("\\\""),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn families_come_in_the_order_of_the_table_each_with_its_head() {
        let entry = EntryLabels::new("abc", "my \"runner\"\\\n", "s_1");
        let mut text = Exposition::new();
        text.process(Id::Concurrent, &[], 4);
        text.row(Id::JobsTotal, &entry, &[], 7);
        text.row(Id::Jobs, &entry, &["idle", "idle", "idle"], 0);
        text.row(Id::FailedJobsTotal, &entry, &["script_failure", "traditional"], 1);
        assert_eq!(
            text.finish(),
            r#"# HELP gitlab_runner_jobs Jobs that run, by what they do. A row whose labels are all `idle` always exists.
# TYPE gitlab_runner_jobs gauge
gitlab_runner_jobs{runner="abc",runner_name="my \"runner\"\\\n",system_id="s_1",state="idle",stage="idle",executor_stage="idle"} 0
# HELP gitlab_runner_jobs_total Jobs received.
# TYPE gitlab_runner_jobs_total counter
gitlab_runner_jobs_total{runner="abc",runner_name="my \"runner\"\\\n",system_id="s_1"} 7
# HELP gitlab_runner_failed_jobs_total Jobs that failed, by the runner's word for why.
# TYPE gitlab_runner_failed_jobs_total counter
gitlab_runner_failed_jobs_total{runner="abc",runner_name="my \"runner\"\\\n",failure_reason="script_failure",mode="traditional"} 1
# HELP gitlab_runner_concurrent The value of `concurrent`.
# TYPE gitlab_runner_concurrent gauge
gitlab_runner_concurrent 4
"#
        );
    }

    #[test]
    fn a_histogram_is_cumulative_and_ends_in_infinity() {
        let histogram = Histogram::new(Id::ApiDuration.bounds());
        histogram.observe(Duration::from_millis(250));
        histogram.observe(Duration::from_secs(90));
        let mut text = Exposition::new();
        let entry = EntryLabels::new("abc", "r", "s_1");
        text.histogram(Id::ApiDuration, &entry, &["request_job", "2xx", "POST"], &histogram);
        let text = text.finish();
        let rows: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let labels =
            r#"runner="abc",system_id="s_1",endpoint="request_job",status_class="2xx",method="POST""#;
        let name = "gitlab_runner_api_request_duration_seconds";
        assert_eq!(rows.len(), 9 + 1 + 2);
        assert_eq!(rows[0], format!("{name}_bucket{{{labels},le=\"0.1\"}} 0"));
        assert_eq!(rows[1], format!("{name}_bucket{{{labels},le=\"0.25\"}} 1"));
        assert_eq!(rows[3], format!("{name}_bucket{{{labels},le=\"1\"}} 1"));
        assert_eq!(rows[9], format!("{name}_bucket{{{labels},le=\"+Inf\"}} 2"));
        assert_eq!(rows[10], format!("{name}_sum{{{labels}}} 90.25"));
        assert_eq!(rows[11], format!("{name}_count{{{labels}}} 2"));
    }
}
