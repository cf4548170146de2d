//! Instances come, go, die, and leave nothing behind.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::{PATIENCE, World, config, eventually, first_line, is_alive, processes_in, until};
use drover_fleeting_local::{Config, LocalGroup};
use fleeting::{ConnectorSettings, GroupError, HeartbeatError, InstanceGroup, InstanceState};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Set for the process that is killed as a manager.
const BE_A_MANAGER: &str = "DROVER_TEST_MANAGER";

/// A command that starts a child in its group, one that ignores TERM, and a daemon in a session of its own, and says
/// their process ids.
const FAMILY: &str = "sleep 600 & a=$!; (trap '' TERM; exec sleep 600) & b=$!; \
    setsid sh -c 'echo $$ > daemon; exec sleep 600' > /dev/null 2>&1 & \
    while ! test -s daemon; do sleep 0.01; done; echo $$ $a $b $(cat daemon); wait";

/// Starts the family and returns its processes.
async fn family(world: &World) -> Vec<i32> {
    let client = world.client().await;
    let mut channel = client.start(FAMILY).await;
    let line = first_line(&mut channel).await;
    // The connection lives on its own: what ends must end because of the instance.
    std::mem::forget((client, channel));
    let pids: Vec<i32> = line.split(' ').map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(pids.len(), 4, "{line}");
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    pids
}

/// The process of the only instance.
fn instance_process(world: &World) -> i32 {
    let all = processes_in(&world.instance_dir());
    let leader = |pid: &&i32| nix::unistd::getsid(Some(Pid::from_raw(**pid))) == Ok(Pid::from_raw(**pid));
    *all.iter().find(leader).expect("it leads a session")
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).map_or(true, |mut entries| entries.next().is_none())
}

async fn wait_gone(world: &World) {
    until(&world.group, "all gone", |listing| listing.is_empty().then_some(())).await;
}

#[tokio::test]
async fn a_deleted_instance_is_listed_as_deleting_and_leaves_nothing_behind() {
    let world = World::with(1).await;
    let mut pids = family(&world).await;
    pids.push(instance_process(&world));

    let answer = world.group.decrease(&world.ids).await;

    assert_eq!((answer.done, answer.error), (world.ids.clone(), None));
    let state = world.group.update().await.unwrap()[0].state;
    assert_eq!(state, InstanceState::Deleting);
    wait_gone(&world).await;
    assert!(!pids.iter().any(|pid| is_alive(*pid)), "processes are left of {pids:?}");
    assert!(is_empty(world.dir.path()), "files are left");
    assert_eq!(world.group.fate(&world.ids[0]).await.as_deref(), Some("deleted on request"));
}

#[tokio::test]
async fn an_instance_that_is_killed_is_noticed_at_once_and_its_processes_end() {
    let world = World::with(1).await;
    let pids = family(&world).await;
    let id = &world.ids[0];
    assert_eq!(world.group.heartbeat(id).await, Ok(()));

    kill(Pid::from_raw(instance_process(&world)), Signal::SIGKILL).unwrap();

    wait_gone(&world).await;
    let fate = "process ended with signal 9".to_owned();
    assert_eq!(world.group.fate(id).await, Some(fate.clone()));
    assert_eq!(world.group.heartbeat(id).await, Err(HeartbeatError::Unhealthy(fate)));
    assert!(matches!(world.group.connect_info(id).await, Err(GroupError::NotFound { .. })));
    tokio::time::timeout(PATIENCE, world.group.settled()).await.unwrap();
    assert!(!pids.iter().any(|pid| is_alive(*pid)), "processes are left of {pids:?}");
    assert!(is_empty(world.dir.path()), "files are left");
}

#[tokio::test]
async fn the_group_can_kill_an_instance_for_a_demonstration() {
    let world = World::with(2).await;
    assert!(world.group.kill(&world.ids[0]));
    until(&world.group, "one is gone", |listing| (listing.len() == 1).then_some(())).await;
    assert_eq!(world.group.fate(&world.ids[0]).await.as_deref(), Some("process ended with signal 9"));
    assert!(!world.group.kill(&world.ids[0]), "it cannot die twice");
    assert!(!world.group.kill(&"local-x-1".into()));
}

#[tokio::test]
async fn instances_that_do_not_end_are_killed() {
    let world = World::with(1).await;
    let stopped = instance_process(&world);
    kill(Pid::from_raw(stopped), Signal::SIGSTOP).unwrap();

    world.group.decrease(&world.ids).await;

    wait_gone(&world).await;
    assert!(!is_alive(stopped));
    assert!(is_empty(world.dir.path()));
}

