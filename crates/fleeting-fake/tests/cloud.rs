//! What the fake can do to a scaler.

#![expect(clippy::unwrap_used, reason = "a helper of tests may panic as they do")]

use std::time::Duration;

use drover_fleeting_fake::{
    Answer, Call, Creation, Delay, FakeCloud, Fault, Health, Lag, Operation, Request,
};
use fleeting::{
    ConnectorSettings, Doom, DoomKind, GroupError, HeartbeatError, InstanceGroup, InstanceId, InstanceState,
    Seen,
};

const SECOND: Duration = Duration::from_secs(1);

fn states(listing: &[Seen]) -> Vec<(&str, InstanceState)> {
    listing.iter().map(|seen| (seen.id.as_str(), seen.state)).collect()
}

async fn listing(cloud: &FakeCloud) -> Vec<Seen> {
    cloud.update().await.unwrap()
}

fn transient() -> GroupError {
    GroupError::Transient { message: "connection reset".into() }
}

/// True if the call is not answered.
fn hangs<T>(call: impl Future<Output = T>) -> bool {
    let mut call = std::pin::pin!(call);
    call.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_pending()
}

#[tokio::test]
async fn instances_move_through_their_states_as_time_advances() {
    let cloud = FakeCloud::builder()
        .appear_delay(SECOND)
        .boot_delay(10 * SECOND)
        .delete_delay(5 * SECOND)
        .keep_deleted(2 * SECOND)
        .build();
    cloud.increase(1).await;
    let id = InstanceId::from("i-1");

    assert_eq!(listing(&cloud).await, []);
    assert_eq!(cloud.existing(), 1);
    let mut seen = Vec::new();
    for _ in 0..3 {
        cloud.advance(cloud.next_event().map_or(SECOND, |at| at - cloud.now()));
        seen.extend(listing(&cloud).await.first().map(|seen| (cloud.now().as_secs(), seen.state)));
        if cloud.next_event().is_none() && cloud.instance(&id).unwrap().deletions == 0 {
            cloud.decrease(std::slice::from_ref(&id)).await;
            seen.extend(listing(&cloud).await.first().map(|seen| (cloud.now().as_secs(), seen.state)));
        }
    }
    let expected = [
        (1, InstanceState::Creating),
        (11, InstanceState::Running),
        (11, InstanceState::Deleting),
        (16, InstanceState::Deleted),
    ];
    assert_eq!(seen, expected);
    cloud.advance(2 * SECOND);
    assert_eq!(listing(&cloud).await, []);
    assert_eq!(cloud.fate(&id).await.as_deref(), Some("deleted on request"));
}

#[tokio::test]
async fn the_same_seed_gives_the_same_world() {
    async fn history(seed: u64) -> String {
        let minute = Duration::from_secs(60);
        let cloud = FakeCloud::builder()
            .seed(seed)
            .boot_delay(Delay::Exponential { min: 20 * SECOND, mean: minute })
            .boot_failure_rate(0.2)
            .spot(Delay::Uniform { min: minute, max: 10 * minute }, 2 * minute)
            .build();
        cloud.increase(20).await;
        let mut history = String::new();
        while let Some(next) = cloud.next_event() {
            cloud.advance(next - cloud.now());
            history.push_str(&format!("{next:?} {:?}\n", listing(&cloud).await));
        }
        history
    }
    assert_eq!(history(1).await, history(1).await);
    assert_ne!(history(1).await, history(2).await);
}

#[tokio::test]
async fn a_pool_runs_dry_and_recovers() {
    let cloud = FakeCloud::calm();
    cloud.run_dry(60 * SECOND);
    assert!(matches!(cloud.increase(1).await.error, Some(GroupError::NoCapacity { .. })));
    cloud.advance(60 * SECOND);
    assert_eq!(cloud.increase(1).await.error, None);
    cloud.stock(Some(2));
    let answer = cloud.increase(3).await;
    assert!(matches!((answer.done, answer.error), (2, Some(GroupError::NoCapacity { .. }))));
    cloud.stock(None);
    assert_eq!(cloud.increase(1).await.error, None);
    assert_eq!((cloud.existing(), cloud.peak()), (4, 4));
}

#[tokio::test]
async fn throttling_says_how_long_to_wait() {
    let cloud = FakeCloud::builder().rate_limit(2, 10 * SECOND).build();
    listing(&cloud).await;
    cloud.advance(4 * SECOND);
    listing(&cloud).await;
    let Err(GroupError::Throttled { retry_after, .. }) = cloud.update().await else {
        panic!("not throttled")
    };
    assert_eq!(retry_after, Some(6 * SECOND));
    cloud.advance(6 * SECOND);
    listing(&cloud).await;

    cloud.advance(60 * SECOND);
    cloud.throttle(30 * SECOND);
    cloud.advance(10 * SECOND);
    let answer = cloud.increase(1).await;
    assert!(
        matches!(answer.error, Some(GroupError::Throttled { retry_after: Some(left), .. }) if left == 20 * SECOND)
    );
    assert_eq!(cloud.existing(), 0, "nothing is done by a throttled call");
}

