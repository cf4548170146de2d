//! Many jobs on a few instances, some of which die.

use std::collections::BTreeSet;

use drover_tests::{Finished, Instances, World, eventually};
use gitlab_mock::{ArtifactSpec, Job, JobState};
use serde_json::json;

use crate::{nothing_is_left, plain, stop, world};

const JOBS: usize = 100;

/// The instance that a job was connected to last.
fn instance(job: &Finished) -> Option<String> {
    let connected = |line: &str| Some(line.strip_prefix("Instance ")?.strip_suffix(" connected")?.to_owned());
    job.log.lines().filter_map(connected).next_back()
}

/// Jobs, some with a service, some with artifacts.
fn enqueue(world: &World) {
    let job = |number: usize| {
        let job = plain(&format!("job {number}")).script([
            &format!("echo number {number} >made"),
            "sleep 0.3",
            "cat made",
        ]);
        match number % 10 {
            0 => job.service(json!({"name": "box:1", "alias": "site", "command": ["sleep", "1000"]})),
            5 => job.artifact(ArtifactSpec::archive("made", ["made"])),
            _ => job,
        }
    };
    for number in 0..JOBS {
        world.enqueue(job(number));
    }
}

/// Waits until jobs run their scripts on an instance, and names it.
async fn busy(world: &World, not: &BTreeSet<String>) -> String {
    let mut found = None;
    eventually("an instance is busy", || {
        found = world.view.jobs.list().iter().filter(|line| line.stage == "step_script").find_map(|line| {
            let name = line.place.rsplit(' ').next()?.to_owned();
            (!not.contains(&name)).then_some(name)
        });
        found.is_some()
    })
    .await;
    found.expect("it was found")
}

#[tokio::test]
async fn every_job_has_one_result_whatever_dies() {
    let instances = Instances::new("fleet");
    let entry = instances.entry().set("request_concurrency", 5);
    let world = world(12, entry).await;
    enqueue(&world);

    let mut dead = BTreeSet::new();
    for _ in 0..2 {
        let victim = busy(&world, &dead).await;
        instances.kill(&victim);
        dead.insert(victim);
    }
    let restarted = busy(&world, &dead).await;
    instances.exec(&restarted, "kill -9 $(pidof dockerd)");

    let finished = world.all_finished().await;
    assert_eq!(finished.len(), JOBS);
    let (mut lost, mut used) = (0, BTreeSet::new());
    for job in finished {
        let place = instance(&job);
        used.extend(place.clone());
        if job.view.state == JobState::Success {
            job.succeeded();
            continue;
        }
        lost += 1;
        let job = job.failed("runner_system_failure", None);
        let place = place.expect("the log names the instance");
        assert!(
            dead.contains(&place) || place == restarted,
            "a job failed on {place}, which was well:\n{}",
            job.log
        );
        let last = job.log.trim_end().lines().next_back().unwrap();
        assert!(last.contains(&place), "the last line does not name `{place}`: {last}");
    }
    assert!(lost > 0, "no job was hit, so this test has shown nothing");
    assert!(lost <= 12, "{lost} jobs were lost with three engines of four jobs each");
    assert!(used.len() >= 4, "the group did not replace what died: {used:?}");
    nothing_is_left(&instances).await;
    stop(world, &instances).await;
}

#[tokio::test]
async fn a_group_grows_with_its_jobs_and_shrinks_after_them() {
    let instances = Instances::new("breathing");
    let entry = instances
        .entry()
        .set("autoscaler.capacity_per_instance", 1)
        .policy([("idle_count", 0.into()), ("idle_time", "1s".into())]);
    let world = world(5, entry).await;
    let jobs: Vec<Job> = (0..2)
        .map(|number| world.enqueue(plain(&format!("holds {number}")).script(["echo started; sleep 1000"])))
        .collect();
    for job in &jobs {
        world.says(job, "started\n").await;
    }
    assert_eq!(instances.names().len(), 2, "one instance for each job");
    for job in &jobs {
        job.cancel();
        world.finished(job).await.canceled();
    }
    eventually("idle instances are deleted", || instances.names().is_empty()).await;
    stop(world, &instances).await;
}
