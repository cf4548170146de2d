//! The shell against a small cloud in memory, in paused time.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeZone as _;
use drover_taskscaler::{AcquireError, Clock, NoCapacity, ReadyUp, Settings, Taskscaler};
use fleeting::{ConnectInfo, GroupError, InstanceGroup};
use fleeting_fake::{Builder, FakeCloud, Operation};
use taskscaler_core::{Config, Policy};
use tokio::time::Instant;

const WAIT: Duration = Duration::from_secs(900);

fn cloud() -> Builder {
    FakeCloud::builder().tokio_clock().boot_delay(Duration::from_secs(30)).hints(false)
}

fn settings(core: Config) -> Settings {
    let wall = chrono::Utc.with_ymd_and_hms(2026, 8, 24, 10, 0, 0).unwrap();
    Settings { core, clock: Clock::starting_at(wall), seed: 7, ..Settings::default() }
}

fn on_demand(capacity: u32, max_instances: u32) -> Config {
    let policy = Policy { idle_count: 0, idle_time: Duration::from_secs(60), ..Policy::default() };
    Config { capacity_per_instance: capacity, max_instances, policies: vec![policy], ..Config::default() }
}

/// Reserves as soon as the scaler allows it.
async fn reserve(scaler: &Taskscaler) -> drover_taskscaler::Reservation {
    let mut capacity = scaler.capacity();
    loop {
        capacity.borrow_and_update();
        match scaler.reserve() {
            Ok(reservation) => return reservation,
            Err(_) => assert!(capacity.changed().await.is_ok(), "the scaler lives as long as the test"),
        }
    }
}

async fn until(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        tokio::time::advance(Duration::from_millis(500)).await;
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_gets_an_instance_that_appears_for_it_and_goes_when_idle() {
    let cloud = Arc::new(cloud().build());
    let scaler = Taskscaler::start(settings(on_demand(1, 5)), Arc::clone(&cloud) as Arc<dyn InstanceGroup>)
        .await
        .unwrap();
    let reservation = reserve(&scaler).await;
    assert_eq!(cloud.count(Operation::Increase), 0, "a reservation alone makes no instance");
    let acquisition = scaler.acquire(reservation, WAIT).await.unwrap();
    assert_eq!(cloud.existing(), 1);
    assert_eq!(acquisition.slot(), 0);
    drop(acquisition);
    until(Duration::from_secs(300), "the idle instance is deleted", || cloud.existing() == 0).await;
    assert_eq!(cloud.count(Operation::Increase), 1);
}

#[tokio::test(start_paused = true)]
async fn jobs_that_arrive_while_a_launch_is_under_way_are_not_forgotten() {
    let cloud = Arc::new(cloud().latency(Operation::Increase, Duration::from_secs(20)).build());
    let scaler = Taskscaler::start(settings(on_demand(1, 10)), Arc::clone(&cloud) as Arc<dyn InstanceGroup>)
        .await
        .unwrap();
    let first = reserve(&scaler).await;
    let second = reserve(&scaler).await;
    let late = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        scaler.acquire(second, WAIT).await.unwrap()
    };
    let (first, second) = tokio::join!(scaler.acquire(first, WAIT), late);
    assert_ne!(first.unwrap().instance(), second.instance());
}

