//! The manager's side of a mark, from one listing of the group to the next.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{Claimant, Decision, Lease, Moment, Owner, Sight, Terms, decide, delta, whole};

/// How long a missing permission is left alone before it is tried again.
const DENIED: Duration = Duration::from_secs(3600);

/// Where one stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// The group was not looked at yet.
    Unknown,
    /// A mark was written and waits for a listing that shows it.
    Claiming,
    /// The group is one's own.
    Holding,
    /// Somebody else has it.
    StandingBy {
        /// The other's mark.
        lease: Lease,
        /// It was one's own before.
        lost: bool,
    },
    /// Nobody else has it, and marks cannot be written.
    Unmarked,
}

/// Keeps one process from acting on a group that is another's. Pure: it is told what was seen and when, and says what is to
/// be written.
#[derive(Debug)]
pub struct Keeper {
    owner: Owner,
    terms: Terms,
    settle: Duration,
    generation: u64,
    since: Option<DateTime<Utc>>,
    sight: Option<(Lease, Duration)>,
    written: Option<Duration>,
    /// The last listing that showed one's own mark.
    confirmed: Option<Moment>,
    denied: Option<Duration>,
    standing: Standing,
}

// === impl Keeper ===

impl Keeper {
    /// `chance`, from 0.0 to 1.0, spreads the patience of managers that claim a group at the same time.
    #[must_use]
    pub fn new(owner: Owner, terms: Terms, chance: f64) -> Self {
        let settle = terms.settling().mul_f64(1.0 + chance.clamp(0.0, 1.0));
        Self {
            owner,
            terms,
            settle,
            generation: 0,
            since: None,
            sight: None,
            written: None,
            confirmed: None,
            denied: None,
            standing: Standing::Unknown,
        }
    }

    /// Where one stands since the last look.
    #[must_use]
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// True if the group may be changed and jobs may be taken for it. Without a listing that shows one's own mark for as long
    /// as that is valid, another manager may have taken over, and it is false.
    #[must_use]
    pub fn may_act(&self, now: Moment) -> bool {
        match self.standing {
            Standing::Holding => self.confirmed.is_some_and(|seen| {
                now.mono.saturating_sub(seen.mono) < self.terms.valid
                    && now.wall < seen.wall + delta(self.terms.valid)
            }),
            Standing::Unmarked => true,
            Standing::Unknown | Standing::Claiming | Standing::StandingBy { .. } => false,
        }
    }

    /// When the group has to be listed again, by the stopwatch, sooner than it would be anyway.
    #[must_use]
    pub fn look_again(&self) -> Option<Duration> {
        let claimed = self.written.filter(|_| self.standing == Standing::Claiming)?;
        Some(claimed + self.settle)
    }

    /// The group was listed, and this is its mark. Returns the mark to write.
    pub fn look(&mut self, seen: Option<Lease>, now: Moment) -> Option<Lease> {
        match (&self.sight, &seen) {
            (Some((before, _)), Some(lease)) if before == lease => {}
            (_, lease) => self.sight = lease.clone().map(|lease| (lease, now.mono)),
        }
        let sight = self
            .sight
            .as_ref()
            .map(|(lease, first)| Sight { lease, unchanged: now.mono.saturating_sub(*first) });
        let me = Claimant {
            owner: &self.owner,
            generation: self.generation,
            written: self.written.map(|at| now.mono.saturating_sub(at)),
            terms: self.terms,
        };
        let decision = decide(sight, &me, now.wall);
        if !matches!(decision, Decision::Wait { .. }) && self.is_denied(now) {
            self.standing = Standing::Unmarked;
            return None;
        }
        let shown = seen.as_ref().is_some_and(|lease| {
            lease.is_of(&self.owner) && lease.generation == self.generation && self.generation > 0
        });
        let ago = me.written;
        match decision {
            Decision::Wait { .. } => {
                let lost = match &self.standing {
                    Standing::Holding | Standing::Unmarked => true,
                    Standing::StandingBy { lost, .. } => *lost,
                    Standing::Unknown | Standing::Claiming => false,
                };
                self.standing = seen.map_or(Standing::Unknown, |lease| Standing::StandingBy { lease, lost });
                self.written = None;
                self.since = None;
                None
            }
            Decision::TakeOver if ago.is_some_and(|ago| ago < self.settle) => None,
            Decision::TakeOver => {
                // By one's own clock, which has written it: nobody else may have taken it for lapsed.
                let resumed =
                    seen.as_ref().filter(|lease| lease.is_of(&self.owner) && now.wall < lease.until);
                self.since = resumed.map(|lease| lease.since);
                if self.standing != Standing::Claiming {
                    let known = seen.as_ref().map_or(0, |lease| lease.generation);
                    self.generation = self.generation.max(known) + 1;
                }
                if resumed.is_some() {
                    self.standing = Standing::Holding;
                    self.confirmed = Some(now);
                } else {
                    self.standing = Standing::Claiming;
                }
                self.write(now)
            }
            Decision::Hold | Decision::Renew => {
                let settled = ago.is_none_or(|ago| ago >= self.settle);
                if shown && (self.standing == Standing::Holding || settled) {
                    self.standing = Standing::Holding;
                    self.confirmed = Some(now);
                } else if matches!(self.standing, Standing::StandingBy { .. } | Standing::Unknown) {
                    self.standing = Standing::Claiming;
                }
                if decision == Decision::Renew && (shown || settled) { self.write(now) } else { None }
            }
        }
    }

    /// The mark that [`look`](Self::look) gave was written.
    pub fn wrote(&mut self, now: Moment) {
        self.denied = None;
        match self.standing {
            Standing::Unknown | Standing::StandingBy { .. } => {}
            Standing::Claiming | Standing::Holding => self.written = Some(now.mono),
            Standing::Unmarked => {
                self.written = Some(now.mono);
                self.standing = Standing::Claiming;
            }
        }
    }

    /// It was not. `denied`: marks may not be written at all, so that the group is used without one while nobody else has it.
    pub fn not_written(&mut self, denied: bool, now: Moment) {
        if denied {
            self.denied = Some(now.mono);
            if !matches!(self.standing, Standing::StandingBy { .. }) {
                self.standing = Standing::Unmarked;
            }
        }
    }

    fn is_denied(&self, now: Moment) -> bool {
        self.denied.is_some_and(|at| now.mono.saturating_sub(at) < DENIED)
    }

    fn write(&mut self, now: Moment) -> Option<Lease> {
        let wall = whole(now.wall);
        let since = *self.since.get_or_insert(wall);
        let valid = Duration::from_secs(self.terms.valid.as_secs().max(1));
        Some(Lease {
            owner: self.owner.clone(),
            generation: self.generation,
            since,
            until: wall + delta(valid),
            valid,
        })
    }
}
