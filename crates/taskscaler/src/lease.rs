//! Whose the group is: the shell around [`Keeper`], which decides.

use std::sync::Arc;
use std::time::Duration;

use fleeting::lease::{Keeper, Lease, Moment, Owner, Standing, Terms};
use fleeting::{GroupError, InstanceGroup, with_causes};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use status::Kind;
use taskscaler_core::{Elsewhere, Now};

use crate::provider;
use crate::voice::Voice;

/// A mark that takes longer to write is worth no more waiting: the next listing tells whether it is there.
const WRITING: Duration = Duration::from_secs(10);

/// That the group is marked as one's own, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseSettings {
    /// Whose it is to be.
    pub owner: Owner,
    /// How long a mark is valid; it is renewed three times as often.
    pub valid: Duration,
}

/// What is known of the owner of one group.
pub(crate) struct Leasing {
    /// None: the group is never somebody else's.
    keeper: Option<Keeper>,
    owner: Option<Owner>,
    writing: Option<BoxFuture<'static, Result<(), GroupError>>>,
    valid: Duration,
    /// The group was one's own once.
    begun: bool,
    said: Said,
    said_denied: bool,
    /// What the core was told last.
    told: Option<Elsewhere>,
}

/// What was logged last.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Said {
    Nothing,
    Ours,
    Theirs(Owner),
}

// === impl Leasing ===

impl Leasing {
    pub(crate) fn new(settings: Option<&LeaseSettings>, group: &dyn InstanceGroup) -> Self {
        let settings = settings.filter(|_| group.lease().is_some());
        let keeper = settings.map(|LeaseSettings { owner, valid }| {
            Keeper::new(owner.clone(), Terms { valid: *valid }, rand::random())
        });
        Self {
            begun: keeper.is_none(),
            owner: settings.map(|settings| settings.owner.clone()),
            keeper,
            writing: None,
            valid: settings.map_or(Duration::ZERO, |settings| settings.valid),
            said: Said::Nothing,
            said_denied: false,
            told: None,
        }
    }

    /// The group was listed. Begins to write a mark if one is due.
    pub(crate) fn look(&mut self, group: &Arc<dyn InstanceGroup>, now: Now, voice: &Voice) {
        let Some(keeper) = &mut self.keeper else { return };
        let seen = group.lease().and_then(|place| place.seen());
        let write = keeper.look(seen, moment(now));
        self.begun |= keeper.may_act(moment(now));
        self.say(voice);
        if let Some(mark) = write.filter(|_| self.writing.is_none()) {
            tracing::debug!(%mark, "writing the group's mark");
            self.writing = Some(write_mark(Arc::clone(group), mark).boxed());
        }
    }

    /// Completes when a mark was written, or could not be; never while none is.
    pub(crate) async fn written(&mut self) -> Result<(), GroupError> {
        let Some(writing) = &mut self.writing else { return std::future::pending().await };
        let outcome = writing.await;
        self.writing = None;
        outcome
    }

    /// Takes in what [`written`](Self::written) said. True if the group should be listed at once.
    pub(crate) fn wrote(&mut self, outcome: Result<(), GroupError>, now: Now, voice: &Voice) -> bool {
        let Some(keeper) = &mut self.keeper else { return false };
        match outcome {
            Ok(()) => {
                keeper.wrote(moment(now));
                false
            }
            Err(error) => {
                let denied = matches!(error, GroupError::Denied { .. } | GroupError::Unsupported { .. });
                let error = with_causes(&error);
                if denied && !self.said_denied {
                    self.said_denied = true;
                    voice.warn(&format!(
                        "the instance group is used without a mark, so that another manager cannot see that it is in use: \
                         {error}; allow that, or set group_lease = false"
                    ));
                } else if !denied {
                    tracing::warn!(runner = %voice.runner(), %error, "the mark of the instance group was not written");
                }
                keeper.not_written(denied, moment(now));
                self.begun |= keeper.may_act(moment(now));
                denied
            }
        }
    }

    /// True if the group may be changed and used.
    pub(crate) fn may_act(&self, now: Now) -> bool {
        self.keeper.as_ref().is_none_or(|keeper| keeper.may_act(moment(now)))
    }

    /// True while nobody is known to have the group, and it may become one's own with the next listings.
    pub(crate) fn is_undecided(&self) -> bool {
        let standing = self.keeper.as_ref().map(Keeper::standing);
        matches!(standing, Some(Standing::Unknown | Standing::Claiming))
    }

