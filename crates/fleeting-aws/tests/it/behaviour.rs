//! Growing, shrinking and seeing, in a cloud that does not always cooperate.

use std::time::{Duration, SystemTime};

use aws_mock::{ErrorAnswer, Fault, GroupOptions, Options};
use fleeting::{
    ConnectorSettings, DoomKind, GroupError, HeartbeatError, InstanceGroup, InstanceId, InstanceState,
};

use crate::common::{Cloud, running, until};

#[tokio::test]
async fn an_increase_starts_from_what_somebody_else_has_set() {
    let cloud = Cloud::new(Options::default()).await;
    let group = cloud.build().await;
    assert_eq!(group.increase(2).await.done, 2);
    running(&group, 2).await;
    cloud.aws.set_desired("build", 5);
    assert_eq!(group.increase(1).await.done, 1);
    assert_eq!(cloud.aws.desired("build"), 6);
    running(&group, 6).await;
}

#[tokio::test]
async fn a_listing_that_lags_behind_does_not_undo_an_increase() {
    let cloud = Cloud::new(Options { lag: Duration::from_millis(400), ..Options::default() }).await;
    let group = cloud.build().await;
    for _ in 0..4 {
        assert_eq!(group.increase(1).await.done, 1);
    }
    assert_eq!(cloud.aws.desired("build"), 4);
    running(&group, 4).await;
}

#[tokio::test]
async fn the_maximum_of_the_group_is_named_with_the_command_that_raises_it() {
    let cloud = Cloud::new(Options::default()).await;
    cloud.aws.change_group("build", |group| group.max = 0);
    let group = cloud.build().await;
    let answer = group.increase(1).await;
    assert_eq!(answer.done, 0);
    let Some(GroupError::LimitReached { message }) = answer.error else { panic!("{answer:?}") };
    assert!(
        message.contains("update-auto-scaling-group --auto-scaling-group-name build --max-size 1"),
        "{message}"
    );
    // Raised, it works without a restart.
    cloud.aws.change_group("build", |group| group.max = 1);
    assert_eq!(group.increase(1).await.done, 1);
}

#[tokio::test]
async fn the_minimum_of_the_group_keeps_the_last_instance_and_is_named() {
    let cloud = Cloud::new(Options::default()).await;
    let group = cloud.build().await;
    group.increase(1).await;
    let ids = running(&group, 1).await;
    cloud.aws.change_group("build", |group| group.min = 1);
    let answer = group.decrease(&ids).await;
    assert!(answer.done.is_empty());
    let Some(GroupError::LimitReached { message }) = answer.error else { panic!("{answer:?}") };
    assert!(message.contains("--min-size 0"), "{message}");
    running(&group, 1).await;
}

#[tokio::test]
async fn no_capacity_is_said_with_the_words_of_aws_and_nothing_more_is_asked_for() {
    let cloud = Cloud::new(Options { capacity: Some(1), ..Options::default() }).await;
    let group = cloud.build().await;
    assert_eq!(group.increase(3).await.done, 3);
    running(&group, 1).await;
    let answer = group.increase(2).await;
    let Some(GroupError::NoCapacity { message }) = &answer.error else { panic!("{answer:?}") };
    assert!(message.contains("InsufficientInstanceCapacity"), "{message}");
    assert_eq!((answer.done, cloud.aws.desired("build")), (0, 3));
    // What was asked for comes when there is room, and then more can be asked for.
    cloud.aws.set_capacity(None);
    running(&group, 3).await;
    assert_eq!(group.increase(1).await.done, 1);
    running(&group, 4).await;
}

#[tokio::test]
async fn short_throttling_is_not_noticed_and_long_throttling_is_said() {
    let cloud = Cloud::new(Options::default()).await;
    let group = cloud.build().await;
    cloud.aws.fail("SetDesiredCapacity", Fault::Throttled, Some(1));
    assert_eq!(group.increase(1).await.error, None);
    running(&group, 1).await;
    cloud.aws.fail("DescribeAutoScalingGroups", Fault::Throttled, None);
    let error = group.update().await.unwrap_err();
    let GroupError::Throttled { retry_after: Some(wait), .. } = error else { panic!("{error:?}") };
    assert!(wait >= Duration::from_secs(1));
    cloud.aws.heal();
    running(&group, 1).await;
}

