//! Instances, slots and decisions of one scaler.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use taskscaler::{CallKind, CallOutcome, ClaimOperation, NoCapacity, ProviderCall, Report, ScalerObserver};
use taskscaler_core::{Config, Counts, DoomKind, InstanceId, Notice, Reason, Why};
use tokio::time::Instant;

use crate::cells::{Counter, Family, Gauge, Histogram, Seconds};
use crate::exposition::{EntryLabels, Exposition};
use crate::table::Id;

/// States of an instance, in the order of its life.
const STATES: [&str; 8] =
    ["requested", "restoring", "creating", "booting", "ready", "suspect", "draining", "deleting"];
/// States of a slot whose time is added up.
const SLOT_STATES: [&str; 4] = ["acquired", "idle", "unavailable", "unhealthy"];
/// Every reason that a decision may have.
const WHYS: [&str; Why::NAMES.len()] = Why::NAMES;
/// Every reason for which an instance goes; the last one is not the scaler's.
const REMOVALS: [&str; 12] = [
    "idle",
    "used_up",
    "ready_up_failed",
    "no_record",
    "restored_with_acquisitions",
    "unhealthy",
    "creation_timeout",
    "doomed",
    "taken_away",
    "reappeared",
    "shutdown",
    "unexpectedly_removed",
];
/// Every reason to refuse a claim.
const REFUSALS: [&str; 9] = [
    "shutting_down",
    "not_listed",
    "key_in_use",
    "none_ready",
    "at_maximum",
    "throttled",
    "backoff",
    "held_elsewhere",
    "lacking",
];

/// What is counted for one runner entry, whichever scaler serves it.
#[derive(Debug)]
pub(crate) struct Scaling {
    claims: [Counter; 4],
    refusals: [Counter; REFUSALS.len()],
    launches: Counter,
    deletions: Counter,
    created: Counter,
    deleted: Counter,
    missed_updates: Counter,
    removals: [Counter; REMOVALS.len()],
    announcements: [Counter; DoomKind::ALL.len()],
    /// Jobs that ended early because of one.
    pub(crate) ended_early: [Counter; DoomKind::ALL.len()],
    requests_lost: Counter,
    reasons: [Counter; WHYS.len()],
    policy_switches: Counter,
    creation: Histogram,
    running: Histogram,
    deletion: Histogram,
    life: Histogram,
    readiness: Histogram,
    calls: Family<(CallKind, CallOutcome), Histogram>,
    instance_seconds: [Seconds; STATES.len()],
    slot_seconds: [Seconds; SLOT_STATES.len()],
    max_tasks: Gauge,
    max_use_count: Gauge,
    /// A scaler has been there, so there is something to show.
    seen: AtomicBool,
}

/// One scaler; its figures vanish with it.
#[derive(Debug)]
pub(crate) struct ScalerMetrics {
    scaling: Arc<Scaling>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    report: Option<Arc<Report>>,
    /// Until when time has been added up.
    counted: Instant,
    /// Time between request and appearance, of instances that do not run yet.
    appeared: BTreeMap<InstanceId, Duration>,
}

/// Sums over the scalers of one runner entry: while an entry is replaced there may be two.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    states: [i64; STATES.len()],
    tasks: [i64; 6],
    desired: i64,
    max_instances: i64,
    whys: [bool; WHYS.len()],
    policy: Option<[f64; 5]>,
    wanted: i64,
    backoff_failures: i64,
    held_until: i64,
}

// === impl Scaling ===

impl Default for Scaling {
    fn default() -> Self {
        Self {
            claims: Default::default(),
            refusals: Default::default(),
            launches: Counter::default(),
            deletions: Counter::default(),
            created: Counter::default(),
            deleted: Counter::default(),
            missed_updates: Counter::default(),
            removals: Default::default(),
            announcements: Default::default(),
            ended_early: Default::default(),
            requests_lost: Counter::default(),
            reasons: Default::default(),
            policy_switches: Counter::default(),
            creation: Histogram::new(Id::InstanceCreation.bounds()),
            running: Histogram::new(Id::InstanceRunning.bounds()),
            deletion: Histogram::new(Id::InstanceDeletion.bounds()),
            life: Histogram::new(Id::InstanceLife.bounds()),
            readiness: Histogram::new(Id::Readiness.bounds()),
            calls: Family::default(),
            instance_seconds: Default::default(),
            slot_seconds: Default::default(),
            max_tasks: Gauge::default(),
            max_use_count: Gauge::default(),
            seen: AtomicBool::new(false),
        }
    }
}

