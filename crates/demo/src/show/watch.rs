//! Hears what the manager does and passes it on, with the moment at which it happened.

use std::sync::Arc;
use std::time::Duration;

use manager::Observer;
use taskscaler::Report;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use crate::model::Event;

/// What happened, and when.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) at: Instant,
    pub(crate) event: Event,
}

/// The manager's observer. It never waits for whoever listens.
#[derive(Debug)]
pub(crate) struct Watcher {
    listener: UnboundedSender<Told>,
}

/// Everything that can wake the demonstration.
pub(crate) struct Ears {
    told: UnboundedReceiver<Told>,
    ticks: Interval,
    /// The scaler's decisions, once there is a scaler.
    pub(crate) decisions: Option<watch::Receiver<Option<Arc<Report>>>>,
}

/// What woke it.
#[derive(Debug)]
pub(crate) enum Heard {
    Told(Told),
    /// There is a new decision.
    Decided,
    Tick,
}

// === impl Watcher ===

impl Watcher {
    pub(crate) fn new() -> (Self, UnboundedReceiver<Told>) {
        let (listener, told) = mpsc::unbounded_channel();
        (Self { listener }, told)
    }

    fn tell(&self, event: Event) {
        // Nobody listens any more once the demonstration is over.
        let _ = self.listener.send(Told { at: Instant::now(), event });
    }
}

impl Observer for Watcher {
    fn job_received(&self, _runner: &str, job: u64, _queued: Duration) {
        self.tell(Event::Received { job });
    }

    fn job_placed(&self, job: u64, place: &str) {
        let instance = place.strip_prefix("instance ").unwrap_or(place).to_owned();
        self.tell(Event::Placed { job, instance });
    }

    fn job_stage(&self, job: u64, stage: &str) {
        self.tell(Event::Stage { job, stage: stage.to_owned() });
    }

    fn job_ended(&self, _runner: &str, job: u64, failure: Option<&str>, _duration: Duration) {
        self.tell(Event::Ended { job, failure: failure.map(str::to_owned) });
    }
}

// === impl Ears ===

impl Ears {
    pub(crate) fn new(told: UnboundedReceiver<Told>, frame: Duration) -> Self {
        let mut ticks = interval(frame);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { told, ticks, decisions: None }
    }

    /// Waits for the next thing to happen. May be dropped at any time without losing anything.
    pub(crate) async fn listen(&mut self) -> Heard {
        tokio::select! {
            Some(told) = self.told.recv() => Heard::Told(told),
            () = changed(self.decisions.as_mut()) => Heard::Decided,
            _ = self.ticks.tick() => Heard::Tick,
        }
    }

    /// What was told and not heard yet.
    pub(crate) fn already_told(&mut self) -> Option<Told> {
        self.told.try_recv().ok()
    }

    /// The last decision.
    pub(crate) fn report(&self) -> Option<Arc<Report>> {
        self.decisions.as_ref().and_then(|decisions| decisions.borrow().clone())
    }
}

/// Waits for a new decision; for ever where none can come.
async fn changed(decisions: Option<&mut watch::Receiver<Option<Arc<Report>>>>) {
    if let Some(decisions) = decisions
        && decisions.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}
