//! The loop: decide, apply, look again.

mod stop;
mod tending;

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use fleeting::{GroupInfo, InstanceGroup, with_causes};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use status::Kind as MomentKind;
use taskscaler_core::{Deletion, InstanceId, Plan};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::clock::sleep_until;
use crate::lease::Leasing;
use crate::provider::{self, Answer, Call, Kind};
use crate::shared::Shared;
use crate::translate::{failure, retry_after, seen};
use crate::voice::{Voice, note};
use crate::watching::{Watcher, Word};
use crate::{Leftover, Settings};

/// Least deadline of a call to the provider.
const CALL_DEADLINE: Duration = Duration::from_secs(60);

/// What a scaler does by itself.
pub(crate) struct Engine {
    shared: Arc<Shared>,
    group: Arc<dyn InstanceGroup>,
    settings: Settings,
    info: Arc<GroupInfo>,
    delete_at_stop: watch::Receiver<bool>,
    /// The one listing or change under way.
    call: Option<Call>,
    /// The provider's next hint; kept across rounds so that none is missed between them.
    hint: Option<BoxFuture<'static, ()>>,
    next_update: Instant,
    /// When the last listing came in.
    updated: Instant,
    background: JoinSet<()>,
    /// What plans have asked for and no call has taken up yet: a plan says each thing once.
    to_launch: u32,
    to_delete: Vec<Deletion>,
    voice: Voice,
    /// Whose the group is.
    lease: Leasing,
}

// === impl Engine ===

impl Engine {
    pub(crate) fn new(
        shared: Arc<Shared>,
        group: Arc<dyn InstanceGroup>,
        settings: Settings,
        info: Arc<GroupInfo>,
        delete_at_stop: watch::Receiver<bool>,
        words: mpsc::UnboundedReceiver<Word>,
    ) -> Self {
        let runner = Arc::clone(&settings.runner);
        let watcher =
            Watcher::new(Arc::clone(&shared), Arc::clone(&settings.ready), Arc::clone(&runner), words);
        let mut background = JoinSet::new();
        background.spawn(watcher.run());
        Self {
            voice: Voice::new(runner, shared.clock, Arc::clone(&shared.diary)),
            lease: Leasing::new(settings.lease.as_ref(), &*group),
            shared,
            group,
            settings,
            info,
            delete_at_stop,
            call: None,
            hint: None,
            next_update: Instant::now(),
            updated: Instant::now(),
            background,
            to_launch: 0,
            to_delete: Vec::new(),
        }
    }

    pub(crate) async fn run(mut self) -> Leftover {
        while !self.shared.stopping.is_cancelled() {
            let plan = self.decide();
            self.apply(&plan);
            self.wait(&plan, None).await;
        }
        self.stop().await
    }

    fn decide(&mut self) -> Plan {
        self.tell_owner();
        let (plan, report, lost, notices) = {
            let mut inner = self.shared.lock();
            let (plan, report) = inner.core.decide(self.shared.clock.now());
            let lost = self.shared.deliver(&mut inner);
            let notices: Vec<_> = std::iter::from_fn(|| inner.core.poll_notice()).collect();
            (plan, report, lost, notices)
        };
        for notice in notices {
            self.settings.observer.noticed(&notice);
            self.voice.notice(notice);
        }
        for claim in lost {
            let shared = Arc::clone(&self.shared);
            self.background.spawn(async move { shared.tell_lost(claim).await });
        }
        self.voice.decision(&report);
        self.to_launch += plan.launch;
        self.to_delete.extend(plan.delete.iter().cloned());
        let changed = self.shared.report.borrow().as_deref() != Some(&report);
        if changed {
            let report = Arc::new(report);
            self.settings.observer.decided(&report);
            self.shared.report.send_replace(Some(report));
        }
        plan
    }

    /// Tells the core, and who looks at it, whose the group is.
    fn tell_owner(&mut self) {
        let now = self.shared.clock.now();
        let words = self.lease.words();
        {
            let mut said = self.shared.lease.lock().unwrap_or_else(PoisonError::into_inner);
            if *said != words {
                *said = words;
            }
        }
        let Some(elsewhere) = self.lease.news(now) else { return };
        let holder = self.lease.holder().map(|owner| Arc::from(owner.to_string()));
        self.shared.lock().core.stand_by(elsewhere, now);
        self.shared.elsewhere.send_replace(holder);
        self.shared.capacity_changed();
    }