#[tokio::test]
async fn calls_fail_hang_or_lose_their_answer() {
    let cloud = FakeCloud::calm();
    cloud.fail_next(Operation::Increase, transient());
    assert_eq!(cloud.increase(1).await.error, Some(transient()));
    assert_eq!(cloud.existing(), 0);

    cloud.inject(Operation::Increase, Fault::FailAfterEffect(transient()));
    assert_eq!(cloud.increase(1).await.error, Some(transient()));
    assert_eq!(cloud.existing(), 1, "only the answer was lost");

    cloud.inject(Operation::Increase, Fault::Hang);
    cloud.inject(Operation::Increase, Fault::HangAfterEffect);
    assert!(hangs(cloud.increase(1)));
    assert_eq!(cloud.existing(), 1);
    assert!(hangs(cloud.increase(1)));
    assert_eq!(cloud.existing(), 2);

    cloud.deny(Operation::Decrease, "ec2:TerminateInstances is missing");
    let answer = cloud.decrease(&["i-1".into()]).await;
    assert!(matches!(answer.error, Some(GroupError::Denied { .. })));
    cloud.allow(Operation::Decrease);
    assert_eq!(cloud.decrease(&["i-1".into()]).await.error, None);
}

#[tokio::test]
async fn listings_lag_by_time_or_by_calls() {
    let cloud = FakeCloud::calm();
    cloud.lag(Lag::Time(10 * SECOND));
    cloud.advance(20 * SECOND);
    cloud.increase(1).await;
    assert_eq!(listing(&cloud).await, []);
    cloud.advance(10 * SECOND);
    assert_eq!(states(&listing(&cloud).await), [("i-1", InstanceState::Running)]);
    cloud.decrease(&["i-1".into()]).await;
    cloud.advance(9 * SECOND);
    assert_eq!(listing(&cloud).await.len(), 1, "a stale listing shows what is gone");
    cloud.advance(SECOND);
    assert_eq!(listing(&cloud).await, []);

    cloud.lag(Lag::Calls(2));
    cloud.increase(1).await;
    assert_eq!(listing(&cloud).await, []);
    assert_eq!(listing(&cloud).await, []);
    assert_eq!(states(&listing(&cloud).await), [("i-2", InstanceState::Running)]);
    cloud.lag(Lag::None);
}

#[tokio::test]
async fn instances_vanish_with_and_without_warning() {
    let cloud = FakeCloud::builder().running(2).build();
    let (first, second) = (InstanceId::from("i-1"), InstanceId::from("i-2"));
    assert!(cloud.vanish(&first, "deleted in the console"));
    assert!(cloud.doom(&second, "spot notice", 120 * SECOND));

    let seen = listing(&cloud).await;
    assert_eq!(states(&seen), [("i-2", InstanceState::Running)]);
    assert_eq!(seen[0].doomed, Some(Doom::new(DoomKind::Interruption, "spot notice")));
    assert_eq!(cloud.fate(&first).await.as_deref(), Some("deleted in the console"));
    assert_eq!(cloud.fate(&second).await, None);
    cloud.advance(120 * SECOND);
    assert_eq!(listing(&cloud).await, []);
    assert_eq!(cloud.fate(&second).await.as_deref(), Some("spot notice"));
    assert!(!cloud.vanish(&first, "again"), "what is gone cannot vanish");
}

#[tokio::test]
async fn spot_instances_are_doomed_before_they_die() {
    let cloud = FakeCloud::builder().spot(600 * SECOND, 120 * SECOND).build();
    cloud.increase(1).await;
    cloud.advance(479 * SECOND);
    assert_eq!(listing(&cloud).await[0].doomed, None);
    cloud.advance(SECOND);
    assert!(listing(&cloud).await[0].doomed.is_some());
    cloud.advance(120 * SECOND);
    assert_eq!(listing(&cloud).await, []);
}

#[tokio::test]
async fn unasked_instances_are_listed_and_foreign_ones_are_not() {
    let cloud = FakeCloud::calm();
    let unasked = cloud.appear(InstanceState::Creating);
    let foreign = cloud.appear_foreign();
    assert_eq!(states(&listing(&cloud).await), [(unasked.as_str(), InstanceState::Creating)]);
    let answer = cloud.decrease(&[foreign.clone(), unasked.clone()]).await;
    assert_eq!(answer.done, [unasked]);
    assert!(matches!(answer.error, Some(GroupError::NotFound { .. })));
    assert_eq!(cloud.instance(&foreign).unwrap().state, Some(InstanceState::Running));
}

#[tokio::test]
async fn creations_fail_in_every_way() {
    let cloud = FakeCloud::calm();
    for creation in [
        Creation::Takes(10 * SECOND),
        Creation::NeverFinishes,
        Creation::FailsAfter(10 * SECOND),
        Creation::VanishesAfter(10 * SECOND),
        Creation::Lost,
    ] {
        cloud.next_creation(creation);
    }
    assert_eq!(cloud.increase(6).await.done, 6);
    use InstanceState::{Creating, Running, Timeout};
    let before = listing(&cloud).await;
    assert_eq!(
        states(&before),
        [("i-1", Creating), ("i-2", Creating), ("i-3", Creating), ("i-4", Creating), ("i-6", Running)]
    );
    cloud.advance(10 * SECOND);
    let after = listing(&cloud).await;
    assert_eq!(states(&after), [("i-1", Running), ("i-2", Creating), ("i-3", Timeout), ("i-6", Running)]);
}

