//! Where what is known is kept, and what is said when it cannot be.

use drover_tests::{Drover, Setup};

use crate::world::{World, kill, ledger, stop};

#[tokio::test]
async fn without_a_folder_for_it_only_those_who_asked_for_state_are_refused() {
    let world = World::start().await;
    let taken = tempfile::NamedTempFile::new().unwrap();
    let path = taken.path().join("state").display().to_string();
    let asked =
        world.entry().set("autoscaler.state_storage.enabled", true).set("autoscaler.state_storage.dir", path);
    let mut drover = Drover::start(&Setup::new().runner(asked), world.gitlab.url());
    let refused =
        ["this runner entry takes no jobs", "the scaler's ledger", &taken.path().display().to_string()];
    drover.program.says(&refused).await;
    stop(&mut drover).await;

    // The default folder: where it cannot be, jobs matter more.
    std::fs::write(drover.folder().join(".taskscaler"), "").unwrap();
    world.again(&mut drover, world.entry()).await;
    drover.program.says(&["nothing is kept for a restart", "state_storage"]).await;
    world.run("hello").await;
    stop(&mut drover).await;
}

#[tokio::test]
async fn the_ledger_of_a_later_version_is_refused_and_left_alone() {
    let world = World::start().await;
    let mut drover = world.manager(world.entry()).await;
    world.run("hello").await;
    kill(&mut drover).await;
    let journals = ledger(drover.folder(), ".journal");
    let [journal] = &journals[..] else { panic!("{journals:?}") };
    let later = record(br#"{"version":99}"#);
    std::fs::write(journal, &later).unwrap();
    let before = world.cloud.serving();

    drover.again(&Setup::new().runner(world.entry()), world.gitlab.url());
    drover
        .program
        .says(&["this runner entry takes no jobs", "has version 99", "run the program that wrote it"])
        .await;
    stop(&mut drover).await;
    assert_eq!(std::fs::read(journal).unwrap(), later);
    assert_eq!(world.cloud.serving(), before, "instances that nobody may judge stay");
}

#[tokio::test]
async fn two_entries_do_not_scale_one_group() {
    let world = World::start().await;
    let twin = world.entry().set("name", "twin");
    // Written in another way, so that only the group itself tells.
    let url = format!("{}/", world.cloud.aws.url());
    let other = world.entry().set("name", "other").set("autoscaler.plugin_config.endpoint", url);
    let setup = Setup::new().runner(world.entry()).runner(twin).runner(other);
    let mut drover = Drover::start(&setup, world.gitlab.url());
    drover.program.says(&["takes no jobs", "runner=twin", "has the group `fleet`, which runner"]).await;
    drover.program.says(&["runner entry takes jobs"]).await;
    drover
        .program
        .says(&["runner entry cannot work yet", "aws/eu-west-1/fleet", "is in use by runner"])
        .await;
    world.run("hello").await;
    assert_eq!(world.cloud.aws.launched(), 1);
    stop(&mut drover).await;
}

/// A record of a journal: length, FNV-1a of the body, body.
fn record(body: &[u8]) -> Vec<u8> {
    let sum = body
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    let length = u32::try_from(body.len()).unwrap();
    [&length.to_le_bytes()[..], &sum.to_le_bytes()[..], body].concat()
}
