//! The loop: decide, apply, look again.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use connect_info::ConnectInfo;
use fleeting::{GroupError, GroupInfo, HeartbeatError, InstanceGroup, with_causes};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use status::{Kind as MomentKind, Scaling, words};
use taskscaler_core::{Core, Deletion, Failure, FailureKind, Health, InstanceId, NoCapacity, Plan, Report};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::claims::Claim;
use crate::lease::Leasing;
use crate::observe::{CallKind, CallOutcome, ProviderCall};
use crate::provider::{self, Answer, Call, Kind};
use crate::shared::{Grant, Shared};
use crate::voice::{Voice, moments, note};
use crate::watching::{Watcher, Word, in_core};
use crate::{AcquireError, Acquisition, MemoryStore, Reservation, Settings, StoreError};

/// Time for the provider to prepare itself (GitLab Runner gives the construction of a scaler a minute).
const INIT_DEADLINE: Duration = Duration::from_secs(60);
/// Least deadline of any other call.
const CALL_DEADLINE: Duration = Duration::from_secs(60);
/// How long a claim to the group that is not decided yet may delay the end.
const CLAIM: Duration = Duration::from_secs(15);

/// A running scaler. Clones are handles to the same one.
#[derive(Clone)]
pub struct Taskscaler {
    shared: Arc<Shared>,
    info: Arc<GroupInfo>,
    engine: Arc<tokio::sync::Mutex<Option<JoinHandle<Leftover>>>>,
    delete_at_stop: watch::Sender<bool>,
}

/// Why a scaler did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The provider refused its configuration, or cannot reach its group.
    #[error("failed to prepare the instance group")]
    Group(#[source] GroupError),
    /// The ledger of an earlier run cannot be read.
    #[error("failed to read the scaler's ledger")]
    Store(#[source] StoreError),
}

/// What a shutdown left behind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leftover {
    /// Instances that exist still although they should have been deleted.
    pub instances: Vec<InstanceId>,
}

// === impl Taskscaler ===

