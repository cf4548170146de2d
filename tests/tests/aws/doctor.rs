//! `drover doctor` and a group of AWS.

use drover_tests::{Setup, bin};
use gitlab_mock::GitlabMock;
use tokio::process::Command;

use crate::cloud::Cloud;

/// What the program says, as JSON, and its exit code.
async fn doctor(cloud: &Cloud) -> (serde_json::Value, Option<i32>) {
    use std::os::unix::fs::PermissionsExt as _;
    let setup = Setup::new().runner(cloud.entry());
    let gitlab = GitlabMock::start(gitlab_mock::Config::default()).await.unwrap();
    gitlab.add_runner("glrt-fleet-0123456789abcdef");
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.toml");
    std::fs::write(&config, setup.text(gitlab.url(), folder.path())).unwrap();
    std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o600)).unwrap();
    let output = Command::new(bin("drover"))
        .args(["doctor", "--json", "--config"])
        .arg(&config)
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .output()
        .await
        .unwrap();
    let said = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (said, output.status.code())
}

fn find<'a>(said: &'a serde_json::Value, check: &str) -> &'a serde_json::Value {
    let findings = said["findings"].as_array().unwrap();
    findings.iter().find(|found| found["check"] == check).unwrap_or_else(|| panic!("no {check}: {said:#}"))
}

#[tokio::test]
async fn a_group_as_it_should_be_is_in_nobodys_way() {
    let cloud = Cloud::start().await;
    let (said, code) = doctor(&cloud).await;
    assert_eq!(code, Some(0), "{said:#}");
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
    assert!(what.contains("entry `other` of manager s_cccccccccccc on host elsewhere, since 2026-01-01"), "{what}");
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