impl Scaling {
    pub(crate) fn show(&self, text: &mut Exposition, entry: &EntryLabels, sums: &Sums) {
        if !self.seen.load(Ordering::Relaxed) {
            return;
        }
        sums.show(text, entry);
        for (operation, count) in ClaimOperation::ALL.iter().zip(&self.claims) {
            text.row(Id::TaskOperationsTotal, entry, &[operation.as_str()], count.get());
        }
        let refused = |names: &[&str]| -> u64 {
            let counts = REFUSALS.iter().zip(&self.refusals);
            counts.filter(|(name, _)| names.contains(name)).map(|(_, count)| count.get()).sum()
        };
        let iop = refused(&["at_maximum", "lacking", "backoff"]);
        text.row(Id::TaskOperationsTotal, entry, &["reserve_iop_capacity_failure"], iop);
        let available = refused(&["none_ready", "throttled"]);
        text.row(Id::TaskOperationsTotal, entry, &["reserve_available_capacity_failure"], available);
        rows(text, Id::RefusalsTotal, entry, &REFUSALS, &self.refusals);
        rows(text, Id::RemovalsTotal, entry, &REMOVALS, &self.removals);
        for (kind, count) in DoomKind::ALL.iter().zip(&self.announcements) {
            text.row(Id::AnnouncementsTotal, entry, &[kind.as_str()], count.get());
        }
        for (kind, count) in DoomKind::ALL.iter().zip(&self.ended_early) {
            text.row(Id::JobsEndedEarlyTotal, entry, &[kind.as_str()], count.get());
        }
        rows(text, Id::ScalingReasonsTotal, entry, &WHYS, &self.reasons);
        for (operation, count) in [("up", &self.launches), ("down", &self.deletions)] {
            text.row(Id::ScaleOperationsTotal, entry, &[operation], count.get());
        }
        for (operation, count) in [("create", &self.created), ("delete", &self.deleted)] {
            text.row(Id::InstanceOperationsTotal, entry, &[operation], count.get());
        }
        for (id, count) in [
            (Id::MissedUpdatesTotal, &self.missed_updates),
            (Id::RequestsLostTotal, &self.requests_lost),
            (Id::PolicySwitchesTotal, &self.policy_switches),
        ] {
            text.row(id, entry, &[], count.get());
        }
        for (id, histogram) in [
            (Id::InstanceCreation, &self.creation),
            (Id::InstanceRunning, &self.running),
            (Id::InstanceDeletion, &self.deletion),
            (Id::InstanceLife, &self.life),
            (Id::Readiness, &self.readiness),
        ] {
            text.histogram(id, entry, &[], histogram);
        }
        let mut operations = BTreeMap::<&str, u64>::new();
        self.calls.for_each(|(kind, outcome), durations| {
            text.histogram(Id::ProviderCall, entry, &[kind.as_str(), outcome.as_str()], durations);
            let count = durations.cumulative().last().map_or(0, |(_, count)| count);
            *operations.entry(kind.as_str()).or_default() += count;
        });
        for (operation, count) in operations {
            text.row(Id::InternalOperationsTotal, entry, &[operation], count);
        }
        for (state, seconds) in STATES.iter().zip(&self.instance_seconds) {
            text.row(Id::InstanceSecondsTotal, entry, &[state], seconds.get());
        }
        for (state, seconds) in SLOT_STATES.iter().zip(&self.slot_seconds) {
            text.row(Id::SlotSecondsTotal, entry, &[state], seconds.get());
        }
        text.row(Id::MaxTasks, entry, &[], self.max_tasks.get());
        text.row(Id::MaxUseCount, entry, &[], self.max_use_count.get());
    }
}

// === impl ScalerMetrics ===

impl ScalerMetrics {
    pub(crate) fn new(scaling: Arc<Scaling>) -> Self {
        let state = State { report: None, counted: Instant::now(), appeared: BTreeMap::new() };
        Self { scaling, state: Mutex::new(state) }
    }

    /// Adds what this scaler has now.
    pub(crate) fn add_to(&self, sums: &mut Sums) {
        let mut state = self.lock();
        self.count_time(&mut state);
        if let Some(report) = &state.report {
            sums.add(report);
        }
    }

