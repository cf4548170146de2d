//! Two managers and one group: one of them works.

use std::path::Path;

use drover_tests::{Drover, Entry, PATIENCE, Setup, bin, eventually};
use gitlab_mock::{Config, GitlabMock, JobBuilder, JobState, Runner};
use nix::sys::signal::Signal;
use tokio::process::Command;

use crate::cloud::Cloud;

/// The tag of a group.
const TAG: &str = "drover:lease";
const FIRST: &str = "s_aaaaaaaaaaaa";
const SECOND: &str = "s_bbbbbbbbbbbb";
/// What a manager says when it stands by.
const STANDS_BY: &str = "another manager holds the instance group";

/// A cloud and a GitLab, and one runner that several managers serve.
struct Stage {
    cloud: Cloud,
    gitlab: GitlabMock,
    runner: Runner,
}

impl Stage {
    async fn new() -> Self {
        let cloud = Cloud::start().await;
        let gitlab = GitlabMock::start(Config::default()).await.unwrap();
        let runner = gitlab.add_runner("glrt-fleet-0123456789abcdef");
        Self { cloud, gitlab, runner }
    }

    /// A manager of this identity, with a state folder of its own.
    fn manager(&self, system_id: &str, entry: Entry) -> Drover {
        Drover::start_as(&Setup::new().runner(entry), self.gitlab.url(), system_id)
    }

    async fn runs_a_job(&self) {
        let job = self.gitlab.enqueue(&self.runner, JobBuilder::new("job").script(["echo hello"]));
        let view = job.finished(PATIENCE).await.unwrap();
        assert_eq!(view.state, JobState::Success, "{}", job.log_text());
    }

    /// Which manager has the group, as its tag says.
    fn holder(&self) -> Option<String> {
        let tag = self.cloud.aws.tag("fleet", TAG)?;
        tag.split(' ').find_map(|word| word.strip_prefix("manager=")).map(str::to_owned)
    }
}

async fn ends(mut drover: Drover, signal: Signal) {
    drover.program.signal(signal);
    let code = drover.program.ends().await;
    assert_eq!(code, (signal != Signal::SIGKILL).then_some(0));
}

