//! One machine as a timeline: every transition is a point in time, the state is a function of the time asked for.
//! That makes stale listings exact: a listing that lags is the true listing of an earlier time.

use std::time::Duration;

use fleeting::{Doom, DoomKind, InstanceId, InstanceState, Seen};

/// What a heartbeat of an instance answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Health {
    /// Fit for jobs.
    #[default]
    Healthy,
    /// Examined and unfit, with the reason.
    Unhealthy(String),
    /// It cannot be told, with the reason.
    Unknown(String),
}

/// The truth about one instance, also after it is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its name.
    pub id: InstanceId,
    /// False for machines of somebody else that happen to be in the same cloud.
    pub owned: bool,
    /// The true state, whatever listings say; `None` if it is accepted but not visible yet.
    pub state: Option<InstanceState>,
    /// When it was asked for.
    pub requested_at: Duration,
    /// When it becomes (or became) running, if ever.
    pub running_at: Option<Duration>,
    /// When it goes (or went), as far as that is settled.
    pub gone_at: Option<Duration>,
    /// Deletions that were accepted for it, also those without effect.
    pub deletions: u32,
    /// Why it goes (or went).
    pub fate: Option<String>,
}

#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) id: InstanceId,
    pub(crate) number: u64,
    pub(crate) owned: bool,
    pub(crate) requested: Duration,
    pub(crate) visible: Duration,
    pub(crate) running: Option<Duration>,
    pub(crate) failed: Option<Duration>,
    pub(crate) notice: Option<(Duration, String)>,
    pub(crate) death: Option<(Duration, String)>,
    pub(crate) deleting: Option<Duration>,
    pub(crate) deleted: Option<Duration>,
    /// How many more deletions are accepted without effect.
    pub(crate) stubborn: u32,
    pub(crate) deletions: u32,
    pub(crate) health: Health,
}

// === impl Machine ===

impl Machine {
    pub(crate) fn gone_at(&self) -> Option<Duration> {
        let death = self.death.as_ref().map(|(at, _)| *at);
        [death, self.deleted].into_iter().flatten().min()
    }

    pub(crate) fn is_gone(&self, now: Duration) -> bool {
        self.gone_at().is_some_and(|gone| gone <= now)
    }

    /// The state at `time`; `None` if it is not there, or gone for longer than `keep_deleted`.
    pub(crate) fn state(&self, time: Duration, keep_deleted: Duration) -> Option<InstanceState> {
        let reached = |at: Option<Duration>| at.is_some_and(|at| at <= time);
        if self.visible > time {
            return None;
        }
        if let Some(gone) = self.gone_at()
            && gone <= time
        {
            return (time < gone + keep_deleted).then_some(InstanceState::Deleted);
        }
        Some(if reached(self.deleting) {
            InstanceState::Deleting
        } else if reached(self.failed) {
            InstanceState::Timeout
        } else if reached(self.running) {
            InstanceState::Running
        } else {
            InstanceState::Creating
        })
    }

    pub(crate) fn seen(&self, time: Duration, keep_deleted: Duration) -> Option<Seen> {
        let state = self.state(time, keep_deleted)?;
        let notice = self.notice.as_ref().filter(|(at, _)| *at <= time);
        let doomed = notice.map(|(_, why)| Doom::new(DoomKind::Interruption, why.clone()));
        Some(Seen { id: self.id.clone(), state, doomed })
    }

    /// Why it is gone at `now`.
    pub(crate) fn fate(&self) -> Option<String> {
        let gone = self.gone_at()?;
        match &self.death {
            Some((at, why)) if *at == gone => Some(why.clone()),
            Some(_) | None => Some("deleted on request".to_owned()),
        }
    }

    pub(crate) fn transitions(&self) -> impl Iterator<Item = Duration> + '_ {
        [
            Some(self.visible),
            self.running,
            self.failed,
            self.notice.as_ref().map(|(at, _)| *at),
            self.deleting,
            self.gone_at(),
        ]
        .into_iter()
        .flatten()
        // What would have come after its end never happens.
        .filter(|at| self.gone_at().is_none_or(|gone| *at <= gone))
    }

    pub(crate) fn instance(&self, now: Duration) -> Instance {
        Instance {
            id: self.id.clone(),
            owned: self.owned,
            state: if self.is_gone(now) {
                Some(InstanceState::Deleted)
            } else {
                self.state(now, Duration::ZERO)
            },
            requested_at: self.requested,
            running_at: self.running,
            gone_at: self.gone_at(),
            deletions: self.deletions,
            fate: self.fate(),
        }
    }
}
