//! What people read when a file is wrong: each text is kept here, reviewed.

use drover_config::{Report, parse};

/// A runner entry with nothing to complain about, for rules that need one.
const RUNNER: &str = r#"
[[runners]]
  name = "r"
  url = "https://gitlab.example.com"
  token = "glrt-0123456789"
  executor = "instance"
  request_concurrency = 2
  [runners.autoscaler]
    plugin = "aws"
    max_instances = 4
    [runners.autoscaler.plugin_config]
      name = "group"
"#;

/// Everything that is said about a text.
fn said(text: &str) -> String {
    let environment = |name: &str| (name == "SET").then(|| "value".to_owned());
    let diagnostics = match parse(text, "config.toml", &environment) {
        Ok(loaded) => loaded.diagnostics,
        Err(invalid) => invalid.diagnostics,
    };
    Report { file: "config.toml", diagnostics: &diagnostics }.to_string()
}

/// What is said when these lines follow a good runner entry.
fn said_after(lines: &str) -> String {
    said(&format!("{RUNNER}{lines}"))
}

#[test]
fn a_good_file_is_met_with_silence() {
    assert_eq!(said_after(""), "");
}

#[test]
fn unknown_keys() {
    insta::assert_snapshot!(said_after(
        "    [[runners.autoscaler.policy]]\n      idle_cuont = 5\n      frobnicate = true\n      max_instances = 3\n"
    ));
    insta::assert_snapshot!(said_after(
        "    [runners.autoscaler.vm_isolation.connector_config]\n      pasword = \"hunter2\"\n"
    ));
    insta::assert_snapshot!(said("concurent = 4\n"));
    insta::assert_snapshot!(said("[session_server]\nadvertise_adress = \"x\"\n[[nonsense.deep]]\nx = 1\n"));
    insta::assert_snapshot!(said_after(
        "  [[runners.docker.services]]\n    name = \"db\"\n    alais = \"d\"\n"
    ));
}

#[test]
fn keys_in_another_case() {
    insta::assert_snapshot!(said_after(
        "  [runners.cache]\n    type = \"s3\"\n    Type = \"s3\"\n  [runners.cache.s3]\n    bucketname = \"b\"\n"
    ));
}

#[test]
fn wrong_types() {
    insta::assert_snapshot!(said(
        "concurrent = \"10\"\ncheck_interval = 1.5\nlog_level = \"loud\"\nlabels = 3\nrunners = { name = \"x\" }\n"
    ));
    insta::assert_snapshot!(said_after(
        "    [[runners.autoscaler.policy]]\n      idle_time = 20\n      scale_factor = 1\n      periods = \"* * * * *\"\n      preemptive_mode = \"yes\"\n"
    ));
    insta::assert_snapshot!(said_after(
        "  [runners.docker]\n    memory = \"lots\"\n    cpus = \"many\"\n    pull_policy = [\"sometimes\"]\n    volumes = [\"/a\", 3]\n    services_devices = { \"a\" = \"b\" }\n"
    ));
    insta::assert_snapshot!(said(
        "[[runners]]\n  token = 12345\n  token_expires_at = 2026-01-01\n  docker = true\n  unhealthy_interval = \"1d\"\n  prepare_timeout = \"-5m\"\n"
    ));
}

#[test]
fn syntax_errors() {
    insta::assert_snapshot!(said("concurrent = 10\n[[runners]\nname = \"x\"\n"));
    insta::assert_snapshot!(said("[[runners]]\n  token = glrt-topsecret\n"));
    insta::assert_snapshot!(said("[[runners]]\n  token = \"glrt-topsecret\n  url = \"x\"\n"));
    insta::assert_snapshot!(said("concurrent = 1\nconcurrent = 2\n"));
    insta::assert_snapshot!(said("[[runners]]\n  url = ${GITLAB_URL}\n"));
}

#[test]
fn global_rules() {
    insta::assert_snapshot!(said(
        "concurrent = 0\ncheck_interval = -1\nshutdown_timeout = -30\n[machine.shutdown_drain]\n  enabled = true\n  concurrency = -1\n[labels]\n  a = \"x\"\n  \"team name\" = \"x\"\n  zone = \"\"\n"
    ));
}

