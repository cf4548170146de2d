//! The handle that tests hold: time, faults, and the truth.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fleeting::{GroupError, InstanceId, InstanceState};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::builder::Builder;
use crate::faults::{Creation, Fault, Lag};
use crate::machine::{Health, Instance};
use crate::record::{Call, Operation};
use crate::state::State;

/// A small cloud with one instance group in it. Clones are handles to the same cloud.
#[derive(Clone)]
pub struct FakeCloud {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<(State, Duration)>,
    /// Start of tokio's share of the time, if that counts.
    tokio_start: Option<Instant>,
    moved: Notify,
}

// === impl FakeCloud ===

impl FakeCloud {
    /// A cloud with default settings: instant boots, no faults.
    #[must_use]
    pub fn calm() -> Self {
        Self::builder().build()
    }

    /// Starts the set-up of a cloud.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn new(setup: Builder) -> Self {
        let tokio_start = setup.tokio_clock.then(Instant::now);
        let state = Mutex::new((State::new(setup), Duration::ZERO));
        Self { inner: Arc::new(Inner { state, tokio_start, moved: Notify::new() }) }
    }

    // Time.

    /// Lets time pass in this cloud. Calls under way whose latency is over go on.
    pub fn advance(&self, by: Duration) {
        self.lock().1 += by;
        self.inner.moved.notify_waiters();
    }

    /// Time since the cloud was built.
    #[must_use]
    pub fn now(&self) -> Duration {
        let advanced = self.lock().1;
        advanced + self.tokio_time()
    }

    /// When the next change that is already settled takes place (a boot, a death, the end of a deletion).
    #[must_use]
    pub fn next_event(&self) -> Option<Duration> {
        self.with(|state, now| state.next_event(now))
    }

    // Faults of calls.

    /// The next call of `operation` that has no other fault queued before this one behaves so.
    pub fn inject(&self, operation: Operation, fault: Fault) {
        self.with(|state, _| state.faults.entry(operation).or_default().push_back(fault));
    }

    /// The next call of `operation` fails without effect.
    pub fn fail_next(&self, operation: Operation, error: GroupError) {
        self.inject(operation, Fault::Fail(error));
    }

    /// Every call is throttled for so long; the answers say how much of it is left.
    pub fn throttle(&self, time: Duration) {
        self.with(|state, now| state.throttled_until = now + time);
    }

    /// Refuses `operation` with [`GroupError::Denied`] until [`allow`](Self::allow).
    pub fn deny(&self, operation: Operation, message: impl Into<String>) {
        self.with(|state, _| state.denied.insert(operation, message.into()));
    }

    /// Ends [`deny`](Self::deny).
    pub fn allow(&self, operation: Operation) {
        self.with(|state, _| state.denied.remove(&operation));
    }

    /// How far listings lag behind from now on.
    pub fn lag(&self, lag: Lag) {
        self.with(|state, now| state.set_lag(lag, now));
    }

    // Faults of machines.

    /// The pool has no machines for so long: requests fail with [`GroupError::NoCapacity`].
    pub fn run_dry(&self, time: Duration) {
        self.with(|state, now| state.dry_until = now + time);
    }

    /// The pool gives so many more machines and is dry then; `None` lifts the bound.
    pub fn stock(&self, machines: Option<u32>) {
        self.with(|state, _| state.stock = machines);
    }

    /// The group can hold so many instances from here on. Those that are there stay.
    pub fn resize(&self, max_size: u32) {
        self.with(|state, _| state.setup.max_size = max_size);
    }

    /// How the next accepted request that has nothing else queued before this ends.
    pub fn next_creation(&self, creation: Creation) {
        self.with(|state, _| state.creations.push_back(creation));
    }

    /// The next deletions of the instance are accepted and have no effect. False if there is no such instance.
    pub fn ignore_deletions(&self, id: &InstanceId, times: u32) -> bool {
        self.touch(id, |machine, _| machine.stubborn = times)
    }

    /// The instance is gone at once, deleted by somebody else or taken by the cloud. False if there is no such instance.
    pub fn vanish(&self, id: &InstanceId, why: impl Into<String>) -> bool {
        let why = why.into();
        self.touch(id, |machine, now| machine.death = Some((now, why)))
    }

    /// The instance is listed as doomed from now on, and gone after `notice`. False if there is no such instance.
    pub fn doom(&self, id: &InstanceId, why: impl Into<String>, notice: Duration) -> bool {
        let why = why.into();
        self.touch(id, |machine, now| {
            machine.notice = Some((now, why.clone()));
            machine.death = Some((now + notice, why));
        })
    }

    /// What heartbeats of the instance answer from now on. False if there is no such instance.
    pub fn set_health(&self, id: &InstanceId, health: Health) -> bool {
        self.touch(id, |machine, _| machine.health = health)
    }

    /// An instance that this caller did not ask for appears in the group, in this state.
    pub fn appear(&self, state: InstanceState) -> InstanceId {
        self.with(|cloud, now| cloud.place(state, now))
    }

    /// A machine of somebody else: it exists in the cloud, is not the group's, is never listed, and must never be
    /// touched.
    pub fn appear_foreign(&self) -> InstanceId {
        self.with(State::place_foreign)
    }

    // Truth.

    /// Everything that exists or ever existed, by age.
    #[must_use]
    pub fn instances(&self) -> Vec<Instance> {
        self.with(|state, now| {
            let mut all: Vec<_> = state.gone.iter().chain(state.live.values()).collect();
            all.sort_by_key(|machine| machine.number);
            all.into_iter().map(|machine| machine.instance(now)).collect()
        })
    }

    /// The truth about one instance.
    #[must_use]
    pub fn instance(&self, id: &InstanceId) -> Option<Instance> {
        self.with(|state, now| {
            let gone = || state.gone.iter().find(|machine| machine.id == *id);
            state.machine(id).or_else(gone).map(|machine| machine.instance(now))
        })
    }

    /// How many of the group's instances exist, visible or not.
    #[must_use]
    pub fn existing(&self) -> usize {
        self.with(|state, now| state.existing(now))
    }

    /// The most that ever existed at once.
    #[must_use]
    pub fn peak(&self) -> usize {
        self.with(|state, _| state.peak)
    }

    /// Every call so far, in the order of arrival.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.with(|state, _| state.calls.clone())
    }

    /// How many calls of this kind arrived so far.
    #[must_use]
    pub fn count(&self, operation: Operation) -> usize {
        self.with(|state, _| state.calls.iter().filter(|call| call.request.operation() == operation).count())
    }

    /// Runs `f` on the state at the present time. The lock is never held across an await.
    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut State, Duration) -> T) -> T {
        let tokio_time = self.tokio_time();
        let mut guard = self.lock();
        let (state, advanced) = &mut *guard;
        let touched = state.touched;
        let value = f(state, *advanced + tokio_time);
        let changed = state.touched != touched;
        drop(guard);
        if changed {
            self.inner.moved.notify_waiters();
        }
        value
    }

    /// Completes when this cloud's time has reached `time`.
    pub(crate) async fn sleep_until(&self, time: Duration) {
        loop {
            let moved = self.inner.moved.notified();
            tokio::pin!(moved);
            // Registered before the time is read, so that an advance in between is not missed.
            moved.as_mut().enable();
            let now = self.now();
            if now >= time {
                return;
            }
            match self.inner.tokio_start {
                Some(_) => {
                    let _ = tokio::time::timeout(time - now, moved).await;
                }
                None => moved.await,
            }
        }
    }

    /// Completes when something happened that no listing has shown yet.
    pub(crate) async fn next_hint(&self) {
        loop {
            let moved = self.inner.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            let (hint, now, next) =
                self.with(|state, now| (state.take_hint(now), now, state.next_event(now)));
            if hint {
                return;
            }
            match (self.inner.tokio_start, next) {
                (Some(_), Some(next)) => {
                    let _ = tokio::time::timeout(next - now, moved).await;
                }
                (Some(_), None) | (None, _) => moved.await,
            }
        }
    }

    fn touch(&self, id: &InstanceId, f: impl FnOnce(&mut crate::machine::Machine, Duration)) -> bool {
        self.with(|state, now| {
            state.settle(now);
            let Some(machine) = state.machine_mut(id).filter(|machine| !machine.is_gone(now)) else {
                return false;
            };
            f(machine, now);
            state.touched += 1;
            true
        })
    }

    fn lock(&self) -> MutexGuard<'_, (State, Duration)> {
        // A test that panicked elsewhere leaves data that is still whole.
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tokio_time(&self) -> Duration {
        self.inner.tokio_start.map_or(Duration::ZERO, |start| start.elapsed())
    }
}

impl fmt::Debug for FakeCloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeCloud")
            .field("now", &self.now())
            .field("instances", &self.instances())
            .finish_non_exhaustive()
    }
}
