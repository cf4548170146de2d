//! What a job costs: calls to the engine, and containers that are started. GitLab Runner needs 63 calls and 6 starts for the first.

use drover_tests::{Counted, Engine, Entry, Setup, World};
use gitlab_mock::JobBuilder;

use crate::nothing_is_left;

async fn counted(change: impl FnOnce(Entry) -> Entry) -> (World, Counted) {
    let counted = Counted::of(Engine::shared());
    let entry = Engine::shared().entry("docker").set("docker.host", counted.host());
    let world = Setup::new().runner(change(entry)).start().await;
    (world, counted)
}

/// Calls and starts of one job, without what only the first job of an engine costs.
async fn cost(world: &World, counted: &Counted, job: impl Fn() -> JobBuilder) -> (u64, u64) {
    let first = world.run(job()).await.succeeded();
    nothing_is_left(world, first.view.id).await;
    let before = counted.calls();
    let second = world.run(job()).await.succeeded();
    nothing_is_left(world, second.view.id).await;
    let after = counted.calls();
    (after.0 - before.0, after.1 - before.1)
}

#[tokio::test]
async fn a_job_without_a_repository_costs_six_calls_and_one_start() {
    let (world, counted) = counted(|entry| entry).await;
    let job = || JobBuilder::new("true").variable("GIT_STRATEGY", "none").script(["true"]);
    // Image, create, attach, start, wait, remove.
    assert_eq!(cost(&world, &counted, job).await, (6, 1));
    world.stop().await;
}

#[tokio::test]
async fn a_job_with_a_repository_costs_at_most_eleven_calls_and_two_starts() {
    let (world, counted) = counted(|entry| entry.set("docker.network_mode", "host")).await;
    let repository = world.gitlab.create_repository("harbour/ferry").await.unwrap();
    repository.commit("main", [("number", "1\n")], "one").await.unwrap();
    // The image; create, attach and start of both containers, and wait for one; their removal, and that of a volume. Stages of the
    // helper cost none.
    for (strategy, most) in [("fetch", 10), ("clone", 11)] {
        let job = || {
            JobBuilder::new(strategy)
                .repository(&repository)
                .variable("GIT_STRATEGY", strategy)
                .script(["cat number"])
        };
        let (calls, starts) = cost(&world, &counted, job).await;
        assert!(calls <= most, "{strategy}: {calls} calls");
        assert_eq!(starts, 2, "{strategy}");
    }
    world.stop().await;
}

#[tokio::test]
async fn a_job_with_a_service_that_has_no_ports_needs_no_helper() {
    let (world, counted) = counted(|entry| entry.set("docker.wait_for_services_timeout", 1)).await;
    let job = || {
        JobBuilder::new("service")
            .variable("GIT_STRATEGY", "none")
            .service(serde_json::json!({"name": "box:1", "alias": "db", "command": ["sleep", "600"]}))
            .script(["true"])
    };
    // The image; create, start and look at the service; create, attach, start and wait; the log of a service that cannot be
    // checked; two containers and their volume are removed.
    assert_eq!(cost(&world, &counted, job).await, (12, 2));
    world.stop().await;
}
