//! `drover simulate`, and `drover run --dry-run`.

use nix::sys::signal::Signal;

use crate::support::Home;

const CONFIG: &str = r#"
concurrent = 50

[[runners]]
  name = "build"
  url = "https://gitlab.example.com"
  token = "glrt-aBcDeFgHiJkLmNoPqRsT"
  executor = "instance"
  [runners.autoscaler]
    plugin = "local"
    max_instances = 20
    [[runners.autoscaler.policy]]
      idle_count = 2
      idle_time = "10m"
"#;

#[tokio::test]
async fn a_generated_trace_is_replayed_under_two_policies_with_the_same_report_each_time() {
    let home = Home::with(CONFIG);
    let made =
        home.drover(&["simulate", "generate", "--jobs", "300", "--days", "2", "--seed", "7"]).await.code(0);
    let trace = home.write("trace.csv", &made.stdout);
    let cold = home.write("cold.toml", "[[policy]]\nidle_count = 0\n");
    let (first, second) = (home.path().join("1.html"), home.path().join("2.html"));
    let mut texts = Vec::new();
    for report in [&first, &second] {
        let arguments =
            ["simulate", "--jobs", trace.to_str().unwrap(), "--policy", cold.to_str().unwrap(), "--report"];
        let run = home.drover(&[&arguments[..], &[report.to_str().unwrap()]].concat()).await.code(0);
        assert!(run.stdout.contains("build") && run.stdout.contains("cold"), "{}", run.stdout);
        texts.push(run.stdout);
    }
    assert_eq!(texts[0], texts[1]);
    assert_eq!(std::fs::read(first).unwrap(), std::fs::read(second).unwrap());
}

#[tokio::test]
async fn without_jobs_an_office_week_is_made_up() {
    let home = Home::with(CONFIG);
    let run = home.drover(&["simulate", "--json"]).await.code(0);
    let figures: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(figures["jobs"]["count"], 5_000);
    assert_eq!(figures["policies"][0]["jobs_started"], 5_000);
}

#[tokio::test]
async fn wrong_input_is_named_with_what_was_expected() {
    let home = Home::with(
        &CONFIG
            .replace("[[runners.autoscaler.policy]]", "[runners.docker]")
            .replace("[runners.autoscaler]\n    plugin = \"local\"\n    max_instances = 20", ""),
    );
    let run = home.drover(&["simulate"]).await.code(2);
    assert!(
        run.stderr.contains("does not scale: expected [runners.autoscaler] or [runners.machine]"),
        "{}",
        run.stderr
    );

    let home = Home::with(CONFIG);
    let trace = home.write("trace.csv", "created_at,duration\n2026-08-03T08:00:00Z,soon\n");
    let run = home.drover(&["simulate", "--jobs", trace.to_str().unwrap()]).await.code(2);
    assert!(
        run.stderr.contains("trace.csv:2: found `soon`, expected seconds such as 312.5"),
        "{}",
        run.stderr
    );
}

#[tokio::test]
async fn a_scenario_is_played() {
    let home = Home::empty();
    let scenario = home.write("why.txt", "settings\nmax_instances = 1\nend\njob a\nwait 1m\n");
    let run = home.drover(&["simulate", "scenario", scenario.to_str().unwrap()]).await.code(0);
    assert!(run.stdout.contains("=> launch 1") && run.stdout.contains("a runs on i-1/0"), "{}", run.stdout);
}

#[tokio::test]
async fn a_dry_run_says_what_it_would_do_and_does_nothing() {
    // Nobody listens there: a request for a job would be logged as failed.
    let config = CONFIG.replace("https://gitlab.example.com", "http://127.0.0.1:9");
    let home = Home::with(&config);
    let mut run = home.run(&["--dry-run"]);
    run.says("dry run: would create instances").await;
    run.signal(Signal::SIGQUIT);
    assert_eq!(run.ends().await, 0, "{}", run.said);
    assert!(!run.said.contains("127.0.0.1:9/api"), "{}", run.said);
}