impl Taskscaler {
    /// Prepares the group and starts to scale it.
    ///
    /// # Errors
    /// [`StartError`]; nothing runs then.
    pub async fn start(mut settings: Settings, group: Arc<dyn InstanceGroup>) -> Result<Self, StartError> {
        if let Some(lease) = &settings.lease {
            group.used_by(&lease.owner, lease.valid);
        }
        let began = Instant::now();
        let info =
            provider::bounded(INIT_DEADLINE, "preparing the instance group", group.init(&settings.connector))
                .await;
        let outcome = CallOutcome::of(info.as_ref().err());
        settings.observer.called(&ProviderCall::new(CallKind::Init, outcome, began.elapsed()));
        let info = info.map_err(StartError::Group)?;
        let mut config = settings.core.clone();
        if !group.outlives_process() {
            settings.store = Arc::new(MemoryStore::default());
            config.restores_state = false;
        }
        let ledger = settings.store.load(&info.id).map_err(StartError::Store)?;
        config.group_max_size = Some(info.max_size);
        settings.observer.configured(&config);
        let core = Core::new(config, ledger, settings.clock.now());
        let (watcher, words) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::new(core, Arc::clone(&group), &settings, watcher));
        let lease = Leasing::new(settings.lease.as_ref(), &*group);
        tracing::info!(runner = %settings.runner, group = %info.id, provider = %info.provider,
            max_size = info.max_size, "instance group ready");
        let delete_at_stop = watch::Sender::new(false);
        let info = Arc::new(info);
        let runner = Arc::clone(&settings.runner);
        let mut engine = Engine {
            shared: Arc::clone(&shared),
            group,
            settings,
            info: Arc::clone(&info),
            delete_at_stop: delete_at_stop.subscribe(),
            call: None,
            hint: None,
            next_update: Instant::now(),
            updated: Instant::now(),
            background: JoinSet::new(),
            to_launch: 0,
            to_delete: Vec::new(),
            voice: Voice::new(runner, shared.clock, Arc::clone(&shared.diary)),
            lease,
        };
        let watcher = Watcher::new(
            Arc::clone(&shared),
            Arc::clone(&engine.settings.ready),
            Arc::clone(&engine.settings.runner),
            words,
        );
        engine.background.spawn(watcher.run());
        let engine = tokio::spawn(engine.run());
        Ok(Self { shared, info, engine: Arc::new(tokio::sync::Mutex::new(Some(engine))), delete_at_stop })
    }

    /// What the provider said of the group.
    #[must_use]
    pub fn group(&self) -> &GroupInfo {
        &self.info
    }

    /// Claims a slot somewhere, before GitLab is asked for a job.
    ///
    /// # Errors
    /// [`NoCapacity`]: there is no slot and none can be made; try again when [`capacity`](Self::capacity) changes.
    pub fn reserve(&self) -> Result<Reservation, NoCapacity> {
        let key = self.shared.reserve()?;
        Ok(Reservation { claim: Claim { key, shared: Arc::clone(&self.shared) } })
    }

    /// Turns a reservation into a slot of an instance, waiting for one if need be.
    ///
    /// # Errors
    /// [`AcquireError`]; the reservation is given back then.
    pub async fn acquire(
        &self,
        reservation: Reservation,
        timeout: Duration,
    ) -> Result<Acquisition, AcquireError> {
        let claim = reservation.claim;
        let mut elsewhere = self.shared.elsewhere.subscribe();
        let lost_group = async move {
            match elsewhere.wait_for(Option::is_some).await.map(|holder| holder.clone()) {
                Ok(Some(holder)) => {
                    AcquireError::HeldElsewhere { group: self.info.id.clone(), holder: holder.to_string() }
                }
                Ok(None) | Err(_) => std::future::pending().await,
            }
        };
        let grant = self.shared.acquire(&claim.key).map_err(|_| AcquireError::ShuttingDown)?;
        let slot = match grant {
            Grant::Now(slot) => slot,
            Grant::Later(receiver) => {
                tokio::select! {
                    granted = receiver => granted.map_err(|_| AcquireError::ShuttingDown)?,
                    error = lost_group => return Err(error),
                    () = self.shared.stopping.cancelled() => return Err(AcquireError::ShuttingDown),
                    () = tokio::time::sleep(timeout) => {
                        let why = self.shared.report.borrow().as_deref().map_or_else(String::new, words::waiting);
                        return Err(AcquireError::TimedOut { timeout, why });
                    }
                }
            }
        };
        let ears = self.shared.listen(&claim.key, &slot.instance);
        Ok(Acquisition { claim, slot, ears })
    }

    /// Changes whenever a refused reservation may succeed. The value has no meaning.
    #[must_use]
    pub fn capacity(&self) -> watch::Receiver<u64> {
        self.shared.capacity.subscribe()
    }

    /// The newest decision and its reasons; `None` before the first.
    #[must_use]
    pub fn report(&self) -> watch::Receiver<Option<Arc<Report>>> {
        self.shared.report.subscribe()
    }

    /// One line for each instance: state, slots, uses, why it is there and why it stays or goes.
    #[must_use]
    pub fn instances(&self) -> Vec<taskscaler_core::InstanceLine> {
        self.shared.lock().core.instances(self.shared.clock.now()).collect()
    }

    /// The state of the scaler and its reasons, for people and programs; nothing before the first decision.
    #[must_use]
    pub fn scaling(&self) -> Option<Scaling> {
        let report = self.shared.report.borrow().clone()?;
        let recent = moments(&self.shared.diary);
        let mut scaling = {
            let inner = self.shared.lock();
            let instances = inner.core.instances(self.shared.clock.now());
            Scaling::of(&report, instances, inner.core.config(), recent)
        };
        scaling.group = self.info.id.to_string();
        scaling.provider = self.info.provider.to_string();
        self.shared.lease.lock().unwrap_or_else(PoisonError::into_inner).clone_into(&mut scaling.owner);
        Some(scaling)
    }

    /// Puts another configuration of limits and policies in force.
    pub fn configure(&self, mut config: taskscaler_core::Config) {
        {
            let mut inner = self.shared.lock();
            // The group's own bound is the provider's to tell.
            config.group_max_size = inner.core.config().group_max_size;
            inner.core.configure(config.clone(), self.shared.clock.now());
        }
        self.shared.observer.configured(&config);
        self.shared.wake.notify_one();
    }

    /// Stops: no more claims; with `delete_instances` all instances are deleted and their end is awaited as long as the
    /// settings say. Later calls return at once.
    pub async fn shutdown(&self, delete_instances: bool) -> Leftover {
        self.delete_at_stop.send_replace(delete_instances);
        self.shared.stopping.cancel();
        let Some(engine) = self.engine.lock().await.take() else { return Leftover::default() };
        engine.await.unwrap_or_else(|error| {
            tracing::error!(%error, "the scaler's task ended abnormally");
            Leftover::default()
        })
    }
}

