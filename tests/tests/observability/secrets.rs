//! Nothing that operators are shown holds a secret.

use gitlab_mock::JobBuilder;

use crate::watched::{Watched, fleet, shown, until};

const TOKEN: &str = "glrt-fleet-0123456789abcdef";
const ENVIRONMENT: &str = "environment-of-the-entry-5ecre7";
const MASKED: &str = "masked-variable-5ecre7";
const PLAIN: &str = "plain-variable-5ecre7";

#[tokio::test]
async fn no_secret_is_in_anything_that_is_shown() {
    let entry = fleet().set("environment", vec![toml::Value::from(format!("DEPLOY_KEY={ENVIRONMENT}"))]);
    let world = Watched::start(shown(entry), TOKEN).await;
    let gate = world.drover.folder().join("gate");
    let job = world.enqueue(until(&gate).masked_variable("PASSWORD", MASKED).variable("OTHER", PLAIN));
    let failing = JobBuilder::new("fails").script(["exit 3"]).masked_variable("PASSWORD", MASKED);
    let failing = world.enqueue(failing);
    world
        .eventually("a job runs", |document| {
            document.runners[0].jobs.iter().any(|job| job.stage == "step_script")
        })
        .await;
    let mut shown = vec![
        ("explain", world.explain(&[]).await),
        ("explain --json", world.explain(&["--json"]).await),
        ("/status", world.get("/status").await),
        ("/status.html", world.get("/status.html").await),
        ("/metrics", world.get("/metrics").await),
        ("/debug/jobs/list", world.get("/debug/jobs/list").await),
    ];
    let tokens = [job.token().to_owned(), failing.token().to_owned()];
    std::fs::write(&gate, "").unwrap();
    shown.push(("the log", world.stop().await));
    for (what, text) in &shown {
        let about = if *what == "/debug/jobs/list" { "stage=step_script" } else { "fleet" };
        assert!(text.contains(about), "{what} is about something else:\n{text}");
        for secret in [TOKEN, ENVIRONMENT, MASKED, PLAIN, &tokens[0], &tokens[1], "0123456789abcdef"] {
            assert!(!text.contains(secret), "{what} holds `{secret}`:\n{text}");
        }
        assert!(!text.contains("PRIVATE KEY"), "{what}");
    }
}
