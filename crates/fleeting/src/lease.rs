//! One owner per group: a mark at the group itself says which manager scales it.
//!
//! Nothing that a cloud offers for marks is a lock: whoever writes last wins. So a mark is written, and counts only once a
//! later listing shows it (see [`Keeper`]). Decisions are pure: [`decide`] says what follows from a mark that was seen.
//!
//! # Clocks
//!
//! Managers run on machines whose clocks differ. A mark is therefore judged by the watcher's own stopwatch: it has lapsed
//! when it was seen unchanged for as long as it is valid. Only a mark whose end is [`SKEW`] and its whole validity in
//! the past by the wall clock is taken for lapsed at first sight; no two clocks that AWS accepts differ by that much.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};

use crate::GroupError;

/// How much the clocks of two managers may differ.
pub const SKEW: Duration = Duration::from_secs(300);

/// How long a missing permission is left alone before it is tried again.
const DENIED: Duration = Duration::from_secs(3600);

/// Longest name in a mark: cloud tags hold 256 characters.
const NAME: usize = 32;

/// Who scales a group: one runner entry of one manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The manager's system id at GitLab.
    pub manager: String,
    /// The entry: a sum over its URL and its runner's id, without any token.
    pub entry: String,
    /// Name of the entry, for people.
    pub name: String,
    /// The manager's host, for people.
    pub host: String,
}

/// A mark at a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Who holds the group.
    pub owner: Owner,
    /// Grows with each taking, so that of two processes with one identity the later one is told from the earlier.
    pub generation: u64,
    /// Since when, by the owner's clock; whole seconds.
    pub since: DateTime<Utc>,
    /// The end, by the owner's clock, unless it is renewed; whole seconds.
    pub until: DateTime<Utc>,
    /// How long the mark is valid from its writing; whole seconds.
    pub valid: Duration,
}

/// Marks at a group, for providers that have a place for them.
///
/// Writes are not compared with what is there, and listings may lag behind them.
#[async_trait]
pub trait GroupLease: Send + Sync {
    /// The mark that the last listing of the group showed.
    fn seen(&self) -> Option<Lease>;

    /// Writes a mark over whatever is there.
    ///
    /// # Errors
    /// [`GroupError::Denied`] names the missing permission.
    async fn mark(&self, lease: &Lease) -> Result<(), GroupError>;

    /// Removes the mark.
    ///
    /// # Errors
    /// As for [`mark`](Self::mark).
    async fn unmark(&self) -> Result<(), GroupError>;

    /// How a person removes a mark that nobody keeps up: a command.
    fn removal(&self) -> String;
}

/// How long marks are valid; everything else follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Time from the writing of a mark to its end.
    pub valid: Duration,
}

/// A moment by both clocks. Monotonic time has any zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The stopwatch of this process.
    pub mono: Duration,
    /// The wall clock.
    pub wall: DateTime<Utc>,
}

/// A mark, and how long this process has seen it as it is.
#[derive(Debug, Clone, Copy)]
pub struct Sight<'a> {
    /// The mark.
    pub lease: &'a Lease,
    /// Since it was first seen, by the stopwatch.
    pub unchanged: Duration,
}

/// The one who decides.
#[derive(Debug, Clone, Copy)]
pub struct Claimant<'a> {
    /// Its identity.
    pub owner: &'a Owner,
    /// The generation that it wrote last; 0 if this process has written none.
    pub generation: u64,
    /// How long ago it wrote last; none if it has not, or has stood by since.
    pub written: Option<Duration>,
    /// The terms.
    pub terms: Terms,
}

/// What follows from a mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The mark is one's own.
    Hold,
    /// The mark is one's own and has to be written again.
    Renew,
    /// Somebody else has the group.
    Wait {
        /// Until when, by the other's clock, unless it is renewed.
        until: DateTime<Utc>,
        /// Who.
        owner: Owner,
    },
    /// Nobody has the group.
    TakeOver,
}

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

/// What follows from a mark that was seen at the wall time `now`.
///
/// - No mark: take over, or write one's own again.
/// - One's own of this or an earlier process: one's own. A later process of the same identity goes before an earlier one, so
///   that a manager that starts again goes on at once, and of two that share an identity by mistake only one works.
/// - Somebody else's: wait, unless it has lapsed.
#[must_use]
pub fn decide(seen: Option<Sight<'_>>, me: &Claimant<'_>, now: DateTime<Utc>) -> Decision {
    let Some(Sight { lease, unchanged }) = seen else {
        return if me.written.is_some() { Decision::Renew } else { Decision::TakeOver };
    };
    let wait = || Decision::Wait { until: lease.until, owner: lease.owner.clone() };
    if lease.is_of(me.owner) {
        if me.generation == 0 {
            return Decision::TakeOver;
        }
        if lease.generation > me.generation {
            return if lease.has_lapsed(unchanged, now) { Decision::TakeOver } else { wait() };
        }
        let due = match lease.generation == me.generation {
            true => me.terms.renewal(),
            // A listing from before the last writing, or an earlier process that does not know yet.
            false => me.terms.settling(),
        };
        let renew = me.written.is_none_or(|ago| ago >= due);
        return if renew { Decision::Renew } else { Decision::Hold };
    }
    if lease.has_lapsed(unchanged, now) { Decision::TakeOver } else { wait() }
}