impl std::fmt::Debug for Taskscaler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Taskscaler").field("group", &self.info.id).finish_non_exhaustive()
    }
}

struct Engine {
    shared: Arc<Shared>,
    group: Arc<dyn InstanceGroup>,
    settings: Settings,
    info: Arc<GroupInfo>,
    delete_at_stop: watch::Receiver<bool>,
    /// The one listing or change under way.
    call: Option<Call>,
    /// The provider's next hint; kept across rounds so that none is missed between them.
    hint: Option<BoxFuture<'static, ()>>,
    next_update: Instant,
    /// When the last listing came in.
    updated: Instant,
    background: JoinSet<()>,
    /// What plans have asked for and no call has taken up yet: a plan says each thing once.
    to_launch: u32,
    to_delete: Vec<Deletion>,
    voice: Voice,
    /// Whose the group is.
    lease: Leasing,
}

// === impl Engine ===

impl Engine {
    async fn run(mut self) -> Leftover {
        while !self.shared.stopping.is_cancelled() {
            let plan = self.decide();
            self.apply(&plan);
            self.wait(&plan, None).await;
        }
        self.stop().await
    }

    fn decide(&mut self) -> Plan {
        self.tell_owner();
        let (plan, report, lost, notices) = {
            let mut inner = self.shared.lock();
            let (plan, report) = inner.core.decide(self.shared.clock.now());
            let lost = self.shared.deliver(&mut inner);
            let notices: Vec<_> = std::iter::from_fn(|| inner.core.poll_notice()).collect();
            (plan, report, lost, notices)
        };
        for notice in notices {
            self.settings.observer.noticed(&notice);
            self.voice.notice(notice);
        }
        for claim in lost {
            let shared = Arc::clone(&self.shared);
            self.background.spawn(async move { shared.tell_lost(claim).await });
        }
        self.voice.decision(&report);
        self.to_launch += plan.launch;
        self.to_delete.extend(plan.delete.iter().cloned());
        let changed = self.shared.report.borrow().as_deref() != Some(&report);
        if changed {
            let report = Arc::new(report);
            self.settings.observer.decided(&report);
            self.shared.report.send_replace(Some(report));
        }
        plan
    }

    /// Tells the core, and who looks at it, whose the group is.
    fn tell_owner(&mut self) {
        let now = self.shared.clock.now();
        let words = self.lease.words();
        {
            let mut said = self.shared.lease.lock().unwrap_or_else(PoisonError::into_inner);
            if *said != words {
                *said = words;
            }
        }
        let Some(elsewhere) = self.lease.news(now) else { return };
        let holder = self.lease.holder().map(|owner| Arc::from(owner.to_string()));
        self.shared.lock().core.stand_by(elsewhere, now);
        self.shared.elsewhere.send_replace(holder);
        self.shared.capacity_changed();
    }

    fn apply(&mut self, plan: &Plan) {
        for (id, origin) in &plan.ready_up {
            tracing::debug!(instance = %id, ?origin, "making the instance ready");
            self.background.spawn(ready_up(Arc::clone(&self.shared), self.settings.clone(), id.clone()));
        }
        for id in &plan.check {
            let probe = self.info.has_heartbeat;
            self.background.spawn(check(Arc::clone(&self.shared), self.settings.clone(), id.clone(), probe));
        }
        self.start_call();
    }

