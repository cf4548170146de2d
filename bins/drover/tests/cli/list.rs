//! `drover list`.

use crate::support::Home;

const CONFIG: &str = r#"
concurrent = 1

[[runners]]
  name = "build"
  id = 7
  url = "https://gitlab.example.com"
  token = "glrt-aBcDeFgHiJkLmNoPqRsT"
  executor = "instance"
  [runners.autoscaler]
    plugin = "local"
    max_instances = 1
"#;

#[tokio::test]
async fn entries_are_listed_with_short_tokens() {
    let home = Home::with(CONFIG);
    let listed = home.drover(&["list"]).await.code(0);
    let lines: Vec<Vec<&str>> = listed.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    let expected = [
        vec!["NAME", "EXECUTOR", "TOKEN", "URL"],
        vec!["build", "instance", "aBcDeFgHi", "https://gitlab.example.com"],
    ];
    assert_eq!(lines, expected);
    assert_eq!(listed.stderr, "");
}

#[tokio::test]
async fn json_has_the_same() {
    let home = Home::with(CONFIG);
    let listed = home.drover(&["list", "--json"]).await.code(0);
    let value: serde_json::Value = serde_json::from_str(&listed.stdout).unwrap();
    let expected = serde_json::json!([{
        "name": "build", "executor": "instance", "url": "https://gitlab.example.com", "token": "aBcDeFgHi", "id": 7,
    }]);
    assert_eq!(value, expected);
}

#[tokio::test]
async fn the_file_is_found_by_flag_variable_and_home() {
    let home = Home::with(CONFIG);
    let other = home.write("other.toml", &CONFIG.replace("\"build\"", "\"other\""));
    let by_flag = home.drover(&["list", "-c", other.to_str().unwrap()]).await.code(0);
    assert!(by_flag.stdout.contains("other"), "{}", by_flag.stdout);
    let by_variable = home.drover(&["list"]).await.code(0);
    assert!(by_variable.stdout.contains("build"), "{}", by_variable.stdout);
}
