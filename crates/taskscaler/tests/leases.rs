//! Two managers and one group, in paused time.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail them")]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeZone as _, Utc};
use drover_taskscaler::{AcquireError, Clock, LeaseSettings, NoCapacity, Reservation, Settings, Taskscaler};
use fleeting::lease::{GroupLease, Lease, Owner};
use fleeting::{
    Changed, ConnectInfo, ConnectorSettings, GroupError, GroupInfo, HeartbeatError, InstanceGroup,
    InstanceId, Seen,
};
use fleeting_fake::{FakeCloud, Operation};
use taskscaler_core::{Config, Policy};
use tokio::time::Instant;

const VALID: Duration = Duration::from_secs(900);

/// The place for the mark, which all managers of a cloud share.
#[derive(Default)]
struct Place {
    mark: Mutex<Option<Lease>>,
    writes: AtomicUsize,
    denied: AtomicBool,
}

/// The cloud as one manager sees it.
struct Marked {
    cloud: Arc<FakeCloud>,
    place: Arc<Place>,
    seen: Mutex<Option<Lease>>,
}

#[async_trait]
impl InstanceGroup for Marked {
    async fn init(&self, settings: &ConnectorSettings) -> Result<GroupInfo, GroupError> {
        self.cloud.init(settings).await
    }
    async fn update(&self) -> Result<Vec<Seen>, GroupError> {
        let listing = self.cloud.update().await?;
        self.seen.lock().unwrap().clone_from(&self.place.mark.lock().unwrap());
        Ok(listing)
    }
    async fn increase(&self, n: u32) -> Changed<u32> {
        self.cloud.increase(n).await
    }
    async fn decrease(&self, ids: &[InstanceId]) -> Changed<Vec<InstanceId>> {
        self.cloud.decrease(ids).await
    }
    async fn connect_info(&self, id: &InstanceId) -> Result<ConnectInfo, GroupError> {
        self.cloud.connect_info(id).await
    }
    async fn heartbeat(&self, id: &InstanceId) -> Result<(), HeartbeatError> {
        self.cloud.heartbeat(id).await
    }
    fn lease(&self) -> Option<&dyn GroupLease> {
        Some(self)
    }
    async fn shutdown(&self) -> Result<(), GroupError> {
        self.cloud.shutdown().await
    }
}

#[async_trait]
impl GroupLease for Marked {
    fn seen(&self) -> Option<Lease> {
        self.seen.lock().unwrap().clone()
    }
    async fn mark(&self, lease: &Lease) -> Result<(), GroupError> {
        if self.place.denied.load(Ordering::Relaxed) {
            return Err(GroupError::Denied { message: "the policy lacks cloud:Mark".to_owned() });
        }
        self.place.writes.fetch_add(1, Ordering::Relaxed);
        *self.place.mark.lock().unwrap() = Some(lease.clone());
        Ok(())
    }
    async fn unmark(&self) -> Result<(), GroupError> {
        *self.place.mark.lock().unwrap() = None;
        Ok(())
    }
    fn removal(&self) -> String {
        String::new()
    }
}

/// One cloud and its mark.
struct World {
    cloud: Arc<FakeCloud>,
    place: Arc<Place>,
}

impl World {
    fn new() -> Self {
        let cloud = FakeCloud::builder().tokio_clock().boot_delay(Duration::from_secs(30)).hints(false);
        Self { cloud: Arc::new(cloud.build()), place: Arc::default() }
    }

    async fn manager(&self, name: &str, idle_count: u32) -> Taskscaler {
        let policy = Policy { idle_count, idle_time: Duration::from_secs(60), ..Policy::default() };
        let core = Config { max_instances: 5, policies: vec![policy], ..Config::default() };
        let settings = Settings {
            core,
            clock: Clock::starting_at(wall()),
            seed: 7,
            lease: Some(LeaseSettings { owner: owner(name), valid: VALID }),
            ..Settings::default()
        };
        let (cloud, place) = (Arc::clone(&self.cloud), Arc::clone(&self.place));
        Taskscaler::start(settings, Arc::new(Marked { cloud, place, seen: Mutex::default() })).await.unwrap()
    }

    fn holder(&self) -> Option<String> {
        self.place.mark.lock().unwrap().as_ref().map(|lease| lease.owner.manager.clone())
    }

