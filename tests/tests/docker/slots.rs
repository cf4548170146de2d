//! Control groups that are named after the slots of instances.

use drover_tests::{Engine, Entry, Setup, Sshd};
use gitlab_mock::{ArtifactSpec, JobBuilder};
use serde_json::json;

use crate::autoscaled;

#[tokio::test]
async fn containers_are_in_the_control_group_of_their_slot() {
    let engine = Engine::shared();
    let sshd = Sshd::start();
    let entry = autoscaled::entry(&sshd, &engine.host())
        .set("autoscaler.capacity_per_instance", 1)
        .set("use_slot_cgroups", true)
        .set("slot_cgroup_template", "drover-test/slot-${slot}")
        .set("docker.service_slot_cgroup_template", "drover-test/services-${slot}")
        .set("docker.network_mode", "bridge");
    let world = Setup::new().runner(entry).for_containers().start().await;
    let job = world.enqueue(
        JobBuilder::new("kept apart")
            .variable("GIT_STRATEGY", "none")
            .service(json!({"name": "box:1", "alias": "site", "command": ["httpd", "-f", "-p", "80", "-h", "/bin"]}))
            .variable("HEALTHCHECK_TCP_PORT", "80")
            // The helper stays for what is saved at the end.
            .artifact(ArtifactSpec::archive("made", ["made"]))
            .script([
                "echo 1 >made",
                "echo \"it is $GITLAB_RUNNER_SLOT_CGROUP\"",
                "until test -e /tmp/signal; do sleep 0.1; done",
            ]),
    );
    world.says(&job, "it is drover-test/slot-0\n").await;
    let names = engine.belongings(&world.runners[0].token(), job.view().id);
    let parent = |name: &str| engine.inspect("container", name)["HostConfig"]["CgroupParent"].clone();
    let build = names.iter().find(|name| name.ends_with("-build")).unwrap();
    let helper = names.iter().find(|name| name.ends_with("-predefined")).unwrap();
    let service = names.iter().find(|name| name.ends_with("-box-0")).unwrap();
    assert_eq!(parent(build), "drover-test/slot-0");
    assert_eq!(parent(helper), "drover-test/slot-0");
    assert_eq!(parent(service), "drover-test/services-0");
    engine.docker(&["exec", build, "touch", "/tmp/signal"]);
    world.finished(&job).await.succeeded();
    world.stop().await;
}

#[tokio::test]
async fn jobs_on_instances_know_the_control_group_of_their_slot() {
    let sshd = Sshd::start();
    let entry = Entry::machines("slots", [&sshd]).set("use_slot_cgroups", true);
    let world = Setup::new().runner(entry).start().await;
    world
        .run(JobBuilder::new("told").script(["echo \"it is $GITLAB_RUNNER_SLOT_CGROUP\""]))
        .await
        .succeeded()
        .has_line("it is gitlab-runner/slot-0");
    world.stop().await;
}
