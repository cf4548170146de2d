//! The known instances, with counters and orders kept up to date so that a decision never scans them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{ClaimKey, InstanceId, Mono};
use crate::instance::{Instance, Phase, PhaseName};
use crate::report::Counts;

/// Instances in the order in which they became known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seq(u64);

/// What the derived figures depend on besides the instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) capacity: u32,
    pub(crate) max_use_count: u32,
    /// Nothing is made ready or checked any more.
    pub(crate) paused: bool,
}

/// Sums over all instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    pub(crate) restoring: u32,
    pub(crate) creating: u32,
    pub(crate) booting: u32,
    pub(crate) ready: u32,
    pub(crate) suspect: u32,
    pub(crate) draining: u32,
    pub(crate) deleting: u32,
    pub(crate) acquired: u32,
    pub(crate) usable: u32,
    pub(crate) unavailable: u32,
    pub(crate) idle_unavailable: u32,
    pub(crate) unhealthy: u32,
}

/// Most jobs first, then most used, then longest known: jobs are packed, so that the other instances can go.
type Preference = (Reverse<u32>, Reverse<u32>);

/// What one instance contributes to the sums and orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Facets {
    tally: Tally,
    free: Option<Preference>,
    idle: Option<(u32, Mono)>,
    suspect: Option<Mono>,
    due: Option<Mono>,
}

#[derive(Debug, Clone)]
pub(crate) struct Fleet {
    rules: Rules,
    next: u64,
    by_id: BTreeMap<InstanceId, Seq>,
    instances: BTreeMap<Seq, Instance>,
    tally: Tally,
    free: BTreeSet<(Preference, Seq)>,
    /// By the number of slots that have no use left; those with the same number are interchangeable.
    idle: BTreeMap<u32, BTreeSet<(Mono, Seq)>>,
    suspect: BTreeSet<(Mono, Seq)>,
    due: BTreeSet<(Mono, Seq)>,
    /// Instances whose record differs from what was persisted.
    changed: BTreeSet<InstanceId>,
}

// === impl Fleet ===

impl Fleet {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            next: 0,
            by_id: BTreeMap::new(),
            instances: BTreeMap::new(),
            tally: Tally::default(),
            free: BTreeSet::new(),
            idle: BTreeMap::new(),
            suspect: BTreeSet::new(),
            due: BTreeSet::new(),
            changed: BTreeSet::new(),
        }
    }

    /// Applies other rules. The only operation that looks at every instance, besides a listing.
    pub(crate) fn set_rules(&mut self, rules: Rules) {
        if rules == self.rules {
            return;
        }
        self.rules = rules;
        self.tally = Tally::default();
        self.free.clear();
        self.idle.clear();
        self.suspect.clear();
        self.due.clear();
        let facets: Vec<_> =
            self.instances.iter().map(|(seq, instance)| (*seq, Facets::of(instance, &rules))).collect();
        for (seq, facets) in facets {
            self.enter(seq, &facets);
        }
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    pub(crate) fn seq(&self, id: &InstanceId) -> Option<Seq> {
        self.by_id.get(id).copied()
    }

    pub(crate) fn get(&self, seq: Seq) -> Option<&Instance> {
        self.instances.get(&seq)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Seq, &Instance)> {
        self.instances.iter().map(|(seq, instance)| (*seq, instance))
    }

    pub(crate) fn insert(&mut self, instance: Instance) -> Seq {
        let seq = Seq(self.next);
        self.next += 1;
        self.changed.insert(instance.id.clone());
        self.by_id.insert(instance.id.clone(), seq);
        let facets = Facets::of(&instance, &self.rules);
        self.instances.insert(seq, instance);
        self.enter(seq, &facets);
        seq
    }

    pub(crate) fn remove(&mut self, seq: Seq) -> Option<Instance> {
        let instance = self.instances.remove(&seq)?;
        self.leave(seq, &Facets::of(&instance, &self.rules));
        self.by_id.remove(&instance.id);
        self.changed.insert(instance.id.clone());
        Some(instance)
    }

    /// Notes that something about an instance outside the fleet must be persisted.
    pub(crate) fn touch(&mut self, id: InstanceId) {
        self.changed.insert(id);
    }

    /// Changes an instance and everything that is derived from it.
    pub(crate) fn edit<R>(&mut self, seq: Seq, change: impl FnOnce(&mut Instance) -> R) -> Option<R> {
        let instance = self.instances.get_mut(&seq)?;
        let before = Facets::of(instance, &self.rules);
        let stamp = stamp(instance);
        let result = change(instance);
        let after = Facets::of(instance, &self.rules);
        if stamp != self::stamp(instance) {
            self.changed.insert(instance.id.clone());
        }
        if before != after {
            self.leave(seq, &before);
            self.enter(seq, &after);
        }
        Some(result)
    }

    /// Notes that a listing named the instance. Returns false if that listing did so before.
    pub(crate) fn mark_listed(&mut self, seq: Seq, listing: u64) -> bool {
        self.instances
            .get_mut(&seq)
            .is_some_and(|instance| std::mem::replace(&mut instance.listing, listing) != listing)
    }

    /// Where the next job goes.
    pub(crate) fn best_free(&self) -> Option<Seq> {
        self.free.first().map(|(_, seq)| *seq)
    }

    /// For each number of slots without use, the ready instance without jobs that is idle longest: the number, since when,
    /// and which.
    pub(crate) fn longest_idle(&self) -> impl Iterator<Item = (u32, Mono, Seq)> + '_ {
        self.idle.iter().filter_map(|(unavailable, group)| {
            let (since, seq) = group.first()?;
            Some((*unavailable, *since, *seq))
        })
    }

    /// How many ready instances have no jobs.
    pub(crate) fn idle_count(&self) -> usize {
        self.idle.values().map(BTreeSet::len).sum()
    }

    /// The suspect instance without jobs that is idle longest.
    pub(crate) fn longest_idle_suspect(&self) -> Option<(Mono, Seq)> {
        self.suspect.first().copied()
    }

    /// The instance that the core has to do something about first, and when.
    pub(crate) fn first_due(&self) -> Option<(Mono, Seq)> {
        self.due.first().copied()
    }

    /// Instances whose record changed since the last call.
    pub(crate) fn take_changed(&mut self) -> BTreeSet<InstanceId> {
        std::mem::take(&mut self.changed)
    }

    pub(crate) fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    fn enter(&mut self, seq: Seq, facets: &Facets) {
        self.tally.add(&facets.tally);
        self.free.extend(facets.free.map(|key| (key, seq)));
        if let Some((unavailable, since)) = facets.idle {
            self.idle.entry(unavailable).or_default().insert((since, seq));
        }
        self.suspect.extend(facets.suspect.map(|key| (key, seq)));
        self.due.extend(facets.due.map(|key| (key, seq)));
    }

    fn leave(&mut self, seq: Seq, facets: &Facets) {
        self.tally.subtract(&facets.tally);
        facets.free.map(|key| self.free.remove(&(key, seq)));
        if let Some((unavailable, since)) = facets.idle
            && let Some(group) = self.idle.get_mut(&unavailable)
        {
            group.remove(&(since, seq));
            if group.is_empty() {
                self.idle.remove(&unavailable);
            }
        }
        facets.suspect.map(|key| self.suspect.remove(&(key, seq)));
        facets.due.map(|key| self.due.remove(&(key, seq)));
    }
}

