//! The reference page, made from the table.

use std::fmt::Write as _;

use crate::table::{Definition, Group, Kind, Origin, TABLE};

const INTRODUCTION: &str = "\
# Metrics

With `listen_address` in `config.toml`, or `--listen-address`, Drover answers `GET` and `HEAD` over HTTP, without
authentication and without secrets:

| Path | Shows |
|---|---|
| `/metrics` | the metrics below, in Prometheus' text format 0.0.4 |
| `/health/ready` | `200 ready` once runner entries are served, `503 starting` before |
| `/debug/jobs/list` | one line for each job that runs (`X-List-Version: 2`) |
| `/debug/process/state` | `starting`, `running`, `graceful-shutdown` or `forceful-shutdown` |

This page lists every metric. It is made from the code, as are the dashboard `grafana.json` and the alert rules `alerts.yml`
beside it: after a change run `UPDATE_REFERENCE=1 cargo test -p drover-metrics --test reference`.

- Metrics of GitLab Runner, fleeting and taskscaler have their upstream names and labels, so existing dashboards work. Those that
  begin with `drover_` say what upstream does not.
- `runner` is the part of the runner's token that may be shown, `runner_name` its name, `system_id` this manager.
- Rows of a runner entry begin when it is loaded and end after the last job of the removed entry.
- A label whose values come from outside has 200 of them at most; what is beyond is counted as `other`.
- Left out: metrics of executors that are not built in (`docker+machine`, `kubernetes`), of the job router, of role-based access to
  a cache, of job inputs, and `go_*`.
";

/// Every metric, in Markdown.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(INTRODUCTION);
    for group in Group::ALL {
        // Writing to a string cannot fail.
        let _ = writeln!(page, "\n## {}\n", group.title());
        let _ = writeln!(page, "| Metric | Type | Labels | Meaning | Origin |");
        let _ = writeln!(page, "|---|---|---|---|---|");
        for row in TABLE.iter().filter(|row| row.group == group) {
            let _ = writeln!(
                page,
                "| `{}` | {} | {} | {} | {} |",
                row.name,
                row.kind.name(),
                labels(row),
                meaning(row),
                origin(row.origin)
            );
        }
    }
    page
}

fn labels(row: &Definition) -> String {
    let labels: Vec<String> = row.all_labels().map(|label| format!("`{label}`")).collect();
    labels.join(", ")
}

fn meaning(row: &Definition) -> String {
    match row.kind {
        Kind::Counter | Kind::Gauge => row.help.to_owned(),
        Kind::Histogram(bounds) => {
            let bounds: Vec<String> = bounds.iter().map(ToString::to_string).collect();
            format!("{} Buckets: {}.", row.help, bounds.join(", "))
        }
    }
}

fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::GitlabRunner => "GitLab Runner",
        Origin::Taskscaler => "fleeting, taskscaler",
        Origin::Prometheus => "Prometheus",
        Origin::Drover => "Drover",
    }
}
