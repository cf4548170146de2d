//! Machines that exist already, and managers that want the same ones.

use std::path::PathBuf;
use std::time::Duration;

use drover_tests::{Entry, PATIENCE, Setup, Sshd, World, eventually};
use fleeting::lease::Owner;
use fleeting::{ConnectorSettings, GroupError, HeartbeatError, InstanceGroup, InstanceId};
use fleeting_static::StaticGroup;
use gitlab_mock::{Job, JobBuilder, JobState};
use serde_json::json;

/// A lock that nobody renews lasts so long.
const VALID: Duration = Duration::from_secs(600);

/// A pool of these machines for one manager.
async fn pool(manager: &str, machines: &[&Sshd], valid: Duration) -> StaticGroup {
    let table: serde_json::Map<String, serde_json::Value> = machines
        .iter()
        .enumerate()
        .map(|(number, machine)| {
            let settings = json!({
                "internal_addr": machine.address(), "username": Sshd::user(), "key_path": machine.key_path(),
            });
            (format!("m{}", number + 1), settings)
        })
        .collect();
    let group = StaticGroup::from_plugin_config(&json!({ "instances": table })).unwrap();
    let owner = Owner::new(manager, "https://gitlab.example.com", "1", "pool", "host");
    group.used_by(&owner, valid);
    group.init(&ConnectorSettings::default()).await.unwrap();
    group
}

fn locks(machine: &Sshd) -> Vec<String> {
    let entries = std::fs::read_dir(machine.home()).unwrap().flatten();
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(".drover-lock-"));
    ours.map(|entry| std::fs::read_link(entry.path()).unwrap().display().to_string()).collect()
}

fn id(name: &'static str) -> InstanceId {
    name.into()
}

/// An entry that wants a machine only for jobs and gives it back a second after.
fn shared(name: &str, machine: &Sshd) -> Entry {
    Entry::machines(name, [machine])
        .policy([("idle_count", 0.into()), ("idle_time", "1s".into())])
        .set("autoscaler.group_lease_ttl", "30s")
}

/// A job that runs until the file is there.
async fn held(world: &World) -> (Job, PathBuf) {
    let gate = world.folder().join("gate");
    let wait = format!("echo it runs; until [ -e {} ]; do sleep 0.1; done", gate.display());
    let held = world.enqueue(JobBuilder::new("held").script([wait]));
    world.says(&held, "it runs").await;
    (held, gate)
}

