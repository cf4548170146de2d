//! `drover config check` and `drover lint`.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::Home;

const RUNNER: &str = r#"
concurrent = 4

[[runners]]
  name = "build"
  url = "https://gitlab.example.com"
  token = "glrt-aBcDeFgHiJkLmNoPqRsT"
  executor = "instance"
  request_concurrency = 2

  [runners.autoscaler]
    plugin = "local"
    max_instances = 4

    [[runners.autoscaler.policy]]
      idle_count = 1
      idle_time = "10m"
"#;

const CONTAINERS: &str = r#"
[[runners]]
  name = "boxes"
  url = "https://gitlab.example.com"
  token = "glrt-aBcDeFgHiJkLmNoPqRsT"
  executor = "docker"
  [runners.docker]
    image = "alpine"
"#;

#[tokio::test]
async fn every_example_is_fit_for_use_once_its_placeholders_are_filled() {
    let examples = examples("");
    assert!(examples.len() >= 10, "{examples:?}");
    for example in examples {
        let text = std::fs::read_to_string(&example).unwrap();
        let home = Home::with(&text.replace("<URL of your GitLab instance>", "https://gitlab.example.com"));
        let checked = home.drover(&["config", "check", "--no-files"]).await.code(0);
        assert!(checked.stdout.contains(": fit for use, "), "{}: {}", example.display(), checked.stdout);
        assert_eq!(checked.stderr, "");
    }
}

#[tokio::test]
async fn a_placeholder_is_pointed_out() {
    let home = Home::with(&RUNNER.replace("https://gitlab.example.com", "<URL of your GitLab instance>"));
    let checked = home.drover(&["config", "check"]).await.code(2);
    assert!(checked.stdout.contains("hint: it looks like a placeholder"), "{}", checked.stdout);
}

#[tokio::test]
async fn every_bad_example_is_refused_with_a_hint() {
    let home = Home::empty();
    let examples = examples("invalid");
    assert!(!examples.is_empty());
    for example in examples {
        let checked = home.drover(&["config", "check", example.to_str().unwrap()]).await.code(2);
        assert!(checked.stdout.contains("\n  hint: "), "{}", checked.stdout);
    }
}

#[tokio::test]
async fn a_good_file_is_fit_also_when_strictly_looked_at() {
    let home = Home::with(RUNNER);
    let checked = home.drover(&["config", "check", "--strict"]).await.code(0);
    assert!(checked.stdout.contains("runner `build`: this build can run it"), "{}", checked.stdout);
}

#[tokio::test]
async fn warnings_fail_only_when_strict() {
    let home = Home::with(&RUNNER.replace("executor =", "exekutor = 1\n  executor ="));
    let lenient = home.drover(&["config", "check"]).await.code(0);
    assert!(lenient.stdout.contains("did you mean"), "{}", lenient.stdout);
    home.drover(&["config", "check", "--strict"]).await.code(2);
    home.drover(&["lint"]).await.code(2);
}

#[tokio::test]
async fn an_entry_that_this_build_cannot_run_is_named_and_fails_only_when_strict() {
    let home = Home::with(&RUNNER.replace("\"instance\"", "\"kubernetes\""));
    let lenient = home.drover(&["config", "check"]).await.code(0);
    assert!(
        lenient.stdout.contains("takes no jobs: executor `kubernetes` is not built in"),
        "{}",
        lenient.stdout
    );
    home.drover(&["config", "check", "--strict"]).await.code(2);
}

#[tokio::test]
async fn a_malformed_file_is_shown_with_place_and_hint() {
    let home = Home::with("concurrent = 4\n[[runners]]\n  name = build\n");
    let checked = home.drover(&["config", "check"]).await.code(2);
    assert!(checked.stdout.contains("config.toml:3:"), "{}", checked.stdout);
    assert!(checked.stdout.contains("hint: text must be in quotes"), "{}", checked.stdout);
}

#[tokio::test]
async fn a_missing_file_is_a_usage_error_with_a_hint() {
    let home = Home::empty();
    for arguments in [&["config", "check"][..], &["list"], &["verify"]] {
        let checked = home.drover(arguments).await.code(2);
        assert!(checked.stderr.starts_with("error: failed to read"), "{}", checked.stderr);
        assert!(checked.stderr.contains("caused by: No such file"), "{}", checked.stderr);
        assert!(checked.stderr.contains("\nhint: "), "{}", checked.stderr);
        assert_eq!(checked.stdout, "");
    }
}

#[tokio::test]
async fn json_is_for_scripts() {
    let home = Home::with(&RUNNER.replace("\"local\"", "\"mine\""));
    let checked = home.drover(&["config", "check", "--json"]).await.code(0);
    let value: Value = serde_json::from_str(&checked.stdout).unwrap();
    assert_eq!(value["usable"], true);
    assert_eq!(value["runners"][0]["name"], "build");
    assert_eq!(value["runners"][0]["plugin"], "mine");
    assert_eq!(value["runners"][0]["runnable"], false);
    assert!(value["diagnostics"].is_array());

    let home = Home::with("concurrent = 0");
    let checked = home.drover(&["config", "check", "--json"]).await.code(2);
    let value: Value = serde_json::from_str(&checked.stdout).unwrap();
    assert_eq!((&value["usable"], &value["diagnostics"][0]["line"]), (&Value::Bool(false), &Value::from(1)));
}

