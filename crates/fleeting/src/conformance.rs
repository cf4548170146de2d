//! The rules of the provider contract as one suite, for every provider.
//!
//! A provider's test implements [`Harness`] and calls [`run`]. Each rule gets a fresh group, and the instances that it
//! made are deleted after it, so that the suite can also be pointed at a real cloud.
//!
//! ```
//! use drover_fleeting::conformance::{self, Harness};
//! use drover_fleeting::{ConnectorSettings, InstanceGroup};
//!
//! /// For a provider whose instances appear by themselves in real time.
//! struct Patient<F>(F);
//!
//! #[async_trait::async_trait]
//! impl<G: InstanceGroup, F: Fn() -> G + Send + Sync> Harness for Patient<F> {
//!     type Group = G;
//!     async fn group(&self) -> G {
//!         (self.0)()
//!     }
//!     async fn pause(&self, group: &G) {
//!         let _ = tokio::time::timeout(std::time::Duration::from_secs(5), group.changed()).await;
//!     }
//! }
//!
//! async fn my_provider_keeps_the_contract<G: InstanceGroup>(connect: impl Fn() -> G + Send + Sync) {
//!     conformance::run(&Patient(connect)).await.unwrap();
//! }
//! ```

use std::collections::BTreeSet;
use std::fmt;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;

use crate::{
    ConnectorSettings, GroupError, GroupInfo, HeartbeatError, InstanceGroup, InstanceId, InstanceState, Seen,
};

mod rules;

/// What the suite needs to know about a provider, and what it needs done from outside of it.
#[async_trait]
pub trait Harness: Send + Sync {
    /// The provider.
    type Group: InstanceGroup;

    /// A fresh group without instances, not initialised.
    async fn group(&self) -> Self::Group;

    /// Lets some time pass: returns when it is worth looking at the group again. Virtual time is advanced here.
    async fn pause(&self, group: &Self::Group);

    /// How often the suite looks, with a pause in between, before it gives up.
    fn patience(&self) -> usize {
        200
    }

    /// What `init` is called with.
    fn settings(&self) -> ConnectorSettings {
        ConnectorSettings::default()
    }

    /// How many instances at once the suite may ask for; at least 3.
    fn instances(&self) -> u32 {
        3
    }

    /// True if the group refuses to grow beyond its `max_size`, and reaching that is affordable.
    fn can_be_filled(&self) -> bool {
        false
    }

    /// An instance that exists beside the group without belonging to it. `None`: it cannot be made.
    async fn foreign(&self, group: &Self::Group) -> Option<InstanceId> {
        let _ = group;
        None
    }

    /// What exists in the cloud, the foreign ones included, seen past the provider. `None`: it cannot be seen.
    async fn existing(&self, group: &Self::Group) -> Option<BTreeSet<InstanceId>> {
        let _ = group;
        None
    }
}

/// The rules, in the order in which they are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Rule {
    /// `init` describes the group.
    InitDescribesTheGroup,
    /// A second `init` is refused or harmless.
    SecondInitIsHarmless,
    /// After `increase(n)`, n instances appear and become running.
    IncreaseMakesInstances,
    /// `increase(0)` makes none.
    IncreaseByNoneIsNoChange,
    /// A group that is full says what it granted, and why not more.
    IncreaseIsPartialAtTheLimit,
    /// A listing names each instance once, and all of them.
    ListingIsCompleteAndUnique,
    /// `decrease` deletes the named instances and no others.
    DecreaseDeletesExactlyTheNamed,
    /// An empty `decrease` deletes none.
    DecreaseOfNoneIsNoChange,
    /// Deleting what is deleting or gone is accepted and changes nothing.
    DecreaseMayBeRepeated,
    /// An unknown or foreign instance is refused with not found, and untouched, and the others in the call are deleted.
    ForeignIsRefusedAndUntouched,
    /// The name of an instance is not given to another one.
    NamesAreNeverReused,
    /// `connect_info` of a running instance names it and an address.
    ConnectInfoOfRunning,
    /// `connect_info` of an unknown instance is not found.
    ConnectInfoOfUnknown,
    /// `connect_info` of a deleted instance is not found.
    ConnectInfoOfGone,
    /// Running instances are healthy; of unknown ones nothing good is said.
    HeartbeatTellsTheTruth,
    /// Calls that are dropped half-way leave the provider usable.
    DroppedCallsDoNoHarm,
    /// Instances outlive `shutdown`.
    ShutdownLeavesInstances,
}

/// A broken rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// What was seen.
    pub what: String,
}

/// All broken rules. Its debug form is made for `unwrap` in tests.
#[derive(Clone, PartialEq, Eq)]
pub struct Violations(pub Vec<Violation>);

/// How a rule came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Checked and kept.
    Kept,
    /// The harness cannot do what the check needs.
    NotChecked,
}

/// A rule is checked by a function that ends with the verdict, or with what it saw.
type Checked = Result<Verdict, String>;

/// Checks every rule. Returns what became of each.
///
/// # Errors
/// [`Violations`] lists the rules that the provider breaks.
pub async fn run<H: Harness>(harness: &H) -> Result<Vec<(Rule, Verdict)>, Violations> {
    let mut verdicts = Vec::new();
    let mut violations = Vec::new();
    for rule in Rule::ALL {
        match check(harness, rule).await {
            Ok(verdict) => verdicts.push((rule, verdict)),
            Err(what) => violations.push(Violation { rule, what }),
        }
    }
    if violations.is_empty() { Ok(verdicts) } else { Err(Violations(violations)) }
}

