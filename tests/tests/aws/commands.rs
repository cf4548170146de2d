//! The commands that people are told to run are commands of the AWS CLI.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_mock::{MixedPolicy, TypeOverride, WarmPool};
use drover_tests::{Setup, python};

use crate::cloud::Cloud;
use crate::doctor::examine;

/// Names services, commands and options as AWS's own description of them does.
const CHECK: &str = include_str!("commands.py");

/// The commands that the doctor has for a group that is set like this.
async fn repairs(cloud: &Cloud) -> Vec<String> {
    let (said, _) = examine(&Setup::new().runner(cloud.entry()), &[]).await;
    let findings = said["findings"].as_array().unwrap();
    let repairs = findings.iter().filter_map(|found| {
        let repair = found["repair"].as_str().unwrap();
        Some(repair[repair.find("aws ")?..].to_owned())
    });
    repairs.collect()
}

#[tokio::test]
async fn every_repair_is_a_command_that_aws_knows_for_the_group_and_its_region() {
    let broken = Cloud::with(|group| {
        group.protected = false;
        group.suspended = vec!["Launch".to_owned(), "Terminate".to_owned()];
        group.min = 1;
        group.max = 3;
        group.capacity_rebalance = true;
        group.warm_pool = Some(WarmPool { reuse: true, ..WarmPool::of(1) });
        group.policies = vec!["cpu-70".to_owned()];
        group.health_check = "ELB".to_owned();
        group.refresh = Some("InProgress".to_owned());
        group.launching_hook = Some(Duration::from_secs(3600));
        group.terminating_hook = Some(Duration::from_secs(90));
        group.mixed = Some(MixedPolicy {
            overrides: vec![TypeOverride { instance_type: "c7i.large".to_owned(), weight: None }],
            on_demand_base: 0,
            on_demand_percentage: 20,
            spot_allocation: "lowest-price".to_owned(),
        });
        group.capacity_type = Some("vcpu".to_owned());
    })
    .await;
    let other = "v1 manager=s_cccccccccccc entry=0123456789abcdef generation=1 since=2026-01-01T00:00:00Z \
                 until=2099-01-01T00:00:00Z valid=3600 name=other host=elsewhere";
    broken.aws.set_tag("fleet", "drover:lease", Some(other));
    let mut commands: BTreeSet<String> = repairs(&broken).await.into_iter().collect();

    let closed = Cloud::with(|group| group.max = 0).await;
    commands.extend(repairs(&closed).await);
    let absent = Cloud::start().await;
    absent.aws.fail("GetCallerIdentity", aws_mock::Fault::AccessDenied, None);
    commands.extend(repairs(&absent).await);

    for command in [
        "--new-instances-protected-from-scale-in",
        "suspend-processes",
        "--scaling-processes Launch",
        "--scaling-processes Terminate",
        "--no-capacity-rebalance",
        "--health-check-type EC2",
        "--min-size 0",
        "--max-size 10",
        "delete-warm-pool",
        "put-warm-pool",
        "price-capacity-optimized",
        "--desired-capacity-type units",
        "delete-policy",
        "--lifecycle-hook-name launching",
        "--lifecycle-hook-name terminating",
        "cancel-instance-refresh",
        "delete-tags",
        "get-caller-identity",
        "--max-size 5",
        "autoscaling --region eu-west-1 --profile ci update-auto-scaling-group",
    ] {
        assert!(commands.iter().any(|said| said.contains(command)), "{command}: {commands:#?}");
    }
    for command in &commands {
        assert!(command.contains(" --profile ci "), "as whom is part of a command: {command}");
    }
    let all = Vec::from_iter(commands).join("\n");
    assert_eq!(python(CHECK, &[&all]), "");
}
