//! Groups that are more than instances of one type, scaled by the program itself from none to some and back for jobs.

use std::path::PathBuf;
use std::time::Duration;

use aws_mock::{HookResult, MixedPolicy, WarmPool};
use drover_tests::{Drover, Entry, Setup, eventually};
use gitlab_mock::{GitlabMock, Job, JobBuilder, JobState, Runner};

use crate::cloud::Cloud;

const PATIENCE: Duration = Duration::from_secs(60);

/// GitLab, and the program with one entry for the group `fleet`.
struct Stage {
    cloud: Cloud,
    gitlab: GitlabMock,
    runner: Runner,
    drover: Drover,
}

impl Stage {
    async fn of(cloud: Cloud, change: impl FnOnce(Entry) -> Entry) -> Self {
        let gitlab = GitlabMock::start(gitlab_mock::Config::default()).await.unwrap();
        let entry = change(cloud.entry().policy([("idle_count", 0.into()), ("idle_time", "1s".into())]));
        let runner = gitlab.add_runner(entry.token());
        let drover = Drover::start(&Setup::new().runner(entry), gitlab.url());
        Self { cloud, gitlab, runner, drover }
    }

    /// Jobs that run until their gate is open.
    fn held(&self, count: usize) -> (Vec<Job>, PathBuf) {
        let gate = self.drover.folder().join("gate");
        let script = format!("until [ -e {} ]; do sleep 0.1; done; echo done", gate.display());
        let jobs =
            self.gitlab.enqueue_many(&self.runner, JobBuilder::new("wait").script([script]), count).unwrap();
        (jobs, gate)
    }

    async fn succeed(&self, jobs: &[Job]) {
        for job in jobs {
            job.in_state(JobState::Success, PATIENCE).await.unwrap();
            assert!(job.log_text().contains("done"), "{}", job.log_text());
        }
    }

    fn lifecycles(&self) -> Vec<&'static str> {
        self.cloud.members().into_iter().map(|member| member.lifecycle).collect()
    }

    /// The program ends by itself, and has left this many instances.
    async fn ends_with(mut self, left: usize) {
        self.drover.stop().await;
        assert_eq!((self.cloud.members().len(), self.cloud.aws.desired("fleet")), (left, 0));
        self.gitlab.assert_no_violations();
    }
}

#[tokio::test]
async fn a_warm_pool_serves_jobs_and_its_waiting_instances_are_left_alone() {
    let cloud = Cloud::with(|group| group.warm_pool = Some(WarmPool::of(2))).await;
    eventually("the pool is full", || cloud.members().iter().all(|m| m.lifecycle == "Warmed:Stopped")).await;
    let stage = Stage::of(cloud, |entry| entry).await;
    eventually("the group was listed", || stage.cloud.aws.calls_of("DescribeAutoScalingGroups") >= 3).await;
    assert_eq!(stage.lifecycles(), ["Warmed:Stopped"; 2], "instances that wait are neither used nor ended");
    let waiting: Vec<String> = stage.cloud.members().into_iter().map(|member| member.id).collect();

    let (jobs, gate) = stage.held(3);
    eventually("three serve beside a full pool", || {
        let states = stage.lifecycles();
        let count = |state: &str| states.iter().filter(|seen| **seen == state).count();
        count("InService") == 3 && count("Warmed:Stopped") == 2
    })
    .await;
    assert!(stage.cloud.serving().iter().any(|id| waiting.contains(id)), "the first one came from the pool");
    std::fs::write(&gate, "").unwrap();
    stage.succeed(&jobs).await;
    eventually("only the pool is left", || stage.lifecycles() == ["Warmed:Stopped"; 2]).await;
    assert_eq!(stage.cloud.aws.calls_of("TerminateInstanceInAutoScalingGroup"), 3);
    stage.ends_with(2).await;
}

