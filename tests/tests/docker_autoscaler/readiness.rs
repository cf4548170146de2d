//! An instance is used when its engine answers, and not before.

use drover_tests::{Entry, Instances};
use toml::Value;

use crate::{plain, stop, world};

/// An entry with one instance that is started in this way.
fn entry(instances: &Instances, mode: &str, command: &str) -> Entry {
    let command: Vec<Value> = ["sh", "-c", command].into_iter().map(Value::from).collect();
    instances
        .entry()
        .set("autoscaler.max_instances", 1)
        .set("autoscaler.plugin_config.environment", vec![Value::from(format!("ENGINE={mode}"))])
        .set("autoscaler.plugin_config.command", command)
}

#[tokio::test]
async fn a_job_waits_for_an_engine_that_comes_after_the_ssh_server() {
    let instances = Instances::new("late");
    let world = world(5, entry(&instances, "late", "exec /sbin/instance")).await;
    let job = world.enqueue(plain("early").script(["echo in a container"]));
    world
        .logs(&["instance is not ready yet", "it does not run: there is no socket /var/run/docker.sock"])
        .await;
    let name = instances.names().pop().expect("one instance is there");
    instances.exec(&name, "touch /start-engine");
    world.finished(&job).await.succeeded().has_line("in a container");
    stop(world, &instances).await;
}

#[tokio::test]
async fn an_instance_without_docker_is_named_and_replaced() {
    let instances = Instances::new("bare");
    let without = "rm -f $(which dockerd) $(which docker) /usr/bin/docker /usr/local/bin/docker /bin/docker; exec /sbin/instance";
    let entry = entry(&instances, "none", without)
        .set("autoscaler.connector_config.timeout", "3s")
        .set("autoscaler.instance_acquire_timeout", "20s");
    let world = world(5, entry).await;
    let job = world.enqueue(plain("hopeless").script(["true"]));
    world
        .logs(&["the Docker engine of instance bare-", "does not answer: Docker is not installed there"])
        .await;
    world
        .finished(&job)
        .await
        .failed("runner_system_failure", None)
        .says("unable to acquire instance within the configured timeout of 20s");
    stop(world, &instances).await;
}