    fn apply(&mut self, plan: &Plan) {
        for (id, origin) in &plan.ready_up {
            tracing::debug!(instance = %id, ?origin, "making the instance ready");
            self.background.spawn(tending::ready_up(
                Arc::clone(&self.shared),
                self.settings.clone(),
                id.clone(),
            ));
        }
        for id in &plan.check {
            let probe = self.info.has_heartbeat;
            self.background.spawn(tending::check(
                Arc::clone(&self.shared),
                self.settings.clone(),
                id.clone(),
                probe,
            ));
        }
        self.start_call();
    }

    /// Starts the most urgent call. A listing under way gives way to a change, unless the picture is getting old.
    fn start_call(&mut self) {
        let ours = self.lease.may_act(self.shared.clock.now());
        let change = ours && (self.to_launch > 0 || !self.to_delete.is_empty());
        match self.call.as_ref().map(|call| call.kind) {
            Some(Kind::Increase | Kind::Decrease) => return,
            Some(Kind::Update) if !change || self.updated.elapsed() > self.settings.update_interval => return,
            Some(Kind::Update) | None => {}
        }
        let deadline = self.settings.update_interval.max(CALL_DEADLINE);
        let group = Arc::clone(&self.group);
        if ours && self.to_launch > 0 {
            let amount = std::mem::take(&mut self.to_launch);
            tracing::info!(runner = %self.settings.runner, group = %self.info.id, amount, "increasing instances");
            self.call = Some(provider::increase(group, amount, deadline));
        } else if ours && !self.to_delete.is_empty() {
            let deletions = std::mem::take(&mut self.to_delete);
            tracing::info!(runner = %self.settings.runner, group = %self.info.id, amount = deletions.len(), "decreasing instances");
            let ids =
                deletions.iter().map(|deletion| fleeting::InstanceId::from(deletion.id.as_str())).collect();
            self.call = Some(provider::decrease(group, ids, deadline));
        } else if self.next_update <= Instant::now() {
            self.call = Some(provider::update(group, deadline));
        }
    }

    /// Waits until there is reason to look again.
    async fn wait(&mut self, plan: &Plan, until: Option<Instant>) {
        let hint = self.hint.get_or_insert_with(|| {
            let group = Arc::clone(&self.group);
            async move { group.changed().await }.boxed()
        });
        if self.call.is_none() {
            let interval = if plan.expecting {
                self.settings.update_interval_when_expecting
            } else {
                self.settings.update_interval
            };
            self.next_update = self.next_update.min(self.updated + interval);
            if let Some(mono) = self.lease.look_again() {
                self.next_update = self.next_update.min(self.shared.clock.instant(mono));
            }
        }
        let next_update = self.call.is_none().then_some(self.next_update);
        let wake_at = plan.wake_at.map(|mono| self.shared.clock.instant(mono));
        let sleep = [wake_at, next_update, until].into_iter().flatten().min();
        tokio::select! {
            biased;
            () = self.shared.stopping.cancelled(), if until.is_none() => {}
            answer = answer_of(self.call.as_mut()), if self.call.is_some() => {
                if let Some(call) = self.call.take() {
                    self.settings.observer.called(&answer.call(call.began.elapsed()));
                }
                self.answered(answer);
            }
            outcome = self.lease.written() => {
                let now = self.shared.clock.now();
                if self.lease.wrote(outcome, now, &self.voice) {
                    self.next_update = Instant::now();
                }
            }
            () = self.shared.wake.notified() => {}
            () = &mut *hint => {
                self.hint = None;
                self.next_update = Instant::now();
            }
            Some(done) = self.background.join_next(), if !self.background.is_empty() => {
                if let Err(error) = done && error.is_panic() {
                    tracing::error!(%error, "a task of the scaler panicked");
                }
            }
            () = sleep_until(sleep) => {}
        }
    }