// === impl Facets ===

impl Facets {
    fn of(instance: &Instance, rules: &Rules) -> Self {
        let places = instance.places(rules.capacity, rules.max_use_count);
        let acquired = instance.acquired();
        let mut tally =
            Tally { acquired, usable: places.usable, unavailable: places.unavailable, ..Tally::default() };
        let (mut idle, mut suspect) = (None, None);
        let idle_since = (!instance.is_busy()).then_some(instance.idle_since);
        match instance.phase.name() {
            PhaseName::Restoring => tally.restoring = 1,
            PhaseName::Creating => tally.creating = 1,
            PhaseName::Booting => tally.booting = 1,
            PhaseName::Ready => {
                tally.ready = 1;
                idle = idle_since.map(|since| (places.unavailable, since));
                tally.idle_unavailable = idle.map_or(0, |(unavailable, _)| unavailable);
            }
            PhaseName::Suspect => {
                tally.suspect = 1;
                tally.unhealthy = places.unavailable;
                suspect = idle_since;
            }
            PhaseName::Draining => tally.draining = 1,
            PhaseName::Deleting => tally.deleting = 1,
        }
        Self {
            tally,
            free: (places.usable > 0).then_some((Reverse(acquired), Reverse(instance.used))),
            idle,
            suspect,
            due: instance.due(rules.paused),
        }
    }
}

// === impl Tally ===

impl Tally {
    /// Instances by state, with `requested` open requests.
    pub(crate) fn counts(&self, requested: u32) -> Counts {
        Counts {
            requested,
            restoring: self.restoring,
            creating: self.creating,
            booting: self.booting,
            ready: self.ready,
            suspect: self.suspect,
            draining: self.draining,
            deleting: self.deleting,
        }
    }

    /// Known instances that are not being deleted.
    pub(crate) fn present(&self) -> u32 {
        self.restoring + self.creating + self.booting + self.ready + self.suspect + self.draining
    }

    fn add(&mut self, other: &Self) {
        self.restoring += other.restoring;
        self.creating += other.creating;
        self.booting += other.booting;
        self.ready += other.ready;
        self.suspect += other.suspect;
        self.draining += other.draining;
        self.deleting += other.deleting;
        self.acquired += other.acquired;
        self.usable += other.usable;
        self.unavailable += other.unavailable;
        self.idle_unavailable += other.idle_unavailable;
        self.unhealthy += other.unhealthy;
    }

    fn subtract(&mut self, other: &Self) {
        self.restoring -= other.restoring;
        self.creating -= other.creating;
        self.booting -= other.booting;
        self.ready -= other.ready;
        self.suspect -= other.suspect;
        self.draining -= other.draining;
        self.deleting -= other.deleting;
        self.acquired -= other.acquired;
        self.usable -= other.usable;
        self.unavailable -= other.unavailable;
        self.idle_unavailable -= other.idle_unavailable;
        self.unhealthy -= other.unhealthy;
    }
}

/// Differs whenever the record of the instance does. One edit adds or removes at most one claim, so that counting them
/// is enough.
fn stamp(instance: &Instance) -> (u32, usize, usize, Mono, bool) {
    let leaving = matches!(instance.phase, Phase::Draining { .. } | Phase::Deleting { .. });
    (instance.used, instance.slots.len(), instance.ghosts.len(), instance.idle_since, leaving)
}

/// The claims of an instance, by slot.
pub(crate) fn claims_of(instance: &Instance) -> Vec<ClaimKey> {
    instance.ghosts.iter().chain(instance.slots.values()).cloned().collect()
}