#[tokio::test]
async fn hooks_hold_instances_at_both_ends_and_jobs_wait_for_their_start_only() {
    let cloud = Cloud::with(|group| {
        group.launching_hook = Some(Duration::from_secs(600));
        group.launching_default = HookResult::Abandon;
        group.terminating_hook = Some(Duration::from_secs(600));
    })
    .await;
    let stage = Stage::of(cloud, |entry| entry.set("autoscaler.max_use_count", 1)).await;
    let (jobs, gate) = stage.held(1);
    std::fs::write(&gate, "").unwrap();
    eventually("an instance is held", || stage.lifecycles() == ["Pending:Wait"]).await;
    let held = stage.cloud.members().remove(0).id;
    assert_eq!(
        stage.cloud.aws.calls_of("SendSSHPublicKey"),
        0,
        "nobody logs in before the hook is completed"
    );
    assert!(stage.cloud.aws.complete_hook(&held, HookResult::Continue));
    stage.succeed(&jobs).await;

    eventually("the used one is held at its end", || stage.lifecycles() == ["Terminating:Wait"]).await;
    // It holds up nobody: the next job gets an instance of its own.
    let next = stage.gitlab.enqueue(&stage.runner, JobBuilder::new("next").script(["echo done"]));
    eventually("another one is held at its start", || {
        stage.lifecycles() == ["Terminating:Wait", "Pending:Wait"]
    })
    .await;
    for member in stage.cloud.members() {
        assert!(stage.cloud.aws.complete_hook(&member.id, HookResult::Continue));
    }
    stage.succeed(&[next]).await;
    eventually("the second one is held at its end", || stage.lifecycles() == ["Terminating:Wait"]).await;
    let last = stage.cloud.members().remove(0).id;
    assert!(stage.cloud.aws.complete_hook(&last, HookResult::Continue));
    eventually("none is left", || stage.cloud.members().is_empty()).await;
    assert_eq!(
        stage.cloud.aws.calls_of("TerminateInstanceInAutoScalingGroup"),
        2,
        "each end is asked for once"
    );
    stage.ends_with(0).await;
}

#[tokio::test]
async fn several_types_and_spot_instances_are_scaled_like_others() {
    let policy = MixedPolicy {
        on_demand_base: 1,
        on_demand_percentage: 0,
        ..MixedPolicy::of(&["c7i.large", "m7i.large", "c6i.large"])
    };
    let cloud = Cloud::with(|group| group.mixed = Some(policy)).await;
    let stage = Stage::of(cloud, |entry| entry).await;
    let (jobs, gate) = stage.held(4);
    eventually("four serve", || stage.cloud.serving().len() == 4).await;
    let members = stage.cloud.members();
    let types: std::collections::BTreeSet<&str> = members.iter().map(|m| m.instance_type.as_str()).collect();
    assert_eq!(types.len(), 3, "{members:?}");
    assert_eq!(members.iter().filter(|member| member.spot).count(), 3, "{members:?}");
    std::fs::write(&gate, "").unwrap();
    stage.succeed(&jobs).await;
    eventually("none is left", || stage.cloud.members().is_empty()).await;
    stage.ends_with(0).await;
}

#[tokio::test]
async fn weights_are_refused_with_what_to_do() {
    let mut policy = MixedPolicy::of(&["c7i.large", "c7i.xlarge"]);
    policy.overrides[1].weight = Some(2);
    let cloud = Cloud::with(|group| group.mixed = Some(policy)).await;
    let stage = Stage::of(cloud, |entry| entry).await;
    stage.drover.program.says(&["instance types of `fleet` have weights", "remove WeightedCapacity"]).await;
    let job = stage.gitlab.enqueue(&stage.runner, JobBuilder::new("waits").script(["echo done"]));
    assert_eq!((job.state(), stage.cloud.aws.launched()), (JobState::Queued, 0));
    stage.ends_with(0).await;
}

#[tokio::test]
async fn a_group_that_is_too_small_is_said_with_the_command_and_a_bigger_one_is_used_at_once() {
    let cloud = Cloud::with(|group| group.max = 1).await;
    let stage = Stage::of(cloud, |entry| entry).await;
    stage
        .drover
        .program
        .says(&[
            "`max_instances` is 5, but the group can hold only 1",
            "--auto-scaling-group-name fleet --max-size 5",
        ])
        .await;
    let (jobs, gate) = stage.held(2);
    eventually("one serves", || stage.cloud.serving().len() == 1).await;
    stage.cloud.aws.change_group("fleet", |group| group.max = 5);
    eventually("two serve", || stage.cloud.serving().len() == 2).await;
    stage.drover.program.says(&["the group's max size was changed", "max_size=5"]).await;
    std::fs::write(&gate, "").unwrap();
    stage.succeed(&jobs).await;
    eventually("none is left", || stage.cloud.members().is_empty()).await;
    stage.ends_with(0).await;
}