#[tokio::test]
async fn a_missing_permission_is_named() {
    let cloud = Cloud::new(Options::default()).await;
    let group = cloud.build().await;
    cloud.aws.fail("SetDesiredCapacity", Fault::AccessDenied, Some(1));
    let answer = group.increase(1).await;
    let Some(GroupError::Denied { message }) = answer.error else { panic!("{answer:?}") };
    assert!(message.contains("the IAM policy lacks autoscaling:SetDesiredCapacity"), "{message}");
    cloud.aws.fail("DescribeAutoScalingGroups", Fault::ExpiredToken, Some(1));
    let error = group.update().await.unwrap_err();
    assert!(error.to_string().contains("the AWS credentials have expired"), "{error}");
    assert!(error.needs_operator());
}

#[tokio::test]
async fn what_is_only_worth_knowing_may_be_forbidden() {
    let cloud = Cloud::new(Options::default()).await;
    cloud.aws.change_group("build", |group| group.spot = true);
    for action in ["DescribeInstanceStatus", "DescribeSpotInstanceRequests", "DescribeScalingActivities"] {
        cloud.aws.fail(action, Fault::AccessDenied, None);
    }
    let group = cloud.build().await;
    assert_eq!(group.increase(2).await.done, 2);
    running(&group, 2).await;
    for _ in 0..5 {
        group.update().await.unwrap();
    }
    // Asking again and again would not help.
    assert_eq!(cloud.aws.calls_of("DescribeInstanceStatus"), 1);
    assert_eq!(cloud.aws.calls_of("DescribeSpotInstanceRequests"), 1);
}

#[tokio::test]
async fn a_group_that_does_not_exist_and_missing_credentials_are_said_at_the_start() {
    let cloud = Cloud::new(Options::default()).await;
    let error = cloud.named("nobody").init(&ConnectorSettings::default()).await.unwrap_err();
    assert!(matches!(error, GroupError::NotFound { .. }), "{error:?}");
    assert!(error.to_string().contains("Auto Scaling group `nobody` in region eu-west-1"), "{error}");

    let mut table = cloud.table("build");
    table["credentials_file"] = "/nowhere/credentials".into();
    let group = crate::common::eager(&table);
    let error = group.init(&ConnectorSettings::default()).await.unwrap_err();
    assert!(
        error.to_string().contains("plugin_config.credentials_file: `/nowhere/credentials` cannot be read")
    );
}

#[tokio::test]
async fn a_member_of_another_group_is_not_ended() {
    let cloud = Cloud::new(Options::default()).await;
    cloud.aws.add_group(GroupOptions::new("others"));
    let (group, others) = (cloud.build().await, cloud.named("others"));
    others.init(&ConnectorSettings::default()).await.unwrap();
    others.increase(1).await;
    let foreign = running(&others, 1).await;
    let answer = group.decrease(&foreign).await;
    assert!(matches!(answer.error, Some(GroupError::NotFound { .. })), "{answer:?}");
    assert_eq!(cloud.aws.calls_of("TerminateInstanceInAutoScalingGroup"), 0);
    running(&others, 1).await;
}

#[tokio::test]
async fn what_a_former_process_has_ended_may_be_ended_again() {
    let cloud =
        Cloud::new(Options { terminate_delay: Duration::from_secs(3600), ..Options::default() }).await;
    let group = cloud.build().await;
    group.increase(2).await;
    let ids = running(&group, 2).await;
    assert_eq!(group.decrease(&ids[..1]).await.done, ids[..1]);
    let after = cloud.build().await;
    assert_eq!(after.decrease(&ids[..1]).await.error, None);
    assert_eq!(cloud.aws.calls_of("TerminateInstanceInAutoScalingGroup"), 1);
    assert_eq!(cloud.aws.desired("build"), 1);
}

