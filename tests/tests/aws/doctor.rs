//! `drover doctor` and a group of AWS.

use drover_tests::{Engine, Setup, bin, eventually};
use gitlab_mock::GitlabMock;
use tokio::process::Command;

use crate::cloud::Cloud;

/// What the program says of the usual entry, as JSON, and its exit code.
async fn doctor(cloud: &Cloud) -> (serde_json::Value, Option<i32>) {
    examine(&Setup::new().runner(cloud.entry()), &[]).await
}

pub(crate) async fn examine(setup: &Setup, arguments: &[&str]) -> (serde_json::Value, Option<i32>) {
    let gitlab = GitlabMock::start(gitlab_mock::Config::default()).await.unwrap();
    gitlab.add_runner("glrt-fleet-0123456789abcdef");
    gitlab.add_runner("glrt-example-0123456789abcdef");
    let folder = tempfile::tempdir().unwrap();
    let config = setup.write(gitlab.url(), folder.path());
    let output = Command::new(bin("drover"))
        .args(["doctor", "--json", "--config"])
        .arg(&config)
        .args(arguments)
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .output()
        .await
        .unwrap();
    let said = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (said, output.status.code())
}

pub(crate) fn find<'a>(said: &'a serde_json::Value, check: &str) -> &'a serde_json::Value {
    let findings = said["findings"].as_array().unwrap();
    findings.iter().find(|found| found["check"] == check).unwrap_or_else(|| panic!("no {check}: {said:#}"))
}

#[tokio::test]
async fn a_group_as_it_should_be_is_in_nobodys_way() {
    let cloud = Cloud::start().await;
    let (said, code) = doctor(&cloud).await;
    assert_eq!(code, Some(0), "{said:#}");
    // The form of the output, which programs rely on.
    let members = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(members(&said), ["errors", "file", "findings", "warnings"]);
    for found in said["findings"].as_array().unwrap() {
        assert_eq!(members(found), ["check", "leads_to", "repair", "runner", "severity", "what"]);
    }
    assert_eq!(find(&said, "instance/connect")["severity"], "notice");
    assert_eq!(find(&said, "aws/credentials")["runner"], "fleet");
    assert_eq!(find(&said, "gitlab/token")["severity"], "good");
    assert_eq!(find(&said, "aws/permission/autoscaling:SetDesiredCapacity")["severity"], "good");
    assert_eq!((cloud.aws.desired("fleet"), cloud.aws.launched()), (0, 0));
}

#[tokio::test]
async fn a_group_that_another_manager_holds_is_found_with_its_holder() {
    let cloud = Cloud::start().await;
    let other = "v1 manager=s_cccccccccccc entry=0123456789abcdef generation=1 since=2026-01-01T00:00:00Z \
                 until=2099-01-01T00:00:00Z valid=3600 name=other host=elsewhere";
    cloud.aws.set_tag("fleet", "drover:lease", Some(other));
    let (said, code) = doctor(&cloud).await;
    assert_eq!(code, Some(0), "{said:#}");
    let found = find(&said, "group/lease");
    assert_eq!(found["severity"], "warning");
    let what = found["what"].as_str().unwrap();
    assert!(
        what.contains("entry `other` of manager s_cccccccccccc on host elsewhere, since 2026-01-01"),
        "{what}"
    );
    assert!(found["repair"].as_str().unwrap().contains("delete-tags --tags ResourceId=fleet"), "{found}");
    assert_eq!(cloud.aws.tag("fleet", "drover:lease").as_deref(), Some(other), "nothing was changed");

    cloud.aws.set_tag("fleet", "drover:lease", Some(&other.replace("2099", "2026")));
    let (said, _) = doctor(&cloud).await;
    assert_eq!(find(&said, "group/lease")["severity"], "notice");
}

#[tokio::test]
async fn what_breaks_scaling_is_an_error_with_its_repair() {
    let cloud = Cloud::with(|group| {
        group.protected = false;
        group.max = 0;
    })
    .await;
    cloud.aws.fail("SetDesiredCapacity", aws_mock::Fault::AccessDenied, None);
    let (said, code) = doctor(&cloud).await;
    assert_eq!(code, Some(1), "{said:#}");
    assert_eq!(find(&said, "aws/group/max-size")["severity"], "error");
    let unprotected = find(&said, "aws/group/scale-in-protection");
    assert_eq!(unprotected["severity"], "warning");
    assert!(unprotected["repair"].as_str().unwrap().contains("--new-instances-protected-from-scale-in"));
    let denied = find(&said, "aws/permission/autoscaling:SetDesiredCapacity");
    assert_eq!(
        (&denied["severity"], &denied["leads_to"]),
        (&"error".into(), &"no instance is ever started".into())
    );
    // Keys of AWS are nowhere in what is printed.
    assert!(!said.to_string().contains("wJalrXUtnFEMI"));
}