    /// Starts the most urgent call. A listing under way gives way to a change, unless the picture is getting old.
    fn start_call(&mut self) {
        let ours = self.lease.may_act(self.shared.clock.now());
        let change = ours && (self.to_launch > 0 || !self.to_delete.is_empty());
        match self.call.as_ref().map(|call| call.kind) {
            Some(Kind::Increase | Kind::Decrease) => return,
            Some(Kind::Update) if !change || self.updated.elapsed() > self.settings.update_interval => return,
            Some(Kind::Update) | None => {}
        }
        let deadline = self.settings.update_interval.max(CALL_DEADLINE);
        let group = Arc::clone(&self.group);
        if ours && self.to_launch > 0 {
            let amount = std::mem::take(&mut self.to_launch);
            tracing::info!(runner = %self.settings.runner, group = %self.info.id, amount, "increasing instances");
            self.call = Some(provider::increase(group, amount, deadline));
        } else if ours && !self.to_delete.is_empty() {
            let deletions = std::mem::take(&mut self.to_delete);
            tracing::info!(runner = %self.settings.runner, group = %self.info.id, amount = deletions.len(), "decreasing instances");
            let ids =
                deletions.iter().map(|deletion| fleeting::InstanceId::from(deletion.id.as_str())).collect();
            self.call = Some(provider::decrease(group, ids, deadline));
        } else if self.next_update <= Instant::now() {
            self.call = Some(provider::update(group, deadline));
        }
    }

    /// Waits until there is reason to look again.
    async fn wait(&mut self, plan: &Plan, until: Option<Instant>) {
        let hint = self.hint.get_or_insert_with(|| {
            let group = Arc::clone(&self.group);
            async move { group.changed().await }.boxed()
        });
        if self.call.is_none() {
            let interval = if plan.expecting {
                self.settings.update_interval_when_expecting
            } else {
                self.settings.update_interval
            };
            self.next_update = self.next_update.min(self.updated + interval);
            if let Some(mono) = self.lease.look_again() {
                self.next_update = self.next_update.min(self.shared.clock.instant(mono));
            }
        }
        let next_update = self.call.is_none().then_some(self.next_update);
        let wake_at = plan.wake_at.map(|mono| self.shared.clock.instant(mono));
        let sleep = [wake_at, next_update, until].into_iter().flatten().min();
        tokio::select! {
            biased;
            () = self.shared.stopping.cancelled(), if until.is_none() => {}
            answer = answer_of(self.call.as_mut()), if self.call.is_some() => {
                if let Some(call) = self.call.take() {
                    self.settings.observer.called(&answer.call(call.began.elapsed()));
                }
                self.answered(answer);
            }
            outcome = self.lease.written() => {
                let now = self.shared.clock.now();
                if self.lease.wrote(outcome, now, &self.voice) {
                    self.next_update = Instant::now();
                }
            }
            () = self.shared.wake.notified() => {}
            () = &mut *hint => {
                self.hint = None;
                self.next_update = Instant::now();
            }
            Some(done) = self.background.join_next(), if !self.background.is_empty() => {
                if let Err(error) = done && error.is_panic() {
                    tracing::error!(%error, "a task of the scaler panicked");
                }
            }
            () = sleep_until(sleep) => {}
        }
    }

    fn answered(&mut self, answer: Answer) {
        let now = self.shared.clock.now();
        match answer {
            Answer::Updated(Ok(listing)) => {
                self.updated = Instant::now();
                self.next_update = self.updated + self.settings.update_interval;
                self.lease.look(&self.group, now, &self.voice);
                if !self.lease.has_begun() {
                    // What is there is another's, or nobody's yet: it is looked at anew when it is one's own.
                    return;
                }
                let seen: Vec<taskscaler_core::Seen> = listing.iter().map(seen).collect();
                self.resized();
                self.shared.lock().core.observe(&seen, now);
                let listed: std::collections::BTreeSet<&str> =
                    listing.iter().map(|line| line.id.as_str()).collect();
                for id in self.shared.retain_connect_infos(|id| listed.contains(id.as_str())) {
                    self.settings.ready.forget(&fleeting::InstanceId::from(id.as_str()));
                    // Without a watcher the scaler has ended.
                    let _ = self.shared.watcher.send(Word::Gone(id));
                }
                self.shared.capacity_changed();
            }
            Answer::Updated(Err(error)) => {
                // The last picture stays in force; the next look is an interval away, however the call failed.
                self.updated = Instant::now();
                self.next_update =
                    self.updated + retry_after(&error, self.settings.update_interval_when_expecting);
                self.voice.failed("listing the group", &error);
                tracing::warn!(runner = %self.settings.runner, group = %self.info.id, error = with_causes(&error), "failed to list the group");
            }
            Answer::Increased { asked, outcome } => {
                self.next_update = Instant::now();
                if let Some(error) = &outcome.error {
                    self.voice.failed(&format!("asking for {asked} instances, got {}", outcome.done), error);
                    tracing::warn!(runner = %self.settings.runner, group = %self.info.id, num_requested = asked,
                        num_successful = outcome.done, err = with_causes(error), "increasing instances failure");
                }
                let failure = outcome.error.as_ref().map(failure);
                self.shared.lock().core.increased(asked, outcome.done, failure, now);
            }
            Answer::Decreased { asked, outcome } => {
                self.next_update = Instant::now();
                if let Some(error) = &outcome.error {
                    self.voice.failed(
                        &format!("deleting {} instances, done {}", asked.len(), outcome.done.len()),
                        error,
                    );
                    tracing::warn!(runner = %self.settings.runner, group = %self.info.id, num_requested = asked.len(),
                        num_successful = outcome.done.len(), err = with_causes(error), "decreasing instances failure");
                }
                for id in &outcome.done {
                    self.settings.ready.forget(id);
                }
                let failure = outcome.error.as_ref().map(failure);
                let ids = |ids: &[fleeting::InstanceId]| -> Vec<InstanceId> {
                    ids.iter().map(|id| InstanceId::from(id.as_str())).collect()
                };
                self.shared.lock().core.decreased(&ids(&asked), &ids(&outcome.done), failure, now);
            }
        }
    }

