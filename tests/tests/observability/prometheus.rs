//! The metrics in a real Prometheus: it scrapes a working manager, and has what the dashboard and the alert rules ask for.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use drover_tests::{free_port, within};
use gitlab_mock::{Endpoint, Fault, JobBuilder};
use metrics::{ALERTS, Kind, TABLE};
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::watched::{Watched, fleet, shown};

const TOKEN: &str = "glrt-fleet-0123456789abcdef";

/// A Prometheus of this test alone, on loopback. It is killed with this value.
struct Prometheus {
    _child: Child,
    url: String,
    client: reqwest::Client,
}

impl Prometheus {
    /// Scrapes an address every second.
    async fn start(target: &str, folder: &Path) -> Self {
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\n\
             rule_files: [ {rules:?} ]\n\
             scrape_configs:\n  - job_name: drover\n    static_configs: [ {{ targets: [ {target:?} ] }} ]\n",
            rules = docs().join("alerts.yml"),
        );
        let file = folder.join("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        // It cannot choose a port itself and say which.
        let free = format!("127.0.0.1:{}", free_port());
        let log = std::fs::File::create(folder.join("prometheus.log")).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={free}"))
            .env_clear()
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("`prometheus` does not start ({error}): cargo xtask needs"));
        let url = format!("http://{free}");
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let prometheus = Self { _child: child, url, client };
        within("Prometheus is ready", async {
            loop {
                let ready = prometheus.client.get(format!("{}/-/ready", prometheus.url)).send().await;
                if ready.is_ok_and(|answer| answer.status().is_success()) {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        })
        .await;
        prometheus
    }

    /// An answer of its API.
    async fn api(&self, path: &str, query: &[(&str, &str)]) -> Value {
        let request = self.client.get(format!("{}/api/v1/{path}", self.url)).query(query);
        let answer = request.send().await.unwrap().text().await.unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["status"], "success", "{path} {query:?}: {answer}");
        answer["data"].clone()
    }

    /// Names of all series.
    async fn names(&self) -> BTreeSet<String> {
        let names = self.api("label/__name__/values", &[]).await;
        names.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
    }

    /// How many rows a query yields.
    async fn rows(&self, query: &str) -> usize {
        self.api("query", &[("query", query)]).await["result"].as_array().unwrap().len()
    }
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").canonicalize().unwrap()
}

/// Names of series that a metric of the table has.
fn series() -> BTreeSet<String> {
    let names = TABLE.iter().map(|row| match row.kind {
        Kind::Counter | Kind::Gauge => row.name.to_owned(),
        Kind::Histogram(_) => format!("{}_bucket", row.name),
    });
    names.collect()
}

/// The queries of the dashboard, for all runners.
fn queries() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&metrics::dashboard()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let queries: Vec<String> = targets
        .map(|target| target["expr"].as_str().unwrap())
        .map(|query| query.replace("$runner_name", ".*").replace("$__rate_interval", "1m"))
        .collect();
    assert!(queries.len() >= TABLE.len() - 3, "the dashboard has few queries: {}", queries.len());
    queries
}

/// A job of each kind that counts in a metric of its own.
async fn everything_happens(world: &Watched) {
    // An answer that must be asked for again.
    world.gitlab.inject(Fault::status(502).on([Endpoint::UpdateJob]).times(1));
    world.enqueue(
        JobBuilder::new("staged").script(["true"]).variable("FF_EXPORT_HIGH_CARDINALITY_METRICS", "true"),
    );
    world.enqueue(JobBuilder::new("fails").script(["exit 3"]));
    assert!(world.gitlab.all_finished(drover_tests::PATIENCE).await);
}

#[tokio::test]
async fn prometheus_has_every_metric_of_the_dashboard_and_accepts_every_rule() {
    let folder = tempfile::tempdir().unwrap();
    // Instances serve one job each, so that some are deleted.
    let entry =
        fleet().set("autoscaler.max_use_count", 1).set("monitoring.job_queuing_durations", vec![queuing()]);
    let world = Watched::start(shown(entry), TOKEN).await;
    let prometheus = Prometheus::start(world.address(), folder.path()).await;
    everything_happens(&world).await;

    let wanted = series();
    let mut missing: Vec<String> = Vec::new();
    within("every metric is scraped", async {
        loop {
            let names = prometheus.names().await;
            let now_missing: Vec<String> = wanted.difference(&names).cloned().collect();
            if now_missing != missing {
                eprintln!("missing: {now_missing:?}");
            }
            missing = now_missing;
            if missing.is_empty() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    })
    .await;

    // Rates need two scrapes of each row.
    for query in queries() {
        within(&format!("an answer to {query}"), async {
            while prometheus.rows(&query).await == 0 {
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
        })
        .await;
    }
    for alert in ALERTS {
        // Most hold for nobody here, so it is only whether they can be asked.
        prometheus.rows(alert.expression).await;
    }
    let rules = prometheus.api("rules", &[]).await;
    let rules = rules["groups"][0]["rules"].as_array().unwrap();
    assert_eq!(rules.len(), ALERTS.len());
    let targets = prometheus.api("targets", &[]).await;
    let target = &targets["activeTargets"][0];
    assert_eq!((target["health"].as_str(), target["lastError"].as_str()), (Some("up"), Some("")), "{target}");

    // What Prometheus knows is what the manager says of itself.
    let document = world.document().await;
    let scaling = document.runners[0].scaling.as_ref().unwrap();
    let maximum = prometheus.api("query", &[("query", "fleeting_provisioner_max_instances")]).await;
    assert_eq!(maximum["result"][0]["value"][1], scaling.maximum.unwrap().to_string());
    let policy = prometheus.api("query", &[("query", "drover_policy_index")]).await;
    assert_eq!(policy["result"][0]["value"][1], scaling.policy.index.unwrap().to_string());

    let exposition = world.get("/metrics").await;
    promtool(&["check", "metrics"], &exposition).await;
    world.stop().await;
}

#[tokio::test]
async fn promtool_accepts_the_alert_rules() {
    let said = promtool(&["check", "rules", &docs().join("alerts.yml").display().to_string()], "").await;
    assert!(said.contains(&format!("{} rules found", ALERTS.len())), "{said}");
}

/// Any time in the queue is too long.
fn queuing() -> toml::Value {
    let mut rule = toml::Table::new();
    rule.insert("periods".to_owned(), vec!["* * * * *"].into());
    rule.insert("threshold".to_owned(), "1ns".into());
    toml::Value::Table(rule)
}

/// Runs `promtool` and fails unless it is content.
async fn promtool(arguments: &[&str], input: &str) -> String {
    use tokio::io::AsyncWriteExt as _;
    let mut child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("`promtool` does not start ({error}): cargo xtask needs"));
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    let output = within("promtool ends", child.wait_with_output()).await.unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    said
}