#[tokio::test]
async fn limits_are_compared_with_the_size_of_the_group() {
    let cloud = Cloud::with(|group| group.max = 3).await;
    let entry = cloud.entry().set("limit", 2);
    let (said, code) = examine(&Setup::new().runner(entry).set("concurrent", 1), &[]).await;
    assert_eq!(code, Some(0), "{said:#}");
    let small = find(&said, "limits/group");
    assert_eq!(small["severity"], "warning");
    assert!(
        small["repair"].as_str().unwrap().contains("--auto-scaling-group-name fleet --max-size 5"),
        "{small}"
    );
    for check in ["limits/limit", "limits/concurrent"] {
        assert_eq!(find(&said, check)["severity"], "notice", "{said:#}");
    }
    let effective = find(&said, "limits/effective")["what"].as_str().unwrap();
    assert!(
        effective.starts_with("at most 1 jobs at a time (`concurrent`) on at most 3 instances"),
        "{effective}"
    );
}

#[tokio::test]
async fn an_instance_is_logged_in_to_when_that_is_asked_for() {
    let cloud = Cloud::start().await;
    let setup = Setup::new().runner(cloud.entry());
    let (none, code) = examine(&setup, &["--connect"]).await;
    assert_eq!(code, Some(0), "{none:#}");
    assert!(
        find(&none, "instance/connect")["what"].as_str().unwrap().starts_with("no instance runs"),
        "{none:#}"
    );

    cloud.aws.set_desired("fleet", 1);
    eventually("an instance serves", || cloud.serving().len() == 1).await;
    let serving = cloud.serving();
    let (said, code) = examine(&setup, &["--connect"]).await;
    assert_eq!(code, Some(0), "{said:#}");
    assert_eq!(find(&said, "instance/connect")["what"], format!("logged in to {}", serving[0]));
    let tools = find(&said, "instance/tools");
    assert_eq!(tools["severity"], "good", "{tools}");
    assert!(tools["what"].as_str().unwrap().contains("Linux on"), "{tools}");
    find(&said, "instance/helper");
    assert_eq!((cloud.serving(), cloud.aws.desired("fleet")), (serving, 1), "nothing was changed");

    let stranger = cloud.entry().set("autoscaler.connector_config.username", "nobody-of-this-name");
    let (said, code) = examine(&Setup::new().runner(stranger), &["--connect"]).await;
    assert_eq!(code, Some(1), "{said:#}");
    let refused = find(&said, "instance/connect");
    assert_eq!(refused["severity"], "error", "{refused}");
    assert!(refused["what"].as_str().unwrap().contains("nobody-of-this-name"), "{refused}");
}

#[tokio::test]
async fn the_engine_of_an_instance_is_asked_for_its_version() {
    const DOCKER: &str = include_str!("../../../fixtures/config/docker-autoscaler-aws.toml");
    let cloud = Cloud::start().await;
    cloud.aws.set_desired("fleet", 1);
    eventually("an instance serves", || cloud.serving().len() == 1).await;
    let setup = |host: &str| Setup::of_file(DOCKER, |entry| cloud.example(entry).set("docker.host", host));
    let (said, code) = examine(&setup(&Engine::shared().host()), &["--connect"]).await;
    assert_eq!(code, Some(0), "{said:#}");
    let engine = find(&said, "instance/engine");
    assert!(engine["what"].as_str().unwrap().contains("answers (version "), "{engine}");

    let (said, code) = examine(&setup("unix:///nowhere/docker.sock"), &["--connect"]).await;
    assert_eq!(code, Some(1), "{said:#}");
    let engine = find(&said, "instance/engine");
    assert_eq!(engine["severity"], "error");
    assert!(engine["what"].as_str().unwrap().contains("/nowhere/docker.sock"), "{engine}");
}
