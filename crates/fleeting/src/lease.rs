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

mod keeper;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};

use crate::GroupError;

pub use keeper::{Keeper, Standing};

/// How much the clocks of two managers may differ.
pub const SKEW: Duration = Duration::from_secs(300);

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
