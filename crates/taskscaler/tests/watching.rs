//! Instances that are asked themselves what is announced about their end. In paused time.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail them")]

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use chrono::TimeZone as _;
use drover_taskscaler::{Acquisition, Clock, ReadyUp, Settings, Taskscaler};
use fleeting::{ByteStream, ConnectInfo, Doom, DoomKind, InstanceId, Reach, ReachError, Watch, WatchError};
use fleeting_fake::FakeCloud;
use taskscaler_core::{Config, Policy};

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(5);

/// What instances answer, and how often they were asked.
struct Oracle {
    says: Result<Option<Doom>, WatchError>,
    hangs: bool,
    looks: u32,
}

struct Question(Arc<Mutex<Oracle>>);

struct Connected;

#[async_trait]
impl Watch for Question {
    fn interval(&self) -> Duration {
        INTERVAL
    }

    async fn look(&mut self, _: &dyn Reach) -> Result<Option<Doom>, WatchError> {
        let (says, hangs) = {
            let mut oracle = self.0.lock().unwrap();
            oracle.looks += 1;
            (oracle.says.clone(), oracle.hangs)
        };
        if hangs { std::future::pending().await } else { says }
    }
}

#[async_trait]
impl Reach for Connected {
    async fn connect(&self, _: &str, _: u16) -> Result<Box<dyn ByteStream>, ReachError> {
        Err(ReachError::Refused("there is no network here".to_owned()))
    }
}

#[async_trait]
impl ReadyUp for Connected {
    async fn ready_up(&self, _: ConnectInfo) -> Result<(), String> {
        Ok(())
    }

    fn reach(&self, _: &InstanceId) -> Option<Arc<dyn Reach>> {
        Some(Arc::new(Self))
    }
}

struct Scene {
    scaler: Taskscaler,
    oracle: Arc<Mutex<Oracle>>,
}

impl Scene {
    async fn start() -> Self {
        let oracle = Arc::new(Mutex::new(Oracle { says: Ok(None), hangs: false, looks: 0 }));
        let asked = Arc::clone(&oracle);
        let cloud = FakeCloud::builder()
            .tokio_clock()
            .boot_delay(Duration::from_secs(30))
            .hints(false)
            .watch(move |_| Some(Box::new(Question(Arc::clone(&asked)))))
            .build();
        let policy = Policy { idle_time: Duration::from_secs(3600), ..Policy::default() };
        let settings = Settings {
            core: Config {
                capacity_per_instance: 2,
                max_instances: 5,
                policies: vec![policy],
                ..Config::default()
            },
            clock: Clock::starting_at(chrono::Utc.with_ymd_and_hms(2026, 8, 24, 10, 0, 0).unwrap()),
            seed: 7,
            ready: Arc::new(Connected),
            ..Settings::default()
        };
        let scaler = Taskscaler::start(settings, Arc::new(cloud)).await.unwrap();
        scaler.report().wait_for(Option::is_some).await.unwrap();
        Self { scaler, oracle }
    }

    async fn job(&self) -> Acquisition {
        let mut capacity = self.scaler.capacity();
        loop {
            capacity.borrow_and_update();
            if let Ok(reservation) = self.scaler.reserve() {
                return self.scaler.acquire(reservation, Duration::from_secs(900)).await.unwrap();
            }
            capacity.changed().await.unwrap();
        }
    }

    fn says(&self, says: Result<Option<Doom>, WatchError>) {
        self.oracle.lock().unwrap().says = says;
    }

    /// Questions in this time from now.
    async fn looks_in(&self, time: Duration) -> u32 {
        let before = self.oracle.lock().unwrap().looks;
        tokio::time::sleep(time).await;
        self.oracle.lock().unwrap().looks - before
    }
}

fn taken() -> Doom {
    Doom::new(DoomKind::Interruption, "terminate").at(SystemTime::now() + Duration::from_secs(120))
}

#[tokio::test(start_paused = true)]
async fn every_job_of_an_instance_hears_what_it_is_told_and_no_other_job_goes_there() {
    let scene = Scene::start().await;
    let (first, second) = (scene.job().await, scene.job().await);
    assert_eq!(first.instance(), second.instance());
    assert_eq!(*first.doom().borrow(), None);
    scene.says(Ok(Some(taken())));
    for job in [&first, &second] {
        let mut doom = job.doom();
        let heard = tokio::time::timeout(2 * INTERVAL, doom.wait_for(Option::is_some)).await;
        let heard = heard.expect("within two looks").unwrap().clone().unwrap();
        assert_eq!((heard.why.as_str(), heard.at.is_some()), ("terminate", true));
    }
    drop(second);
    scene.says(Ok(None));
    let third = scene.job().await;
    assert_ne!(third.instance(), first.instance(), "although a slot is free there");
    let mut doom = first.doom();
    let called_off = tokio::time::timeout(2 * INTERVAL, doom.wait_for(Option::is_none)).await;
    assert!(called_off.is_ok(), "what is not announced any more is taken back");
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_is_taken_while_the_end_is_announced_knows_it_from_the_start() {
    let scene = Scene::start().await;
    let first = scene.job().await;
    scene.says(Ok(Some(taken())));
    first.doom().wait_for(Option::is_some).await.unwrap();
    assert!(first.doom().borrow().is_some(), "also for who asks later");
}

#[tokio::test(start_paused = true)]
async fn an_instance_is_asked_while_jobs_run_there_however_many_and_then_no_more() {
    let scene = Scene::start().await;
    let (first, second) = (scene.job().await, scene.job().await);
    let looks = scene.looks_in(Duration::from_secs(60)).await;
    assert!((11..=13).contains(&looks), "every five seconds: {looks}");
    drop(first);
    assert!(scene.looks_in(Duration::from_secs(60)).await >= 11);
    drop(second);
    assert!(scene.looks_in(Duration::from_secs(600)).await <= 1);
    let _third = scene.job().await;
    assert!(scene.looks_in(Duration::from_secs(60)).await >= 11, "and again with the next job");
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_cannot_be_asked_is_asked_once() {
    let scene = Scene::start().await;
    scene.says(Err(WatchError::Unavailable("forwarding is refused".to_owned())));
    let first = scene.job().await;
    assert!(scene.looks_in(Duration::from_secs(600)).await <= 1);
    drop(first);
    let _second = scene.job().await;
    assert_eq!(scene.looks_in(Duration::from_secs(600)).await, 0, "also for later jobs");
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_does_not_answer_is_asked_less_often_and_keeps_what_it_said() {
    let scene = Scene::start().await;
    let job = scene.job().await;
    scene.says(Ok(Some(taken())));
    job.doom().wait_for(Option::is_some).await.unwrap();
    scene.oracle.lock().unwrap().hangs = true;
    let looks = scene.looks_in(Duration::from_secs(600)).await;
    assert!((8..=14).contains(&looks), "three, then about once a minute: {looks}");
    assert!(job.doom().borrow().is_some());
    scene.oracle.lock().unwrap().hangs = false;
    scene.looks_in(Duration::from_secs(70)).await;
    let looks = scene.looks_in(Duration::from_secs(60)).await;
    assert!((11..=13).contains(&looks), "as before, once it answers: {looks}");
}
