//! What is scraped of a manager's parts at work: a real scaler over a cloud in memory, and the endpoint over TCP.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use drover_metrics::{Build, Endpoint, Kind, LogCounter, Metrics, TABLE};
use fleeting::InstanceGroup;
use fleeting_fake::{FakeCloud, Operation};
use gitlab_api::Endpoint as Call;
use http::StatusCode;
use manager::{JobIntake, Jobs, Observer as _, Phase, Requests, RunnerWatch};
use taskscaler::{Settings, Taskscaler};
use taskscaler_core::{Config, Policy, Zone};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const WAIT: Duration = Duration::from_secs(900);
const ENTRY: &str = r#"runner="SECRETLYs",runner_name="builder",system_id="s_1""#;
const TOKEN: &str = "glrt-SECRETLYsecret-0123456789";

fn metrics() -> Arc<Metrics> {
    let text = |text: &str| text.to_owned();
    let build =
        Build { name: text("drover"), version: text("1.2.3"), revision: text("abc"), system_id: text("s_1") };
    Metrics::new(build, Zone::default(), &LogCounter::default())
}

fn file(limit: u32) -> config::Config {
    let text = format!(
        "concurrent = 7\n[[runners]]\nname = \"builder\"\nurl = \"https://gitlab.test\"\ntoken = \"{TOKEN}\"\n\
         executor = \"instance\"\nlimit = {limit}\n"
    );
    config::parse(&text, "config.toml", &|_| None).unwrap().config
}

fn add(metrics: &Metrics) -> RunnerWatch {
    let config = file(5);
    metrics.configured(&config);
    metrics.runner_added(&config.runners[0])
}

/// Rows by name and labels. Refuses what Prometheus would: a second row of the same labels, a row before its type, a
/// family in two pieces.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let mut rows = BTreeMap::new();
    let mut family = ("", "");
    let mut families = Vec::new();
    for line in text.lines() {
        if let Some(head) = line.strip_prefix("# TYPE ") {
            family = head.split_once(' ').unwrap();
            assert!(!families.contains(&family.0), "{} is in two pieces", family.0);
            families.push(family.0);
            continue;
        }
        if line.starts_with("# HELP ") {
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let name = series.split('{').next().unwrap();
        let of_family = match family.1 {
            "histogram" => {
                ["_bucket", "_sum", "_count"].iter().any(|end| name == format!("{}{end}", family.0))
            }
            _ => name == family.0,
        };
        assert!(of_family, "{name} is not of the family {}", family.0);
        let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
        assert!(rows.insert(series.to_owned(), value).is_none(), "{series} is there twice");
    }
    assert!(text.ends_with('\n'));
    rows
}

fn scrape(metrics: &Metrics) -> BTreeMap<String, f64> {
    parse(&metrics.exposition(&Jobs::default()))
}

async fn start(watch: &RunnerWatch, cloud: &Arc<FakeCloud>, max_instances: u32) -> Taskscaler {
    let policy = Policy { idle_time: Duration::from_secs(60), ..Policy::default() };
    let core = Config {
        capacity_per_instance: 2,
        max_instances,
        policies: vec![policy],
        reservation_throttling: false,
        ..Config::default()
    };
    let observer = watch.scaler.clone().unwrap();
    let settings = Settings { core, observer, seed: 7, ..Settings::default() };
    let scaler = Taskscaler::start(settings, Arc::clone(cloud) as Arc<dyn InstanceGroup>).await.unwrap();
    let mut report = scaler.report();
    let listed = |report: &Option<Arc<taskscaler::Report>>| {
        report.as_ref().is_some_and(|report| !report.why.contains(&taskscaler_core::Why::NoListing))
    };
    tokio::time::timeout(WAIT, report.wait_for(listed)).await.unwrap().unwrap();
    scaler
}

fn cloud() -> Arc<FakeCloud> {
    let cloud = FakeCloud::builder().tokio_clock().boot_delay(Duration::from_secs(30)).hints(false);
    Arc::new(cloud.build())
}