    /// Adds the time since the last look to the states that instances and slots have been in since then.
    fn count_time(&self, state: &mut State) {
        let now = Instant::now();
        let passed = now.duration_since(state.counted);
        state.counted = now;
        let Some(report) = &state.report else { return };
        let instances = states(&report.counts);
        for (seconds, count) in self.scaling.instance_seconds.iter().zip(instances) {
            seconds.add(passed * count);
        }
        let unhealthy = report.unhealthy;
        let unavailable = report.inputs.unavailable_capacity.saturating_sub(unhealthy);
        let slots = [report.inputs.acquired, report.idle, unavailable, unhealthy];
        for (seconds, count) in self.scaling.slot_seconds.iter().zip(slots) {
            seconds.add(passed * count);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ScalerObserver for ScalerMetrics {
    fn configured(&self, config: &Config) {
        self.scaling.seen.store(true, Ordering::Relaxed);
        self.scaling.max_tasks.set(i64::from(config.capacity()));
        self.scaling.max_use_count.set(i64::from(config.max_use_count));
    }

    fn decided(&self, report: &Arc<Report>) {
        let mut state = self.lock();
        self.count_time(&mut state);
        let before = state.report.as_ref().map(|report| whys(report)).unwrap_or_default();
        for (count, (was, is)) in self.scaling.reasons.iter().zip(before.into_iter().zip(whys(report))) {
            if is && !was {
                count.inc();
            }
        }
        state.report = Some(Arc::clone(report));
    }

    fn noticed(&self, notice: &Notice) {
        let scaling = &self.scaling;
        match notice {
            Notice::Appeared { id, after, .. } => {
                if let Some(after) = after {
                    scaling.creation.observe(*after);
                    self.lock().appeared.insert(id.clone(), *after);
                }
            }
            Notice::Running { id, after } => {
                if let Some(appeared) = self.lock().appeared.remove(id) {
                    scaling.running.observe(appeared + *after);
                }
            }
            Notice::Ready { after, .. } => scaling.readiness.observe(*after),
            Notice::Marked { id, reason } => {
                self.lock().appeared.remove(id);
                scaling.removals[removal(reason)].inc();
            }
            Notice::Announced { doom, .. } => scaling.announcements[doom.kind as usize].inc(),
            Notice::UnexpectedlyRemoved { id, .. } => {
                self.lock().appeared.remove(id);
                scaling.removals[REMOVALS.len() - 1].inc();
            }
            Notice::Deleted { id, after, life } => {
                self.lock().appeared.remove(id);
                scaling.deletion.observe(*after);
                scaling.life.observe(*life);
            }
            Notice::RequestsLost { count } => scaling.requests_lost.add(u64::from(*count)),
            Notice::PolicySwitched { .. } => scaling.policy_switches.inc(),
            // The gauge of reasons shows it.
            Notice::CircuitOpened { .. } | Notice::CircuitClosed => {}
        }
    }

    fn claimed(&self, operation: ClaimOperation) {
        self.scaling.claims[operation as usize].inc();
    }

    fn refused(&self, why: &NoCapacity) {
        self.scaling.refusals[refusal(why)].inc();
    }

    fn called(&self, call: &ProviderCall) {
        let scaling = &self.scaling;
        match call.kind {
            CallKind::Increase => {
                scaling.launches.inc();
                scaling.created.add(u64::from(call.done));
            }
            CallKind::Decrease => {
                scaling.deletions.inc();
                scaling.deleted.add(u64::from(call.done));
            }
            CallKind::Update if call.outcome != CallOutcome::Done => scaling.missed_updates.inc(),
            CallKind::Update
            | CallKind::Init
            | CallKind::ConnectInfo
            | CallKind::Heartbeat
            | CallKind::Shutdown => {}
        }
        let key = (call.kind, call.outcome);
        scaling.calls.row(&key, &key, || Histogram::new(Id::ProviderCall.bounds())).observe(call.duration);
    }
}

// === impl Sums ===

impl Sums {
    fn add(&mut self, report: &Report) {
        for (sum, count) in self.states.iter_mut().zip(states(&report.counts)) {
            *sum += i64::from(count);
        }
        let inputs = &report.inputs;
        let tasks = [
            report.idle,
            inputs.pending,
            inputs.acquired,
            inputs.reserved,
            inputs.unavailable_capacity.saturating_sub(report.unhealthy),
            report.unhealthy,
        ];
        for (sum, count) in self.tasks.iter_mut().zip(tasks) {
            *sum += i64::from(count);
        }
        self.desired += report.wanted.required;
        self.max_instances = inputs.max_instance_count.map_or(0, i64::from);
        for (any, this) in self.whys.iter_mut().zip(whys(report)) {
            *any |= this;
        }
        let index = report.policy.index.and_then(|index| u32::try_from(index).ok());
        self.wanted += i64::from(report.wanted.uncapped);
        for why in report.why.iter().filter(|why| why.holds_back()) {
            if let Why::BackoffUntil { failures, .. } = why {
                self.backoff_failures = self.backoff_failures.max(i64::from(*failures));
            }
            let until = why.until().map_or(0, |until| until.timestamp());
            self.held_until = self.held_until.max(until);
        }
        let until = report.policy.until.map_or(0.0, |until| until.timestamp_millis() as f64 / 1000.0);
        self.policy = Some([
            index.map_or(-1.0, f64::from),
            f64::from(inputs.idle_count),
            report.policy.idle_time.as_secs_f64(),
            f64::from(report.wanted.idle),
            until,
        ]);
    }

    fn show(&self, text: &mut Exposition, entry: &EntryLabels) {
        let [requested, _, creating, booting, ready, suspect, draining, deleting] = self.states;
        let running = booting + ready + suspect + draining;
        for (state, count) in
            [("requested", requested), ("creating", creating), ("running", running), ("deleting", deleting)]
        {
            text.row(Id::Instances, entry, &[state], count);
        }
        for (state, count) in STATES.iter().zip(self.states) {
            text.row(Id::InstanceStates, entry, &[state], count);
        }
        let names = ["idle", "pending", "acquired", "reserved", "unavailable", "unhealthy"];
        for (state, count) in names.iter().zip(self.tasks) {
            text.row(Id::Tasks, entry, &[state], count);
        }
        text.row(Id::DesiredInstances, entry, &[], self.desired);
        text.row(Id::MaxInstances, entry, &[], self.max_instances);
        for (why, holds) in WHYS.iter().zip(self.whys) {
            text.row(Id::ScalingReason, entry, &[why], u8::from(holds));
        }
        if let Some([index, idle_count, idle_time, idle_wanted, until]) = self.policy {
            text.row(Id::Policy, entry, &[], index);
            text.row(Id::PolicyIdleCount, entry, &[], idle_count);
            text.row(Id::PolicyIdleTime, entry, &[], idle_time);
            text.row(Id::PolicyIdleWanted, entry, &[], idle_wanted);
            text.row(Id::PolicyUntil, entry, &[], until);
        }
        text.row(Id::WantedInstances, entry, &[], self.wanted);
        text.row(Id::BackoffFailures, entry, &[], self.backoff_failures);
        text.row(Id::HeldUntil, entry, &[], self.held_until);
    }
}

// === helpers ===

fn rows(text: &mut Exposition, id: Id, entry: &EntryLabels, names: &[&str], counts: &[Counter]) {
    for (name, count) in names.iter().zip(counts) {
        text.row(id, entry, &[name], count.get());
    }
}

/// In the order of [`STATES`].
fn states(counts: &Counts) -> [u32; STATES.len()] {
    let Counts { requested, restoring, creating, booting, ready, suspect, draining, deleting } = *counts;
    [requested, restoring, creating, booting, ready, suspect, draining, deleting]
}

/// Which of [`WHYS`] hold.
fn whys(report: &Report) -> [bool; WHYS.len()] {
    let mut holds = [false; WHYS.len()];
    for why in &report.why {
        holds[why.position()] = true;
    }
    holds
}

/// Index in [`REMOVALS`].
fn removal(reason: &Reason) -> usize {
    match reason {
        Reason::Idle => 0,
        Reason::UsedUp => 1,
        Reason::ReadyUpFailed { .. } => 2,
        Reason::NoRecord => 3,
        Reason::RestoredWithAcquisitions => 4,
        Reason::Unhealthy { .. } => 5,
        Reason::CreationTimeout => 6,
        Reason::Doomed { .. } => 7,
        Reason::TakenAway => 8,
        Reason::Reappeared => 9,
        Reason::Shutdown => 10,
    }
}

/// Index in [`REFUSALS`].
fn refusal(why: &NoCapacity) -> usize {
    match why {
        NoCapacity::ShuttingDown => 0,
        NoCapacity::NotListed => 1,
        NoCapacity::KeyInUse { .. } => 2,
        NoCapacity::NoneReady { .. } => 3,
        NoCapacity::AtMaximum { .. } => 4,
        NoCapacity::Throttled { .. } => 5,
        NoCapacity::Backoff { .. } => 6,
        NoCapacity::HeldElsewhere { .. } => 7,
        NoCapacity::Lacking { .. } => 8,
    }
}