#[tokio::test]
async fn dropping_the_group_ends_its_instances() {
    let world = World::with(2).await;
    let pids = family(&world).await;
    let dir = world.dir;
    drop(world.group);
    eventually("nothing is left", || is_empty(dir.path()) && processes_in(dir.path()).is_empty()).await;
    assert!(!pids.iter().any(|pid| is_alive(*pid)));
}

#[tokio::test]
async fn a_manager_that_is_killed_leaves_nothing_behind() {
    let work = tempfile::tempdir().unwrap();
    // A default work directory is under TMPDIR, and must go as well.
    let mut manager = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "life::a_manager_for_another_test", "--ignored", "--nocapture"])
        .env("TMPDIR", work.path())
        .env(BE_A_MANAGER, "1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let ready = work.path().join("ready");
    eventually("the manager has instances with processes", || ready.exists()).await;
    let left = || {
        let names = std::fs::read_dir(work.path()).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().starts_with("drover-")).count()
    };
    assert_eq!(left(), 1, "the work directory");
    let pids: Vec<i32> =
        std::fs::read_to_string(&ready).unwrap().split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    std::fs::remove_file(ready).unwrap();
    assert!(!pids.is_empty() && pids.iter().all(|pid| is_alive(*pid)));

    manager.kill().unwrap();
    manager.wait().unwrap();

    eventually("no process is left", || processes_in(work.path()).is_empty()).await;
    eventually("no file is left", || left() == 0).await;
    assert!(!pids.iter().any(|pid| is_alive(*pid)), "processes are left of {pids:?}");
}

#[tokio::test]
#[ignore = "started by a_manager_that_is_killed_leaves_nothing_behind, which kills it"]
async fn a_manager_for_another_test() {
    if std::env::var_os(BE_A_MANAGER).is_none() {
        return;
    }
    let mut world = World::configured(2, |config| Config { work_dir: None, ..config }).await;
    world.ids.sort();
    let pids = family(&world).await;
    let tmp = std::env::temp_dir();
    let pids: Vec<_> = pids.iter().map(ToString::to_string).collect();
    std::fs::write(tmp.join("half"), pids.join(" ")).unwrap();
    std::fs::rename(tmp.join("half"), tmp.join("ready")).unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn the_default_work_directory_is_private_and_goes_with_the_group() {
    let group = LocalGroup::new(Config { work_dir: None, name: "private".into(), ..config(Path::new("/")) });
    group.init(&ConnectorSettings::default()).await.unwrap();
    group.increase(1).await;
    let id = until(&group, "it runs", |listing| {
        listing.iter().find(|(_, state)| *state == InstanceState::Running).map(|(id, _)| id.clone())
    })
    .await;
    let dir = std::env::temp_dir().join(format!("drover-{}", id.as_str().strip_suffix("-1").unwrap()));
    assert_eq!(dir.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(dir.join(id.as_str()).metadata().unwrap().permissions().mode() & 0o777, 0o700);

    group.decrease(&[id]).await;
    group.shutdown().await.unwrap();
    assert!(dir.exists(), "the group can still grow");
    drop(group);
    eventually("the directory is removed", || !dir.exists()).await;
}

#[tokio::test]
async fn shutdown_waits_for_deletions_and_leaves_the_others() {
    let world = World::with(2).await;
    world.group.decrease(&world.ids[..1]).await;
    world.group.shutdown().await.unwrap();
    assert!(!world.instance_dir().exists());
    let listing = world.group.update().await.unwrap();
    assert_eq!(listing.len(), 1);
    assert_eq!(listing[0].state, InstanceState::Running);
}

#[tokio::test]
async fn an_instance_boots_for_as_long_as_configured_and_can_be_deleted_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let group = LocalGroup::new(Config { boot_delay: Duration::from_secs(3600), ..config(dir.path()) });
    group.init(&ConnectorSettings::default()).await.unwrap();
    group.increase(1).await;
    let listing = group.update().await.unwrap();
    assert_eq!(listing[0].state, InstanceState::Creating);
    let id = listing[0].id.clone();
    assert!(matches!(group.connect_info(&id).await, Err(GroupError::Transient { .. })));
    assert!(matches!(group.heartbeat(&id).await, Err(HeartbeatError::Unknown(_))));

    group.decrease(&[id]).await;
    until(&group, "it is gone", |listing| listing.is_empty().then_some(())).await;
    assert!(is_empty(dir.path()));
}

#[tokio::test]
async fn failed_boots_are_listed_as_timeout_until_they_are_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let group = LocalGroup::new(Config { boot_failure_rate: 1.0, ..config(dir.path()) });
    group.init(&ConnectorSettings::default()).await.unwrap();
    group.increase(2).await;
    let ids = until(&group, "both failed", |listing| {
        let failed = listing.iter().all(|(_, state)| *state == InstanceState::Timeout);
        failed.then(|| listing.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>())
    })
    .await;
    group.decrease(&ids).await;
    until(&group, "both are gone", |listing| listing.is_empty().then_some(())).await;
    assert!(group.fate(&ids[0]).await.unwrap().contains("boot_failure_rate"));
}