#[tokio::test]
async fn a_key_that_others_can_read_is_a_warning_and_a_missing_one_an_error() {
    use std::os::unix::fs::PermissionsExt as _;
    let config = RUNNER.replace(
        "    max_instances = 4",
        "    max_instances = 4\n    [runners.autoscaler.connector_config]\n      key_path = \"id_ed25519\"",
    );
    let home = Home::with(&config);
    let missing = home.drover(&["config", "check"]).await.code(2);
    assert!(missing.stdout.contains("`id_ed25519` does not exist"), "{}", missing.stdout);

    let key = home.write("id_ed25519", "key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let open = home.drover(&["config", "check"]).await.code(0);
    assert!(open.stdout.contains("private key `id_ed25519` has mode 644"), "{}", open.stdout);
    home.drover(&["config", "check", "--strict"]).await.code(2);

    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    home.drover(&["config", "check", "--strict"]).await.code(0);
}

#[tokio::test]
async fn no_token_is_ever_printed() {
    let home = Home::with(&RUNNER.replace("executor = ", "executor = 5 #"));
    for arguments in [&["config", "check"][..], &["config", "check", "--json"], &["list"], &["run"]] {
        let said = home.drover(arguments).await.code(2);
        assert!(!said.stdout.contains("glrt-aBcDeFgHiJkLmNoPqRsT"), "{}", said.stdout);
        assert!(!said.stderr.contains("glrt-aBcDeFgHiJkLmNoPqRsT"), "{}", said.stderr);
    }
}

#[tokio::test]
async fn what_an_executor_would_refuse_is_found_before_it_starts_with_its_line() {
    for (lines, key, message) in [
        ("host = \"/var/run/docker.sock\"", "host", "is not an address of an engine"),
        ("host = \"ssh://me@engine\"", "host", "docker-autoscaler"),
        (
            "host = \"tcp://10.0.0.1\"\ntls_verify = true\ntls_cert_path = \"none\"",
            "tls_cert_path",
            "cannot use `",
        ),
        ("isolation = \"hyperv\"", "isolation", "Windows containers"),
        ("gpus = \"count=x\"", "gpus", "neither a number nor \"all\""),
        ("volumes = [\"/a:b\"]", "volumes", "invalid volume specification: \"/a:b\""),
        ("volumes = [\"/x\", \"/y:/x\"]", "volumes", "is already defined"),
        ("security_opt = [\"seccomp=none.json\"]", "security_opt", "failed to read seccomp profile"),
    ] {
        let home = Home::with(&format!("{CONTAINERS}{lines}\n"));
        let checked = home.drover(&["config", "check", "--json"]).await.code(2);
        let json: Value = serde_json::from_str(&checked.stdout).unwrap();
        let found = json["diagnostics"].as_array().unwrap().iter().find(|found| found["severity"] == "error");
        let found = found.unwrap_or_else(|| panic!("{lines}: {}", checked.stdout));
        assert_eq!(found["key"], format!("runners[0].docker.{key}"), "{found}");
        assert_eq!(found["line"], 8 + lines.lines().count(), "{found}");
        assert!(found["message"].as_str().unwrap().contains(message), "{found}");
        assert!(found["hint"].is_string(), "{found}");
        assert_eq!(json["runners"][0]["runnable"], false, "{json}");
    }
}

#[tokio::test]
async fn files_that_values_name_are_not_read_where_they_are_not_to_be_looked_at() {
    let home = Home::with(&format!("{CONTAINERS}security_opt = [\"seccomp=none.json\"]\n"));
    home.drover(&["config", "check", "--no-files"]).await.code(0);
}

#[tokio::test]
async fn what_a_plugin_would_refuse_is_found_before_it_starts() {
    let table =
        "[runners.autoscaler.plugin_config]\n      name = \"a b\"\n\n    [[runners.autoscaler.policy]]";
    let home = Home::with(&RUNNER.replace("[[runners.autoscaler.policy]]", table));
    let checked = home.drover(&["config", "check"]).await.code(2);
    assert!(
        checked.stdout.contains("plugin_config.name: must consist of letters, digits"),
        "{}",
        checked.stdout
    );
}

#[tokio::test]
async fn a_file_whose_entries_all_take_no_jobs_is_not_praised() {
    let home = Home::with(&RUNNER.replace("\"instance\"", "\"kubernetes\""));
    let checked = home.drover(&["config", "check"]).await.code(0);
    assert!(checked.stdout.contains("none of its entries takes jobs"), "{}", checked.stdout);
}

#[tokio::test]
async fn windows_containers_are_refused_by_their_name() {
    let home = Home::with(&CONTAINERS.replace("\"docker\"", "\"docker-windows\""));
    let checked = home.drover(&["config", "check"]).await.code(2);
    assert!(
        checked.stdout.contains("runs Windows containers, which are not available"),
        "{}",
        checked.stdout
    );
}

fn examples(below: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/config").join(below);
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    files
}