#[tokio::test]
async fn many_are_ended_in_one_go_and_many_are_described_in_pages() {
    let cloud = Cloud::new(Options::default()).await;
    cloud.aws.change_group("build", |group| group.max = 300);
    let group = cloud.build().await;
    assert_eq!(group.increase(230).await.done, 230);
    let ids = running(&group, 230).await;
    for id in [&ids[0], &ids[229]] {
        assert!(group.connect_info(id).await.unwrap().internal_addr.is_some());
    }
    assert!(cloud.aws.calls_of("DescribeInstances") <= 8, "{:?}", cloud.aws.calls());
    assert_eq!(group.decrease(&ids).await.done, ids);
    until(&group, "all gone", <[_]>::is_empty).await;
    assert_eq!(cloud.aws.desired("build"), 0);
    assert_eq!(cloud.aws.launched(), 230);
}

#[tokio::test]
async fn throttled_in_the_middle_the_rest_is_left_for_later() {
    let cloud = Cloud::new(Options::default()).await;
    let group = cloud.build().await;
    group.increase(4).await;
    let ids = running(&group, 4).await;
    cloud.aws.fail("TerminateInstanceInAutoScalingGroup", Fault::Throttled, None);
    let answer = group.decrease(&ids).await;
    assert!(matches!(answer.error, Some(GroupError::Throttled { .. })), "{answer:?}");
    cloud.aws.heal();
    assert_eq!(group.decrease(&ids).await.done, ids);
    until(&group, "all gone", <[_]>::is_empty).await;
    assert_eq!(cloud.aws.launched(), 4);
}

#[tokio::test]
async fn a_spot_interruption_dooms_the_instance_and_is_its_fate() {
    let cloud = Cloud::new(Options::default()).await;
    cloud.aws.change_group("build", |group| group.spot = true);
    let group = cloud.build().await;
    group.increase(2).await;
    let ids = running(&group, 2).await;
    group.update().await.unwrap();
    cloud.aws.interrupt(ids[0].as_str());
    let listing = group.update().await.unwrap();
    let doomed = |id: &InstanceId| listing.iter().find(|line| line.id == *id).unwrap().doomed.clone();
    let doom = doomed(&ids[0]).unwrap();
    assert_eq!(
        (doom.kind, doom.why.as_str()),
        (DoomKind::Interruption, "spot interruption notice (marked-for-termination)")
    );
    let left = doom.at.unwrap().duration_since(SystemTime::now()).unwrap();
    assert!(left > Duration::from_secs(60) && left <= Duration::from_secs(120), "two minutes: {left:?}");
    assert_eq!(doomed(&ids[1]), None);
    cloud.aws.terminate(
        ids[0].as_str(),
        "an instance was taken out of service in response to an EC2 instance status check.",
    );
    until(&group, "it is gone", |listing| listing.iter().all(|line| line.id != ids[0])).await;
    let fate = group.fate(&ids[0]).await.unwrap();
    assert!(fate.contains("Server.SpotInstanceTermination"), "{fate}");
}

#[tokio::test]
async fn scheduled_maintenance_dooms_the_instance() {
    let cloud = Cloud::new(Options::default()).await;
    let group = cloud.build().await;
    group.increase(1).await;
    let ids = running(&group, 1).await;
    cloud.aws.schedule_event(ids[0].as_str(), "instance-retirement");
    let listing = group.update().await.unwrap();
    let doom = listing[0].doomed.clone().unwrap();
    assert_eq!(
        (doom.kind, doom.why.as_str()),
        (DoomKind::Maintenance, "AWS has scheduled instance-retirement")
    );
    let days = doom.at.unwrap().duration_since(SystemTime::now()).unwrap().as_secs() / 86_400;
    assert!((8..=10).contains(&days), "{days}");
}

