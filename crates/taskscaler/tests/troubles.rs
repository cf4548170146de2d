//! The troubles of the field: each is noticed, named in the report, and does not run away. In paused time.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::TimeZone as _;
use drover_taskscaler::{Clock, ReadyUp, Reservation, ScalerObserver, Settings, Taskscaler};
use fleeting::{ConnectInfo, InstanceGroup};
use fleeting_fake::{Builder, FakeCloud, Operation};
use taskscaler_core::{Config, Notice, Policy, Report, Why};
use tokio::time::Instant;

/// Remembers what a scaler said.
#[derive(Default)]
struct Heard {
    notices: Mutex<Vec<Notice>>,
    reports: Mutex<Vec<Arc<Report>>>,
}

impl ScalerObserver for Heard {
    fn noticed(&self, notice: &Notice) {
        self.notices.lock().unwrap().push(notice.clone());
    }

    fn decided(&self, report: &Arc<Report>) {
        self.reports.lock().unwrap().push(Arc::clone(report));
    }
}

impl Heard {
    fn circuit(&self) -> Vec<bool> {
        let notices = self.notices.lock().unwrap();
        let opened = |notice: &Notice| match notice {
            Notice::CircuitOpened { .. } => Some(true),
            Notice::CircuitClosed => Some(false),
            Notice::Appeared { .. }
            | Notice::Running { .. }
            | Notice::Ready { .. }
            | Notice::Marked { .. }
            | Notice::Announced { .. }
            | Notice::UnexpectedlyRemoved { .. }
            | Notice::Deleted { .. }
            | Notice::RequestsLost { .. }
            | Notice::PolicySwitched { .. } => None,
        };
        notices.iter().filter_map(opened).collect()
    }

    fn gave(&self, reason: impl Fn(&Why) -> bool) -> bool {
        self.reports.lock().unwrap().iter().any(|report| report.why.iter().any(&reason))
    }
}

/// The ready command, which fails while it is told to.
#[derive(Default)]
struct Broken(Mutex<bool>);

#[async_trait::async_trait]
impl ReadyUp for Broken {
    async fn ready_up(&self, _: ConnectInfo) -> Result<(), String> {
        if *self.0.lock().unwrap() { Err("ready command: exit status 1".to_owned()) } else { Ok(()) }
    }
}

struct Scene {
    cloud: Arc<FakeCloud>,
    scaler: Taskscaler,
    heard: Arc<Heard>,
    broken: Arc<Broken>,
}

impl Scene {
    async fn start(cloud: Builder, core: Config) -> Self {
        let cloud = Arc::new(cloud.build());
        let (heard, broken) = (Arc::new(Heard::default()), Arc::new(Broken::default()));
        let wall = chrono::Utc.with_ymd_and_hms(2026, 8, 24, 10, 0, 0).unwrap();
        let settings = Settings {
            core,
            clock: Clock::starting_at(wall),
            seed: 7,
            observer: Arc::clone(&heard) as Arc<dyn ScalerObserver>,
            ready: Arc::clone(&broken) as Arc<dyn ReadyUp>,
            ..Settings::default()
        };
        let scaler = Taskscaler::start(settings, Arc::clone(&cloud) as Arc<dyn InstanceGroup>).await.unwrap();
        let mut report = scaler.report();
        let listed = |report: &Option<Arc<Report>>| {
            report.as_ref().is_some_and(|report| !report.why.contains(&Why::NoListing))
        };
        report.wait_for(listed).await.unwrap();
        Self { cloud, scaler, heard, broken }
    }

    fn reserve(&self) -> Reservation {
        self.scaler.reserve().unwrap()
    }
}

fn cloud() -> Builder {
    FakeCloud::builder().tokio_clock().boot_delay(Duration::from_secs(30)).hints(false)
}

fn on_demand() -> Config {
    let policy = Policy { idle_time: Duration::from_secs(60), ..Policy::default() };
    Config { max_instances: 10, policies: vec![policy], ..Config::default() }
}

