//! The real core over the simulated cloud, in virtual time.
//!
//! Time jumps from one happening to the next. A listing of the group is made only when it would show something new: the
//! core learns nothing from a listing that equals the last one, so leaving those out changes no decision. When a listing is
//! due follows the same two intervals as in production.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use taskscaler_core::{Config, Core, Health, InstanceId, Ledger, Now, Plan, Report, SeenState};

use crate::cloud::{Cloud, Fate};

/// Milliseconds since the start of the simulation.
pub(crate) type Millis = u64;

/// How often the group is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Intervals {
    pub(crate) regular: Duration,
    pub(crate) expecting: Duration,
}

/// Something that will happen.
#[derive(Debug, Clone)]
enum Happening<T> {
    Cloud(InstanceId, Fate),
    Readied { id: InstanceId, outcome: Result<(), String>, life: u32 },
    Own(T),
}

/// A scaler, its cloud and their clock. `T` is what the owner has to do at certain times.
#[derive(Debug)]
pub(crate) struct World<T> {
    pub(crate) core: Core,
    pub(crate) cloud: Cloud,
    start: DateTime<Utc>,
    now: Millis,
    coming: BTreeMap<(Millis, u64), Happening<T>>,
    sequence: u64,
    wake: Option<Millis>,
    intervals: Intervals,
    /// Ticks of the listings are counted from here.
    anchor: Millis,
    expecting: bool,
    list_at: Option<Millis>,
    /// The core was told something since it decided last.
    stirred: bool,
    ledger: Ledger,
    keep_ledger: bool,
    /// How many managers there were before; what they began is nobody's.
    life: u32,
    pub(crate) decisions: u64,
    pub(crate) listings: u64,
}

// === impl World ===

impl<T> World<T> {
    pub(crate) fn new(config: Config, cloud: Cloud, start: DateTime<Utc>, intervals: Intervals) -> Self {
        let keep_ledger = config.restores_state;
        let core = Core::new(config, Ledger::default(), Now { mono: Duration::ZERO, wall: start });
        Self {
            core,
            cloud,
            start,
            now: 0,
            coming: BTreeMap::new(),
            sequence: 0,
            wake: None,
            intervals,
            anchor: 0,
            expecting: false,
            list_at: Some(0),
            stirred: false,
            ledger: Ledger::default(),
            keep_ledger,
            life: 0,
            decisions: 0,
            listings: 0,
        }
    }

    pub(crate) fn millis(&self) -> Millis {
        self.now
    }

    pub(crate) fn now(&self) -> Now {
        self.at(self.now)
    }

    pub(crate) fn at(&self, at: Millis) -> Now {
        let wall = self.start + TimeDelta::milliseconds(i64::try_from(at).unwrap_or(i64::MAX));
        Now { mono: Duration::from_millis(at), wall }
    }

    /// When something happens next.
    pub(crate) fn next_at(&self) -> Option<Millis> {
        let first = self.coming.first_key_value().map(|((at, _), _)| *at);
        [first, self.wake, self.list_at].into_iter().flatten().min()
    }

    pub(crate) fn schedule(&mut self, at: Millis, own: T) {
        self.push(at, Happening::Own(own));
    }

    /// The core was told something, so it has to decide.
    pub(crate) fn stir(&mut self) {
        self.stirred = true;
    }

    /// Goes to a moment, at which everything due happens. Returns what the owner has to do.
    pub(crate) fn go(&mut self, to: Millis) -> Vec<T> {
        self.now = self.now.max(to);
        let now = self.now();
        let mut own = Vec::new();
        let mut changed = false;
        while let Some(entry) = self.coming.first_entry()
            && entry.key().0 <= self.now
        {
            match entry.remove() {
                Happening::Cloud(id, fate) => changed |= self.cloud.befall(&id, fate, self.now),
                Happening::Readied { id, outcome, life } => {
                    if life == self.life {
                        self.core.readied(&id, outcome, now);
                        self.stirred = true;
                    }
                }
                Happening::Own(what) => own.push(what),
            }
        }
        if changed {
            self.expect_listing();
        }
        if self.list_at.is_some_and(|at| at <= self.now) {
            self.list_at = None;
            self.list();
        }
        if self.wake.is_some_and(|at| at <= self.now) {
            self.wake = None;
            self.stirred = true;
        }
        own
    }