#[test]
fn runner_entries_without_the_essentials() {
    insta::assert_snapshot!(said(
        "[[runners]]\n\n[[runners]]\n  name = \"b\"\n  url = \"ftp://x\"\n  token = \"\"\n  executor = \"docker+machin\"\n\n[[runners]]\n  url = \"<your GitLab>\"\n  token = \"<token>\"\n  executor = \"docker-ssh\"\n"
    ));
    insta::assert_snapshot!(said(
        "concurrent = 5\n[[runners]]\n  url = \"$UNSET/ci\"\n  token = \"${SET}\"\n  executor = \"instance\"\n  request_concurrency = 3\n"
    ));
    insta::assert_snapshot!(said(
        "[[runners]]\n  url = \"https://x/${terraform.path}\"\n  token = \"GR1348941abcdefgh\"\n  executor = \"docker\"\n  builds_dir = \"builds\"\n  tls-cert-file = \"c\"\n  environment = [\"A\"]\n  shell = \"cmd\"\n  request_concurrency = 0\n  limit = -1\n"
    ));
}

#[test]
fn duplicates_and_long_polling() {
    let entry = "[[runners]]\n  name = \"twin\"\n  url = \"https://g\"\n  token = \"glrt-abc\"\n  executor = \"kubernetes\"\n  limit = 2\n";
    insta::assert_snapshot!(said(&format!("concurrent = 1\n{entry}{entry}")));
}

#[test]
fn autoscaler_rules() {
    insta::assert_snapshot!(said_after(
        r#"
    [runners.autoscaler.connector_config]
      protocol_port = 70000
      use_static_credentials = true
    [runners.autoscaler.scale_throttle]
      limit = -2
      burst = -1
    [runners.autoscaler.vm_isolation]
      enabled = true
    [[runners.autoscaler.policy]]
      periods = ["* 8-17 * *", "* 25 * * *"]
      timezone = "Europe/Berln"
      idle_count = 50
      scale_factor_limit = 3
    [[runners.autoscaler.policy]]
      idle_count = -1
      idle_time = "10ms"
      preemptive_mode = true
      scale_factor = -0.5
  [runners.instance]
    use_common_build_dir = true
"#
    ));
    insta::assert_snapshot!(said(
        r#"
[[runners]]
  url = "https://g"
  token = "t"
  executor = "docker-autoscaler"
  request_concurrency = 2
  [runners.autoscaler]
    plugin = "registry.example.com/group/plugins/googlecloud:newest"
    capacity_per_instance = 0
    max_use_count = -1
    instance_creation_time_buckets = [1, 5.5, 2]
    [runners.autoscaler.plugin_config]
      name = "g"
      zone = "europe-west1"
    [[runners.autoscaler.policy]]
      periods = ["* 8-17 * * mon-fri"]
"#
    ));
}

#[test]
fn machine_rules() {
    insta::assert_snapshot!(said(
        r#"
[[runners]]
  url = "https://g"
  token = "t"
  executor = "docker+machine"
  request_concurrency = 2
  [runners.docker]
    image = "alpine"
  [runners.machine]
    MachineName = "runner"
    MachineOptionsWithName = ["amazonec2-tags=Name,x"]
    MachineOptions = ["--amazonec2-secret-key=TOPSECRET"]
    IdleCount = -1
    IdleCountMin = 2
    OffPeakPeriods = ["* * * * * sat,sun *"]
    [[runners.machine.autoscaling]]
      Periods = ["* 9-17 * * mon-fri", "* * * *", "* * 25 * * * *"]
      IdleCount = 1
      IdleCountMin = 5
      IdleScaleFactor = 1
      Timezone = "Mars/Olympus"
    [[runners.machine.autoscaling]]
"#
    ));
}

#[test]
fn docker_cache_ssh_and_flags_rules() {
    insta::assert_snapshot!(said(
        r#"
[[runners]]
  url = "https://g"
  token = "t"
  executor = "docker"
  request_concurrency = 2
  use_slot_cgroups = true
  slot_cgroup_template = "all"
  [runners.feature_flags]
    FF_USE_FASTZIPP = true
    FF_SKIP_NOOP_BUILD_STAGES = false
    FF_OURS = true
  [runners.docker]
    dns = ["8.8.8.8", "resolver"]
    mac_address = "92:d0"
    volumes = ["/", "/host:/"]
    devices = ["a:b:c:d"]
    pull_policy = "always"
    allowed_pull_policies = ["never"]
    [runners.docker.ulimit]
      nofile = "many"
    [runners.docker.log_options]
      max-size = "1m"
    [[runners.docker.services]]
      alias = "db"
  [runners.machine]
    MachineDriver = "x"
    MachineName = "x-%s"
  [runners.cache]
    Type = "S3"
    [runners.cache.s3]
      AuthenticationType = "magic"
      ServerSideEncryption = "rot13"
      UploadRoleARN = "arn"

[[runners]]
  url = "https://g"
  token = "u"
  executor = "ssh"
  request_concurrency = 2
  [runners.ssh]
    port = "ssh"
  [runners.cache.gcs]
    BucketName = "b"
"#
    ));
}