#[tokio::test]
async fn a_member_that_a_hook_holds_is_doomed_and_not_gone() {
    let cloud = Cloud::new(Options::default()).await;
    cloud.aws.change_group("build", |group| group.terminating_hook = Some(Duration::from_secs(3600)));
    let group = cloud.build().await;
    group.increase(1).await;
    let ids = running(&group, 1).await;
    cloud.aws.rebalance(ids[0].as_str());
    let listing = until(&group, "the other zone's", |listing| listing.len() == 2).await;
    let held = listing.iter().find(|line| line.id == ids[0]).unwrap();
    assert_eq!(held.state, InstanceState::Running);
    assert!(held.doomed.as_ref().unwrap().why.contains("lifecycle hook"), "{held:?}");
    assert_eq!(group.heartbeat(&ids[0]).await, Ok(()));
    let fate = group.fate(&ids[0]).await.unwrap();
    assert!(fate.contains("AZRebalance"), "{fate}");
    // Once the scaler lets go of it, it counts as ending.
    assert_eq!(group.decrease(&ids).await.done, ids);
    let listing = group.update().await.unwrap();
    assert_eq!(listing.iter().find(|line| line.id == ids[0]).unwrap().state, InstanceState::Deleting);
}

#[tokio::test]
async fn a_member_that_is_held_at_the_start_is_being_created() {
    let cloud = Cloud::new(Options::default()).await;
    cloud.aws.change_group("build", |group| group.launching_hook = Some(Duration::from_secs(3600)));
    let group = cloud.build().await;
    group.increase(1).await;
    let listing = until(&group, "it is listed", |listing| !listing.is_empty()).await;
    assert_eq!(listing[0].state, InstanceState::Creating);
    cloud.aws.advance(Duration::from_secs(3601)).await;
    running(&group, 1).await;
}

#[tokio::test]
async fn health_is_told_without_a_call() {
    let cloud = Cloud::new(Options::default()).await;
    cloud.aws.change_group("build", |group| group.suspended.push("ReplaceUnhealthy".to_owned()));
    let group = cloud.build().await;
    group.increase(1).await;
    let ids = running(&group, 1).await;
    cloud.aws.make_unhealthy(ids[0].as_str());
    let listing = group.update().await.unwrap();
    assert!(listing[0].doomed.as_ref().unwrap().why.contains("unhealthy"), "{listing:?}");
    let before = cloud.aws.calls();
    assert!(matches!(group.heartbeat(&ids[0]).await, Err(HeartbeatError::Unhealthy(_))));
    assert!(matches!(group.heartbeat(&"i-0".into()).await, Err(HeartbeatError::Unhealthy(_))));
    assert_eq!(cloud.aws.calls(), before);
}

#[tokio::test]
async fn an_idle_group_costs_a_bounded_number_of_calls() {
    let cloud = Cloud::new(Options::default()).await;
    let group = drover_fleeting_aws::AwsGroup::from_plugin_config(&cloud.table("build")).unwrap();
    group.init(&ConnectorSettings::default()).await.unwrap();
    group.increase(5).await;
    running(&group, 5).await;
    let before = cloud.aws.calls();
    for _ in 0..60 {
        group.update().await.unwrap();
    }
    let more = |action: &str| cloud.aws.calls_of(action) - before.get(action).copied().unwrap_or(0);
    assert_eq!(more("DescribeAutoScalingGroups"), 60);
    assert_eq!(more("DescribeInstances"), 0);
    assert_eq!(more("DescribeSpotInstanceRequests") + more("DescribeScalingActivities"), 0);
    assert!(more("DescribeInstanceStatus") <= 1, "{:?}", cloud.aws.calls());
}

#[tokio::test]
async fn an_answer_that_nobody_knows_is_transient_and_says_the_action() {
    let cloud = Cloud::new(Options::default()).await;
    let group = cloud.build().await;
    cloud.aws.fail(
        "SetDesiredCapacity",
        Fault::Answer(ErrorAnswer::new("ScalingActivityInProgress", "busy")),
        Some(9),
    );
    let answer = group.increase(1).await;
    let Some(GroupError::Transient { message }) = answer.error else { panic!("{answer:?}") };
    assert!(message.contains("autoscaling:SetDesiredCapacity") && message.contains("busy"), "{message}");
}
