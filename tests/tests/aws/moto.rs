//! The provider's contract against moto's server, which others have written from AWS's description of the protocol.
//!
//! What moto does differently from AWS and is therefore not examined here: it starts more instances than the group's
//! maximum (so the examination of a group, which asks for more than any maximum, is not made here), has no scaling activities, and answers questions about unknown groups and members with HTTP 500.

use async_trait::async_trait;
use drover_tests::Moto;
use fleeting::InstanceGroup as _;
use fleeting::conformance::{self, Harness, Rule, Verdict};
use fleeting::lease::Lease;
use fleeting_aws::AwsGroup;
use serde_json::json;
use tempfile::TempDir;

struct Stand {
    moto: Moto,
    home: TempDir,
    groups: std::sync::atomic::AtomicUsize,
}

impl Stand {
    async fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let keys = "[default]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = wJalrXUtnFEMI\n";
        std::fs::write(home.path().join("credentials"), keys).unwrap();
        std::fs::write(home.path().join("config"), "[default]\nregion = eu-west-1\n").unwrap();
        let stand = Self { moto: Moto::start().await, home, groups: std::sync::atomic::AtomicUsize::new(0) };
        stand
            .ask(
                "ec2",
                &[
                    ("Action", "CreateLaunchTemplate"),
                    ("Version", "2016-11-15"),
                    ("LaunchTemplateName", "build"),
                    ("LaunchTemplateData.ImageId", "ami-760aaa0f"),
                    ("LaunchTemplateData.InstanceType", "t3.micro"),
                ],
            )
            .await;
        stand
    }

    /// A call that the provider does not make.
    async fn ask(&self, service: &str, form: &[(&str, &str)]) {
        let scope = format!(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260101/eu-west-1/{service}/aws4_request, SignedHeaders=host, \
             Signature=0"
        );
        let body: Vec<String> = form.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let answer = reqwest::Client::new()
            .post(format!("http://{}/", self.moto.address()))
            .header("authorization", scope)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body.join("&"))
            .send()
            .await
            .unwrap();
        let status = answer.status();
        assert!(status.is_success(), "{form:?}: {status}: {}", answer.text().await.unwrap_or_default());
    }
}

#[async_trait]
impl Harness for Stand {
    type Group = AwsGroup;

    async fn group(&self) -> AwsGroup {
        let name = format!("build-{}", self.groups.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        self.ask(
            "autoscaling",
            &[
                ("Action", "CreateAutoScalingGroup"),
                ("Version", "2011-01-01"),
                ("AutoScalingGroupName", &name),
                ("MinSize", "0"),
                ("MaxSize", "5"),
                ("AvailabilityZones.member.1", "eu-west-1a"),
                ("LaunchTemplate.LaunchTemplateName", "build"),
                ("LaunchTemplate.Version", "%24Latest"),
                ("NewInstancesProtectedFromScaleIn", "true"),
            ],
        )
        .await;
        AwsGroup::from_plugin_config(&json!({
            "name": name,
            "endpoint": format!("http://{}", self.moto.address()),
            "config_file": self.home.path().join("config"),
            "credentials_file": self.home.path().join("credentials"),
        }))
        .unwrap()
    }

    async fn pause(&self, _: &AwsGroup) {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }

    fn can_be_filled(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn the_contract_is_kept_at_moto() {
    let stand = Stand::start().await;
    let verdicts = conformance::run(&stand).await.unwrap();
    let unchecked: Vec<Rule> =
        verdicts.iter().filter(|(_, verdict)| *verdict != Verdict::Kept).map(|(rule, _)| *rule).collect();
    // Nobody looks past the provider here.
    assert_eq!(unchecked, [Rule::ListingIsCompleteAndUnique, Rule::ShutdownLeavesInstances]);
}

#[tokio::test]
async fn marks_of_managers_are_tags_at_moto() {
    let stand = Stand::start().await;
    let group = stand.group().await;
    let mark = |manager: &str| {
        let text = format!(
            "v1 manager={manager} entry=0123456789abcdef generation=1 since=2026-01-01T00:00:00Z \
             until=2026-01-01T00:15:00Z valid=900 name=build host=h"
        );
        Lease::parse(&text).unwrap()
    };
    let place = group.lease().unwrap();
    for manager in ["a", "b"] {
        place.mark(&mark(manager)).await.unwrap();
        group.update().await.unwrap();
        assert_eq!(place.seen(), Some(mark(manager)));
    }
    place.unmark().await.unwrap();
    group.update().await.unwrap();
    assert_eq!(place.seen(), None);
}
