//! What a reload changes, and which files a configuration needs.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use drover_config::{Config, Diff, Reload, RunnerChange, load, parse};
use test_case::test_case;

const BASE: &str = r#"
concurrent = 4
[[runners]]
  id = 1
  name = "a"
  url = "https://g"
  token = "glrt-a"
  executor = "instance"
  [runners.autoscaler]
    plugin = "aws"
    max_instances = 4
    [runners.autoscaler.plugin_config]
      name = "group"
    [[runners.autoscaler.policy]]
      idle_count = 1
[[runners]]
  name = "b"
  url = "https://g"
  token = "glrt-b"
  executor = "shell"
"#;

#[test]
fn the_same_text_changes_nothing() {
    assert!(config(BASE).diff(&config(BASE)).is_empty());
}

#[test]
fn comments_and_order_change_nothing() {
    let (first, second) = BASE.split_at(BASE.find("[[runners]]").unwrap());
    let (a, b) = second.split_at(second.rfind("[[runners]]").unwrap());
    let diff = config(BASE).diff(&config(&format!("{first}# moved\n{b}{a}")));
    assert!(diff.is_empty());
    assert_eq!(diff.runners, [RunnerChange::Same { old: 1, new: 0 }, RunnerChange::Same { old: 0, new: 1 }]);
}

#[test_case("concurrent = 4", "concurrent = 5", "concurrent", Reload::Live; "more jobs")]
#[test_case("concurrent = 4", "concurrent = 4\nlisten_address = \":1\"", "listen_address", Reload::Restart; "another address")]
#[test_case("concurrent = 4", "concurrent = 4\n[session_server]\nsession_timeout = 5", "session_server", Reload::Restart; "a new section")]
fn global_changes(from: &str, to: &str, key: &str, reload: Reload) {
    let diff = change(from, to);
    assert_eq!(diff.global.len(), 1);
    assert_eq!((diff.global[0].key.as_str(), diff.global[0].reload), (key, reload));
    assert_eq!(diff.needs_restart().count(), usize::from(reload == Reload::Restart));
}

#[test_case("idle_count = 1", "idle_count = 2", "autoscaler.policy[0].idle_count", false; "a policy")]
#[test_case("[[runners.autoscaler.policy]]\n      idle_count = 1", "", "autoscaler.policy", false; "no policy")]
#[test_case("max_instances = 4", "max_instances = 5", "autoscaler.max_instances", true; "the scaler")]
#[test_case("name = \"group\"", "name = \"other\"", "autoscaler.plugin_config", true; "the group")]
#[test_case("token = \"glrt-a\"", "token = \"glrt-rotated\"", "token", false; "a rotated token")]
#[test_case("name = \"a\"", "name = \"c\"", "name", false; "a new name")]
#[test_case("name = \"a\"", "name = \"a\"\n  limit = 3", "limit", false; "a limit")]
fn runner_changes(from: &str, to: &str, key: &str, restart: bool) {
    let diff = change(from, to);
    let RunnerChange::Changed { old: 0, new: 0, changes } = &diff.runners[0] else {
        panic!("{diff:?}");
    };
    assert_eq!(changes.iter().map(|change| change.key.as_str()).collect::<Vec<_>>(), [key]);
    assert_eq!(diff.runners[0].needs_restart(), restart);
    assert_eq!(diff.runners[1], RunnerChange::Same { old: 1, new: 1 });
}

#[test]
fn entries_come_and_go() {
    let removed = BASE.split_at(BASE.rfind("[[runners]]").unwrap()).0;
    let added = "[[runners]]\nname = \"c\"\nurl = \"https://g\"\ntoken = \"glrt-c\"\nexecutor = \"shell\"\n";
    let diff = config(BASE).diff(&config(&format!("{removed}{added}")));
    assert_eq!(
        diff.runners,
        [
            RunnerChange::Same { old: 0, new: 0 },
            RunnerChange::Added { new: 1 },
            RunnerChange::Removed { old: 1 }
        ]
    );
}

#[test]
fn files_are_looked_at_only_when_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    let text = BASE.replace(
        "max_instances = 4",
        "max_instances = 4\n    connector_config = { key_path = \"missing.pem\" }",
    );
    let text = text.replace("token = \"glrt-b\"", "token = \"glrt-b\"\n  tls-ca-file = \"gone.crt\"\n  tls-cert-file = \"c.crt\"\n  tls-key-file = \"open.key\"");
    fs::write(&path, text).unwrap();
    fs::write(dir.path().join("c.crt"), "").unwrap();
    fs::write(dir.path().join("open.key"), "").unwrap();
    fs::set_permissions(dir.path().join("open.key"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();

    let mut loaded = load(&path).unwrap();
    let rules = |loaded: &drover_config::Loaded| {
        let found = loaded.diagnostics.iter().filter(|found| found.rule != "long-polling");
        found
            .map(|found| (found.severity.to_string(), found.rule, found.line, found.message.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(rules(&loaded).len(), 1, "{:?}", rules(&loaded));
    assert!(rules(&loaded)[0].3.contains("mode 640"));

    loaded.check_files(dir.path());
    let found: Vec<_> = rules(&loaded)
        .into_iter()
        .skip(1)
        .map(|(severity, _, line, message)| format!("{severity} {} {message}", line.unwrap()))
        .collect();
    assert_eq!(
        found,
        [
            "error 12 `missing.pem` does not exist",
            "warning 21 `gone.crt` does not exist; it is left out",
            "warning 23 private key `open.key` has mode 644: others can read it",
        ]
    );
}

fn change(from: &str, to: &str) -> Diff {
    assert!(BASE.contains(from));
    config(BASE).diff(&config(&BASE.replacen(from, to, 1)))
}

fn config(text: &str) -> Config {
    parse(text, "config.toml", &|_| None).unwrap_or_else(|invalid| panic!("{invalid}")).config
}
