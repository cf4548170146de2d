//! What a comparison says, and that it says the same each time.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails them")]

use std::time::Duration;

use drover_simulator::{
    Base, Billing, CloudModel, Price, Recipe, Setup, Shape, Span, Surroundings, Trace, compare,
};
use taskscaler_core::{Config, Policy};

#[test]
fn the_same_inputs_give_the_same_report_byte_for_byte() {
    let trace = Recipe { jobs: 800, days: 2, ..Recipe::default() }.make();
    let around = Surroundings {
        cloud: CloudModel { boot_failures: 0.05, interruptions_per_hour: 0.1, ..CloudModel::default() },
        ..Surroundings::default()
    };
    let setups = [cold(20), warm(20, 5)];
    let (one, two) = (compare(&setups, &trace, &around), compare(&setups, &trace, &around));
    assert_eq!(one.html(), two.html());
    assert_eq!(one.json(), two.json());
    assert_eq!(one.text(), two.text());
    let other = compare(&setups, &trace, &Surroundings { seed: 2, ..around });
    assert_ne!(one.json(), other.json());
}

#[test]
fn the_figures_of_a_small_day_are_those_worked_out_by_hand() {
    // Two jobs at once and one an hour later, on instances that boot in 60 s and are kept for 5 minutes.
    let text =
        "created_at,duration\n2026-08-03T08:00:00Z,60\n2026-08-03T08:00:00Z,60\n2026-08-03T09:00:00Z,60\n";
    let trace = Trace::parse(text, "jobs.csv").unwrap();
    let cloud = CloudModel {
        boot: Span::Constant(Duration::from_secs(60)),
        ready: Span::Constant(Duration::ZERO),
        price: Price { micros_per_hour: 1_000_000, billing: Billing::Hourly },
        ..CloudModel::default()
    };
    let around = Surroundings { cloud, request: Duration::ZERO, seed: 1 };
    let json = figures(&compare(&[cold(10)], &trace, &around).json());
    assert_eq!(json["instances"], 3);
    assert_eq!(json["most_instances"], 2);
    // Each instance exists for less than an hour and costs one.
    assert_eq!(json["cost"], 3.0);
    // 60 s of boot and the next look at the group, every 2 s.
    assert_eq!(json["waiting_seconds"]["p50"], 62.0);
    assert_eq!(json["waiting_seconds"]["max"], 62.0);
    // Two at once for a minute, one for another, and two boots.
    let least = (180.0 + 120.0) / 3_600.0;
    assert!((json["bounds"]["cost_if_no_job_waits"].as_f64().unwrap() - least).abs() < 1e-4);
}

#[test]
fn no_policy_beats_the_bounds() {
    for (seed, shape) in [(1, Shape::Office), (2, Shape::Bursts), (3, Shape::Poisson)] {
        let trace = Recipe { jobs: 1_500, days: 1, shape, seed, ..Recipe::default() }.make();
        let around = Surroundings { seed, ..Surroundings::default() };
        let setups = [cold(10), cold(1_000), warm(40, 10), fresh(30)];
        let json: serde_json::Value =
            serde_json::from_str(&compare(&setups, &trace, &around).json()).unwrap();
        for policy in json["policies"].as_array().unwrap() {
            let number = |pointer: &str| policy.pointer(pointer).unwrap().as_f64().unwrap();
            assert!(number("/cost") >= number("/bounds/cost_of_any_policy"), "{policy}");
            assert!(number("/waiting_seconds/mean") >= number("/bounds/mean_wait_seconds"), "{policy}");
            assert!(
                number("/bounds/cost_if_no_job_waits") >= number("/bounds/cost_of_any_policy"),
                "{policy}"
            );
        }
    }
}

#[test]
fn idle_capacity_buys_short_waits() {
    let trace = Recipe { jobs: 2_000, days: 2, ..Recipe::default() }.make();
    let json: serde_json::Value =
        serde_json::from_str(&compare(&[cold(100), warm(100, 20)], &trace, &Surroundings::default()).json())
            .unwrap();
    let number =
        |index: usize, pointer: &str| json["policies"][index].pointer(pointer).unwrap().as_f64().unwrap();
    assert!(number(0, "/waiting_seconds/p95") > number(1, "/waiting_seconds/p95"));
    assert!(number(0, "/cost") < number(1, "/cost"));
}