#[tokio::test]
async fn the_same_seed_gives_the_same_boots_fail() {
    let mut outcomes = Vec::new();
    for seed in [1, 1, 2] {
        let dir = tempfile::tempdir().unwrap();
        // Nothing runs here: what does not fail by chance fails for its program, and leaves another fate.
        let program = Some("/bin/false".into());
        let group = LocalGroup::new(Config { boot_failure_rate: 0.5, seed, program, ..config(dir.path()) });
        group.init(&ConnectorSettings::default()).await.unwrap();
        group.increase(12).await;
        let ids = until(&group, "all failed", |listing| {
            let failed = listing.iter().all(|(_, state)| *state == InstanceState::Timeout);
            failed.then(|| listing.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>())
        })
        .await;
        group.decrease(&ids).await;
        until(&group, "all are gone", |listing| listing.is_empty().then_some(())).await;
        let mut outcome = Vec::new();
        for id in ids {
            let number: u32 = id.as_str().rsplit('-').next().unwrap().parse().unwrap();
            outcome.push((number, group.fate(&id).await.unwrap().contains("boot_failure_rate")));
        }
        outcome.sort_unstable();
        outcomes.push(outcome);
    }
    assert_eq!(outcomes[0], outcomes[1]);
    assert_ne!(outcomes[0], outcomes[2]);
    assert!(outcomes[0].iter().any(|(_, failed)| *failed) && outcomes[0].iter().any(|(_, failed)| !failed));
}

#[tokio::test]
async fn a_program_that_is_no_instance_is_a_failed_start_with_its_last_words() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = vec!["-c".into(), "echo a greeting; echo no such thing >&2; exit 3".into()];
    let group = LocalGroup::new(Config { program: Some("/bin/sh".into()), arguments, ..config(dir.path()) });
    group.init(&ConnectorSettings::default()).await.unwrap();
    group.increase(1).await;
    let id = until(&group, "it failed", |listing| {
        listing.iter().find(|(_, state)| *state == InstanceState::Timeout).map(|(id, _)| id.clone())
    })
    .await;
    assert!(is_empty(dir.path()), "nothing of it is left while it is still listed");
    group.decrease(std::slice::from_ref(&id)).await;
    until(&group, "it is gone", |listing| listing.is_empty().then_some(())).await;
    assert_eq!(group.fate(&id).await.as_deref(), Some("process ended with exit code 3: no such thing"));
}

#[tokio::test]
async fn sudden_death_kills_without_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let mean = Some(Duration::from_millis(50));
    let group = LocalGroup::new(Config { sudden_death: mean, ..config(dir.path()) });
    group.init(&ConnectorSettings::default()).await.unwrap();
    group.increase(3).await;
    let ids: Vec<_> = group.update().await.unwrap().into_iter().map(|seen| seen.id).collect();
    until(&group, "all are dead", |listing| listing.is_empty().then_some(())).await;
    for id in ids {
        assert_eq!(group.fate(&id).await.as_deref(), Some("process ended with signal 9"));
    }
}

#[tokio::test]
async fn wrong_settings_are_refused_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let init = async |config: Config| {
        LocalGroup::new(config).init(&ConnectorSettings::default()).await.unwrap_err().to_string()
    };
    let missing = init(Config { program: Some("/no/such/program".into()), ..config(dir.path()) }).await;
    assert!(missing.contains("plugin_config.program: `/no/such/program`"), "{missing}");
    let relative = init(Config { work_dir: Some("work".into()), ..config(dir.path()) }).await;
    assert!(relative.contains("absolute"), "{relative}");
    let early = LocalGroup::new(config(dir.path())).increase(1).await;
    assert!(matches!((early.done, early.error), (0, Some(GroupError::Configuration { .. }))));
}

#[tokio::test]
async fn no_key_shows_in_the_process_list_or_in_files() {
    let world = World::with(1).await;
    let pid = instance_process(&world);
    for file in ["cmdline", "environ"] {
        let text = std::fs::read(format!("/proc/{pid}/{file}")).unwrap();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(!text.contains("PRIVATE") && !text.contains("ssh-ed25519"), "{file}: {text}");
    }
    let mut files = Vec::new();
    let mut dirs = vec![world.dir.path().to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { dirs.push(path) } else { files.push(path) }
        }
    }
    assert_eq!(files, Vec::<std::path::PathBuf>::new());
    assert!(!format!("{:?}", world.group).contains("PRIVATE"));
}
