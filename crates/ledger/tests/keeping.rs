//! What is kept is found again, however the process ended and whatever happened to the files.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use drover_ledger::{DurableStore, ForgettingStore};
use taskscaler::core::{InstanceId, InstanceRecord, Ledger, LedgerChanges, Origin, Reason};
use taskscaler::{LedgerStore, StoreError};

const GROUP: &str = "fake/group";

#[test]
fn a_successor_finds_what_was_kept() {
    let folder = tempfile::tempdir().unwrap();
    let store = DurableStore::new(folder.path(), "builders");
    let mut expected = store.load(GROUP).unwrap();
    assert_eq!(expected, Ledger::default());
    let steps = [
        changes([("i-1", record(1)), ("i-2", record(5))], []),
        changes([("i-2", InstanceRecord { leaving: Some(Reason::UsedUp), ..record(6) })], ["i-1"]),
        LedgerChanges {
            requests: Some(vec!["2026-08-03T08:00:00Z".parse().unwrap()]),
            ..LedgerChanges::default()
        },
        changes([("i-3", record(0))], []),
    ];
    for step in steps {
        store.save(&step).unwrap();
        expected.apply(step);
    }
    drop(store);
    for _ in 0..2 {
        assert_eq!(DurableStore::new(folder.path(), "builders").load(GROUP).unwrap(), expected);
    }
}

#[test]
fn nothing_that_was_saved_is_lost_when_the_process_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut sure = BTreeMap::new();
    for round in 0..12_u32 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "saves_until_it_is_killed", "--ignored", "--nocapture"])
            .env("LEDGER_FOLDER", folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Some are killed within the first journal, some while a checkpoint is made.
        let enough = 20 + (round % 4) * 3_000;
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut count = 0;
        for line in lines {
            let line = line.unwrap();
            let Some((id, uses)) = line.strip_prefix("saved ").and_then(|rest| rest.split_once(' ')) else {
                continue;
            };
            sure.insert(InstanceId::from(id), uses.parse::<u32>().unwrap());
            count += 1;
            if count == enough {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(count >= enough);
        let ledger = DurableStore::new(folder.path(), "builders").load(GROUP).unwrap();
        for (id, uses) in &sure {
            assert!(ledger.instances[id].use_count >= *uses, "{id}: {uses} uses were saved");
        }
    }
}

#[test]
#[ignore = "needs a parent that kills it: it is the child of another test"]
fn saves_until_it_is_killed() {
    let folder = PathBuf::from(std::env::var_os("LEDGER_FOLDER").expect("started by its parent"));
    let store = DurableStore::new(&folder, "builders");
    let mut ledger = store.load(GROUP).unwrap();
    for n in 0_u64.. {
        let id = InstanceId::from(format!("i-{}", n % 50));
        let uses = ledger.instances.get(&id).map_or(0, |record| record.use_count) + 1;
        let change = LedgerChanges { upserts: vec![(id.clone(), record(uses))], ..LedgerChanges::default() };
        store.save(&change).unwrap();
        ledger.apply(change);
        println!("saved {id} {uses}");
    }
}

#[test]
fn the_ledger_of_a_running_manager_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let store = DurableStore::new(folder.path(), "builders");
    store.load(GROUP).unwrap();
    let error = DurableStore::new(folder.path(), "builders").load(GROUP).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error:?}");
    assert!(error.to_string().contains("end the other process"), "{error}");
    // A store that was closed is free, and takes no offence at a straggler.
    let closed = DurableStore::new(folder.path(), "closed");
    closed.load("fake/closed").unwrap();
    closed.close();
    closed.save(&changes([("i-1", record(1))], [])).unwrap();
    assert_eq!(DurableStore::new(folder.path(), "closed").load("fake/closed").unwrap(), Ledger::default());
    // Other groups are free.
    DurableStore::new(folder.path(), "testers").load("fake/theirs").unwrap();
    DurableStore::new(folder.path(), "builders").load("fake/other").unwrap();
}

#[test]
fn a_group_has_one_scaler_whatever_its_runner_is_called_and_whether_it_keeps_anything() {
    let folder = tempfile::tempdir().unwrap();
    let in_use = |store: &dyn LedgerStore| {
        let error = store.load(GROUP).unwrap_err();
        assert!(matches!(error, StoreError::GroupInUse { .. }), "{error:?}");
        error.to_string()
    };
    let builders = DurableStore::new(folder.path(), "builders");
    builders.load(GROUP).unwrap();
    let testers = DurableStore::new(folder.path(), "testers").optional();
    let said = in_use(&testers);
    assert!(said.contains("`fake/group` is in use by runner `builders`"), "{said}");
    assert!(said.contains("give runner `testers` a group of its own"), "{said}");
    in_use(&ForgettingStore::new(folder.path(), "forgetful"));

    builders.close();
    testers.load(GROUP).unwrap();
    in_use(&builders);
    drop(testers);
    let forgetful = ForgettingStore::new(folder.path(), "forgetful");
    forgetful.load(GROUP).unwrap();
    assert!(in_use(&builders).contains("`forgetful`"));
    forgetful.close();
    builders.load(GROUP).unwrap();
}

