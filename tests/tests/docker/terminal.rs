//! Web terminals into build containers.

use drover_tests::{Engine, Entry, Setup, Sshd, Visitor, World, eventually};
use gitlab_mock::{Job, JobBuilder};

use crate::autoscaled;

async fn world(entry: Entry) -> World {
    Setup::new()
        .set("session_server.listen_address", "127.0.0.1:0")
        .set("session_server.advertise_address", "127.0.0.1")
        .set("session_server.session_timeout", 60)
        .runner(entry)
        .start()
        .await
}

/// A job that goes on until there is a file in its container.
fn looked_into() -> JobBuilder {
    JobBuilder::new("looked into").variable("GIT_STRATEGY", "none").script([
        "echo working",
        "until test -e /tmp/signal; do sleep 0.1; done",
        "echo seen",
    ])
}

/// Connects as early as it can be done: the container comes later.
async fn visit(world: &World, job: &Job) -> Visitor {
    eventually("GitLab knows of the session", || job.session().is_some()).await;
    let visitor = Visitor::visit(&job.session().unwrap()).await;
    world.says(job, "working").await;
    visitor
}

async fn look_around_and_leave(world: &World) {
    let job = world.enqueue(looked_into());
    let mut visitor = visit(world, &job).await;
    visitor.types("echo in:$(pwd); echo size:$(stty size)\n").await;
    visitor.sees("in:/builds/").await;
    visitor.sees("size:40 120").await;
    visitor.types("touch /tmp/signal\n").await;
    visitor.sees("build container exited").await;
    world.finished(&job).await.succeeded().says("seen");
}

#[tokio::test]
async fn a_user_looks_into_a_running_container_until_it_ends() {
    let world = world(Engine::shared().entry("docker")).await;
    look_around_and_leave(&world).await;
    let features = world.runners[0].view().managers.into_values().next().unwrap().features;
    assert!(features.contains("terminal") && features.contains("session"), "{features:?}");
    world.stop().await;
}

#[tokio::test]
async fn containers_on_instances_are_looked_into_through_the_connection() {
    let sshd = Sshd::start();
    let world = world(autoscaled::entry(&sshd, &Engine::shared().host())).await;
    look_around_and_leave(&world).await;
    world.stop().await;
}

#[tokio::test]
async fn a_user_who_leaves_leaves_nothing_behind() {
    let world = world(Engine::shared().entry("docker")).await;
    let job = world.enqueue(looked_into());
    let mut visitor = visit(&world, &job).await;
    visitor.types("sleep 4711\n").await;
    let containers = Engine::shared().belongings(&world.runners[0].token(), job.view().id);
    let build = containers.iter().find(|name| name.ends_with("-build")).unwrap();
    let running = || Engine::shared().docker(&["top", build]);
    eventually("the user's command runs", || running().contains("sleep 4711")).await;
    drop(visitor);
    eventually("the shell and what it ran are gone", || {
        let running = running();
        !running.contains("sleep 4711") && !running.contains(" -i")
    })
    .await;
    Engine::shared().docker(&["exec", build, "touch", "/tmp/signal"]);
    world.finished(&job).await.succeeded().says("seen");
    world.stop().await;
}
