//! How often a job waits for the network between the manager and its instance.

use std::time::Duration;

use drover_tests::{Sshd, World};
use gitlab_mock::JobBuilder;

use crate::relay::Relay;
use crate::world::Binaries;

/// As between neighbouring regions of a cloud; long beside what the stages of a small job take.
const ONE_WAY: Duration = Duration::from_millis(25);

/// The fewest round trips of several runs: on a busy machine, messages that belong together may travel apart.
async fn fewest(world: &World, relay: &Relay, job: &JobBuilder) -> u64 {
    let mut fewest = u64::MAX;
    for _ in 0..5 {
        relay.quiet().await;
        let before = relay.round_trips();
        world.run(job.clone()).await.succeeded();
        fewest = fewest.min(relay.round_trips() - before);
    }
    fewest
}

#[tokio::test]
async fn a_small_job_on_a_warm_instance_takes_one_round_trip_for_each_stage() {
    let (sshd, binaries) = (Sshd::start(), Binaries::new());
    let relay = Relay::start(sshd.address(), ONE_WAY).await;
    let entry =
        binaries.entry(&sshd).set("autoscaler.plugin_config.instances.m1.internal_addr", relay.address());
    let world = drover_tests::Setup::new().runner(entry).start().await;
    let job = JobBuilder::new("true").script(["true"]).variable("GIT_STRATEGY", "none");
    // The first one dials.
    world.run(job.clone()).await.succeeded();

    let plain = fewest(&world, &relay, &job).await;
    // Preparation, sources, script, cleaning up. Fewer would mean that a stage does not wait for the one before.
    assert!((4..=6).contains(&plain), "{plain} round trips");

    // One more stage is one more round trip.
    let after = fewest(&world, &relay, &job.after_script(["true"])).await;
    assert!((5..=7).contains(&after), "{after} round trips with after_script");
    world.stop().await;
}
