//! Where credentials come from: each place that AWS's own tools look in.

use std::path::Path;

use aws_mock::{AwsMock, GroupOptions, Options};
use drover_tests::{Entry, Setup, bin};
use gitlab_mock::GitlabMock;
use tempfile::TempDir;
use tokio::process::Command;

/// AWS, and a home folder without anything.
struct Stage {
    aws: AwsMock,
    home: TempDir,
}

impl Stage {
    async fn new() -> Self {
        let aws = AwsMock::start(Options::default()).await.unwrap();
        aws.add_group(GroupOptions::new("fleet"));
        Self { aws, home: tempfile::tempdir().unwrap() }
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.home.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn entry(&self) -> Entry {
        Entry::bare("fleet")
            .set("autoscaler.plugin", "aws")
            .set("autoscaler.plugin_config.name", "fleet")
            .set("autoscaler.plugin_config.endpoint", self.aws.url())
            .set("autoscaler.max_instances", 5)
    }

    /// Whom AWS takes the manager for, with nothing but this environment; else what is said instead.
    async fn caller(&self, entry: Entry, environment: &[(&str, &str)]) -> String {
        let gitlab = GitlabMock::start(gitlab_mock::Config::default()).await.unwrap();
        gitlab.add_runner("glrt-fleet-0123456789abcdef");
        let folder = tempfile::tempdir().unwrap();
        let config = Setup::new().runner(entry).write(gitlab.url(), folder.path());
        let home: &Path = self.home.path();
        let imds = if environment.iter().any(|(name, _)| name.starts_with("AWS_EC2_METADATA")) {
            &[][..]
        } else {
            &[("AWS_EC2_METADATA_DISABLED", "true")]
        };
        let output = Command::new(bin("drover"))
            .args(["doctor", "--json", "--config"])
            .arg(&config)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", home)
            .env("AWS_ENDPOINT_URL_STS", self.aws.url())
            .env("AWS_ENDPOINT_URL_SSO", self.aws.url())
            .envs(imds.iter().copied())
            .envs(environment.iter().copied())
            .output()
            .await
            .unwrap();
        let said: serde_json::Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        let findings = said["findings"].as_array().unwrap();
        let found = findings.iter().find(|found| found["check"] == "aws/credentials");
        let found = found.unwrap_or_else(|| panic!("{said:#}"));
        assert!(!said.to_string().contains("wJalrXUtnFEMI"), "a secret is printed: {said}");
        found["what"].as_str().unwrap().trim_start_matches("AWS knows the credentials as ").to_owned()
    }
}

fn keys(profile: &str, key: &str) -> String {
    format!("[{profile}]\naws_access_key_id = {key}\naws_secret_access_key = wJalrXUtnFEMI\n")
}

const REGION: (&str, &str) = ("AWS_REGION", "eu-west-1");

#[tokio::test]
async fn keys_of_the_environment_are_used_unless_a_profile_is_named() {
    let stage = Stage::new().await;
    stage.aws.name_key("AKIAENVIRONMENT", "arn:aws:iam::123456789012:user/environment");
    stage.aws.name_key("AKIAFILE", "arn:aws:iam::123456789012:user/file");
    let environment =
        [REGION, ("AWS_ACCESS_KEY_ID", "AKIAENVIRONMENT"), ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")];
    assert!(stage.caller(stage.entry(), &environment).await.ends_with("user/environment"));
    let file =
        stage.write("elsewhere/credentials", &(keys("default", "AKIAOTHER") + &keys("ci", "AKIAFILE")));
    let entry = stage
        .entry()
        .set("autoscaler.plugin_config.profile", "ci")
        .set("autoscaler.plugin_config.credentials_file", file);
    assert!(stage.caller(entry, &environment).await.ends_with("user/file"));
}

#[tokio::test]
async fn files_in_the_home_folder_are_used_with_the_region_of_the_profile() {
    let stage = Stage::new().await;
    stage.aws.name_key("AKIAFILE", "arn:aws:iam::123456789012:user/file");
    stage.write(".aws/credentials", &keys("default", "AKIAFILE"));
    let said = stage.caller(stage.entry(), &[]).await;
    assert!(said.contains("set plugin_config.region, AWS_REGION, or `region` in the profile"), "{said}");
    stage.write(".aws/config", "[default]\nregion = eu-west-1\n");
    assert!(stage.caller(stage.entry(), &[]).await.ends_with("user/file"));
    let without = Stage::new().await;
    let entry = without.entry().set("autoscaler.plugin_config.region", "eu-west-1");
    let said = without.caller(entry, &[]).await;
    assert!(said.contains("credentials"), "{said}");
}

#[tokio::test]
async fn a_profile_with_a_role_assumes_it_with_the_keys_of_its_source() {
    let stage = Stage::new().await;
    stage.aws.name_key("AKIASOURCE", "arn:aws:iam::123456789012:user/source");
    let config = stage.write(
        "elsewhere/config",
        "[profile ci]\nregion = eu-west-1\nrole_arn = arn:aws:iam::123456789012:role/fleet\nsource_profile = base\n",
    );
    let credentials = stage.write("elsewhere/credentials", &keys("base", "AKIASOURCE"));
    let entry = stage
        .entry()
        .set("autoscaler.plugin_config.profile", "ci")
        .set("autoscaler.plugin_config.config_file", config)
        .set("autoscaler.plugin_config.credentials_file", credentials);
    assert_eq!(stage.caller(entry, &[]).await, "arn:aws:sts::123456789012:assumed-role/fleet/source");
    // At the start, to say what is wrong, and for the first call.
    assert!((1..=2).contains(&stage.aws.calls_of("AssumeRole")));
    // By its name in the environment and the files at home, too.
    let at_home = Stage::new().await;
    at_home.aws.name_key("AKIASOURCE", "arn:aws:iam::123456789012:user/source");
    at_home.write(
        ".aws/config",
        "[profile ci]\nregion = eu-west-1\nrole_arn = arn:aws:iam::123456789012:role/fleet\nsource_profile = base\n",
    );
    at_home.write(".aws/credentials", &keys("base", "AKIASOURCE"));
    let said = at_home.caller(at_home.entry(), &[("AWS_PROFILE", "ci")]).await;
    assert_eq!(said, "arn:aws:sts::123456789012:assumed-role/fleet/source");
}

#[tokio::test]
async fn a_web_identity_token_is_exchanged_for_a_role() {
    let stage = Stage::new().await;
    let token = stage.write("token", "pod");
    let environment = [
        REGION,
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/fleet"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", &token),
    ];
    assert_eq!(
        stage.caller(stage.entry(), &environment).await,
        "arn:aws:sts::123456789012:assumed-role/fleet/pod"
    );
    // The same in a profile.
    let config = stage.write(
        "elsewhere/config",
        &format!(
            "[profile ci]\nregion = eu-west-1\nrole_arn = arn:aws:iam::123456789012:role/other\nweb_identity_token_file = {token}\n"
        ),
    );
    let entry = stage
        .entry()
        .set("autoscaler.plugin_config.profile", "ci")
        .set("autoscaler.plugin_config.config_file", config);
    assert_eq!(stage.caller(entry, &[]).await, "arn:aws:sts::123456789012:assumed-role/other/pod");
}

#[tokio::test]
async fn containers_and_machines_are_asked_for_the_role_that_they_have() {
    let stage = Stage::new().await;
    let container = format!("{}/container/credentials", stage.aws.url());
    let environment = [
        REGION,
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", container.as_str()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "container-token"),
    ];
    assert_eq!(
        stage.caller(stage.entry(), &environment).await,
        "arn:aws:sts::123456789012:assumed-role/task/container"
    );
    // An instance profile, which tells the region as well.
    let environment = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", stage.aws.url())];
    assert_eq!(
        stage.caller(stage.entry(), &environment).await,
        "arn:aws:sts::123456789012:assumed-role/manager/i-0123456789abcdef0"
    );
}

#[tokio::test]
async fn a_login_of_iam_identity_center_is_used_while_its_token_lasts() {
    let stage = Stage::new().await;
    let config = "[profile ci]\nregion = eu-west-1\nsso_session = company\nsso_account_id = 123456789012\n\
                  sso_role_name = Fleet\n[sso-session company]\nsso_region = eu-west-1\n\
                  sso_start_url = https://company.awsapps.com/start\n";
    stage.write(".aws/config", config);
    let entry = || stage.entry().set("autoscaler.plugin_config.profile", "ci");
    let said = stage.caller(entry(), &[]).await;
    assert!(said.contains("token") && said.contains("aws sso login"), "{said}");
    // The file's name is the SHA-1 of the session's.
    stage.write(
        ".aws/sso/cache/71b21161ffa1e6516bcc072aaf5ef38cbe85b511.json",
        r#"{"accessToken": "portal-token", "expiresAt": "2099-01-01T00:00:00Z", "region": "eu-west-1",
            "startUrl": "https://company.awsapps.com/start"}"#,
    );
    assert_eq!(
        stage.caller(entry(), &[]).await,
        "arn:aws:sts::123456789012:assumed-role/AWSReservedSSO_Fleet/person"
    );
}

#[tokio::test]
async fn a_process_of_a_profile_is_run_for_its_credentials() {
    let stage = Stage::new().await;
    stage.aws.name_key("AKIAPROCESS", "arn:aws:iam::123456789012:user/process");
    let script = stage.write(
        "issue.sh",
        r#"echo '{"Version": 1, "AccessKeyId": "AKIAPROCESS", "SecretAccessKey": "wJalrXUtnFEMI"}'"#,
    );
    stage.write(
        ".aws/config",
        &format!("[profile ci]\nregion = eu-west-1\ncredential_process = sh {script}\n"),
    );
    let entry = stage.entry().set("autoscaler.plugin_config.profile", "ci");
    assert!(stage.caller(entry, &[]).await.ends_with("user/process"));
}
