//! Instances whose end is announced, and the jobs that run there.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_mock::{Fault, MetadataFault};
use drover_tests::{Entry, Finished, Setup, World, bin, eventually};
use gitlab_mock::{ArtifactSpec, Job, JobBuilder};
use metrics::{Build, LogCounter, Metrics};

use crate::cloud::Cloud;

/// A job is stopped 20 seconds before its instance goes, so a notice of this length leaves it a few.
const SHORT: Duration = Duration::from_secs(24);
/// One that no job of these tests sees the end of.
const LONG: Duration = Duration::from_secs(300);

/// Spot instances.
async fn spot() -> Cloud {
    Cloud::with(|group| group.spot = true).await
}

/// The calls of EC2 tell nothing, so only instances themselves do.
fn deafen(cloud: &Cloud) {
    for action in ["DescribeSpotInstanceRequests", "DescribeInstanceStatus"] {
        cloud.aws.fail(action, Fault::AccessDenied, None);
    }
}

/// Two jobs fit on an instance.
fn roomy(cloud: &Cloud) -> Entry {
    cloud.entry().set("autoscaler.capacity_per_instance", 2)
}

/// A job that runs until its gate is open, and says when it is told to end.
fn held(world: &World, name: &str) -> (Job, PathBuf) {
    let gate = world.folder().join(name);
    let script = format!(
        "trap 'echo told to end; exit 1' TERM; echo it runs; until [ -e {} ]; do sleep 0.1; done; echo done",
        gate.display()
    );
    (world.enqueue(JobBuilder::new(name).script([script]).after_script(["echo after all"])), gate)
}

fn open(gate: &Path) {
    std::fs::write(gate, "").unwrap();
}

/// The first instance, on which the first job runs.
fn victim(cloud: &Cloud) -> String {
    cloud.serving().remove(0)
}

/// It was stopped in good order because this instance was about to go.
fn ended_early(job: Finished, instance: &str, why: &str) -> Finished {
    let job = job
        .failed("runner_system_failure", None)
        .says(&format!("Instance {instance} will be taken away at "))
        .has_line("told to end")
        .lacks_line("after all")
        .lacks_line("done");
    let last = job.log.trim_end().lines().last().unwrap_or_default();
    let start = format!("ERROR: Job failed (system failure): instance {instance} is taken away: {why}, at ");
    assert!(last.starts_with(&start) && last.ends_with(" UTC"), "{last}");
    job
}