    /// True if the group was one's own at some time: what it shows concerns the scaler.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun
    }

    /// When the group must be listed, by the clock of the scaler.
    pub(crate) fn look_again(&self) -> Option<Duration> {
        self.keeper.as_ref()?.look_again()
    }

    /// What the core has to be told, if that has changed.
    pub(crate) fn news(&mut self, now: Now) -> Option<Option<Elsewhere>> {
        let elsewhere = self.elsewhere(now);
        (elsewhere != self.told).then(|| {
            self.told.clone_from(&elsewhere);
            elsewhere
        })
    }

    fn elsewhere(&self, now: Now) -> Option<Elsewhere> {
        let keeper = self.keeper.as_ref()?;
        if keeper.may_act(moment(now)) {
            return None;
        }
        let unknown = |holder: String| Some(Elsewhere { holder, until: None });
        match keeper.standing() {
            Standing::StandingBy { lease, .. } => {
                Some(Elsewhere { holder: lease.owner.to_string(), until: Some(lease.until) })
            }
            // At the start, the scaler waits for its first listing anyway.
            Standing::Unknown | Standing::Claiming if !self.begun => None,
            Standing::Unknown | Standing::Claiming => unknown("nobody, and is being claimed".to_owned()),
            Standing::Holding | Standing::Unmarked => unknown(format!(
                "nobody for sure: no listing has shown its mark for {}",
                go_duration::format(self.valid)
            )),
        }
    }

    /// Another manager that is known to have the group.
    pub(crate) fn holder(&self) -> Option<&Owner> {
        match self.keeper.as_ref()?.standing() {
            Standing::StandingBy { lease, .. } => Some(&lease.owner),
            Standing::Unknown | Standing::Claiming | Standing::Holding | Standing::Unmarked => None,
        }
    }

    /// Whose the group is, in a few words; empty without marks.
    pub(crate) fn words(&self) -> String {
        let Some(keeper) = &self.keeper else { return String::new() };
        match keeper.standing() {
            Standing::Unknown => "not known yet".to_owned(),
            Standing::Claiming => "being claimed".to_owned(),
            Standing::Holding => "this manager".to_owned(),
            Standing::StandingBy { lease, .. } => {
                format!("{} since {}, until {} unless renewed", lease.owner, lease.since, lease.until)
            }
            Standing::Unmarked => "this manager, without a mark".to_owned(),
        }
    }

    /// Gives the group back, if it is one's own.
    pub(crate) async fn release(&mut self, group: &dyn InstanceGroup, voice: &Voice) {
        if self.writing.is_some() {
            // What it leads to is seen below; it must not come after the removal.
            let _ = self.written().await;
        }
        let Some(keeper) = &self.keeper else { return };
        if !matches!(keeper.standing(), Standing::Holding | Standing::Claiming) {
            return;
        }
        let (Some(place), Some(owner)) = (group.lease(), &self.owner) else { return };
        // Somebody else may have written over it.
        let listed = provider::bounded(WRITING, "listing the group", group.update()).await;
        if !place.seen().is_some_and(|lease| lease.is_of(owner)) {
            return;
        }
        let released = match listed {
            Ok(_) => provider::bounded(WRITING, "removing the group's mark", place.unmark()).await,
            Err(error) => Err(error),
        };
        match released {
            Ok(()) => {
                tracing::info!(runner = %voice.runner(), "the instance group is released for other managers")
            }
            Err(error) => {
                let (valid, error) = (go_duration::format(self.valid), with_causes(&error));
                tracing::warn!(runner = %voice.runner(), %error,
                    "the mark of the instance group stays: another manager takes over after {valid}");
            }
        }
    }

    fn say(&mut self, voice: &Voice) {
        let Some(keeper) = &self.keeper else { return };
        let now = match keeper.standing() {
            Standing::Unknown | Standing::Claiming => return,
            Standing::Holding | Standing::Unmarked => Said::Ours,
            Standing::StandingBy { lease, .. } => Said::Theirs(lease.owner.clone()),
        };
        if now == self.said {
            return;
        }
        match keeper.standing() {
            Standing::StandingBy { lease, lost } => {
                let Lease { owner, since, until, .. } = lease;
                let twin = self.owner.as_ref().is_some_and(|own| lease.is_of(own));
                let what = match (lost, twin) {
                    (_, true) => {
                        "another process with this manager's system id has taken the instance group over"
                    }
                    (true, false) => "another manager has taken the instance group over",
                    (false, false) => "another manager holds the instance group",
                };
                voice.warn(&format!(
                    "{what}: {owner}, since {since}, until {until} unless it is renewed; no jobs are taken and nothing is \
                     scaled until it is released or lapses, running jobs go on; give each entry a group of its own, or \
                     leave this manager as a standby"
                ));
            }
            Standing::Holding | Standing::Unmarked => match &self.said {
                Said::Theirs(owner) => voice.info(&format!("the instance group is taken over from {owner}")),
                Said::Nothing | Said::Ours => {
                    tracing::debug!(runner = %voice.runner(), "the instance group is ours")
                }
            },
            Standing::Unknown | Standing::Claiming => {}
        }
        self.said = now;
    }
}

// === impl Voice ===

impl Voice {
    /// Says what a person may have to act on, in the log and in the diary.
    fn warn(&self, text: &str) {
        tracing::warn!(runner = %self.runner(), "{text}");
        self.note(Kind::Error, text);
    }

    fn info(&self, text: &str) {
        tracing::info!(runner = %self.runner(), "{text}");
        self.note(Kind::Decision, text);
    }
}

// === helpers ===

async fn write_mark(group: Arc<dyn InstanceGroup>, mark: Lease) -> Result<(), GroupError> {
    let Some(place) = group.lease() else { return Ok(()) };
    provider::bounded(WRITING, "writing the group's mark", place.mark(&mark)).await
}

fn moment(now: Now) -> Moment {
    Moment { mono: now.mono, wall: now.wall }
}
