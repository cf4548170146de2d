//! One job on one instance.

use std::time::Duration;

use drover_tests::Instances;
use gitlab_mock::{ArtifactSpec, JobBuilder};
use serde_json::json;

use crate::{nothing_is_left, plain, stop, world};

#[tokio::test]
async fn a_job_is_run_in_a_container_on_an_instance_that_is_made_for_it() {
    let instances = Instances::new("single");
    let world = world(5, instances.entry().set("autoscaler.max_instances", 1)).await;
    assert_eq!(instances.names(), [""; 0]);
    let repository = world.gitlab.create_repository("harbour/ferry").await.unwrap();
    repository.commit("main", [("number", "1\n")], "one").await.unwrap();

    let first = world.enqueue(
        JobBuilder::new("makes")
            .repository(&repository)
            .service(json!({"name": "box:1", "alias": "site", "command": ["httpd", "-f", "-p", "80", "-h", "/bin"]}))
            .variable("HEALTHCHECK_TCP_PORT", "80")
            .script(["cat number", "wget -qO- http://site/entry | tail -n 1", "mkdir out", "echo built >out/file"])
            .artifact(ArtifactSpec::archive("made", ["out/"])),
    );
    let made = world.finished(&first).await.succeeded().has_line("1").has_line("exec \"$@\"");
    let name = instances.names().pop().expect("one instance is there");
    made.says(&format!("Instance {name} connected")).says("Using Docker executor with image box:1 ...");
    world
        .run(
            JobBuilder::new("uses")
                .repository(&repository)
                .variable("GIT_STRATEGY", "clone")
                .script(["cat out/file"])
                .needs(&first),
        )
        .await
        .succeeded()
        .has_line("built")
        .says(&format!("Instance {name} connected"));
    nothing_is_left(&instances).await;
    stop(world, &instances).await;
}

#[tokio::test]
async fn cancelled_and_late_jobs_leave_nothing_on_the_instance() {
    let instances = Instances::new("stopped");
    let world = world(5, instances.entry().set("autoscaler.max_instances", 1)).await;
    let patient = plain("patient")
        .script(["trap 'echo asked to end' TERM", "echo started; sleep 1000 & wait $!", "echo not reached"])
        .after_script(["echo \"it is $CI_JOB_STATUS\""]);
    let cancelled = world.enqueue(patient);
    let late = world.enqueue(
        plain("endless").timeout(Duration::from_secs(5)).script(["trap '' TERM; while :; do sleep 1; done"]),
    );
    world.says(&cancelled, "started\n").await;
    cancelled.cancel();
    world.finished(&cancelled).await.canceled().has_line("it is canceled").lacks_line("not reached");
    world.finished(&late).await.failed("job_execution_timeout", None);
    nothing_is_left(&instances).await;
    assert_eq!(instances.names().len(), 1, "the instance is kept");
    stop(world, &instances).await;
}
