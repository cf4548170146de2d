//! Groups that are more than instances of one type.

use std::time::Duration;

use aws_mock::{HookResult, MixedPolicy, Options, WarmPool};
use fleeting::{ConnectorSettings, GroupError, InstanceGroup, InstanceState, Severity};

use crate::common::{Cloud, running, until};

fn lifecycles(cloud: &Cloud) -> Vec<&'static str> {
    cloud.aws.members("build").into_iter().map(|member| member.lifecycle).collect()
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), waiting).await.is_ok(), "not seen: {what}");
}

#[tokio::test]
async fn instances_that_wait_in_a_warm_pool_are_not_the_scalers() {
    let cloud = Cloud::new(Options::default()).await;
    cloud.aws.change_group("build", |group| group.warm_pool = Some(WarmPool::of(2)));
    eventually("a full pool", || lifecycles(&cloud) == ["Warmed:Stopped"; 2]).await;
    let group = cloud.build().await;
    assert_eq!(group.update().await.unwrap(), []);
    let waiting: Vec<_> = cloud.aws.members("build").into_iter().map(|member| member.id.into()).collect();

    assert_eq!(group.increase(1).await.done, 1);
    let serving = running(&group, 1).await;
    assert_eq!(serving, waiting[..1], "it comes from the pool");
    group.connect_info(&serving[0]).await.unwrap();

    // Asked for by whatever mistake, one that waits is not ended.
    let answer = group.decrease(&waiting[1..]).await;
    assert_eq!((answer.done.len(), cloud.aws.calls_of("TerminateInstanceInAutoScalingGroup")), (1, 0));
    assert_eq!(group.decrease(&serving).await.done, serving);
    until(&group, "none", |seen| seen.is_empty()).await;
    assert_eq!(cloud.aws.desired("build"), 0);
    eventually("a pool that is full again", || lifecycles(&cloud) == ["Warmed:Stopped"; 2]).await;
}

#[tokio::test]
async fn an_instance_that_the_pool_gives_back_gets_no_job_and_can_be_ended_again() {
    let cloud = Cloud::new(Options::default()).await;
    cloud.aws.change_group("build", |group| group.warm_pool = Some(WarmPool { size: 0, reuse: true }));
    let group = cloud.build().await;
    group.increase(1).await;
    let first = running(&group, 1).await;
    let before = group.connect_info(&first[0]).await.unwrap().internal_addr;
    assert_eq!(group.decrease(&first).await.done, first);
    until(&group, "none", |seen| seen.is_empty()).await;
    eventually("one in the pool", || lifecycles(&cloud) == ["Warmed:Stopped"]).await;

    group.increase(1).await;
    let back =
        until(&group, "it is back", |seen| seen.iter().any(|one| one.state == InstanceState::Running)).await;
    assert_eq!(back[0].id, first[0]);
    let why = &back[0].doomed.as_ref().unwrap().why;
    assert!(why.contains("warm pool"), "{why}");
    assert!(before.is_some() && group.connect_info(&first[0]).await.unwrap().internal_addr.is_some());
    // Ending it is asked of AWS once more, or it would stay and be paid for.
    assert_eq!(group.decrease(&first).await.done, first);
    assert_eq!(cloud.aws.calls_of("TerminateInstanceInAutoScalingGroup"), 2);
    assert_eq!(cloud.aws.desired("build"), 0);
}

#[tokio::test]
async fn a_hook_that_is_completed_lets_an_instance_start_and_one_that_is_not_has_another_started() {
    let cloud = Cloud::new(Options::default()).await;
    cloud.aws.change_group("build", |group| {
        group.launching_hook = Some(Duration::from_secs(600));
        group.launching_default = HookResult::Abandon;
    });
    let group = cloud.build().await;
    group.increase(2).await;
    eventually("both are held", || lifecycles(&cloud) == ["Pending:Wait"; 2]).await;
    let seen = group.update().await.unwrap();
    assert!(seen.iter().all(|one| one.state == InstanceState::Creating && one.doomed.is_none()), "{seen:?}");
    assert!(cloud.aws.complete_hook(seen[0].id.as_str(), HookResult::Continue));
    until(&group, "one runs", |seen| {
        seen.iter().filter(|one| one.state == InstanceState::Running).count() == 1
    })
    .await;
    cloud.aws.advance(Duration::from_secs(601)).await;
    eventually("a third one is held", || {
        lifecycles(&cloud).iter().filter(|state| **state == "Pending:Wait").count() == 1
            && cloud.aws.launched() == 3
    })
    .await;
}