#[test]
fn files_are_for_their_owner_alone() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("state");
    let store = DurableStore::new(&folder, "builders");
    store.load(GROUP).unwrap();
    store.save(&changes([("i-1", record(1))], [])).unwrap();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    let files = files(&folder);
    // The database, its journal, and the lock of the group.
    assert_eq!(files.len(), 3, "{files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[test]
fn a_damaged_file_is_set_aside_and_the_ledger_starts_empty() {
    let damages: [fn(&mut Vec<u8>); 4] = [
        |bytes| bytes.fill(0x5a),
        |bytes| bytes.truncate(100),
        |bytes| bytes.truncate(bytes.len() / 2),
        |bytes| bytes.iter_mut().skip(64).for_each(|byte| *byte ^= 0xff),
    ];
    for (n, damage) in damages.into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let store = DurableStore::new(folder.path(), "builders");
        store.load(GROUP).unwrap();
        store.save(&changes([("i-1", record(1))], [])).unwrap();
        drop(store);
        let path = database(folder.path());
        let mut bytes = std::fs::read(&path).unwrap();
        damage(&mut bytes);
        std::fs::write(&path, &bytes).unwrap();

        let store = DurableStore::new(folder.path(), "builders");
        assert_eq!(store.load(GROUP).unwrap(), Ledger::default(), "damage {n}");
        store.save(&changes([("i-2", record(2))], [])).unwrap();
        drop(store);
        let kept = DurableStore::new(folder.path(), "builders").load(GROUP).unwrap();
        assert_eq!(kept.instances[&InstanceId::from("i-2")], record(2));
        let aside = files(folder.path()).into_iter().filter(|path| name(path).contains(".redb.damaged-"));
        assert_eq!(aside.count(), 1, "damage {n}");
    }
}

#[test]
fn a_file_of_a_newer_version_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = DurableStore::new(folder.path(), "builders");
    store.load(GROUP).unwrap();
    drop(store);
    let path = database(folder.path());
    let database = redb::Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let meta: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("meta");
        transaction.open_table(meta).unwrap().insert("version", b"7".as_slice()).unwrap();
    }
    transaction.commit().unwrap();
    drop(database);

    let error = DurableStore::new(folder.path(), "builders").optional().load(GROUP).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 7, known: 1, .. }), "{error:?}");
    assert_eq!(files(folder.path()).into_iter().filter(|path| name(path).contains("damaged")).count(), 0);
}

#[test]
fn a_store_that_forgets_leaves_no_old_records_to_be_believed() {
    let folder = tempfile::tempdir().unwrap();
    let store = DurableStore::new(folder.path(), "builders");
    store.load(GROUP).unwrap();
    store.save(&changes([("i-1", record(1))], [])).unwrap();
    drop(store);
    assert_eq!(ForgettingStore::new(folder.path(), "builders").load(GROUP).unwrap(), Ledger::default());
    assert_eq!(DurableStore::new(folder.path(), "builders").load(GROUP).unwrap(), Ledger::default());
}

#[test]
fn where_no_file_can_be_made_only_those_who_asked_for_one_fail() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let nowhere = file.join("state");
    assert!(matches!(DurableStore::new(&nowhere, "builders").load(GROUP), Err(StoreError::Io { .. })));
    let store = DurableStore::new(&nowhere, "builders").optional();
    assert_eq!(store.load(GROUP).unwrap(), Ledger::default());
    store.save(&changes([("i-1", record(1))], [])).unwrap();
}

#[test]
fn the_files_do_not_grow_with_the_jobs_that_ran() {
    let folder = tempfile::tempdir().unwrap();
    let size = || files(folder.path()).iter().map(|path| path.metadata().unwrap().len()).sum::<u64>();
    let mut sizes = Vec::new();
    for _ in 0..3 {
        let store = DurableStore::new(folder.path(), "builders");
        store.load(GROUP).unwrap();
        for n in 0..5_000_u32 {
            let id = format!("i-{n}");
            let gone = (n >= 20).then(|| format!("i-{}", n - 20));
            let mut change = changes([(id.as_str(), record(1))], []);
            change.removals.extend(gone.map(InstanceId::from));
            store.save(&change).unwrap();
        }
        drop(store);
        sizes.push(size());
    }
    assert!(sizes[2] <= sizes[0].max(4 << 20), "{sizes:?}");
}

fn changes<const N: usize, const M: usize>(
    upserts: [(&str, InstanceRecord); N],
    removals: [&str; M],
) -> LedgerChanges {
    LedgerChanges {
        upserts: upserts.map(|(id, record)| (id.into(), record)).into(),
        removals: removals.map(InstanceId::from).into(),
        requests: None,
    }
}

fn record(use_count: u32) -> InstanceRecord {
    InstanceRecord {
        use_count,
        claims: vec!["abcdefgh-0123456789abcdef".into()],
        cause: Origin::Requested,
        created: "2026-08-03T08:00:00Z".parse().unwrap(),
        idle_since: "2026-08-03T08:10:00Z".parse().unwrap(),
        leaving: None,
        gone: None,
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn database(folder: &Path) -> PathBuf {
    files(folder).into_iter().find(|path| name(path).ends_with(".redb")).unwrap()
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}
