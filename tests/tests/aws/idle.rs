//! What a manager asks of AWS while nothing happens.

use drover_tests::{Setup, eventually};

use crate::cloud::Cloud;

/// Looks at the group that are watched. Each is one `update_interval`, which is a minute by default and a second here.
const LOOKS: u64 = 6;

async fn calls_while(cloud: &Cloud, looks: u64) -> std::collections::BTreeMap<String, u64> {
    let before = cloud.aws.calls();
    let lists = || cloud.aws.calls_of("DescribeAutoScalingGroups");
    let start = lists();
    eventually("the group is listed", || lists() >= start + looks).await;
    let mut calls = cloud.aws.calls();
    calls.retain(|action, count| {
        *count -= before.get(action).copied().unwrap_or(0);
        *count > 0
    });
    calls
}

#[tokio::test]
async fn an_idle_manager_only_lists() {
    let cloud = Cloud::start().await;
    let empty = Setup::new().runner(cloud.entry()).start().await;
    empty.logs(&["fleet"]).await;
    eventually("the first looks are over", || cloud.aws.calls_of("DescribeAutoScalingGroups") >= 3).await;
    let calls = calls_while(&cloud, LOOKS).await;
    println!("{LOOKS} intervals without instances: {calls:?}");
    assert_eq!(calls.keys().collect::<Vec<_>>(), ["DescribeAutoScalingGroups"]);
    assert_eq!(calls["DescribeAutoScalingGroups"], LOOKS);
    empty.stop().await;
}

#[tokio::test]
async fn idle_instances_cost_no_calls_of_their_own() {
    let cloud = Cloud::start().await;
    let idle = [("idle_count", 3.into()), ("idle_time", "10m".into())];
    let world = Setup::new().runner(cloud.entry().policy(idle)).start().await;
    eventually("three instances were logged in to", || cloud.aws.calls_of("SendSSHPublicKey") >= 3).await;
    // Ready is known after the login; what follows is idling.
    let _settled = calls_while(&cloud, 3).await;
    let calls = calls_while(&cloud, LOOKS).await;
    println!("{LOOKS} intervals with three idle instances: {calls:?}");
    // Once a minute, however short the intervals are.
    let maintenance = calls.get("DescribeInstanceStatus").copied().unwrap_or(0);
    assert!(maintenance <= 1, "{calls:?}");
    let total: u64 = calls.values().sum();
    assert_eq!(total - maintenance, calls["DescribeAutoScalingGroups"], "{calls:?}");
    world.stop().await;
    assert!(cloud.members().is_empty());
}
