//! What is found wrong before it goes wrong.

use aws_mock::{Fault, Options};
use fleeting::{Finding, InstanceGroup, Severity};

use crate::common::{Cloud, running};

fn find<'a>(findings: &'a [Finding], check: &str) -> &'a Finding {
    findings
        .iter()
        .find(|finding| finding.check == check)
        .unwrap_or_else(|| panic!("no {check}: {findings:#?}"))
}

#[tokio::test]
async fn a_group_as_it_should_be_has_nothing_to_repair() {
    let cloud = Cloud::new(Options::default()).await;
    let findings = cloud.named("build").diagnose().await;
    let bad: Vec<_> = findings.iter().filter(|finding| finding.severity > Severity::Good).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    assert!(find(&findings, "aws/credentials").what.contains("arn:aws:iam::123456789012:user/runner"));
    for action in [
        "autoscaling:DescribeAutoScalingGroups",
        "autoscaling:SetDesiredCapacity",
        "autoscaling:TerminateInstanceInAutoScalingGroup",
        "autoscaling:DescribeScalingActivities",
        "ec2:DescribeInstances",
        "ec2:DescribeInstanceStatus",
        "ec2:DescribeSpotInstanceRequests",
    ] {
        find(&findings, &format!("aws/permission/{action}"));
    }
    assert_eq!((cloud.aws.desired("build"), cloud.aws.launched()), (0, 0));
}

#[tokio::test]
async fn settings_that_break_autoscaling_are_found_with_their_repair() {
    let cloud = Cloud::new(Options::default()).await;
    cloud.aws.change_group("build", |group| {
        group.protected = false;
        group.suspended = vec!["Launch".to_owned()];
        group.min = 1;
        group.capacity_rebalance = true;
        group.warm_pool = Some(aws_mock::WarmPool::of(1));
        group.policies = vec!["cpu-70".to_owned()];
        group.health_check = "ELB".to_owned();
        group.refresh = Some("InProgress".to_owned());
        group.launching_hook = Some(std::time::Duration::from_secs(3600));
        group.terminating_hook = Some(std::time::Duration::from_secs(90));
    });
    let findings = cloud.named("build").diagnose().await;
    for (check, severity, repair) in [
        ("aws/group/scale-in-protection", Severity::Warning, "--new-instances-protected-from-scale-in"),
        ("aws/group/az-rebalance", Severity::Warning, "suspend-processes"),
        ("aws/group/launch-suspended", Severity::Error, "resume-processes"),
        ("aws/group/min-size", Severity::Warning, "--min-size 0"),
        ("aws/group/capacity-rebalance", Severity::Warning, "--no-capacity-rebalance"),
        ("aws/group/warm-pool", Severity::Notice, "delete-warm-pool"),
        (
            "aws/group/scaling-policy",
            Severity::Warning,
            "delete-policy --auto-scaling-group-name build --policy-name cpu-70",
        ),
        ("aws/group/lifecycle-hook", Severity::Warning, "--lifecycle-hook-name launching"),
        ("aws/group/health-check", Severity::Warning, "--health-check-type EC2"),
        ("aws/group/instance-refresh", Severity::Warning, "cancel-instance-refresh"),
    ] {
        let finding = find(&findings, check);
        assert_eq!(finding.severity, severity, "{finding:?}");
        assert!(finding.repair.contains(repair), "{finding:?}");
        assert!(!finding.leads_to.is_empty(), "{finding:?}");
    }
}

#[tokio::test]
async fn each_missing_permission_is_found() {
    let cloud = Cloud::new(Options::default()).await;
    for action in
        ["SetDesiredCapacity", "DescribeInstances", "DescribeScalingActivities", "DescribeInstanceRefreshes"]
    {
        cloud.aws.fail(action, Fault::AccessDenied, None);
    }
    let findings = cloud.named("build").diagnose().await;
    let severity = |action: &str| find(&findings, &format!("aws/permission/{action}")).severity;
    assert_eq!(severity("autoscaling:SetDesiredCapacity"), Severity::Error);
    assert_eq!(severity("ec2:DescribeInstances"), Severity::Error);
    assert_eq!(severity("autoscaling:DescribeScalingActivities"), Severity::Warning);
    assert_eq!(severity("ec2:DescribeInstanceStatus"), Severity::Good);
    let unseen = find(&findings, "aws/permission/autoscaling:DescribeInstanceRefreshes");
    assert_eq!(
        (unseen.severity, unseen.leads_to.as_str()),
        (Severity::Notice, "instance refreshes are not seen here")
    );
    let finding = find(&findings, "aws/permission/autoscaling:SetDesiredCapacity");
    assert!(finding.repair.contains("\"Action\": \"autoscaling:SetDesiredCapacity\""), "{finding:?}");
}

#[tokio::test]
async fn every_action_of_the_policy_is_examined() {
    let policy: serde_json::Value =
        serde_json::from_str(&drover_fleeting_aws::policy("arn", "build")).unwrap();
    let statements = policy["Statement"].as_array().unwrap();
    let actions = statements.iter().flat_map(|statement| statement["Action"].as_array().unwrap());
    let actions: Vec<&str> = actions.map(|action| action.as_str().unwrap()).collect();
    assert!(actions.contains(&"ec2:GetPasswordData") && actions.contains(&"autoscaling:DeleteTags"));
    let cloud = Cloud::new(Options::default()).await;
    let group = cloud.build().await;
    assert_eq!(group.increase(1).await.done, 1);
    running(&group, 1).await;
    for action in actions {
        let (_, name) = action.split_once(':').unwrap();
        cloud.aws.fail(name, Fault::AccessDenied, None);
        let findings = cloud.named("build").diagnose().await;
        cloud.aws.heal();
        let finding = find(&findings, &format!("aws/permission/{action}"));
        assert!(finding.severity > Severity::Good, "{finding:?}");
        assert!(finding.what.contains(name) && !finding.leads_to.is_empty(), "{finding:?}");
    }
    assert_eq!((cloud.aws.desired("build"), cloud.aws.launched()), (1, 1), "nothing was changed");
}

#[tokio::test]
async fn expired_credentials_and_a_missing_group_end_the_examination() {
    let cloud = Cloud::new(Options::default()).await;
    let findings = cloud.named("nobody").diagnose().await;
    assert_eq!(find(&findings, "aws/group").severity, Severity::Error);
    cloud.aws.fail("*", Fault::ExpiredToken, None);
    let findings = cloud.named("build").diagnose().await;
    assert_eq!(findings.len(), 1);
    assert!(find(&findings, "aws/credentials").what.contains("expired"), "{findings:?}");
}