/// Checks one rule on a fresh group and cleans up after it.
///
/// # Errors
/// What was seen, if the rule is broken.
pub async fn check<H: Harness>(harness: &H, rule: Rule) -> Result<Verdict, String> {
    let group = harness.group().await;
    let info = group.init(&harness.settings()).await.map_err(|error| format!("init failed: {error}"))?;
    let subject = Subject { harness, group, info };
    let checked = rules::check(&subject, rule).await;
    let cleaned = subject.clean_up().await;
    let verdict = checked?;
    cleaned.map_err(|what| format!("while cleaning up: {what}"))?;
    Ok(verdict)
}

/// One group under test, with the steps that rules are made of.
struct Subject<'a, H: Harness> {
    harness: &'a H,
    group: H::Group,
    info: GroupInfo,
}

// === impl Rule ===

impl Rule {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::InitDescribesTheGroup,
        Self::SecondInitIsHarmless,
        Self::IncreaseMakesInstances,
        Self::IncreaseByNoneIsNoChange,
        Self::IncreaseIsPartialAtTheLimit,
        Self::ListingIsCompleteAndUnique,
        Self::DecreaseDeletesExactlyTheNamed,
        Self::DecreaseOfNoneIsNoChange,
        Self::DecreaseMayBeRepeated,
        Self::ForeignIsRefusedAndUntouched,
        Self::NamesAreNeverReused,
        Self::ConnectInfoOfRunning,
        Self::ConnectInfoOfUnknown,
        Self::ConnectInfoOfGone,
        Self::HeartbeatTellsTheTruth,
        Self::DroppedCallsDoNoHarm,
        Self::ShutdownLeavesInstances,
    ];
}

// === impl Violations ===

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rule(s) of the provider contract broken", self.0.len())?;
        for Violation { rule, what } in &self.0 {
            write!(f, "\n  {rule:?}: {what}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Violations {}

// === impl Subject ===

impl<H: Harness> Subject<'_, H> {
    /// The listing without what is gone. Also checks what holds for every listing.
    async fn listing(&self) -> Result<Vec<Seen>, String> {
        let listing = self.group.update().await.map_err(|error| format!("update failed: {error}"))?;
        let names: BTreeSet<_> = listing.iter().map(|seen| &seen.id).collect();
        if names.len() != listing.len() {
            return Err(format!("a listing names an instance twice: {listing:?}"));
        }
        Ok(listing.into_iter().filter(|seen| seen.state != InstanceState::Deleted).collect())
    }

    /// Looks until the condition holds for the listing.
    async fn until<T>(&self, what: &str, condition: impl Fn(&[Seen]) -> Option<T>) -> Result<T, String> {
        let mut last = Vec::new();
        for _ in 0..self.harness.patience() {
            last = self.listing().await?;
            if let Some(value) = condition(&last) {
                return Ok(value);
            }
            self.harness.pause(&self.group).await;
        }
        Err(format!("{what}: not seen after {} listings; the last is {last:?}", self.harness.patience()))
    }

    async fn increase(&self, n: u32) -> Result<(), String> {
        let answer = self.group.increase(n).await;
        match (answer.done, answer.error) {
            (done, None) if done == n => Ok(()),
            (done, error) => Err(format!("increase({n}) granted {done} with error {error:?}")),
        }
    }

    async fn decrease(&self, ids: &[InstanceId]) -> Result<(), String> {
        let answer = self.group.decrease(ids).await;
        let (asked, done) =
            (ids.iter().collect::<BTreeSet<_>>(), answer.done.iter().collect::<BTreeSet<_>>());
        match answer.error {
            None if asked == done => Ok(()),
            error => Err(format!("decrease({ids:?}) accepted {:?} with error {error:?}", answer.done)),
        }
    }

    /// Makes `n` instances in an empty group and waits until they run.
    async fn running(&self, n: u32) -> Result<Vec<InstanceId>, String> {
        self.increase(n).await?;
        self.until_running(n).await
    }

    async fn until_running(&self, n: u32) -> Result<Vec<InstanceId>, String> {
        self.until(&format!("{n} running instance(s)"), |listing| {
            let running = listing.iter().filter(|seen| seen.state == InstanceState::Running);
            let running: Vec<_> = running.map(|seen| seen.id.clone()).collect();
            (running.len() == n as usize && listing.len() == n as usize).then_some(running)
        })
        .await
    }

    async fn until_gone(&self, ids: &[InstanceId]) -> Result<(), String> {
        self.until(&format!("{ids:?} gone"), |listing| {
            listing.iter().all(|seen| !ids.contains(&seen.id)).then_some(())
        })
        .await
    }

    /// Lets some time pass and checks that the listing stays as it is.
    async fn stays(&self, expected: &[InstanceId]) -> Result<(), String> {
        let expected: BTreeSet<_> = expected.iter().collect();
        for _ in 0..3 {
            self.harness.pause(&self.group).await;
            let listing = self.listing().await?;
            let seen: BTreeSet<_> = listing.iter().map(|seen| &seen.id).collect();
            if seen != expected {
                return Err(format!("instances are {seen:?}, expected {expected:?}"));
            }
        }
        Ok(())
    }

    async fn clean_up(&self) -> Result<(), String> {
        let ids: Vec<_> = self.listing().await?.into_iter().map(|seen| seen.id).collect();
        if ids.is_empty() {
            return Ok(());
        }
        self.decrease(&ids).await?;
        self.until_gone(&ids).await
    }
}

/// Polls a call a few times and drops it.
async fn drop_half_way<F: Future>(call: F, polls: usize) {
    let mut call = pin!(call);
    for _ in 0..polls {
        if call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            return;
        }
        // Lets other tasks of a runtime make progress on behalf of the call.
        let mut yielded = false;
        std::future::poll_fn(|context| {
            if std::mem::replace(&mut yielded, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}
