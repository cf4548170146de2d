//! What is written in `docs/` is what the table makes.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeSet;
use std::path::Path;

use drover_metrics::{ALERTS, Kind, TABLE};

fn is_up_to_date(name: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, made).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == made,
        "docs/{name} is out of date: run UPDATE_REFERENCE=1 cargo test -p drover-metrics --test reference"
    );
}

/// Every name that a query may use.
fn series() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for row in TABLE {
        match row.kind {
            Kind::Counter | Kind::Gauge => {
                names.insert(row.name.to_owned());
            }
            Kind::Histogram(_) => {
                names.extend(["_bucket", "_sum", "_count"].map(|suffix| format!("{}{suffix}", row.name)));
            }
        }
    }
    names
}

/// Words of a query that look like metrics.
fn metrics_in(query: &str) -> impl Iterator<Item = &str> {
    query.split(|character: char| !character.is_ascii_alphanumeric() && character != '_').filter(|word| {
        ["gitlab_runner_", "fleeting_", "drover_", "process_"].iter().any(|start| word.starts_with(start))
    })
}

#[test]
fn the_reference_page_is_the_one_that_the_table_makes() {
    is_up_to_date("metrics.md", &drover_metrics::reference());
}

#[test]
fn the_dashboard_is_the_one_that_the_table_makes() {
    is_up_to_date("grafana.json", &drover_metrics::dashboard());
}

#[test]
fn the_alert_rules_are_those_of_the_code() {
    is_up_to_date("alerts.yml", &drover_metrics::alerts());
}

#[test]
fn alerts_ask_only_for_metrics_that_exist() {
    let series = series();
    for alert in ALERTS {
        let asked: Vec<&str> = metrics_in(alert.expression).collect();
        assert!(!asked.is_empty(), "{}", alert.name);
        for name in asked {
            assert!(series.contains(name), "{} asks for {name}", alert.name);
        }
    }
}

#[test]
fn the_dashboard_shows_each_metric_once() {
    let dashboard: serde_json::Value = serde_json::from_str(&drover_metrics::dashboard()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let series = series();
    let mut titles = BTreeSet::new();
    for panel in panels.iter().filter(|panel| panel["type"] == "timeseries") {
        assert!(titles.insert(panel["title"].as_str().unwrap()), "{}", panel["title"]);
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap();
            assert_eq!(metrics_in(query).filter(|name| series.contains(*name)).count(), 1, "{query}");
        }
    }
    let expected: BTreeSet<&str> =
        TABLE.iter().map(|row| row.name).filter(|name| !name.ends_with("_info")).collect();
    assert_eq!(titles, expected);
    let mut places = BTreeSet::new();
    for panel in panels {
        let place = (panel["gridPos"]["x"].as_u64(), panel["gridPos"]["y"].as_u64());
        assert!(places.insert(place), "two panels at {place:?}");
    }
}
