//! What an observer hears of a scaler.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use drover_taskscaler::{
    CallKind, CallOutcome, ClaimOperation, NoCapacity, ProviderCall, ScalerObserver, Settings, Taskscaler,
};
use fleeting::InstanceGroup;
use fleeting_fake::FakeCloud;
use taskscaler_core::{Config, Policy};

const WAIT: Duration = Duration::from_secs(900);

#[derive(Default)]
struct Notes {
    claims: Mutex<Vec<ClaimOperation>>,
    refusals: Mutex<Vec<NoCapacity>>,
    calls: Mutex<Vec<ProviderCall>>,
    decisions: Mutex<usize>,
}

impl ScalerObserver for Notes {
    fn decided(&self, _: &Arc<drover_taskscaler::Report>) {
        *self.decisions.lock().unwrap() += 1;
    }

    fn claimed(&self, operation: ClaimOperation) {
        self.claims.lock().unwrap().push(operation);
    }

    fn refused(&self, why: &NoCapacity) {
        self.refusals.lock().unwrap().push(why.clone());
    }

    fn called(&self, call: &ProviderCall) {
        self.calls.lock().unwrap().push(*call);
    }
}

async fn start(cloud: FakeCloud) -> (Taskscaler, Arc<Notes>) {
    let notes = Arc::new(Notes::default());
    let policy = Policy { idle_count: 0, ..Policy::default() };
    let core = Config { max_instances: 1, policies: vec![policy], ..Config::default() };
    let settings = Settings { core, observer: Arc::clone(&notes) as _, ..Settings::default() };
    let scaler = Taskscaler::start(settings, Arc::new(cloud) as Arc<dyn InstanceGroup>).await.unwrap();
    let mut report = scaler.report();
    let listed = |report: &Option<Arc<drover_taskscaler::Report>>| {
        report.as_ref().is_some_and(|report| !report.why.contains(&taskscaler_core::Why::NoListing))
    };
    tokio::time::timeout(WAIT, report.wait_for(listed)).await.unwrap().unwrap();
    (scaler, notes)
}

fn cloud() -> FakeCloud {
    FakeCloud::builder().tokio_clock().boot_delay(Duration::from_secs(30)).hints(false).build()
}

#[tokio::test(start_paused = true)]
async fn each_step_of_a_claim_is_heard_once() {
    use ClaimOperation::{Acquire, Release, Reserve, Unreserve};
    let (scaler, notes) = start(cloud()).await;
    drop(scaler.reserve().unwrap());
    let acquisition = scaler.acquire(scaler.reserve().unwrap(), WAIT).await.unwrap();
    assert!(scaler.reserve().is_err());
    let reservation = acquisition.exchange("no answer");
    drop(reservation);
    assert_eq!(
        *notes.claims.lock().unwrap(),
        [Reserve, Unreserve, Reserve, Acquire, Release, Unreserve],
        "an exchanged slot is released, and its claim is a reservation again"
    );
    assert!(matches!(notes.refusals.lock().unwrap()[..], [NoCapacity::AtMaximum { max: 1 }]));
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_is_dropped_is_released() {
    use ClaimOperation::{Acquire, Release, Reserve};
    let (scaler, notes) = start(cloud()).await;
    drop(scaler.acquire(scaler.reserve().unwrap(), WAIT).await.unwrap());
    assert_eq!(*notes.claims.lock().unwrap(), [Reserve, Acquire, Release]);
}

#[tokio::test(start_paused = true)]
async fn calls_are_heard_with_their_outcome_and_equal_decisions_once() {
    let cloud = cloud();
    cloud.run_dry(Duration::from_secs(3600));
    let (scaler, notes) = start(cloud).await;
    let waiting = scaler.acquire(scaler.reserve().unwrap(), Duration::from_secs(20));
    assert!(waiting.await.is_err());
    let calls = notes.calls.lock().unwrap().clone();
    assert_eq!(calls[0].kind, CallKind::Init);
    assert_eq!((calls[1].kind, calls[1].outcome), (CallKind::Update, CallOutcome::Done));
    let increase = calls.iter().find(|call| call.kind == CallKind::Increase).unwrap();
    assert_eq!((increase.asked, increase.done, increase.outcome), (1, 0, CallOutcome::NoCapacity));

    let before = *notes.decisions.lock().unwrap();
    tokio::time::sleep(Duration::from_secs(4 * 3600)).await;
    let listings = notes.calls.lock().unwrap().iter().filter(|call| call.kind == CallKind::Update).count();
    assert!(listings > 200, "the group is listed each minute");
    assert!(*notes.decisions.lock().unwrap() < before + 10, "listings without news are no decisions");
}
