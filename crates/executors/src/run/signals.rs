//! What can stop a job from outside.

use std::sync::Arc;
use std::time::Duration;

use job::{Deadline, JobFailure};
use tokio::sync::watch;
use tokio::time::Instant;
use trace::RemoteState;

use super::Interrupt;
use crate::foreseen::{Foreseen, Saving, Taken};

/// All that may stop a stage.
#[derive(Clone)]
pub(super) struct Signals {
    remote: watch::Receiver<RemoteState>,
    interrupt: Interrupt,
    job_end: Instant,
    job_timeout: Duration,
    foreseen: Option<Foreseen>,
    saving: Saving,
}

/// What stops a stage besides what stops the whole job.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope {
    /// A user's cancel stops it. After the script it has no effect: what cleans up runs on.
    pub(super) cancel: bool,
    /// A bound of its own.
    pub(super) deadline: Option<(Instant, Deadline, Duration)>,
    /// The job's own timeout and signals do not reach it: it cleans up, within its deadline.
    pub(super) shielded: bool,
    /// It saves what the job leaves: before the end of its instance it may run for longer than the script.
    pub(super) saves: bool,
}

/// Why a stage was stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stopped {
    /// A user cancelled the job.
    Canceled,
    /// GitLab considers the job over.
    Aborted,
    /// The manager was told to stop.
    Interrupted(Arc<str>),
    /// A bound on time was reached.
    TimedOut(Deadline, Duration),
    /// The instance is about to go.
    Taken(Taken),
}

// === impl Signals ===

impl Signals {
    pub(super) fn new(
        remote: watch::Receiver<RemoteState>,
        interrupt: Interrupt,
        job_timeout: Duration,
    ) -> Self {
        Self {
            remote,
            interrupt,
            job_end: Instant::now() + job_timeout,
            job_timeout,
            foreseen: None,
            saving: Saving::ZERO,
        }
    }

    /// The job has a place, for whose instance this is announced, and needs so long to save what it leaves.
    pub(super) fn foresee(&mut self, foreseen: Option<Foreseen>, saving: Saving) {
        self.foreseen = foreseen;
        self.saving = saving;
    }

    /// When the job's time is over.
    pub(super) fn job_end(&self) -> Instant {
        self.job_end
    }

    /// What is left of the job's time.
    pub(super) fn left(&self) -> Duration {
        self.job_end.saturating_duration_since(Instant::now())
    }

    /// GitLab considers the job over.
    pub(super) fn aborted(&self) -> bool {
        *self.remote.borrow() == RemoteState::Aborted
    }

    /// Completes when something stops a stage of this scope.
    pub(super) async fn stopped(&self, scope: Scope) -> Stopped {
        let own = async {
            match scope.deadline {
                Some((at, which, bound)) => {
                    tokio::time::sleep_until(at).await;
                    Stopped::TimedOut(which, bound)
                }
                None => std::future::pending().await,
            }
        };
        if scope.shielded {
            return own.await;
        }
        let mut remote = self.remote.clone();
        let mut interrupt = self.interrupt.clone();
        let told = async {
            let wants = |state: &RemoteState| match state {
                RemoteState::Running => false,
                RemoteState::CancelRequested => scope.cancel,
                RemoteState::Aborted => true,
            };
            match remote.wait_for(wants).await.map(|state| *state) {
                Ok(RemoteState::Aborted) => Stopped::Aborted,
                Ok(RemoteState::CancelRequested) => Stopped::Canceled,
                // The uploader's task is gone: nobody is left who could want anything.
                Ok(RemoteState::Running) | Err(_) => std::future::pending().await,
            }
        };
        let interrupted = async {
            match interrupt.wait_for(Option::is_some).await.map(|signal| signal.clone()) {
                Ok(Some(signal)) => Stopped::Interrupted(signal),
                Ok(None) | Err(_) => std::future::pending().await,
            }
        };
        let job = async {
            tokio::time::sleep_until(self.job_end).await;
            Stopped::TimedOut(Deadline::Job, self.job_timeout)
        };
        let taken = async {
            match &self.foreseen {
                Some(foreseen) => {
                    let saving = if scope.saves { Saving::ZERO } else { self.saving };
                    Stopped::Taken(foreseen.taken(saving).await)
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            stopped = told => stopped,
            stopped = interrupted => stopped,
            stopped = taken => stopped,
            // Bounds that are not set are as long as the job's, which is then the one to name.
            stopped = job => stopped,
            stopped = own => stopped,
        }
    }
}

// === impl Scope ===

impl Scope {
    /// Before and between the steps: everything stops the job.
    pub(super) const BEFORE: Self = Self { cancel: true, deadline: None, shielded: false, saves: false };
    /// After the steps: a cancel comes too late to matter.
    pub(super) const AFTER: Self = Self { cancel: false, deadline: None, shielded: false, saves: true };

    /// The same with a bound.
    pub(super) fn within(self, bound: Duration, which: Deadline) -> Self {
        Self { deadline: Some((Instant::now() + bound, which, bound)), ..self }
    }
}

// === impl Stopped ===

impl Stopped {
    /// How a job ends that was stopped like this.
    pub(super) fn failure(&self) -> JobFailure {
        match self {
            Self::Canceled | Self::Aborted => JobFailure::canceled(),
            Self::Interrupted(signal) => JobFailure::interrupted(signal),
            Self::TimedOut(which, bound) => JobFailure::timeout(*which, *bound),
            Self::Taken(taken) => taken.failure(),
        }
    }
}