    /// Lets the core decide if there is something to decide about, and does what the plan says. False if there was nothing.
    pub(crate) fn decide(&mut self, see: &mut dyn FnMut(Now, &Plan, &Report)) -> bool {
        if !std::mem::take(&mut self.stirred) {
            return false;
        }
        self.decisions += 1;
        let now = self.now();
        let (plan, report) = self.core.decide(now);
        see(now, &plan, &report);
        self.apply(&plan, now);
        true
    }

    /// The manager is gone and another one begins, with what was stored.
    pub(crate) fn restart(&mut self, config: Config) {
        self.store();
        self.life += 1;
        self.core = Core::new(config, self.ledger.clone(), self.now());
        self.wake = None;
        self.stirred = false;
        self.list_at = Some(self.now);
    }

    /// The cloud changed by somebody else's doing.
    pub(crate) fn cloud_changed(&mut self) {
        self.expect_listing();
    }

    /// A machine that nobody asked for.
    pub(crate) fn appear(&mut self) -> InstanceId {
        let id = self.cloud.make(SeenState::Running, self.now);
        self.expect_listing();
        id
    }

    fn apply(&mut self, plan: &Plan, now: Now) {
        if plan.launch > 0 {
            let (granted, failure, fates) = self.cloud.increase(plan.launch, self.now);
            for (at, id, fate) in fates {
                self.push(at, Happening::Cloud(id, fate));
            }
            self.core.increased(plan.launch, granted, failure, now);
            self.stirred = true;
        }
        if !plan.delete.is_empty() {
            let ids: Vec<InstanceId> = plan.delete.iter().map(|deletion| deletion.id.clone()).collect();
            for id in &ids {
                if let Some(gone) = self.cloud.delete(id, self.now) {
                    self.push(gone, Happening::Cloud(id.clone(), Fate::Gone));
                }
            }
            self.core.decreased(&ids, &ids, None, now);
            self.stirred = true;
        }
        for (id, _) in &plan.ready_up {
            let (took, outcome) = self.cloud.ready_up();
            let done = Happening::Readied { id: id.clone(), outcome, life: self.life };
            self.push(self.now + took, done);
        }
        for id in &plan.check {
            self.core.health(id, Health::Healthy, now);
            self.stirred = true;
        }
        self.wake = plan.wake_at.map(|at| ceil(at).max(self.now + 1));
        if plan.expecting != self.expecting {
            self.expecting = plan.expecting;
            self.anchor = self.now;
            self.list_at = self.list_at.map(|at| at.min(self.next_tick()));
        }
        if plan.launch > 0 || !plan.delete.is_empty() {
            self.expect_listing();
        }
    }

    fn list(&mut self) {
        self.listings += 1;
        let listing = self.cloud.listing();
        let now = self.now();
        self.core.observe(&listing, now);
        self.stirred = true;
        self.store();
    }

    fn store(&mut self) {
        let changes = self.core.take_ledger_changes();
        if self.keep_ledger {
            self.ledger.apply(changes);
        }
        // Milestones are for logs; the report of a decision says all that is shown here.
        while self.core.poll_notice().is_some() {}
    }

    fn expect_listing(&mut self) {
        let tick = self.next_tick();
        self.list_at = Some(self.list_at.map_or(tick, |at| at.min(tick)));
    }

    fn next_tick(&self) -> Millis {
        let interval = if self.expecting { self.intervals.expecting } else { self.intervals.regular };
        let interval = millis(interval).max(1);
        self.anchor + ((self.now - self.anchor) / interval + 1) * interval
    }

    fn push(&mut self, at: Millis, happening: Happening<T>) {
        self.sequence += 1;
        self.coming.insert((at, self.sequence), happening);
    }
}

impl Default for Intervals {
    fn default() -> Self {
        Self { regular: Duration::from_secs(60), expecting: Duration::from_secs(2) }
    }
}

/// Whole milliseconds.
pub(crate) fn millis(span: Duration) -> Millis {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn ceil(span: Duration) -> Millis {
    u64::try_from(span.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}