    /// Takes in that the group can hold more or fewer instances than before.
    fn resized(&self) {
        let Some(size) = self.group.max_size() else { return };
        let (before, config) = {
            let mut inner = self.shared.lock();
            let before = inner.core.config().group_max_size;
            if before == Some(size) {
                return;
            }
            let config =
                taskscaler_core::Config { group_max_size: Some(size), ..inner.core.config().clone() };
            inner.core.configure(config.clone(), self.shared.clock.now());
            (before.unwrap_or(0), config)
        };
        self.settings.observer.configured(&config);
        let words = format!("the group's max size was changed from {before} to {size}");
        note(&self.shared.diary, &self.shared.clock, MomentKind::Policy, words);
        tracing::info!(runner = %self.settings.runner, group = %self.info.id, before, max_size = size,
            max_instances = config.max_instances, "the group's max size was changed");
    }

    /// An end that comes right after the start waits until it is known whose the group is.
    async fn settle_claim(&mut self) {
        let end = Instant::now() + CLAIM;
        while self.lease.is_undecided() && Instant::now() < end {
            let plan = self.decide();
            self.apply(&plan);
            self.wait(&plan, Some(end)).await;
        }
    }

    /// The end: with deletion, goes on deciding and applying until nothing is left or the tries are used up.
    async fn stop(mut self) -> Leftover {
        if *self.delete_at_stop.borrow() {
            self.settle_claim().await;
        }
        // What is another's is not deleted.
        let ours = self.lease.may_act(self.shared.clock.now());
        let delete = *self.delete_at_stop.borrow() && ours;
        self.shared.lock().core.begin_shutdown(delete, self.shared.clock.now());
        self.background.abort_all();
        let mut leftover = Leftover::default();
        if delete {
            let pause = self.settings.shutdown_deletion_interval;
            let end = Instant::now() + pause * self.settings.shutdown_deletion_retries.max(1);
            self.next_update = Instant::now();
            loop {
                let plan = self.decide();
                self.apply(&plan);
                leftover.instances =
                    self.shared.lock().core.instances(self.shared.clock.now()).map(|line| line.id).collect();
                let settled = self.call.is_none() && !plan.expecting;
                if (leftover.instances.is_empty() && settled) || Instant::now() >= end {
                    break;
                }
                self.wait(&plan, Some(end)).await;
            }
            if !leftover.instances.is_empty() {
                tracing::warn!(runner = %self.settings.runner, group = %self.info.id, instances = ?leftover.instances,
                    "instances are left that should have been deleted");
            }
        }
        self.lease.release(&*self.group, &self.voice).await;
        let deadline = self.settings.update_interval.max(CALL_DEADLINE);
        let began = Instant::now();
        let ended =
            provider::bounded(deadline, "shutting the instance group down", self.group.shutdown()).await;
        let outcome = CallOutcome::of(ended.as_ref().err());
        self.settings.observer.called(&ProviderCall::new(CallKind::Shutdown, outcome, began.elapsed()));
        if let Err(error) = ended {
            tracing::warn!(runner = %self.settings.runner, group = %self.info.id, error = with_causes(&error), "failed to shut the instance group down");
        }
        self.shared.lock().save();
        // It waits for the disk.
        let store = Arc::clone(&self.settings.store);
        if let Err(error) = tokio::task::spawn_blocking(move || store.close()).await {
            tracing::error!(%error, "closing the scaler's ledger ended abnormally");
        }
        leftover
    }
}