#[tokio::test(start_paused = true)]
async fn the_life_of_an_instance_is_seen_in_the_metrics() {
    let (metrics, cloud) = (metrics(), cloud());
    let watch = add(&metrics);
    let scaler = start(&watch, &cloud, 1).await;
    let row = |name: &str, labels: &str| {
        let series = if labels.is_empty() {
            format!("{name}{{{ENTRY}}}")
        } else {
            format!("{name}{{{ENTRY},{labels}}}")
        };
        let rows = scrape(&metrics);
        *rows.get(&series).unwrap_or_else(|| panic!("no {series} in {rows:#?}"))
    };
    let held = scaler.acquire(scaler.reserve().unwrap(), WAIT).await.unwrap();
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(row("fleeting_provisioner_instances", r#"state="running""#), 1.0);
    assert_eq!(row("drover_instances", r#"state="ready""#), 1.0);
    assert_eq!(row("fleeting_provisioner_max_instances", ""), 1.0);
    assert_eq!(row("fleeting_taskscaler_tasks", r#"state="acquired""#), 1.0);
    assert_eq!(row("fleeting_taskscaler_tasks", r#"state="idle""#), 1.0);
    assert_eq!(row("fleeting_taskscaler_max_tasks_per_instance", ""), 2.0);
    assert_eq!(row("fleeting_taskscaler_scale_operations_total", r#"operation="up""#), 1.0);
    assert_eq!(row("fleeting_provisioner_instance_operations_total", r#"operation="create""#), 1.0);
    assert_eq!(row("fleeting_provisioner_instance_is_running_time_seconds_count", ""), 1.0);
    assert_eq!(row("fleeting_provisioner_instance_is_running_time_seconds_bucket", r#"le="20""#), 0.0);
    assert_eq!(row("fleeting_provisioner_instance_is_running_time_seconds_bucket", r#"le="45""#), 1.0);
    assert_eq!(row("fleeting_taskscaler_task_instance_readiness_time_seconds_count", ""), 1.0);
    assert_eq!(row("drover_policy_index", ""), 0.0);
    let ready = row("drover_instance_seconds_total", r#"state="ready""#);
    assert!((90.0..=100.1).contains(&ready), "{ready} seconds");
    tokio::time::sleep(Duration::from_secs(50)).await;
    let later = row("drover_instance_seconds_total", r#"state="ready""#);
    assert!((later - ready - 50.0).abs() < 0.1, "time passes between decisions too: {later} - {ready}");
    let used = row("drover_slot_seconds_total", r#"state="acquired""#);
    assert!((140.0..=150.1).contains(&used), "{used} seconds");

    let second = scaler.reserve().unwrap();
    let refused = scaler.reserve().unwrap_err();
    assert!(matches!(refused, taskscaler::NoCapacity::AtMaximum { .. }), "{refused}");
    assert_eq!(row("drover_reservation_refusals_total", r#"why="at_maximum""#), 1.0);
    assert_eq!(
        row("fleeting_taskscaler_task_operations_total", r#"operation="reserve_iop_capacity_failure""#),
        1.0
    );
    drop((held, second));
    tokio::time::sleep(Duration::from_secs(600)).await;
    for (operation, count) in [("reserve", 2.0), ("unreserve", 1.0), ("acquire", 1.0), ("release", 1.0)] {
        let labels = format!("operation=\"{operation}\"");
        assert_eq!(row("fleeting_taskscaler_task_operations_total", &labels), count, "{operation}");
    }
    assert_eq!(row("drover_instances", r#"state="ready""#), 0.0);
    assert_eq!(row("drover_instance_removals_total", r#"reason="idle""#), 1.0);
    assert_eq!(row("drover_scaling_reason", r#"why="nothing_to_do""#), 1.0);
    assert!(row("drover_scaling_reasons_total", r#"why="launching""#) >= 1.0);
    assert_eq!(row("fleeting_provisioner_instance_life_duration_seconds_count", ""), 1.0);
    assert_eq!(row("fleeting_taskscaler_scale_operations_total", r#"operation="down""#), 1.0);
    assert!(row("drover_provider_call_duration_seconds_count", r#"call="update",outcome="done""#) > 5.0);
}

#[tokio::test(start_paused = true)]
async fn a_lost_instance_and_a_failing_listing_are_counted() {
    let (metrics, cloud) = (metrics(), cloud());
    let watch = add(&metrics);
    let scaler = start(&watch, &cloud, 3).await;
    let held = scaler.acquire(scaler.reserve().unwrap(), WAIT).await.unwrap();
    cloud.vanish(&fleeting::InstanceId::from(held.instance().as_str()), "gone");
    tokio::time::timeout(WAIT, held.lost()).await.unwrap();
    let removals = format!(r#"drover_instance_removals_total{{{ENTRY},reason="unexpectedly_removed"}}"#);
    assert_eq!(scrape(&metrics)[&removals], 1.0);

    let missed = format!("fleeting_provisioner_missed_updates_total{{{ENTRY}}}");
    assert_eq!(scrape(&metrics)[&missed], 0.0);
    cloud.deny(Operation::Update, "the role may not list");
    tokio::time::sleep(Duration::from_secs(600)).await;
    let rows = scrape(&metrics);
    assert!(rows[&missed] > 1.0);
    let calls = format!(r#"{ENTRY},call="update",outcome="denied""#);
    assert_eq!(rows[&format!("drover_provider_call_duration_seconds_count{{{calls}}}")], rows[&missed]);
}

#[test]
fn the_numbers_of_a_removed_entry_are_forgotten() {
    let metrics = metrics();
    let watch = add(&metrics);
    let replacement = metrics.runner_added(&file(9).runners[0]);
    let limit = format!("gitlab_runner_limit{{{ENTRY}}}");
    watch.entry.turn();
    drop(watch);
    let rows = scrape(&metrics);
    assert_eq!(rows[&limit], 9.0, "an entry that starts anew goes on counting in the same rows");
    assert_eq!(rows[&format!("gitlab_runner_worker_feeds_total{{{ENTRY}}}")], 1.0);
    drop(replacement);
    assert!(!scrape(&metrics).keys().any(|series| series.contains("builder")));
}

#[test]
fn jobs_and_calls_are_counted_by_their_runner() {
    let metrics = metrics();
    let watch = add(&metrics);
    let intake = JobIntake {
        job: 1,
        queued: Duration::from_secs(45),
        project_jobs_running: "+Inf",
        queue_size: 12,
        queue_depth: 3,
    };
    watch.entry.job_received(&intake);
    watch.entry.job_received(&JobIntake { project_jobs_running: "", ..intake });
    watch.entry.job_ended(Some("script_failure"), Duration::from_secs(61));
    watch.entry.job_ended(None, Duration::from_secs(10));
    watch.entry.stage_ended("step_script", Duration::from_secs(40));
    let requests =
        Requests { in_flight: 2, hard_limit: 4, adaptive_limit: 2.5, used_limit: 3, healthy: false };
    watch.entry.requests(&requests);
    let ended = |status: Option<u16>, endpoint| gitlab_api::Ended {
        endpoint,
        status: status.map(|status| StatusCode::from_u16(status).unwrap()),
        duration: Duration::from_millis(200),
        attempts: 3,
        retried: status.is_none(),
    };
    let api = watch.api.as_ref().unwrap();
    api.ended(&ended(Some(201), Call::RequestJob));
    api.ended(&ended(None, Call::PatchTrace));
    api.ended(&ended(Some(200), Call::Verify));
    let rows = scrape(&metrics);
    let token = r#"runner="SECRETLYs",system_id="s_1""#;
    for (series, value) in [
        (format!("gitlab_runner_jobs_total{{{ENTRY}}}"), 2.0),
        (format!(r#"gitlab_runner_jobs{{{ENTRY},state="idle",stage="idle",executor_stage="idle"}}"#), 0.0),
        (format!("gitlab_runner_job_queue_size{{{ENTRY}}}"), 12.0),
        (format!(r#"gitlab_runner_job_queue_duration_seconds_bucket{{{ENTRY},project_jobs_running="+Inf",le="30"}}"#), 0.0),
        (format!(r#"gitlab_runner_job_queue_duration_seconds_bucket{{{ENTRY},project_jobs_running="+Inf",le="60"}}"#), 1.0),
        (format!(r#"gitlab_runner_job_queue_duration_seconds_count{{{ENTRY},project_jobs_running="other"}}"#), 1.0),
        (format!(r#"gitlab_runner_job_duration_seconds_count{{{ENTRY},mode="traditional"}}"#), 2.0),
        (format!(r#"gitlab_runner_job_stage_duration_seconds_sum{{{ENTRY},stage="step_script"}}"#), 40.0),
        (r#"gitlab_runner_failed_jobs_total{runner="SECRETLYs",runner_name="builder",failure_reason="script_failure",mode="traditional"}"#.to_owned(), 1.0),
        (format!(r#"gitlab_runner_worker_processing_failures_total{{{ENTRY},failure_type="job_failure"}}"#), 1.0),
        (r#"gitlab_runner_job_execution_mode_total{mode="traditional",executor="instance"}"#.to_owned(), 2.0),
        (format!("gitlab_runner_request_concurrency{{{token}}}"), 2.0),
        (format!("gitlab_runner_request_concurrency_adaptive_limit{{{token}}}"), 2.5),
        (format!("drover_runner_healthy{{{ENTRY}}}"), 0.0),
        (format!(r#"gitlab_runner_api_request_statuses_total{{{token},endpoint="request_job",status="201",method="POST"}}"#), 1.0),
        (format!(r#"gitlab_runner_api_request_statuses_total{{{token},endpoint="patch_trace",status="-1",method="PATCH"}}"#), 1.0),
        (format!(r#"gitlab_runner_api_request_duration_seconds_count{{{token},endpoint="request_job",status_class="2xx",method="POST"}}"#), 1.0),
        (r#"gitlab_runner_api_request_retries_total{path="jobs/{id}/trace",method="PATCH"}"#.to_owned(), 3.0),
        ("gitlab_runner_concurrent".to_owned(), 7.0),
        (r#"gitlab_runner_worker_slot_operations_total{operation="started"}"#.to_owned(), 7.0),
        ("gitlab_runner_configuration_loaded_total".to_owned(), 1.0),
    ] {
        assert_eq!(rows.get(&series), Some(&value), "{series}");
    }
    assert!(!rows.keys().any(|series| series.contains("verify")), "GitLab Runner does not measure it");
}

#[tokio::test(start_paused = true)]
async fn every_metric_of_the_table_can_be_shown() {
    let (metrics, cloud) = (metrics(), cloud());
    let watch = add(&metrics);
    let scaler = start(&watch, &cloud, 1).await;
    let intake = JobIntake { job: 1, queued: WAIT, project_jobs_running: "0", queue_size: 1, queue_depth: 1 };
    watch.entry.job_received(&intake);
    watch.entry.job_ended(Some("script_failure"), WAIT);
    watch.entry.stage_ended("step_script", WAIT);
    watch.api.as_ref().unwrap().ended(&gitlab_api::Ended {
        endpoint: Call::RequestJob,
        status: Some(StatusCode::CREATED),
        duration: WAIT,
        attempts: 2,
        retried: true,
    });
    let text = metrics.exposition(&Jobs::default());
    parse(&text);
    for row in TABLE {
        let kind = match row.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        assert!(text.contains(&format!("\n# TYPE {} {kind}\n", row.name)), "{} is missing", row.name);
    }
    assert!(!text.contains("secret-0123"), "the token is in the metrics");
    drop(scaler);
}

// === the endpoint ===

async fn serve(metrics: &Arc<Metrics>) -> std::net::SocketAddr {
    let endpoint = Endpoint::bind("127.0.0.1:0").await.unwrap();
    let address = endpoint.local_addr().unwrap();
    tokio::spawn(endpoint.serve(Arc::clone(metrics), Jobs::default()));
    address
}

/// Sends bytes and reads the whole answer.
async fn ask(address: std::net::SocketAddr, request: &str) -> String {
    let talk = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A server that refuses the rest of a request may reset the connection behind its answer.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    };
    tokio::time::timeout(Duration::from_secs(60), talk).await.unwrap()
}

async fn get(address: std::net::SocketAddr, path: &str) -> String {
    ask(address, &format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await
}

#[tokio::test]
async fn the_endpoint_shows_metrics_health_and_jobs() {
    let metrics = metrics();
    let address = serve(&metrics).await;
    let answer = get(address, "/metrics").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{head}");
    assert_eq!(parse(body)["gitlab_runner_concurrent"], 0.0);

    assert!(get(address, "/health/ready").await.starts_with("HTTP/1.1 503 "));
    metrics.configured(&file(1));
    manager::Observer::phase(&*metrics, Phase::Running);
    let ready = get(address, "/health/ready").await;
    assert!(ready.starts_with("HTTP/1.1 200 ") && ready.ends_with("\r\n\r\nready\n"), "{ready}");
    assert!(get(address, "/debug/process/state").await.ends_with("\r\n\r\nrunning\n"));
    let list = get(address, "/debug/jobs/list").await;
    assert!(list.contains("\r\nx-list-version: 2\r\n") && list.ends_with("\r\n\r\n"), "{list}");
    assert!(get(address, "/debug/pprof/").await.starts_with("HTTP/1.1 404 "));
}

#[tokio::test]
async fn only_reading_is_allowed_and_only_small_requests() {
    let address = serve(&metrics()).await;
    let post = ask(address, "POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").await;
    assert!(post.starts_with("HTTP/1.1 405 ") && post.contains("allow: GET, HEAD"), "{post}");
    let head = ask(address, "HEAD /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    let large = format!("GET /metrics HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "x".repeat(64 * 1024));
    let answer = ask(address, &large).await;
    assert!(!answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn clients_that_say_nothing_do_not_keep_others_out_for_long() {
    let address = serve(&metrics()).await;
    let mut silent = Vec::new();
    for _ in 0..drover_metrics::CONNECTIONS {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    // They hold every place until the time for a request's head is over.
    assert!(get(address, "/debug/process/state").await.starts_with("HTTP/1.1 200 "));
}