#[test]
fn json_is_for_scripts() {
    let diagnostics = parse("concurrent = 0\n", "config.toml", &|_| None).unwrap_err().diagnostics;
    insta::assert_snapshot!(serde_json::to_string_pretty(&diagnostics).unwrap());
}

#[test]
fn no_text_shows_a_secret() {
    let text = r#"
sentry_dsn = "https://SECRET@sentry"
[[runners]]
  url = "https://g"
  token = "glrt-SECRET"
  environment = ["API_TOKEN=SECRET"]
  executor = "docker+machine"
  [runners.machine]
    MachineOptions = ["amazonec2-secret-key=SECRET"]
    MachineOptionsWithName = ["amazonec2-secret-key=SECRET"]
  [runners.ssh]
    password = "SECRET"
  [runners.cache.s3]
    AccessKey = "SECRET"
    SecretKey = "SECRET"
    SessionToken = "SECRET"
  [runners.cache.gcs]
    PrivateKey = "SECRET"
  [runners.cache.azure]
    AccountKey = "SECRET"
  [runners.kubernetes]
    bearer_token = "SECRET"
  [runners.autoscaler.plugin_config]
    token = "SECRET"
  [runners.autoscaler.connector_config]
    password = "SECRET"
  [[runners.docker.services]]
    environment = ["PASSWORD=SECRET"]
"#;
    let loaded = parse(text, "config.toml", &|_| None).unwrap();
    assert!(!format!("{loaded:?}").contains("SECRET"));
    assert!(!said(text).contains("SECRET"), "{}", said(text));
    // The same values, each with a mistake on its line.
    for line in text.lines().filter(|line| line.contains("= \"") && line.contains("SECRET")) {
        let broken = text.replace(line, &line.replacen("\"", "", 1));
        assert!(!said(&broken).contains("SECRET"), "{}", said(&broken));
        let wrong = text.replace(line, &line.replacen("= \"", "= [\"", 1).replace("SECRET\"", "SECRET\"]"));
        assert!(!said(&wrong).contains("SECRET"), "{}", said(&wrong));
    }
}

#[test]
fn one_group_or_machine_in_two_entries() {
    let second = RUNNER.replace("\"r\"", "\"s\"").replace("0123456789", "abcdef0123");
    insta::assert_snapshot!(said(&format!("concurrent = 8\n{RUNNER}{second}")));
    // Names mean something only within a region and an account.
    let elsewhere = format!("{second}      region = \"eu-west-1\"\n");
    assert_eq!(said(&format!("concurrent = 8\n{RUNNER}{elsewhere}")), "");
    let pool = |name: &str, machine: &str| {
        format!(
            "{}      instances.{machine} = {{ internal_addr = \"10.0.0.1\" }}\n",
            RUNNER
                .replace("\"r\"", &format!("\"{name}\""))
                .replace("0123456789", &format!("{name}-0123456789"))
                .replace("plugin = \"aws\"", "plugin = \"static\"")
                .replace("      name = \"group\"\n", "")
        )
    };
    insta::assert_snapshot!(said(&format!("concurrent = 8\n{}{}", pool("r", "mini"), pool("s", "mac"))));
}

#[test]
fn time_that_no_notice_leaves_is_warned_about() {
    let with =
        |time: &str| said(&RUNNER.replace("    max", &format!("    save_before_end = \"{time}\"\n    max")));
    assert!(with("2m").contains("`save_before_end` is above 90s"), "{}", with("2m"));
    assert!(!with("90s").contains("save_before_end"), "{}", with("90s"));
}

#[test]
fn marks_of_groups() {
    insta::assert_snapshot!(said(&RUNNER.replace("    max", "    group_lease_ttl = \"1s\"\n    max")));
    insta::assert_snapshot!(said(&RUNNER.replace("    max", "    group_lease_ttl = \"1m\"\n    max")));
    let off = "    group_lease = false\n    group_lease_ttl = \"20m\"\n    max";
    insta::assert_snapshot!(said(&RUNNER.replace("    max", off)));
}