#[tokio::test]
async fn deletions_have_no_effect_the_first_times() {
    let cloud = FakeCloud::builder().running(1).ignore_deletions(2).build();
    let id = InstanceId::from("i-1");
    for _ in 0..2 {
        assert_eq!(cloud.decrease(std::slice::from_ref(&id)).await.done, std::slice::from_ref(&id));
        assert_eq!(states(&listing(&cloud).await), [("i-1", InstanceState::Running)]);
    }
    cloud.decrease(std::slice::from_ref(&id)).await;
    assert_eq!(listing(&cloud).await, []);
    assert_eq!(cloud.instance(&id).unwrap().deletions, 3);
}

#[tokio::test]
async fn heartbeats_answer_as_they_are_told() {
    let cloud = FakeCloud::builder().running(1).build();
    let id = InstanceId::from("i-1");
    assert_eq!(cloud.heartbeat(&id).await, Ok(()));
    cloud.set_health(&id, Health::Unhealthy("disk full".into()));
    assert_eq!(cloud.heartbeat(&id).await, Err(HeartbeatError::Unhealthy("disk full".into())));
    cloud.set_health(&id, Health::Unknown("timeout".into()));
    assert_eq!(cloud.heartbeat(&id).await, Err(HeartbeatError::Unknown("timeout".into())));
    cloud.fail_next(Operation::Heartbeat, transient());
    assert_eq!(cloud.heartbeat(&id).await, Err(HeartbeatError::Unknown("connection reset".into())));
}

#[tokio::test]
async fn every_call_is_recorded_with_its_time_and_answer() {
    let cloud = FakeCloud::builder().max_size(1).build();
    cloud.init(&ConnectorSettings::default()).await.unwrap();
    cloud.advance(SECOND);
    cloud.increase(2).await;
    cloud.inject(Operation::Update, Fault::Hang);
    assert!(hangs(cloud.update()));

    let answer = |at, done, error: Option<&str>| Some(Answer { at, done, error: error.map(str::to_owned) });
    assert_eq!(
        cloud.calls(),
        [
            Call { at: Duration::ZERO, request: Request::Init, answer: answer(Duration::ZERO, 1, None) },
            Call {
                at: SECOND,
                request: Request::Increase(2),
                answer: answer(SECOND, 1, Some("limit reached: the group holds at most 1 instances"))
            },
            Call { at: SECOND, request: Request::Update, answer: None },
        ]
    );
    assert_eq!(cloud.count(Operation::Update), 1);
}

#[tokio::test(start_paused = true)]
async fn hints_come_with_tokios_clock_and_only_when_something_changed() {
    let cloud = FakeCloud::builder().tokio_clock().hints(true).boot_delay(30 * SECOND).build();
    let quiet = tokio::time::timeout(3600 * SECOND, cloud.changed()).await;
    assert!(quiet.is_err(), "a hint without a change");
    cloud.increase(1).await;
    cloud.update().await.unwrap();
    let start = tokio::time::Instant::now();
    cloud.changed().await;
    assert_eq!(start.elapsed().as_secs(), 30);
    assert_eq!(listing(&cloud).await[0].state, InstanceState::Running);
    let silent = FakeCloud::builder().tokio_clock().running(1).build();
    assert!(tokio::time::timeout(3600 * SECOND, silent.changed()).await.is_err());
}

#[tokio::test]
async fn slow_calls_have_their_effect_when_their_time_is_over() {
    let cloud = FakeCloud::builder().latency(Operation::Increase, 5 * SECOND).build();
    let task = tokio::spawn({
        let cloud = cloud.clone();
        async move { cloud.increase(1).await }
    });
    while cloud.count(Operation::Increase) == 0 {
        tokio::task::yield_now().await;
    }
    cloud.advance(4 * SECOND);
    tokio::task::yield_now().await;
    assert_eq!(cloud.existing(), 0);
    cloud.advance(SECOND);
    assert_eq!(task.await.unwrap().done, 1);
}

#[tokio::test]
async fn connect_info_can_come_from_the_test() {
    let cloud = FakeCloud::builder()
        .running(2)
        .connect(|id| {
            let mut info = fleeting::ConnectInfo::new(id.as_str(), ConnectorSettings::default());
            info.internal_addr = Some("127.0.0.1:2222".into());
            if id.as_str() == "i-1" { Ok(info) } else { Err(transient()) }
        })
        .build();
    assert_eq!(cloud.connect_info(&"i-1".into()).await.unwrap().target(false).unwrap().port, 2222);
    assert_eq!(cloud.connect_info(&"i-2".into()).await.unwrap_err(), transient());
    assert!(matches!(cloud.connect_info(&"i-3".into()).await, Err(GroupError::NotFound { .. })));
}
