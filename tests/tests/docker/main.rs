//! Jobs in containers of a real engine.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail them")]

mod authority;
mod autoscaled;
mod basics;
mod cost;
mod endpoints;
mod foreign_helper;
mod images;
mod inner;
mod labels;
mod limits;
mod masks;
mod options;
mod outage;
mod ownership;
mod registries;
mod registry;
mod scripts;
mod services;
mod slots;
mod sources;
mod stdio;
mod stop_flags;
mod stopping;
mod terminal;
mod volumes;

use drover_tests::{Engine, Entry, Setup, World};

/// A world whose runner uses the engine of the tests.
pub(crate) async fn world(change: impl FnOnce(Entry) -> Entry) -> World {
    Setup::new().set("concurrent", 20).runner(change(Engine::shared().entry("docker"))).start().await
}

/// Nothing of a job is left on the engine.
pub(crate) async fn nothing_is_left(world: &World, job: u64) {
    drover_tests::eventually("everything of the job is removed", || {
        Engine::shared().belongings(&world.runners[0].token(), job).is_empty()
    })
    .await;
}