#[test]
fn jobs_that_can_never_start_are_said_so_with_the_reason() {
    let policy = Policy { preemptive_mode: Some(true), ..Policy::default() };
    let scaler = Config { policies: vec![policy], max_instances: 5, ..Config::default() };
    let setup = Setup { name: "stuck".to_owned(), scaler, most_jobs: 10, ..Setup::default() };
    let trace = Recipe { jobs: 10, days: 1, ..Recipe::default() }.make();
    let text = compare(&[setup], &trace, &Surroundings::default()).text();
    assert!(text.contains("`stuck`: 10 jobs never started: no capacity: none of the 0 free slots"), "{text}");
}

#[test]
fn interrupted_jobs_run_again_until_all_have_run() {
    let trace = Recipe { jobs: 500, days: 1, ..Recipe::default() }.make();
    let cloud = CloudModel { interruptions_per_hour: 1.0, ..CloudModel::default() };
    let around = Surroundings { cloud, ..Surroundings::default() };
    let json = figures(&compare(&[cold(50)], &trace, &around).json());
    assert_eq!(json["jobs_started"], 500);
    assert!(json["jobs_interrupted"].as_u64().unwrap() > 5, "{json}");
}

#[test]
fn the_page_needs_nothing_else_and_names_are_not_markup() {
    let trace = Recipe { jobs: 50, days: 1, ..Recipe::default() }.make();
    let setup = Setup { name: "<b>&\"".to_owned(), ..cold(5) };
    let html = compare(&[setup], &trace, &Surroundings::default()).html();
    for foreign in ["<script", "<link", "<img", "http://", "https://", "url(", "@import", "<b>&"] {
        assert!(!html.contains(foreign), "{foreign}");
    }
    assert_eq!(html.matches("<svg").count(), html.matches("</svg>").count());
    assert!(html.contains("role=\"img\"") && html.contains("prefers-color-scheme:dark"));
}

#[test]
fn docker_machine_entries_are_simulated_too() {
    let text = "concurrent = 20\n[[runners]]\nname = \"m\"\nurl = \"https://gitlab.example.com\"\ntoken = \"x\"\n\
        executor = \"docker+machine\"\nlimit = 20\n[runners.machine]\nIdleCount = 3\nIdleTime = 600\nMaxGrowthRate = 2\n\
        MachineName = \"m-%s\"\nMachineDriver = \"none\"\n";
    let base = Base::parse(text, "config.toml", None, taskscaler_core::Zone::default()).unwrap();
    let trace = Recipe { jobs: 300, days: 1, ..Recipe::default() }.make();
    let json = figures(&compare(&[base.setup], &trace, &Surroundings::default()).json());
    assert_eq!((&json["name"], &json["jobs_started"]), (&"m".into(), &300.into()));
    assert!(json["most_instances"].as_u64().unwrap() <= 20);
}

fn figures(json: &str) -> serde_json::Value {
    serde_json::from_str::<serde_json::Value>(json).unwrap()["policies"][0].clone()
}

fn cold(max_instances: u32) -> Setup {
    let scaler = Config { max_instances, policies: vec![Policy::default()], ..Config::default() };
    Setup { name: format!("cold-{max_instances}"), scaler, most_jobs: 1_000, ..Setup::default() }
}

fn warm(max_instances: u32, idle_count: u32) -> Setup {
    let policies = vec![Policy { idle_count, preemptive_mode: Some(false), ..Policy::default() }];
    let scaler = Config { max_instances, policies, ..Config::default() };
    Setup { name: format!("warm-{idle_count}"), scaler, most_jobs: 1_000, ..Setup::default() }
}

fn fresh(max_instances: u32) -> Setup {
    let scaler = Config { max_use_count: 1, ..cold(max_instances).scaler };
    Setup { name: "fresh".to_owned(), scaler, ..cold(max_instances) }
}
