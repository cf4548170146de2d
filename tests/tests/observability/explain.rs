//! `drover explain` and `/status` say what is so.

use serde_json::Value;
use status::{EntryState, Kind};

use crate::watched::{Watched, explain, fleet, names, shown, until};

const TOKEN: &str = "glrt-fleet-0123456789abcdef";

fn busy() -> drover_tests::Entry {
    // Three idle slots are wanted beside those in use, and two instances are all there may be.
    fleet().policy([("idle_count", 3.into()), ("idle_time", "10m".into()), ("preemptive_mode", false.into())])
}

#[tokio::test]
async fn a_manager_under_load_says_what_it_does_and_why() {
    let world = Watched::start(shown(busy()), TOKEN).await;
    let gate = world.drover.folder().join("gate");
    let jobs = [(); 3].map(|()| world.enqueue(until(&gate)));

    let document = world
        .eventually("two jobs run and the group is at its maximum", |document| {
            let running = document.runners[0].jobs.iter().filter(|job| job.stage == "step_script").count();
            let scaling = document.runners[0].scaling.as_ref();
            running == 2 && scaling.is_some_and(|scaling| scaling.slots.acquired == 2)
        })
        .await;
    let manager = &document.manager;
    assert_eq!((manager.concurrent, manager.phase.as_str()), (10, "running"));
    assert_eq!(manager.pid, world.drover.program.pid().unsigned_abs());
    let runner = &document.runners[0];
    assert_eq!((runner.name.as_str(), runner.state, runner.healthy), ("fleet", EntryState::Working, true));
    let scaling = runner.scaling.as_ref().unwrap();
    assert_eq!(
        runner.no_room, "no capacity: every slot of the most 2 instances is taken",
        "why no third job is taken"
    );
    let policy = &scaling.policy;
    assert_eq!((policy.index, policy.of, policy.idle_count, policy.until), (Some(0), 1, 3, None));
    assert_eq!((policy.idle_time().as_str(), policy.preemptive), ("10m0s", false));
    // Two in use and three idle ones wanted make five instances.
    let wanted = (scaling.wanted, scaling.wanted_without_maximum, scaling.maximum);
    assert_eq!(wanted, (Some(2), 5, Some(2)));
    assert_eq!((scaling.why[0].name.as_str(), scaling.why[0].holds_back), ("at_max_instances", true));
    assert_eq!(scaling.why[0].text, "at the maximum of 2, would want 5");
    let states: Vec<_> =
        scaling.instances.iter().map(|one| (one.state.as_str(), one.slots_used, one.uses)).collect();
    assert_eq!(states, [("ready", 1, 1), ("ready", 1, 1)]);
    assert!(scaling.instances.iter().all(|one| one.next == "runs jobs" && one.idle_since.is_none()));
    let decided = |text: &str| {
        scaling.recent.iter().any(|moment| moment.kind == Kind::Decision && moment.text.starts_with(text))
    };
    assert!(decided("launching 2: 0 jobs wait") || decided("launching 2: "), "{:?}", scaling.recent);
    assert!(decided("at the maximum of 2"), "{:?}", scaling.recent);
    let running: Vec<u64> = runner.jobs.iter().map(|job| job.job).collect();
    assert!(running.iter().all(|id| jobs.iter().any(|job| job.id() == *id)), "{running:?}");

    // People read the same.
    let text = world.explain(&[]).await;
    for fact in [
        "RUNNER fleet (",
        "takes jobs",
        "1 of 1, `* * * * *`",
        "idle_count 3, idle_time 10m0s: 3 idle slots wanted",
        "2 wanted (5 without the maximum), at most 2; there are: 2 ready",
        "2 in use, 0 free",
        "at the maximum of 2, would want 5",
        "runs jobs",
        "RECENT DECISIONS",
    ] {
        assert!(text.contains(fact), "`{fact}` is missing:\n{text}");
    }

    // So do programs, over HTTP.
    let shown: Value = serde_json::from_str(&world.get("/status").await).unwrap();
    let asked: Value = serde_json::from_str(&world.explain(&["--json"]).await).unwrap();
    assert_eq!((&shown["version"], &asked["version"]), (&1.into(), &1.into()));
    for part in ["policy", "wanted", "maximum", "required", "why"] {
        let at = format!("/runners/0/scaling/{part}");
        assert_eq!(shown.pointer(&at).unwrap(), asked.pointer(&at).unwrap(), "{part}");
    }
    let instances = "/runners/0/scaling/instances";
    let ids = names(shown.pointer(instances).unwrap(), "id");
    assert_eq!(ids, names(asked.pointer(instances).unwrap(), "id"));

    // One instance alone.
    let text = world.explain(&["--runner", "fleet", "--instance", ids[0]]).await;
    assert!(text.contains(ids[0]) && !text.contains(ids[1]), "{text}");
    // What is not there is named, with what is.
    let output = explain(&world.config(), &["--runner", "fleeet"]).await;
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(error, "error: the manager has no runner `fleeet`; it has `fleet`\n");

    std::fs::write(&gate, "").unwrap();
    world.stop().await;
}

#[tokio::test]
async fn an_entry_that_cannot_work_is_shown_and_logged_once() {
    let bad = drover_tests::Entry::bare("broken").set("executor", "parallels");
    let world = Watched::start(shown(fleet()).runner(bad), TOKEN).await;
    let document = world
        .eventually("the other entry works", |document| {
            document.runners.iter().any(|runner| runner.state == EntryState::Working)
        })
        .await;
    let refused = document.runners.iter().find(|runner| runner.name == "broken").unwrap();
    assert_eq!(refused.state, EntryState::Refused);
    assert!(refused.why.contains("parallels"), "{}", refused.why);
    let said = world.stop().await;
    let lines: Vec<&str> =
        said.lines().filter(|line| line.starts_with("ERROR") && line.contains("parallels")).collect();
    assert_eq!(lines.len(), 1, "{lines:#?}");
}

#[tokio::test]
async fn the_page_is_for_reading_and_runs_nothing() {
    let world = Watched::start(shown(fleet().set("name", "<b>fleet</b>")), TOKEN).await;
    let url = |path: &str| format!("http://{}{path}", world.address());
    let client = reqwest::Client::new();
    let page = client.get(url("/status.html")).send().await.unwrap();
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    let page = page.text().await.unwrap();
    assert!(page.contains("&lt;b&gt;fleet&lt;/b&gt;") && !page.contains("<b>fleet"), "{page}");
    assert!(!page.contains("<script") && !page.contains("src="), "{page}");
    for path in ["/status", "/status.html"] {
        for method in [reqwest::Method::POST, reqwest::Method::PUT, reqwest::Method::DELETE] {
            assert_eq!(client.request(method, url(path)).send().await.unwrap().status(), 405);
        }
        let head = client.head(url(path)).send().await.unwrap();
        assert_eq!((head.status().as_u16(), head.text().await.unwrap().as_str()), (200, ""));
    }
    world.stop().await;
}

#[tokio::test]
async fn the_page_is_off_unless_it_is_asked_for() {
    let world = Watched::start(shown(fleet()).set("status.page", false), TOKEN).await;
    for path in ["/status", "/status.html"] {
        let answer = reqwest::get(format!("http://{}{path}", world.address())).await.unwrap();
        assert_eq!(answer.status(), 404);
    }
    world.stop().await;
}