#[tokio::test]
async fn a_machine_is_one_managers_at_a_time() {
    let (one, two) = (Sshd::start(), Sshd::start());
    let first = pool("a", &[&one, &two], VALID).await;
    let second = pool("b", &[&one, &two], Duration::from_secs(3)).await;
    assert_eq!(first.increase(1).await.done, 1);
    assert!(locks(&one)[0].contains(" owner=a/"), "{:?}", locks(&one));
    // The other one gets what is left, and hears who has the rest.
    let answer = second.increase(2).await;
    let Some(GroupError::NoCapacity { message }) = &answer.error else { panic!("{answer:?}") };
    assert_eq!(answer.done, 1);
    let in_use = "machine `m1` is in use by entry `pool` of manager a on host host since 20";
    assert!(message.starts_with(in_use), "{message}");
    let lacking = second.lacking().unwrap();
    assert!(lacking.starts_with(&format!("only 1 of 2 machines can be used: {in_use}")), "{lacking}");
    assert_eq!((second.max_size(), first.lacking()), (Some(1), None));
    assert_eq!(first.heartbeat(&id("m1#1")).await, Ok(()));
    assert_eq!(second.heartbeat(&id("m2#1")).await, Ok(()));
    // What the first one returns, the second one can have.
    assert_eq!(first.decrease(&[id("m1#1")]).await.error, None);
    eventually("the lock is removed", || locks(&one).is_empty()).await;
    let mut done = 0;
    let until = tokio::time::Instant::now() + PATIENCE;
    while done == 0 && tokio::time::Instant::now() < until {
        done = second.increase(1).await.done;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(done, 1);
    second.shutdown().await.unwrap();
    assert_eq!((locks(&one).len(), locks(&two).len()), (0, 0));
}

#[tokio::test]
async fn after_a_crash_a_manager_has_its_machines_back_at_once_and_the_process_before_it_notices() {
    let machine = Sshd::start();
    let before = pool("a", &[&machine], VALID).await;
    assert_eq!(before.increase(1).await.done, 1);
    let after = pool("a", &[&machine], VALID).await;
    assert_eq!(after.increase(1).await.done, 1);
    let Err(HeartbeatError::Unhealthy(why)) = before.heartbeat(&id("m1#1")).await else { panic!("healthy") };
    assert!(why.contains("machine `m1` is in use by entry `pool` of manager a"), "{why}");
    // Its end leaves the lock of the other one alone.
    before.shutdown().await.unwrap();
    assert_eq!(after.heartbeat(&id("m1#1")).await, Ok(()));
    after.shutdown().await.unwrap();
    assert!(locks(&machine).is_empty());
}

#[tokio::test]
async fn a_dead_machine_is_not_handed_out_and_comes_back_when_it_answers() {
    let (mut dead, alive) = (Sshd::start(), Sshd::start());
    dead.stop();
    let group = pool("a", &[&dead, &alive], Duration::from_secs(3)).await;
    let answer = group.increase(1).await;
    assert_eq!((answer.done, answer.error), (1, None), "another one is taken");
    let listing = group.update().await.unwrap();
    assert_eq!(listing.iter().map(|seen| seen.id.as_str()).collect::<Vec<_>>(), ["m2#1"]);
    let answer = group.increase(1).await;
    let Some(GroupError::NoCapacity { message }) = &answer.error else { panic!("{answer:?}") };
    assert!(message.starts_with("machine `m1` does not answer: "), "{message}");
    dead.launch();
    let mut done = 0;
    let until = tokio::time::Instant::now() + PATIENCE;
    while done == 0 && tokio::time::Instant::now() < until {
        done = group.increase(1).await.done;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(done, 1);
    // One that dies in use is unhealthy, and healthy again with its lock when it is back.
    dead.stop();
    let Err(HeartbeatError::Unhealthy(why)) = group.heartbeat(&id("m1#1")).await else { panic!("healthy") };
    assert!(why.starts_with("machine `m1` does not answer: "), "{why}");
    dead.launch();
    let mut healthy = Err(HeartbeatError::Unknown(String::new()));
    while healthy.is_err() && tokio::time::Instant::now() < until {
        healthy = group.heartbeat(&id("m1#1")).await;
    }
    assert_eq!(healthy, Ok(()));
    group.shutdown().await.unwrap();
}

#[tokio::test]
async fn locks_are_renewed_while_a_machine_is_in_use() {
    let machine = Sshd::start();
    let group = pool("a", &[&machine], Duration::from_secs(3)).await;
    assert_eq!(group.increase(1).await.done, 1);
    let taken = locks(&machine);
    eventually("the lock is written again", || locks(&machine) != taken).await;
    group.shutdown().await.unwrap();
}

#[tokio::test]
async fn two_managers_with_the_same_machines_take_turns() {
    let machine = Sshd::start();
    let entry = |name: &str| shared(name, &machine);
    let first = Setup::new().runner(entry("first")).start().await;
    let (held, gate) = held(&first).await;
    let second = Setup::new().system_id("s_ba9876543210").runner(entry("second")).start().await;
    let job = second.enqueue(JobBuilder::new("waits").script(["echo hello"]));
    second.logs(&["machine is in use by entry `first` of manager"]).await;
    assert_ne!(job.state(), JobState::Success);
    std::fs::write(&gate, "").unwrap();
    first.finished(&held).await.succeeded();
    second.finished(&job).await.succeeded().has_line("hello");
    first.stop().await;
    second.stop().await;
    assert!(locks(&machine).is_empty());
}

#[tokio::test]
async fn a_job_that_gets_no_machine_is_told_who_has_them() {
    let machine = Sshd::start();
    let entry = |name: &str| shared(name, &machine).set("autoscaler.instance_acquire_timeout", "4s");
    let first = Setup::new().runner(entry("first")).start().await;
    let (held, gate) = held(&first).await;
    let second = Setup::new().system_id("s_ba9876543210").runner(entry("second")).start().await;
    let job = second.run(JobBuilder::new("waits").script(["echo hello"])).await;
    let job = job.failed("runner_system_failure", None);
    let who = "the group can give 0, would want 1: none of 1 machines can be used: machine `m1` is in use by entry `first` of \
               manager ";
    let job = job
        .says("unable to acquire instance within the configured timeout of 4s")
        .says(who)
        .says(" since 20");
    assert!(!job.log.contains("at the maximum of 0"), "{}", job.log);
    // What operators see says the same.
    second.logs(&["the group's max size was changed: none of 1 machines can be used", "max_size=0"]).await;
    std::fs::write(&gate, "").unwrap();
    first.finished(&held).await.succeeded();
    first.stop().await;
    second.run(JobBuilder::new("later").script(["echo hello"])).await.succeeded();
    second.stop().await;
}
