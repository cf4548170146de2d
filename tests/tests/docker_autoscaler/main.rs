//! Jobs in containers of engines on instances that come and go: containers with an SSH server and an engine of their own.

#![expect(clippy::expect_used, reason = "helpers of tests fail them")]

mod conformance;
mod fleet;
mod leases;
mod life;
mod readiness;

use drover_tests::{Entry, Instances, Setup, World};
use gitlab_mock::JobBuilder;

/// A world whose GitLab is reached from containers on instances as well.
pub(crate) async fn world(concurrent: i64, entry: Entry) -> World {
    Setup::new().set("concurrent", concurrent).runner(entry).for_containers().start().await
}

/// A job without a repository.
pub(crate) fn plain(name: &str) -> JobBuilder {
    JobBuilder::new(name).variable("GIT_STRATEGY", "none")
}

/// Ends the world; no instance may be left.
pub(crate) async fn stop(world: World, instances: &Instances) {
    world.stop().await;
    drover_tests::eventually("the instances are deleted", || instances.names().is_empty()).await;
}

/// Jobs have left nothing on any instance.
pub(crate) async fn nothing_is_left(instances: &Instances) {
    for name in instances.names() {
        let mut left = Vec::new();
        drover_tests::eventually(&format!("nothing is left on {name}"), || {
            left = instances.left_on(&name);
            left.is_empty()
        })
        .await;
    }
}