#[tokio::test]
async fn an_ended_instance_that_a_hook_holds_is_on_its_way_out_and_counts_no_more() {
    let cloud = Cloud::new(Options::default()).await;
    cloud.aws.change_group("build", |group| group.terminating_hook = Some(Duration::from_secs(600)));
    let group = cloud.build().await;
    group.increase(1).await;
    let ids = running(&group, 1).await;
    group.decrease(&ids).await;
    let seen =
        until(&group, "it goes", |seen| seen.iter().all(|one| one.state == InstanceState::Deleting)).await;
    assert_eq!((seen.len(), lifecycles(&cloud)), (1, vec!["Terminating:Wait"]));
    // Asking again costs no call, and more can be asked for at once.
    assert_eq!(group.decrease(&ids).await.done, ids);
    assert_eq!(cloud.aws.calls_of("TerminateInstanceInAutoScalingGroup"), 1);
    assert_eq!(group.increase(1).await.done, 1);
    assert!(cloud.aws.complete_hook(ids[0].as_str(), HookResult::Continue));
    until(&group, "only the new one", |seen| seen.len() == 1 && seen[0].state == InstanceState::Running)
        .await;
}

#[tokio::test]
async fn several_types_are_instances_like_others_and_spot_ones_are_watched() {
    let cloud = Cloud::new(Options::default()).await;
    let policy = MixedPolicy {
        on_demand_base: 1,
        on_demand_percentage: 0,
        ..MixedPolicy::of(&["c7i.large", "m7i.large"])
    };
    cloud.aws.change_group("build", |group| group.mixed = Some(policy));
    let group = cloud.build().await;
    assert_eq!(group.increase(3).await.done, 3);
    let ids = running(&group, 3).await;
    let members = cloud.aws.members("build");
    assert_eq!(members.iter().filter(|member| member.spot).count(), 2);
    let taken = members.iter().find(|member| member.spot).unwrap().id.clone();
    cloud.aws.interrupt(&taken);
    let seen = until(&group, "a doomed one", |seen| seen.iter().any(|one| one.doomed.is_some())).await;
    assert_eq!(seen.iter().filter(|one| one.doomed.is_some()).count(), 1);
    assert_eq!(group.decrease(&ids).await.done.len(), 3);
    until(&group, "none", |seen| seen.is_empty()).await;
    assert_eq!(cloud.aws.desired("build"), 0);
}

#[tokio::test]
async fn a_group_whose_size_does_not_count_instances_is_refused_at_the_start_and_later() {
    let cloud = Cloud::new(Options::default()).await;
    let mut weighted = MixedPolicy::of(&["c7i.large", "c7i.xlarge"]);
    weighted.overrides[1].weight = Some(2);
    let group = cloud.build().await;
    cloud.aws.change_group("build", |group| group.mixed = Some(weighted));
    let answer = group.increase(2).await;
    let Some(GroupError::Configuration { message }) = &answer.error else { panic!("{answer:?}") };
    assert!(message.contains("remove WeightedCapacity"), "{message}");
    assert_eq!(cloud.aws.desired("build"), 0);
    let error = cloud.named("build").init(&ConnectorSettings::default()).await.unwrap_err();
    assert!(matches!(error, GroupError::Configuration { .. }), "{error}");
    let found = cloud.named("build").diagnose().await;
    assert!(
        found.iter().any(|found| found.check == "aws/group/weights" && found.severity == Severity::Error)
    );
}

#[tokio::test]
async fn a_raised_maximum_is_told_with_the_next_listing() {
    let cloud = Cloud::new(Options::default()).await;
    let group = cloud.build().await;
    assert_eq!((group.max_size(), cloud.named("build").max_size()), (Some(10), None));
    cloud.aws.change_group("build", |group| group.max = 25);
    group.update().await.unwrap();
    assert_eq!(group.max_size(), Some(25));
}
