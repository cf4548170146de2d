//! `drover doctor`.

use gitlab_mock::{Config, GitlabMock};
use serde_json::Value;

use crate::support::{self, Home};

const GOOD: &str = "glrt-gOoDgOoDgOoDgOoDgOoD";

fn entry(url: &str, token: &str, key: &str) -> String {
    let extra = format!(
        r#"    [runners.autoscaler.connector_config]
      key_path = "{key}"
    [runners.autoscaler.plugin_config]
      name = "doctor"
"#
    );
    support::entry("build", url, token) + &extra
}

fn find<'a>(said: &'a Value, check: &str) -> &'a Value {
    let findings = said["findings"].as_array().unwrap();
    findings.iter().find(|found| found["check"] == check).unwrap_or_else(|| panic!("no {check}: {said:#}"))
}

#[tokio::test]
async fn what_is_in_order_ends_with_0_and_changes_nothing() {
    let gitlab = GitlabMock::start(Config::default()).await.unwrap();
    gitlab.add_runner(GOOD);
    let home = Home::with(&entry(gitlab.url(), GOOD, "id"));
    home.write("id", "-----BEGIN OPENSSH PRIVATE KEY-----\n");
    let said = home.drover(&["doctor"]).await.code(0);
    for good in ["gitlab/token", "connector/key", "state/folder", "manager/spool"] {
        assert!(said.stdout.contains(&format!("good     {good}: ")), "{}", said.stdout);
    }
    assert!(said.stdout.contains("0 errors, "), "{}", said.stdout);
    assert!(!said.stdout.contains(GOOD), "tokens are never printed whole");
    let mut left: Vec<String> = std::fs::read_dir(home.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["config.toml", "id"]);
    // What is not looked at is said.
    assert!(said.stdout.contains("notice   instance/connect: "), "{}", said.stdout);
    assert!(said.stdout.contains("good     limits/effective: at most 1 jobs"), "{}", said.stdout);
    gitlab.assert_no_violations();
}

#[tokio::test]
async fn errors_end_with_1_and_name_consequence_and_repair() {
    let gitlab = GitlabMock::start(Config::default()).await.unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let text = entry(gitlab.url(), GOOD, "missing");
    let home = Home::with(&format!("listen_address = \"{address}\"\n{text}"));
    let said = home.drover(&["doctor", "--json"]).await.code(1);
    let said: Value = serde_json::from_str(&said.stdout).unwrap();
    for check in ["gitlab/token", "config/file", "manager/listen_address"] {
        let found = find(&said, check);
        assert_eq!(found["severity"], "error", "{found}");
        assert_ne!(found["leads_to"], "", "{found}");
        assert_ne!(found["repair"], "", "{found}");
    }
    assert_eq!(find(&said, "gitlab/token")["runner"], "build");
    assert_eq!(find(&said, "manager/listen_address")["runner"], Value::Null);
    assert!(said["errors"].as_u64().unwrap() >= 3, "{said:#}");
}

#[tokio::test]
async fn a_gitlab_out_of_reach_is_told_from_a_refused_token() {
    let home = Home::with(&entry("http://127.0.0.1:1", GOOD, "id"));
    home.write("id", "-----BEGIN OPENSSH PRIVATE KEY-----\n");
    let said = home.drover(&["doctor"]).await.code(1);
    assert!(said.stdout.contains("error    gitlab/reachable: "), "{}", said.stdout);
    assert!(said.stdout.contains("do: curl "), "{}", said.stdout);
}

#[tokio::test]
async fn only_the_named_entry_is_examined() {
    let gitlab = GitlabMock::start(Config::default()).await.unwrap();
    gitlab.add_runner(GOOD);
    let good = entry(gitlab.url(), GOOD, "id");
    let bad = entry(gitlab.url(), "glrt-bAdBbAdBbAdBbAdBbAdB", "id").replace("\"build\"", "\"other\"");
    let home = Home::with(&format!("{good}{bad}"));
    home.write("id", "-----BEGIN OPENSSH PRIVATE KEY-----\n");
    home.drover(&["doctor", "--runner", "build"]).await.code(0);
    home.drover(&["doctor", "--runner", "other"]).await.code(1);
    let none = home.drover(&["doctor", "--runner", "nobody"]).await.code(1);
    assert!(none.stderr.contains("no runner entry fits"), "{}", none.stderr);
}

#[tokio::test]
async fn a_file_that_cannot_be_used_ends_with_2_and_its_line() {
    let home = Home::with("concurrent = \"many\"\n");
    let said = home.drover(&["doctor"]).await.code(2);
    assert!(said.stdout.contains("line 1"), "{}", said.stdout);
    Home::empty().drover(&["doctor"]).await.code(2);
}