#[tokio::test(start_paused = true)]
async fn a_job_hears_that_its_instance_vanished_and_what_became_of_it() {
    let cloud = Arc::new(cloud().build());
    let scaler = Taskscaler::start(settings(on_demand(1, 5)), Arc::clone(&cloud) as Arc<dyn InstanceGroup>)
        .await
        .unwrap();
    let reservation = reserve(&scaler).await;
    let acquisition = scaler.acquire(reservation, WAIT).await.unwrap();
    cloud.vanish(&fleeting::InstanceId::from(acquisition.instance().as_str()), "terminated by a rebalance");
    let cause = tokio::time::timeout(Duration::from_secs(200), acquisition.lost()).await.unwrap();
    assert_eq!(&cause.instance, acquisition.instance());
    assert!(cause.why.contains("terminated by a rebalance"), "{}", cause.why);
    assert_eq!(acquisition.lost_now(), Some(cause));
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_slot_ends_with_the_timeout_and_says_why() {
    let cloud = Arc::new(cloud().build());
    cloud.run_dry(Duration::from_secs(3600));
    let scaler = Taskscaler::start(settings(on_demand(1, 5)), Arc::clone(&cloud) as Arc<dyn InstanceGroup>)
        .await
        .unwrap();
    let reservation = reserve(&scaler).await;
    let error = scaler.acquire(reservation, Duration::from_secs(60)).await.unwrap_err();
    let AcquireError::TimedOut { timeout, why } = error else { panic!("{error}") };
    assert_eq!(timeout, Duration::from_secs(60));
    assert!(why.contains("no capacity") || why.contains("backing off"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_group_that_is_made_bigger_or_smaller_is_used_as_such_without_a_restart() {
    let cloud = Arc::new(cloud().max_size(0).build());
    let scaler = Taskscaler::start(settings(on_demand(1, 5)), Arc::clone(&cloud) as Arc<dyn InstanceGroup>)
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(scaler.reserve().unwrap_err(), NoCapacity::AtMaximum { max: 0 });
    cloud.resize(1);
    tokio::time::sleep(Duration::from_secs(61)).await;
    let held = scaler.acquire(scaler.reserve().unwrap(), WAIT).await.unwrap();
    assert_eq!(scaler.reserve().unwrap_err(), NoCapacity::AtMaximum { max: 1 });
    // A changed configuration does not forget it.
    scaler.configure(on_demand(1, 9));
    assert_eq!(scaler.reserve().unwrap_err(), NoCapacity::AtMaximum { max: 1 });
    cloud.resize(0);
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!((held.lost_now(), cloud.existing()), (None, 1), "a smaller bound ends no job");
    let said = scaler.scaling().unwrap().recent;
    let changes: Vec<&str> =
        said.iter().map(|moment| moment.text.as_str()).filter(|text| text.contains("max size")).collect();
    assert_eq!(
        changes,
        ["the group's max size was changed from 0 to 1", "the group's max size was changed from 1 to 0"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_given_up_leaves_no_demand_behind() {
    let cloud = Arc::new(cloud().boot_delay(Duration::from_secs(100)).build());
    let scaler = Taskscaler::start(settings(on_demand(1, 5)), Arc::clone(&cloud) as Arc<dyn InstanceGroup>)
        .await
        .unwrap();
    let reservation = reserve(&scaler).await;
    assert!(tokio::time::timeout(Duration::from_secs(10), scaler.acquire(reservation, WAIT)).await.is_err());
    until(Duration::from_secs(600), "the unwanted instance is deleted", || cloud.existing() == 0).await;
    let report = scaler.report().borrow().clone().unwrap();
    assert_eq!((report.inputs.pending, report.inputs.reserved), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_cannot_be_used_is_exchanged_for_another_one() {
    let cloud = Arc::new(cloud().build());
    let scaler = Taskscaler::start(settings(on_demand(1, 2)), Arc::clone(&cloud) as Arc<dyn InstanceGroup>)
        .await
        .unwrap();
    let reservation = reserve(&scaler).await;
    let bad = scaler.acquire(reservation, WAIT).await.unwrap();
    let first = bad.instance().clone();
    let reservation = bad.exchange("connection refused");
    let good = scaler.acquire(reservation, WAIT).await.unwrap();
    assert_ne!(good.instance(), &first);
}

#[tokio::test(start_paused = true)]
async fn instances_that_do_not_get_ready_are_replaced_after_a_pause_and_take_no_job() {
    struct FirstFails(std::sync::atomic::AtomicU32);
    #[async_trait::async_trait]
    impl ReadyUp for FirstFails {
        async fn ready_up(&self, _: ConnectInfo) -> Result<(), String> {
            match self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
                0 => Err("ready command: exit code 1".to_owned()),
                _ => Ok(()),
            }
        }
    }
    let cloud = Arc::new(cloud().build());
    let mut settings = settings(on_demand(1, 1));
    settings.ready = Arc::new(FirstFails(0.into()));
    let scaler = Taskscaler::start(settings, Arc::clone(&cloud) as Arc<dyn InstanceGroup>).await.unwrap();
    let reservation = reserve(&scaler).await;
    let acquisition = scaler.acquire(reservation, WAIT).await.unwrap();
    assert_eq!(cloud.count(Operation::Increase), 2);
    assert_eq!(cloud.peak(), 1, "the bad one went before the good one came: the maximum is 1");
    drop(acquisition);
}

#[tokio::test(start_paused = true)]
async fn shutdown_with_deletion_leaves_nothing_and_refuses_claims() {
    let cloud = Arc::new(cloud().delete_delay(Duration::from_secs(5)).build());
    let policy = Policy { idle_count: 3, idle_time: Duration::from_secs(600), ..Policy::default() };
    let config = Config { max_instances: 5, policies: vec![policy], ..Config::default() };
    let scaler =
        Taskscaler::start(settings(config), Arc::clone(&cloud) as Arc<dyn InstanceGroup>).await.unwrap();
    until(Duration::from_secs(120), "three idle instances are ready", || {
        scaler.report().borrow().as_ref().is_some_and(|report| report.counts.ready == 3)
    })
    .await;
    let leftover = scaler.shutdown(true).await;
    assert_eq!(leftover.instances, []);
    assert_eq!(cloud.existing(), 0);
    assert_eq!(scaler.reserve().unwrap_err(), NoCapacity::ShuttingDown);
}

#[tokio::test(start_paused = true)]
async fn shutdown_without_deletion_leaves_the_instances() {
    let cloud = Arc::new(cloud().build());
    let policy = Policy { idle_count: 2, idle_time: Duration::from_secs(600), ..Policy::default() };
    let config = Config { max_instances: 5, policies: vec![policy], ..Config::default() };
    let scaler =
        Taskscaler::start(settings(config), Arc::clone(&cloud) as Arc<dyn InstanceGroup>).await.unwrap();
    until(Duration::from_secs(120), "two instances", || cloud.existing() == 2).await;
    scaler.shutdown(false).await;
    assert_eq!(cloud.existing(), 2);
    assert_eq!(cloud.count(Operation::Decrease), 0);
}

#[tokio::test(start_paused = true)]
async fn a_failing_listing_changes_nothing_and_is_repeated() {
    let cloud = Arc::new(cloud().build());
    let scaler = Taskscaler::start(settings(on_demand(1, 5)), Arc::clone(&cloud) as Arc<dyn InstanceGroup>)
        .await
        .unwrap();
    let reservation = reserve(&scaler).await;
    let acquisition = scaler.acquire(reservation, WAIT).await.unwrap();
    for _ in 0..5 {
        cloud.fail_next(Operation::Update, GroupError::Transient { message: "connection reset".into() });
    }
    tokio::time::sleep(Duration::from_secs(400)).await;
    assert_eq!(acquisition.lost_now(), None);
    assert_eq!(cloud.existing(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_idle_scaler_lists_once_per_interval_and_does_nothing_else() {
    let cloud = Arc::new(cloud().build());
    let scaler = Taskscaler::start(settings(on_demand(1, 5)), Arc::clone(&cloud) as Arc<dyn InstanceGroup>)
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = cloud.calls().len();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let calls = cloud.calls().len() - before;
    assert!((59..=61).contains(&calls), "{calls} calls in an hour with update_interval = 1m");
    assert_eq!(cloud.count(Operation::Update), cloud.calls().len() - 1, "all but the init");
    drop(scaler);
}