    fn answered(&mut self, answer: Answer) {
        let now = self.shared.clock.now();
        match answer {
            Answer::Updated(Ok(listing)) => {
                self.updated = Instant::now();
                self.next_update = self.updated + self.settings.update_interval;
                self.lease.look(&self.group, now, &self.voice);
                if !self.lease.has_begun() {
                    // What is there is another's, or nobody's yet: it is looked at anew when it is one's own.
                    return;
                }
                let seen: Vec<taskscaler_core::Seen> = listing.iter().map(seen).collect();
                self.resized();
                self.shared.lock().core.observe(&seen, now);
                let listed: std::collections::BTreeSet<&str> =
                    listing.iter().map(|line| line.id.as_str()).collect();
                for id in self.shared.retain_connect_infos(|id| listed.contains(id.as_str())) {
                    self.settings.ready.forget(&fleeting::InstanceId::from(id.as_str()));
                    // Without a watcher the scaler has ended.
                    let _ = self.shared.watcher.send(Word::Gone(id));
                }
                self.shared.capacity_changed();
            }
            Answer::Updated(Err(error)) => {
                // The last picture stays in force; the next look is an interval away, however the call failed.
                self.updated = Instant::now();
                self.next_update =
                    self.updated + retry_after(&error, self.settings.update_interval_when_expecting);
                self.voice.failed("listing the group", &error);
                tracing::warn!(runner = %self.settings.runner, group = %self.info.id, error = with_causes(&error), "failed to list the group");
            }
            Answer::Increased { asked, outcome } => {
                self.next_update = Instant::now();
                if let Some(error) = &outcome.error {
                    self.voice.failed(&format!("asking for {asked} instances, got {}", outcome.done), error);
                    tracing::warn!(runner = %self.settings.runner, group = %self.info.id, num_requested = asked,
                        num_successful = outcome.done, err = with_causes(error), "increasing instances failure");
                }
                let failure = outcome.error.as_ref().map(failure);
                self.shared.lock().core.increased(asked, outcome.done, failure, now);
            }
            Answer::Decreased { asked, outcome } => {
                self.next_update = Instant::now();
                if let Some(error) = &outcome.error {
                    self.voice.failed(
                        &format!("deleting {} instances, done {}", asked.len(), outcome.done.len()),
                        error,
                    );
                    tracing::warn!(runner = %self.settings.runner, group = %self.info.id, num_requested = asked.len(),
                        num_successful = outcome.done.len(), err = with_causes(error), "decreasing instances failure");
                }
                for id in &outcome.done {
                    self.settings.ready.forget(id);
                }
                let failure = outcome.error.as_ref().map(failure);
                let ids = |ids: &[fleeting::InstanceId]| -> Vec<InstanceId> {
                    ids.iter().map(|id| InstanceId::from(id.as_str())).collect()
                };
                self.shared.lock().core.decreased(&ids(&asked), &ids(&outcome.done), failure, now);
            }
        }
    }

    /// Takes in that the group can hold more or fewer instances than before.
    fn resized(&self) {
        let lacking = self.group.lacking();
        let Some(size) = self.group.max_size() else { return };
        let (before, config) = {
            let mut inner = self.shared.lock();
            inner.core.lacks(lacking.clone());
            let before = inner.core.config().group_max_size;
            if before == Some(size) {
                return;
            }
            let config =
                taskscaler_core::Config { group_max_size: Some(size), ..inner.core.config().clone() };
            inner.core.configure(config.clone(), self.shared.clock.now());
            (before.unwrap_or(0), config)
        };
        self.settings.observer.configured(&config);
        let because = lacking.map_or_else(String::new, |why| format!(": {why}"));
        let words = format!("the group's max size was changed from {before} to {size}{because}");
        note(&self.shared.diary, &self.shared.clock, MomentKind::Policy, words);
        tracing::info!(runner = %self.settings.runner, group = %self.info.id, before, max_size = size,
            max_instances = config.max_instances, "the group's max size was changed{because}");
    }
}

// === helpers ===

async fn answer_of(call: Option<&mut Call>) -> Answer {
    match call {
        Some(call) => (&mut call.answer).await,
        None => std::future::pending().await,
    }
}