#[tokio::test(start_paused = true)]
async fn instances_that_never_get_ready_stop_being_asked_for_and_it_recovers_by_itself() {
    let scene = Scene::start(cloud(), on_demand()).await;
    *scene.broken.0.lock().unwrap() = true;
    let hour = Duration::from_secs(3600);
    let error = scene.scaler.acquire(scene.reserve(), hour).await.unwrap_err();
    assert!(error.to_string().contains("exit status 1"), "{error}");
    // Five failures, then a probe after 1, 2, 4 and from then on every 5 minutes.
    let made = scene.cloud.instances().len();
    assert!((10..=20).contains(&made), "{made} instances within an hour");
    assert_eq!(scene.heard.circuit(), [true], "it is said once");
    assert!(scene.heard.gave(|why| matches!(why, Why::CircuitOpen { .. })));

    *scene.broken.0.lock().unwrap() = false;
    tokio::time::sleep(Duration::from_secs(400)).await;
    let acquisition = scene.scaler.acquire(scene.reserve(), hour).await.unwrap();
    assert_eq!(scene.heard.circuit(), [true, false]);
    drop(acquisition);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_waits_is_asked_for_at_once_and_starts_when_its_instance_does() {
    let scene = Scene::start(cloud().hints(true), on_demand()).await;
    let before = Instant::now();
    let acquiring = scene.scaler.acquire(scene.reserve(), Duration::from_secs(900));
    let asked = async {
        while scene.cloud.count(Operation::Increase) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        before.elapsed()
    };
    let (acquired, asked) = tokio::join!(acquiring, asked);
    assert!(asked < Duration::from_millis(50), "{asked:?}");
    let instance = fleeting::InstanceId::from(acquired.unwrap().instance().as_str());
    let running = scene.cloud.instance(&instance).unwrap().running_at.unwrap();
    let late = scene.cloud.now().saturating_sub(running);
    assert!(late < Duration::from_millis(50), "{late:?} after the provider's hint");
}

#[tokio::test(start_paused = true)]
async fn without_hints_an_instance_is_found_within_the_short_interval() {
    let scene = Scene::start(cloud(), on_demand()).await;
    let acquired = scene.scaler.acquire(scene.reserve(), Duration::from_secs(900)).await.unwrap();
    let instance = fleeting::InstanceId::from(acquired.instance().as_str());
    let running = scene.cloud.instance(&instance).unwrap().running_at.unwrap();
    assert!(scene.cloud.now().saturating_sub(running) <= Duration::from_millis(2_050));
    // 30 s of boot at one look in 2 s.
    assert!(scene.cloud.count(Operation::Update) <= 20);
}

#[tokio::test(start_paused = true)]
async fn an_idle_scaler_lists_its_group_once_a_minute() {
    let scene = Scene::start(cloud(), on_demand()).await;
    let before = scene.cloud.calls().len();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let calls = scene.cloud.calls().len() - before;
    assert!((59..=61).contains(&calls), "{calls} calls in an hour");
}

#[tokio::test(start_paused = true)]
async fn instances_that_somebody_else_keeps_removing_are_named() {
    let scene = Scene::start(cloud(), on_demand()).await;
    for _ in 0..3 {
        let acquisition = scene.scaler.acquire(scene.reserve(), Duration::from_secs(900)).await.unwrap();
        let id = fleeting::InstanceId::from(acquisition.instance().as_str());
        scene.cloud.vanish(&id, "terminated by AZRebalance");
        let cause = acquisition.lost().await;
        assert!(cause.why.contains("AZRebalance"), "{cause}");
    }
    let said = |why: &Why| matches!(why, Why::RemovedByOthers { count: 3, .. });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(scene.heard.gave(said));
}

#[tokio::test(start_paused = true)]
async fn one_instance_per_job_makes_no_more_instances_than_jobs() {
    let core = Config {
        max_use_count: 1,
        policies: vec![Policy { idle_time: Duration::ZERO, ..Policy::default() }],
        ..on_demand()
    };
    let scene = Scene::start(cloud(), core).await;
    for _ in 0..20 {
        drop(scene.scaler.acquire(scene.reserve(), Duration::from_secs(900)).await.unwrap());
    }
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!((scene.cloud.instances().len(), scene.cloud.existing()), (20, 0));
    assert!(!scene.heard.gave(|why| matches!(why, Why::Churn { .. })));
}

#[tokio::test(start_paused = true)]
async fn instances_made_for_jobs_that_do_not_wait_for_them_are_named() {
    let core =
        Config { policies: vec![Policy { idle_time: Duration::ZERO, ..Policy::default() }], ..on_demand() };
    let scene = Scene::start(cloud(), core).await;
    for _ in 0..6 {
        let gone = scene.scaler.acquire(scene.reserve(), Duration::from_secs(5)).await;
        assert!(gone.is_err(), "the instance takes 30 s");
        tokio::time::sleep(Duration::from_secs(90)).await;
    }
    assert!(scene.heard.gave(|why| matches!(why, Why::Churn { instances: 5.., jobs: 0 })));
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_goes_before_its_job_has_looked_is_lost_to_it_all_the_same() {
    let scene = Scene::start(cloud(), on_demand()).await;
    let acquiring = scene.scaler.acquire(scene.reserve(), Duration::from_secs(900));
    tokio::pin!(acquiring);
    assert!(futures_util::poll!(&mut acquiring).is_pending());
    while scene.scaler.instances().iter().all(|line| line.slots_used == 0) {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    scene.cloud.vanish(&scene.cloud.instances()[0].id, "terminated by an operator");
    tokio::time::sleep(Duration::from_secs(120)).await;
    let acquisition = acquiring.await.unwrap();
    let cause = acquisition.lost_now().unwrap();
    assert!(cause.why.contains("terminated by an operator"), "{cause}");
}

#[tokio::test(start_paused = true)]
async fn the_fate_of_an_instance_is_no_matter_of_a_job_that_has_another_one_by_then() {
    let core =
        Config { policies: vec![Policy { idle_count: 1, ..on_demand().policies[0].clone() }], ..on_demand() };
    let scene = Scene::start(cloud().fate_after(Duration::from_secs(4)), core).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let acquisition = scene.scaler.acquire(scene.reserve(), Duration::from_secs(900)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let first = acquisition.instance().clone();
    scene.cloud.vanish(&fleeting::InstanceId::from(first.as_str()), "terminated by an operator");
    while scene.scaler.instances().iter().any(|line| line.id == first) {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let reservation = acquisition.exchange("no route to host");
    let acquisition = scene.scaler.acquire(reservation, Duration::from_secs(900)).await.unwrap();
    assert_ne!(*acquisition.instance(), first);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(acquisition.lost_now(), None);
}

#[tokio::test(start_paused = true)]
async fn a_scaler_that_nobody_holds_any_more_ends() {
    let Scene { cloud, scaler, .. } = Scene::start(cloud(), on_demand()).await;
    drop(scaler);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(cloud.count(Operation::Shutdown), 1);
    let calls = cloud.calls().len();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(cloud.calls().len(), calls);
}