// === impl Owner ===

impl Owner {
    /// The identity of a runner entry. `runner` is what does not change when its token is rotated: the runner's id, else its
    /// name.
    #[must_use]
    pub fn new(manager: &str, url: &str, runner: &str, name: &str, host: &str) -> Self {
        let sum = format!("{}\0{runner}", url.trim_end_matches('/'));
        Self {
            manager: word(manager),
            entry: format!("{:016x}", fnv(sum.as_bytes())),
            name: word(name),
            host: word(host),
        }
    }

    /// The same entry of the same manager, whatever it is called.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.manager == other.manager && self.entry == other.entry
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entry `{}` of manager {} on host {}", self.name, self.manager, self.host)
    }
}

// === impl Lease ===

impl Lease {
    /// Takes a mark apart that [`Display`](fmt::Display) has written; `None` for anything else. Words that are not known are
    /// skipped, so that later versions can add some.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        if words.next() != Some("v1") {
            return None;
        }
        let pairs: std::collections::BTreeMap<&str, &str> =
            words.filter_map(|word| word.split_once('=')).collect();
        let own = |key| pairs.get(key).map(|value: &&str| (*value).to_owned());
        let time = |key| {
            let time = DateTime::parse_from_rfc3339(pairs.get(key)?).ok()?;
            Some(time.with_timezone(&Utc))
        };
        Some(Self {
            owner: Owner {
                manager: own("manager")?,
                entry: own("entry")?,
                name: own("name").unwrap_or_default(),
                host: own("host").unwrap_or_default(),
            },
            generation: pairs.get("generation")?.parse().ok()?,
            since: time("since")?,
            until: time("until")?,
            valid: Duration::from_secs(pairs.get("valid")?.parse().ok()?),
        })
    }

    /// The mark of this entry of this manager, in whatever process.
    #[must_use]
    pub fn is_of(&self, owner: &Owner) -> bool {
        self.owner.is_same(owner)
    }

    /// An error if a listing shows that another manager, or a later process of this one, has taken the group over since this
    /// mark was written. Providers ask it of a listing from right before a change: so little time passes between the two that
    /// this catches what a listing of a minute ago could not know.
    ///
    /// # Errors
    /// [`GroupError::Transient`] names who has the group.
    pub fn stands(&self, seen: Option<&Self>) -> Result<(), GroupError> {
        match seen {
            Some(seen) if !seen.is_of(&self.owner) || seen.generation > self.generation => {
                Err(GroupError::Transient {
                    message: format!("nothing was changed: the group was taken over by {}", seen.owner),
                })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether nobody keeps it up any more, seen as it is for `unchanged` and at the wall time `now`.
    #[must_use]
    pub fn has_lapsed(&self, unchanged: Duration, now: DateTime<Utc>) -> bool {
        unchanged >= self.valid || now > self.until + delta(self.valid + SKEW)
    }
}

/// As it is written: words of letters, digits and `-_./:@=`, at most 256 characters, which every cloud takes as a tag.
impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { owner, generation, since, until, valid } = self;
        let time = |time: &DateTime<Utc>| time.format("%Y-%m-%dT%H:%M:%SZ").to_string();
        write!(
            f,
            "v1 manager={} entry={} generation={generation} since={} until={} valid={} name={} host={}",
            owner.manager,
            owner.entry,
            time(since),
            time(until),
            valid.as_secs(),
            owner.name,
            owner.host
        )
    }
}

// === impl Terms ===

impl Terms {
    /// A mark is written again when it is this old.
    #[must_use]
    pub fn renewal(self) -> Duration {
        self.valid / 3
    }

    /// How long a new mark waits at least for others that were written at the same time: a three hundredth of its validity,
    /// from 0.1 s to 3 s.
    #[must_use]
    pub fn settling(self) -> Duration {
        (self.valid / 300).clamp(Duration::from_millis(100), Duration::from_secs(3))
    }
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

// === helpers ===

/// A name as one word of a mark.
fn word(text: &str) -> String {
    let fits = |c: char| if c.is_ascii_alphanumeric() || "-_./:@".contains(c) { c } else { '_' };
    text.chars().map(fits).take(NAME).collect()
}

fn whole(time: DateTime<Utc>) -> DateTime<Utc> {
    DateTime::from_timestamp(time.timestamp(), 0).unwrap_or(time)
}

fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

/// FNV-1a: the same on every machine and in every version.
fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests;