// === helpers ===

/// Makes one instance ready and tells the core.
async fn ready_up(shared: Arc<Shared>, settings: Settings, id: InstanceId) {
    let outcome = match shared.connect_info(&id).await {
        Ok(info) => make_ready(&settings, info).await,
        Err(error) => Err(format!("getting instance connect info: {}", with_causes(&error))),
    };
    if let Err(why) = &outcome {
        note(&shared.diary, &shared.clock, MomentKind::Error, format!("{id} did not become ready: {why}"));
        tracing::warn!(runner = %settings.runner, instance = %id, %why, "instance did not become ready");
    }
    shared.lock().core.readied(&id, outcome, shared.clock.now());
    shared.capacity_changed();
    shared.wake.notify_one();
}

async fn make_ready(settings: &Settings, info: ConnectInfo) -> Result<(), String> {
    let limit = settings.connector.timeout() + CALL_DEADLINE;
    match tokio::time::timeout(limit, settings.ready.ready_up(info)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!("not ready within {}", taskscaler_core::go_duration::format(limit))),
    }
}

/// Checks the health of one instance, at the provider and over the connection, and tells the core.
async fn check(shared: Arc<Shared>, settings: Settings, id: InstanceId, ask_provider: bool) {
    let provider_id = fleeting::InstanceId::from(id.as_str());
    let asked = if ask_provider {
        let began = Instant::now();
        let answer = provider::heartbeat(&*shared.group, &provider_id, CALL_DEADLINE).await;
        let outcome = CallOutcome::of_heartbeat(&answer);
        shared.observer.called(&ProviderCall::new(CallKind::Heartbeat, outcome, began.elapsed()));
        answer
    } else {
        Ok(())
    };
    let answer = match asked {
        Ok(()) => settings.ready.probe(&provider_id).await,
        Err(error) => Err(error),
    };
    let health = match answer {
        Ok(()) => Health::Healthy,
        Err(HeartbeatError::Unhealthy(why)) => Health::Unhealthy(why),
        Err(HeartbeatError::Unknown(why)) => Health::Unknown(why),
    };
    shared.lock().core.health(&id, health, shared.clock.now());
    shared.wake.notify_one();
}

async fn answer_of(call: Option<&mut Call>) -> Answer {
    match call {
        Some(call) => (&mut call.answer).await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

fn seen(line: &fleeting::Seen) -> taskscaler_core::Seen {
    taskscaler_core::Seen {
        id: InstanceId::from(line.id.as_str()),
        state: match line.state {
            fleeting::InstanceState::Creating => taskscaler_core::SeenState::Creating,
            fleeting::InstanceState::Running => taskscaler_core::SeenState::Running,
            fleeting::InstanceState::Deleting => taskscaler_core::SeenState::Deleting,
            fleeting::InstanceState::Deleted => taskscaler_core::SeenState::Deleted,
            fleeting::InstanceState::Timeout => taskscaler_core::SeenState::Timeout,
        },
        doomed: line.doomed.clone().map(in_core),
    }
}

fn failure(error: &GroupError) -> Failure {
    let (kind, retry_after) = match error {
        GroupError::Throttled { retry_after, .. } => (FailureKind::Throttled, *retry_after),
        GroupError::NoCapacity { .. } => (FailureKind::NoCapacity, None),
        GroupError::LimitReached { .. }
        | GroupError::Denied { .. }
        | GroupError::Configuration { .. }
        | GroupError::Unsupported { .. } => (FailureKind::NeedsOperator, None),
        GroupError::NotFound { .. } | GroupError::Transient { .. } => (FailureKind::Transient, None),
    };
    Failure { retry_after, ..Failure::new(kind, error.to_string()) }
}

fn retry_after(error: &GroupError, least: Duration) -> Duration {
    failure(error).retry_after.unwrap_or(least).max(least)
}