    /// A manager that is not there any more has left its mark at this time.
    fn marked_by(&self, name: &str, written: DateTime<Utc>) {
        let until = written + VALID;
        *self.place.mark.lock().unwrap() =
            Some(Lease { owner: owner(name), generation: 4, since: written, until, valid: VALID });
    }
}

fn owner(name: &str) -> Owner {
    Owner::new(name, "https://gitlab.example.com", "1", "build", &format!("host-{name}"))
}

fn wall() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 8, 24, 10, 0, 0).unwrap()
}

/// A reservation, as soon as there may be one.
async fn reserved(manager: &Taskscaler) -> Reservation {
    loop {
        match manager.reserve() {
            Ok(reservation) => return reservation,
            Err(_) => tokio::time::sleep(secs(1)).await,
        }
    }
}

async fn until(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    start.elapsed()
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[tokio::test(start_paused = true)]
async fn a_second_manager_stands_by_until_the_first_stops_and_then_goes_by_its_own_rules() {
    let world = World::new();
    let first = world.manager("a", 2).await;
    until(secs(60), "the first has two instances", || world.cloud.existing() == 2).await;
    let second = world.manager("b", 1).await;
    tokio::time::sleep(secs(600)).await;
    let refused = second.reserve().unwrap_err();
    let NoCapacity::HeldElsewhere { holder } = &refused else { panic!("{refused}") };
    assert_eq!(holder, "entry `build` of manager a on host host-a");
    let scaling = second.scaling().unwrap();
    assert!(scaling.owner.starts_with(holder.as_str()), "{}", scaling.owner);
    assert_eq!((scaling.why[0].name.as_str(), scaling.why[0].holds_back), ("held_elsewhere", true));
    assert!(scaling.instances.is_empty(), "what is another's is not its business");
    assert!(
        scaling.recent.iter().any(|moment| moment.text.contains("another manager holds the instance group"))
    );
    assert_eq!(world.cloud.existing(), 2);
    assert_eq!(world.cloud.count(Operation::Decrease), 0);

    first.shutdown(false).await;
    assert_eq!(world.holder(), None);
    let reservation = reserved(&second).await;
    assert_eq!(world.holder().as_deref(), Some("b"));
    // It knows nothing of the instances of the first one, so it makes its own and removes those.
    let acquisition = second.acquire(reservation, secs(300)).await.unwrap();
    until(secs(300), "one idle and one busy instance of the second are left", || {
        world.cloud.existing() == 2 && world.cloud.count(Operation::Decrease) > 0
    })
    .await;
    drop(acquisition);
    second.shutdown(true).await;
    assert_eq!((world.cloud.existing(), world.holder()), (0, None));
}

#[tokio::test(start_paused = true)]
async fn a_dead_manager_is_followed_after_its_mark_was_unchanged_for_as_long_as_it_is_valid() {
    let world = World::new();
    world.marked_by("dead", wall() - secs(60));
    let manager = world.manager("b", 1).await;
    let took = until(secs(1200), "it takes over", || world.cloud.existing() == 1).await;
    assert!(took >= VALID && took < VALID + secs(120), "{took:?}");
    manager.shutdown(true).await;
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_starts_again_needs_not_wait_for_its_own_mark() {
    let world = World::new();
    world.marked_by("a", wall() - secs(60));
    let manager = world.manager("a", 1).await;
    let took = until(secs(60), "it goes on", || world.cloud.count(Operation::Increase) == 1).await;
    assert!(took <= secs(1), "{took:?}");
    assert_eq!(world.place.mark.lock().unwrap().as_ref().unwrap().generation, 5);
    manager.shutdown(true).await;
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_loses_its_group_changes_nothing_takes_no_job_and_lets_running_jobs_end() {
    let world = World::new();
    let manager = world.manager("a", 1).await;
    let reservation = reserved(&manager).await;
    let running = manager.acquire(reservation, secs(300)).await.unwrap();
    until(secs(300), "another one is kept idle", || world.cloud.existing() == 2).await;
    // Two managers, a clock that was set, a hand: the mark is somebody else's now.
    world.marked_by("b", wall() + secs(120));
    until(secs(120), "it stops", || matches!(manager.reserve(), Err(NoCapacity::HeldElsewhere { .. }))).await;
    let changes = || (world.cloud.count(Operation::Increase), world.cloud.count(Operation::Decrease));
    let before = changes();
    let writes = world.place.writes.load(Ordering::Relaxed);
    tokio::time::sleep(secs(600)).await;
    assert_eq!((changes(), running.lost_now()), (before, None));
    assert_eq!(world.place.writes.load(Ordering::Relaxed), writes, "the mark of the other one is left alone");
    let said: Vec<String> = manager.scaling().unwrap().recent.into_iter().map(|moment| moment.text).collect();
    assert!(
        said.iter().any(|text| text.contains("another manager has taken the instance group over")),
        "{said:?}"
    );
    // At its end, it leaves what is not its own.
    drop(running);
    manager.shutdown(true).await;
    assert_eq!((world.cloud.existing(), world.holder().as_deref()), (2, Some("b")));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_waits_for_an_instance_is_let_go_when_the_group_is_lost() {
    let world = World::new();
    let manager = world.manager("a", 0).await;
    let reservation = reserved(&manager).await;
    let early = reserved(&manager).await;
    world.cloud.stock(Some(0));
    let waiting = tokio::spawn({
        let manager = manager.clone();
        async move { manager.acquire(reservation, secs(900)).await }
    });
    until(secs(60), "it asks for an instance", || world.cloud.count(Operation::Increase) > 0).await;
    assert!(!waiting.is_finished());
    let lost = Instant::now();
    world.marked_by("b", wall() + secs(120));
    let error = waiting.await.unwrap().unwrap_err();
    // As soon as a listing shows it.
    assert!(lost.elapsed() <= secs(65), "{:?}", lost.elapsed());
    let expected = "unable to acquire instance: the instance group `fake/build` is held by entry `build` of manager b on host \
                    host-b";
    assert_eq!(error.to_string(), expected);

    // A job that comes from a request that was under way need not wait either.
    let before = Instant::now();
    let error = manager.acquire(early, secs(900)).await.unwrap_err();
    assert!(matches!(error, AcquireError::HeldElsewhere { .. }), "{error}");
    assert!(before.elapsed() < secs(1));

    assert!(matches!(manager.reserve(), Err(NoCapacity::HeldElsewhere { .. })));
    world.place.mark.lock().unwrap().take();
    world.cloud.stock(None);
    let reservation = reserved(&manager).await;
    drop(manager.acquire(reservation, secs(900)).await.unwrap());
    manager.shutdown(true).await;
}

#[tokio::test(start_paused = true)]
async fn a_job_waits_on_while_it_is_only_uncertain_whose_the_group_is() {
    let world = World::new();
    let manager = world.manager("a", 0).await;
    let reservation = reserved(&manager).await;
    world.cloud.stock(Some(0));
    let waiting = tokio::spawn({
        let manager = manager.clone();
        async move { manager.acquire(reservation, secs(3600)).await }
    });
    // Without a listing the mark may have lapsed, and nobody else is known to have the group.
    world.cloud.deny(Operation::Update, "not now");
    until(secs(1000), "it is not sure", || {
        matches!(manager.reserve(), Err(NoCapacity::HeldElsewhere { .. }))
    })
    .await;
    assert!(!waiting.is_finished());
    world.cloud.allow(Operation::Update);
    world.cloud.stock(None);
    drop(waiting.await.unwrap().unwrap());
    manager.shutdown(true).await;
}

#[tokio::test(start_paused = true)]
async fn a_mark_that_may_not_be_written_is_said_once_and_jobs_run() {
    let world = World::new();
    world.place.denied.store(true, Ordering::Relaxed);
    let manager = world.manager("a", 1).await;
    until(secs(60), "it works", || world.cloud.existing() == 1).await;
    tokio::time::sleep(secs(1800)).await;
    let said: Vec<String> = manager.scaling().unwrap().recent.into_iter().map(|moment| moment.text).collect();
    let lines = said.iter().filter(|text| text.contains("the policy lacks cloud:Mark"));
    assert_eq!(lines.count(), 1, "{said:?}");
    assert_eq!(manager.scaling().unwrap().owner, "this manager, without a mark");
    manager.shutdown(true).await;
    assert_eq!(world.cloud.existing(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_hour_costs_twelve_marks() {
    let world = World::new();
    let manager = world.manager("a", 0).await;
    until(secs(30), "it holds the group", || manager.reserve().is_ok()).await;
    let before = world.place.writes.load(Ordering::Relaxed);
    tokio::time::sleep(secs(3600)).await;
    assert_eq!(world.place.writes.load(Ordering::Relaxed) - before, 12);
    assert_eq!(world.cloud.count(Operation::Update), 62, "a listing a minute, and two at the start");
    manager.shutdown(true).await;
}