async fn explain(folder: &Path) -> String {
    let config = folder.join("config.toml");
    let output =
        Command::new(bin("drover")).args(["explain", "--config"]).arg(config).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn took_jobs(drover: &Drover) -> bool {
    drover.program.said().contains("Checking for jobs... received")
}

#[tokio::test]
async fn a_second_manager_stands_by_until_the_first_stops_and_then_takes_the_group_over() {
    let stage = Stage::new().await;
    // Its instances are left to whoever comes next.
    let leaves = stage.cloud.entry().set("autoscaler.delete_instances_on_shutdown", false);
    let first = stage.manager(FIRST, leaves);
    stage.runs_a_job().await;
    assert_eq!(stage.holder().as_deref(), Some(FIRST));

    let second = stage.manager(SECOND, stage.cloud.entry());
    second.program.says(&[STANDS_BY, FIRST, "no jobs are taken and nothing is scaled"]).await;
    let launched = stage.cloud.aws.launched();
    stage.runs_a_job().await;
    stage.runs_a_job().await;
    assert!(!took_jobs(&second), "{}", second.program.said());
    let said = explain(second.folder()).await;
    let standing_by = format!("standing by: the instance group is held by entry `fleet` of manager {FIRST}");
    assert!(said.contains(&standing_by), "{said}");
    assert!(explain(first.folder()).await.contains("this manager"));
    let left = stage.cloud.serving();
    assert_eq!((left.len(), stage.cloud.aws.launched()), (1, launched), "nobody has scaled but the first");

    ends(first, Signal::SIGQUIT).await;
    second.program.says(&["the instance group is taken over from entry `fleet` of manager", FIRST]).await;
    stage.runs_a_job().await;
    assert!(took_jobs(&second));
    assert_eq!(stage.holder().as_deref(), Some(SECOND));
    // It cannot know how often the other one's instance was used.
    eventually("the instance that was left is gone", || !stage.cloud.serving().contains(&left[0])).await;
    ends(second, Signal::SIGQUIT).await;
    assert_eq!(stage.holder(), None);
    assert!(stage.cloud.members().is_empty());
}

#[tokio::test]
async fn a_manager_that_is_killed_and_started_again_goes_on_at_once() {
    let stage = Stage::new().await;
    // If it had to wait for its mark to lapse, the test would not end.
    let entry = || stage.cloud.entry().set("autoscaler.group_lease_ttl", "1h");
    let mut manager = stage.manager(FIRST, entry());
    stage.runs_a_job().await;
    let before = stage.cloud.serving();
    manager.kill().await;
    assert_eq!(stage.holder().as_deref(), Some(FIRST));
    manager.again(&Setup::new().runner(entry()), stage.gitlab.url());
    stage.runs_a_job().await;
    assert!(!manager.program.said().contains(STANDS_BY), "{}", manager.program.said());
    assert_eq!(stage.cloud.serving(), before, "the instance that it knows is used again");
    ends(manager, Signal::SIGQUIT).await;
    assert!(stage.cloud.members().is_empty());
}

#[tokio::test]
async fn a_manager_that_is_killed_for_good_is_followed_when_its_mark_has_lapsed() {
    let stage = Stage::new().await;
    let entry = || stage.cloud.entry().set("autoscaler.group_lease_ttl", "4s");
    let first = stage.manager(FIRST, entry());
    stage.runs_a_job().await;
    let second = stage.manager(SECOND, entry());
    second.program.says(&[STANDS_BY]).await;
    ends(first, Signal::SIGKILL).await;
    second.program.says(&["the instance group is taken over from"]).await;
    stage.runs_a_job().await;
    assert_eq!(stage.holder().as_deref(), Some(SECOND));
    ends(second, Signal::SIGQUIT).await;
    assert!(stage.cloud.members().is_empty());
}

#[tokio::test]
async fn a_manager_whose_mark_is_overwritten_takes_no_more_jobs_and_finishes_those_that_it_has() {
    let stage = Stage::new().await;
    // With one place there is no other request on its way while the job runs.
    let manager = stage.manager(FIRST, stage.cloud.entry().set("autoscaler.max_instances", 1));
    let gate = manager.folder().join("gate");
    let wait = format!("echo it runs; until [ -e {} ]; do sleep 0.1; done", gate.display());
    let held = stage.gitlab.enqueue(&stage.runner, JobBuilder::new("held").script([wait]));
    held.log_contains("it runs\n", PATIENCE).await.unwrap();
    let other = "v1 manager=s_cccccccccccc entry=0123456789abcdef generation=1 since=2026-01-01T00:00:00Z \
                 until=2099-01-01T00:00:00Z valid=3600 name=other host=elsewhere";
    stage.cloud.aws.set_tag("fleet", TAG, Some(other));
    manager.program.says(&["another manager has taken the instance group over", "s_cccccccccccc"]).await;
    let waiting = stage.gitlab.enqueue(&stage.runner, JobBuilder::new("waits").script(["echo hello"]));
    std::fs::write(&gate, "").unwrap();
    assert_eq!(held.finished(PATIENCE).await.unwrap().state, JobState::Success);
    let desired = stage.cloud.aws.desired("fleet");
    ends(manager, Signal::SIGQUIT).await;
    assert_eq!(waiting.state(), JobState::Queued, "{}", waiting.log_text());
    // Not its own any more: neither the instances nor the mark.
    assert_eq!(
        (stage.cloud.aws.desired("fleet"), stage.holder().as_deref()),
        (desired, Some("s_cccccccccccc"))
    );
}

#[tokio::test]
async fn a_job_that_waits_for_an_instance_of_a_lost_group_fails_at_once_so_that_gitlab_retries_it() {
    let cloud = Cloud::start().await;
    cloud.aws.set_capacity(Some(0));
    let entry = cloud.entry().set("autoscaler.instance_acquire_timeout", "1h");
    let world = Setup::new().runner(entry).start().await;
    let job = world.enqueue(JobBuilder::new("waits").script(["echo hello"]));
    job.log_contains("Preparing instance...", PATIENCE).await.unwrap();
    let other = "v1 manager=s_cccccccccccc entry=0123456789abcdef generation=1 since=2026-01-01T00:00:00Z \
                 until=2099-01-01T00:00:00Z valid=3600 name=other host=elsewhere";
    cloud.aws.set_tag("fleet", TAG, Some(other));
    let view = job.finished(PATIENCE).await.unwrap();
    let log = job.log_text();
    assert_eq!(
        (view.state, view.failure_reason.as_deref()),
        (JobState::Failed, Some("runner_system_failure")),
        "{log}"
    );
    let said = "the instance group `aws/eu-west-1/fleet` is held by entry `other` of manager s_cccccccccccc on host elsewhere";
    assert!(log.contains(said), "{log}");
    // Until the group is its own again, GitLab is asked for nothing.
    let next = world.enqueue(JobBuilder::new("next").script(["echo hello"]));
    world.logs(&["another manager has taken the instance group over"]).await;
    assert_eq!(next.state(), JobState::Queued);
    cloud.aws.set_tag("fleet", TAG, None);
    cloud.aws.set_capacity(None);
    assert_eq!(next.finished(PATIENCE).await.unwrap().state, JobState::Success, "{}", next.log_text());
    world.stop().await;
    assert!(cloud.members().is_empty());
}

#[tokio::test]
async fn without_the_permission_to_mark_its_group_a_manager_says_so_once_and_works() {
    let cloud = Cloud::start().await;
    cloud.aws.fail("CreateOrUpdateTags", aws_mock::Fault::AccessDenied, None);
    let world = Setup::new().runner(cloud.entry()).start().await;
    world.run(JobBuilder::new("job").script(["echo hello"])).await.succeeded();
    world.logs(&["used without a mark", "the IAM policy lacks autoscaling:CreateOrUpdateTags"]).await;
    assert_eq!(cloud.aws.calls_of("CreateOrUpdateTags"), 1);
    world.stop().await;
    assert!(cloud.members().is_empty());
}

#[tokio::test]
async fn with_group_lease_off_nothing_is_marked_and_marks_of_others_mean_nothing() {
    let cloud = Cloud::start().await;
    let other =
        "v1 manager=x entry=y generation=1 since=2026-01-01T00:00:00Z until=2099-01-01T00:00:00Z valid=3600";
    cloud.aws.set_tag("fleet", TAG, Some(other));
    let world = Setup::new().runner(cloud.entry().set("autoscaler.group_lease", false)).start().await;
    world.run(JobBuilder::new("job").script(["echo hello"])).await.succeeded();
    world.stop().await;
    assert_eq!(cloud.aws.tag("fleet", TAG).as_deref(), Some(other));
    assert_eq!(cloud.aws.calls_of("CreateOrUpdateTags") + cloud.aws.calls_of("DeleteTags"), 0);
}
