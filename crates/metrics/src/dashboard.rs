//! A dashboard for Grafana, made from the table: a row for each group, a panel for each metric.

use serde_json::{Value, json};

use crate::table::{Definition, Group, Kind, Scope, TABLE};

/// Panels beside each other; Grafana's grid is 24 wide.
const COLUMNS: usize = 3;
const WIDTH: usize = 24 / COLUMNS;
const HEIGHT: usize = 7;

/// The dashboard, as Grafana imports it.
#[must_use]
pub fn dashboard() -> String {
    let mut panels = Vec::new();
    let mut y = 0;
    for group in Group::ALL {
        panels.push(json!({
            "id": panels.len() + 1, "type": "row", "title": group.title(), "collapsed": false, "panels": [],
            "gridPos": { "x": 0, "y": y, "w": 24, "h": 1 },
        }));
        y += 1;
        let rows: Vec<&Definition> =
            TABLE.iter().filter(|row| row.group == group && !row.name.ends_with("_info")).collect();
        for (index, row) in rows.iter().enumerate() {
            let place = json!({
                "x": index % COLUMNS * WIDTH, "y": y + index / COLUMNS * HEIGHT, "w": WIDTH, "h": HEIGHT,
            });
            panels.push(panel(panels.len() + 1, row, &place));
        }
        y += rows.len().div_ceil(COLUMNS) * HEIGHT;
    }
    let dashboard = json!({
        "title": "Drover", "uid": "drover", "tags": ["drover", "gitlab-runner"], "schemaVersion": 39,
        "timezone": "browser", "refresh": "30s", "editable": true, "graphTooltip": 1,
        "time": { "from": "now-6h", "to": "now" },
        "templating": { "list": [
            { "name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source" },
            {
                "name": "runner_name", "type": "query", "label": "Runner", "datasource": datasource(),
                "query": "label_values(gitlab_runner_limit, runner_name)", "refresh": 2, "includeAll": true,
                "multi": true, "allValue": ".*", "current": { "text": "All", "value": "$__all" },
            },
        ] },
        "panels": panels,
    });
    format!("{dashboard:#}\n")
}

fn panel(id: usize, row: &Definition, place: &Value) -> Value {
    let targets: Vec<Value> = queries(row)
        .into_iter()
        .zip("ABC".chars())
        .map(|((query, legend), letter)| {
            json!({
                "refId": letter.to_string(), "datasource": datasource(), "expr": query, "legendFormat": legend,
            })
        })
        .collect();
    json!({
        "id": id, "type": "timeseries", "title": row.name, "description": row.help,
        "datasource": datasource(), "gridPos": place,
        "fieldConfig": { "defaults": { "unit": unit(row) }, "overrides": [] },
        "targets": targets,
    })
}

/// Each query with the legend of its lines.
fn queries(row: &Definition) -> Vec<(String, String)> {
    let name = row.name;
    let selected = match row.scope {
        Scope::Runner | Scope::Name => r#"{runner_name=~"$runner_name"}"#,
        // Where rows have no such label, they are shown for all runners.
        Scope::Token | Scope::Process => "",
    };
    let by = row.labels.join(", ");
    let legend = match row.labels {
        [] => name.to_owned(),
        labels => labels.iter().map(|label| format!("{{{{{label}}}}}")).collect::<Vec<_>>().join(" "),
    };
    match row.kind {
        Kind::Gauge => vec![(sum(&by, &format!("{name}{selected}")), legend)],
        Kind::Counter => {
            vec![(sum(&by, &format!("rate({name}{selected}[$__rate_interval])")), legend)]
        }
        Kind::Histogram(_) => [0.5, 0.95]
            .iter()
            .map(|quantile| {
                let inner = format!("rate({name}_bucket{selected}[$__rate_interval])");
                let query = format!("histogram_quantile({quantile}, sum by (le) ({inner}))");
                (query, format!("quantile {quantile}"))
            })
            .collect(),
    }
}

fn sum(by: &str, inner: &str) -> String {
    if by.is_empty() { format!("sum({inner})") } else { format!("sum by ({by}) ({inner})") }
}

fn unit(row: &Definition) -> &'static str {
    match row.kind {
        Kind::Histogram(_) => "s",
        // Seconds per second are how many there are at a time.
        Kind::Counter if row.name.ends_with("_seconds_total") => "short",
        Kind::Counter if row.name.ends_with("_bytes_total") => "Bps",
        Kind::Counter => "ops",
        Kind::Gauge if row.name.ends_with("_bytes") => "bytes",
        Kind::Gauge if row.name == "process_start_time_seconds" => "dateTimeFromNow",
        Kind::Gauge if row.name.ends_with("_seconds") => "s",
        Kind::Gauge => "short",
    }
}

fn datasource() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}