#[tokio::test]
async fn a_notice_at_the_instance_ends_its_job_in_time_and_brings_another_instance() {
    let cloud = spot().await;
    deafen(&cloud);
    let metrics = Metrics::new(Build::default(), Default::default(), &LogCounter::default());
    let world = World::observed(
        Setup::new().runner(roomy(&cloud)),
        Arc::clone(&metrics) as Arc<dyn manager::Observer>,
    )
    .await;
    let (job, _) = held(&world, "long");
    world.says(&job, "it runs").await;
    let victim = victim(&cloud);
    let launched = cloud.aws.launched();
    cloud.aws.interrupt_in(&victim, SHORT);

    world.says(&job, "spot interruption notice (terminate). If the job still runs at ").await;
    let counted = |name: &str| {
        let text = metrics.exposition(&world.view.jobs);
        text.lines().any(|line| {
            line.starts_with(name) && line.contains(r#"kind="interruption""#) && line.ends_with(" 1")
        })
    };
    eventually("the announcement is counted", || counted("drover_instance_announcements_total{")).await;
    let status = world.view.status();
    let instances = &status.runners[0].scaling.as_ref().unwrap().instances;
    let next = &instances.iter().find(|instance| instance.id == victim).unwrap().next;
    assert!(
        next.contains("instance will be taken away: spot interruption notice (terminate), at "),
        "{next}"
    );

    // No other job goes there, although a slot is free.
    let next = world.run(JobBuilder::new("next").script(["echo hello"])).await;
    next.succeeded().says_not(&victim);
    assert!(cloud.aws.launched() > launched);

    let ended = ended_early(world.finished(&job).await, &victim, "spot interruption notice (terminate)");
    assert!(
        cloud.aws.left(&victim).is_some_and(|left| !left.is_zero()),
        "before the instance went:\n{}",
        ended.log
    );
    eventually("its early end is counted", || counted("drover_jobs_ended_early_total{")).await;
    world.logs(&["the end of an instance is announced"]).await;

    // GitLab's retry is a job like any other.
    world.run(JobBuilder::new("again").script(["echo hello"])).await.succeeded().says_not(&victim);
    world.stop().await;
    assert!(cloud.members().is_empty());
}

/// A notice that allows to save something, with [`SAVING`] for it: heard of within 5 seconds, and the script has some left.
const ENOUGH: Duration = Duration::from_secs(38);
const SAVING: &str = "8s";

#[tokio::test]
async fn what_a_job_leaves_is_saved_before_its_instance_goes_if_the_notice_allows_that() {
    let cloud = spot().await;
    let entry = roomy(&cloud)
        .set("autoscaler.save_before_end", SAVING)
        .set("helper.command", bin("drover-helper").display().to_string());
    let world = Setup::new().runner(entry).start().await;
    let script = "trap 'echo told to end; exit 1' TERM; echo half >made; echo it runs; sleep 1000 & wait";
    let always = ArtifactSpec { when: "always".into(), ..ArtifactSpec::archive("", ["made"]) };
    let job = JobBuilder::new("saves").script([script]).artifact(always);
    // An after_script without end takes half of the time, and no more.
    let after = ["echo after all, the job has $CI_JOB_STATUS", "sleep 1000"];
    let job = world.enqueue(job.after_script(after));
    world.says(&job, "it runs").await;
    let victim = victim(&cloud);
    cloud.aws.interrupt_in(&victim, ENOUGH);
    world.says(&job, "spot interruption notice (terminate). If its script still runs at ").await;

    let ended = world.finished(&job).await.failed("runner_system_failure", None);
    let left = cloud.aws.left(&victim);
    let ended = ended
        .has_line("told to end")
        .says("The script was stopped, because its instance will be taken away.")
        .has_line("after all, the job has failed")
        .says("after_script failed, but job will continue unaffected");
    let last = ended.log.trim_end().lines().last().unwrap_or_default();
    let start =
        format!("ERROR: Job failed (system failure): instance {victim} is taken away: spot interruption");
    assert!(last.starts_with(&start), "{last}");
    assert_eq!(job.artifacts().len(), 1, "{}", ended.log);
    assert!(left.is_some_and(|left| !left.is_zero()), "before the instance went:\n{}", ended.log);
    world.stop().await;
}

#[tokio::test]
async fn a_job_ends_in_time_also_when_saving_takes_longer_than_there_is() {
    let cloud = spot().await;
    let entry = roomy(&cloud).set("autoscaler.save_before_end", SAVING);
    let world = Setup::new().runner(entry).start().await;
    let job = JobBuilder::new("stubborn").script(["echo it runs; sleep 1000"]);
    let job = world.enqueue(job.after_script(["trap '' TERM; echo after all; while :; do sleep 1; done"]));
    world.says(&job, "it runs").await;
    let victim = victim(&cloud);
    cloud.aws.interrupt_in(&victim, ENOUGH);
    let ended = world.finished(&job).await.failed("runner_system_failure", None).has_line("after all");
    assert!(
        cloud.aws.left(&victim).is_some_and(|left| !left.is_zero()),
        "before the instance went:\n{}",
        ended.log
    );
    world.stop().await;
}

#[tokio::test]
async fn a_job_that_ends_before_its_instance_is_a_success() {
    let cloud = spot().await;
    deafen(&cloud);
    let world = Setup::new().runner(cloud.entry()).start().await;
    let (job, gate) = held(&world, "quick");
    world.says(&job, "it runs").await;
    let victim = victim(&cloud);
    cloud.aws.interrupt_in(&victim, LONG);
    world.says(&job, "will be taken away at ").await;
    open(&gate);
    world.finished(&job).await.succeeded().has_line("done").has_line("after all");
    eventually("the doomed one is gone", || !cloud.serving().contains(&victim)).await;
    world.stop().await;
}

#[tokio::test]
async fn advice_to_leave_an_instance_ends_no_job() {
    let cloud = spot().await;
    let world = Setup::new().runner(roomy(&cloud)).start().await;
    let (job, gate) = held(&world, "calm");
    world.says(&job, "it runs").await;
    let victim = victim(&cloud);
    cloud.aws.recommend_rebalance(&victim);
    world.logs(&["the end of an instance is announced", "rebalance recommendation"]).await;
    world.run(JobBuilder::new("next").script(["echo hello"])).await.succeeded().says_not(&victim);
    open(&gate);
    world.finished(&job).await.succeeded().says(&victim).says_not("taken away");
    eventually("the instance is replaced", || !cloud.serving().contains(&victim)).await;
    world.stop().await;
}

#[tokio::test]
async fn where_instances_cannot_be_asked_the_listing_tells() {
    let cloud = spot().await;
    cloud.aws.break_metadata(MetadataFault::Off);
    let world = Setup::new().runner(cloud.entry()).start().await;
    let (job, _) = held(&world, "long");
    world.says(&job, "it runs").await;
    world.logs(&["only listings tell of them"]).await;
    let victim = victim(&cloud);
    // Spot requests are asked for every 15 seconds.
    cloud.aws.interrupt_in(&victim, Duration::from_secs(38));
    ended_early(world.finished(&job).await, &victim, "spot interruption notice (marked-for-termination)");
    assert_eq!(world.log.text().matches("only listings tell of them").count(), 1, "it is said once");
    world.stop().await;
}

#[tokio::test]
async fn maintenance_in_days_ends_no_job_and_brings_no_other_one() {
    let cloud = spot().await;
    deafen(&cloud);
    let idle = [("idle_count", 1.into()), ("idle_time", "10m".into())];
    let world = Setup::new().runner(roomy(&cloud).policy(idle)).start().await;
    eventually("an instance was logged in to", || cloud.aws.calls_of("SendSSHPublicKey") >= 1).await;
    let victim = victim(&cloud);
    cloud.aws.schedule_event(&victim, "instance-retirement");
    // Scheduled events are asked for at the first look, which comes with the first job.
    let (job, gate) = held(&world, "long");
    world.says(&job, "it runs").await;
    world.logs(&["the end of an instance is announced", "AWS has scheduled instance-retirement"]).await;
    world.run(JobBuilder::new("next").script(["echo hello"])).await.succeeded().says_not(&victim);
    open(&gate);
    world.finished(&job).await.succeeded().says(&victim).says_not("taken away");
    eventually("it is replaced", || !cloud.serving().contains(&victim)).await;
    world.stop().await;
}

#[tokio::test]
async fn instances_are_asked_only_if_they_are_spot_instances_and_while_jobs_run_there() {
    let cloud = Cloud::start().await;
    let world = Setup::new().runner(cloud.entry()).start().await;
    world.run(JobBuilder::new("one").script(["echo hello"])).await.succeeded();
    let on_demand = victim(&cloud);
    world.stop().await;
    assert_eq!(cloud.aws.metadata_requests(&on_demand), 0);

    let cloud = spot().await;
    let world = Setup::new().runner(cloud.entry()).start().await;
    let (job, gate) = held(&world, "one");
    world.says(&job, "it runs").await;
    let instance = victim(&cloud);
    eventually("it is asked more than once", || cloud.aws.metadata_requests(&instance) >= 6).await;
    open(&gate);
    world.finished(&job).await.succeeded();
    let asked = cloud.aws.metadata_requests(&instance);
    let lists = || cloud.aws.calls_of("DescribeAutoScalingGroups");
    let start = lists();
    // Longer than two looks at the instance would be apart.
    eventually("the idle instance is listed", || lists() >= start + 12).await;
    assert!(cloud.serving().contains(&instance), "it is kept");
    // A look may have been under way.
    let after = cloud.aws.metadata_requests(&instance);
    assert!(after <= asked + 3, "{asked} and then {after}");
    world.stop().await;
}
