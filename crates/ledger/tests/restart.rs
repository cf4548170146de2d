//! A scaler dies without warning, and another one goes on with what the ledger says.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use drover_ledger::DurableStore;
use fleeting::InstanceGroup;
use fleeting_fake::FakeCloud;
use taskscaler::core::{Config, InstanceId, Ledger, LedgerChanges, Policy};
use taskscaler::{Acquisition, LedgerStore, Settings, StoreError, Taskscaler};

const PATIENCE: Duration = Duration::from_secs(60);

/// A store that a death can be played with: from one moment on nothing is kept, and the files are free.
struct Mortal(Mutex<Option<DurableStore>>);

impl LedgerStore for Mortal {
    fn load(&self, group: &str) -> Result<Ledger, StoreError> {
        self.0.lock().unwrap().as_ref().expect("alive").load(group)
    }

    fn save(&self, changes: &LedgerChanges) -> Result<(), StoreError> {
        self.0.lock().unwrap().as_ref().map_or(Ok(()), |store| store.save(changes))
    }
}

/// One life of a scaler. It ends as by `kill -9`: no task of it runs on, and nothing more is written.
fn life<F: Future<Output = ()>>(
    folder: &Path,
    cloud: &Arc<FakeCloud>,
    core: &Config,
    story: impl FnOnce(Taskscaler) -> F,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store = Arc::new(Mortal(Mutex::new(Some(DurableStore::new(folder, "builders")))));
    let settings = Settings {
        core: core.clone(),
        store: Arc::clone(&store) as Arc<dyn LedgerStore>,
        update_interval: Duration::from_millis(20),
        update_interval_when_expecting: Duration::from_millis(5),
        shutdown_deletion_interval: Duration::from_millis(100),
        shutdown_deletion_retries: 100,
        ..Settings::default()
    };
    runtime.block_on(async {
        let group = Arc::clone(cloud) as Arc<dyn InstanceGroup>;
        let scaler = Taskscaler::start(settings, group).await.unwrap();
        tokio::time::timeout(PATIENCE, story(scaler)).await.expect("in time");
    });
    drop(runtime);
    drop(store.0.lock().unwrap().take());
}

async fn job(scaler: &Taskscaler) -> Acquisition {
    let mut capacity = scaler.capacity();
    loop {
        capacity.borrow_and_update();
        match scaler.reserve() {
            Ok(reservation) => return scaler.acquire(reservation, PATIENCE).await.unwrap(),
            Err(_) => assert!(capacity.changed().await.is_ok(), "the scaler lives"),
        }
    }
}

/// Dies with the job: what it holds is never given back.
fn die_with(acquisition: Acquisition) {
    std::mem::forget(acquisition);
}

fn cloud() -> Arc<FakeCloud> {
    let none = Duration::ZERO;
    Arc::new(FakeCloud::builder().appear_delay(none).boot_delay(none).delete_delay(none).build())
}

fn config() -> Config {
    let policy = Policy { idle_time: Duration::from_secs(3600), ..Policy::default() };
    Config { max_instances: 5, policies: vec![policy], restores_state: true, ..Config::default() }
}

#[test]
fn use_counts_go_on_where_they_were() {
    let (folder, cloud) = (tempfile::tempdir().unwrap(), cloud());
    let config = Config { max_use_count: 3, ..config() };
    let used = Arc::new(Mutex::new(Vec::<InstanceId>::new()));
    for _ in 0..4 {
        let used = Arc::clone(&used);
        life(folder.path(), &cloud, &config, async move |scaler| {
            let acquisition = job(&scaler).await;
            used.lock().unwrap().push(acquisition.instance().clone());
            let mut report = scaler.report();
            report.wait_for(|report| report.as_ref().is_some_and(|r| r.inputs.acquired == 1)).await.unwrap();
            drop(acquisition);
            // The end of the job is on record with the next decision.
            report.wait_for(|report| report.as_ref().is_some_and(|r| r.inputs.acquired == 0)).await.unwrap();
        });
    }
    let used = used.lock().unwrap();
    assert_eq!((&used[0], &used[0]), (&used[1], &used[2]), "it is adopted twice");
    assert_ne!(used[3], used[0], "three jobs in all, over three managers");
}

#[test]
fn an_instance_whose_job_was_orphaned_is_removed_and_not_used() {
    let (folder, cloud) = (tempfile::tempdir().unwrap(), cloud());
    let orphaned = Arc::new(Mutex::new(None));
    let foreign = cloud.appear_foreign();
    life(folder.path(), &cloud, &config(), async |scaler| {
        let acquisition = job(&scaler).await;
        *orphaned.lock().unwrap() = Some(acquisition.instance().clone());
        die_with(acquisition);
    });
    assert_eq!(cloud.existing(), 1, "the instance outlives its manager");
    let orphaned = orphaned.lock().unwrap().take().unwrap();
    life(folder.path(), &cloud, &config(), async |scaler| {
        let next = job(&scaler).await;
        assert_ne!(*next.instance(), orphaned);
        drop(next);
        assert!(scaler.shutdown(true).await.instances.is_empty());
    });
    assert_eq!(cloud.existing(), 0, "nothing is leaked");
    assert!(
        cloud.instance(&foreign).is_some_and(|machine| machine.deletions == 0 && machine.gone_at.is_none())
    );
}

#[test]
fn an_instance_with_an_orphaned_job_is_kept_for_those_who_clean_it() {
    let (folder, cloud) = (tempfile::tempdir().unwrap(), cloud());
    let config = Config { keep_instance_with_acquisitions: true, max_use_count: 2, ..config() };
    let used = Mutex::new(Vec::new());
    for _ in 0..3 {
        life(folder.path(), &cloud, &config, async |scaler| {
            let acquisition = job(&scaler).await;
            used.lock().unwrap().push(acquisition.instance().clone());
            die_with(acquisition);
        });
    }
    let used = used.into_inner().unwrap();
    assert_eq!(used[0], used[1]);
    assert_ne!(used[1], used[2], "an orphaned job counts as a use");
}

#[test]
fn instances_that_were_asked_for_before_the_death_are_taken_over() {
    let (folder, cloud) = (tempfile::tempdir().unwrap(), cloud());
    let config = Config {
        policies: vec![Policy { idle_count: 3, idle_time: Duration::from_secs(3600), ..Policy::default() }],
        ..config()
    };
    life(folder.path(), &cloud, &config, async |_scaler| {
        while cloud.existing() < 3 {
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
    });
    life(folder.path(), &cloud, &config, async |scaler| {
        let mut report = scaler.report();
        report.wait_for(|report| report.as_ref().is_some_and(|r| r.counts.ready == 3)).await.unwrap();
    });
    assert_eq!(cloud.instances().len(), 3, "no instance was replaced");
}
