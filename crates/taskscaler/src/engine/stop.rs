//! The end of a scaler.

use std::sync::Arc;
use std::time::Duration;

use fleeting::with_causes;
use tokio::time::Instant;

use super::{CALL_DEADLINE, Engine};
use crate::observe::{CallKind, CallOutcome, ProviderCall};
use crate::{Leftover, provider};

/// How long a claim to the group that is not decided yet may delay the end.
const CLAIM: Duration = Duration::from_secs(15);

impl Engine {
    /// An end that comes right after the start waits until it is known whose the group is.
    async fn settle_claim(&mut self) {
        let end = Instant::now() + CLAIM;
        while self.lease.is_undecided() && Instant::now() < end {
            let plan = self.decide();
            self.apply(&plan);
            self.wait(&plan, Some(end)).await;
        }
    }

    /// The end: with deletion, goes on deciding and applying until nothing is left or the tries are used up.
    pub(super) async fn stop(mut self) -> Leftover {
        if *self.delete_at_stop.borrow() {
            self.settle_claim().await;
        }
        // What is another's is not deleted.
        let ours = self.lease.may_act(self.shared.clock.now());
        let delete = *self.delete_at_stop.borrow() && ours;
        self.shared.lock().core.begin_shutdown(delete, self.shared.clock.now());
        self.background.abort_all();
        let mut leftover = Leftover::default();
        if delete {
            let pause = self.settings.shutdown_deletion_interval;
            let end = Instant::now() + pause * self.settings.shutdown_deletion_retries.max(1);
            self.next_update = Instant::now();
            loop {
                let plan = self.decide();
                self.apply(&plan);
                leftover.instances =
                    self.shared.lock().core.instances(self.shared.clock.now()).map(|line| line.id).collect();
                let settled = self.call.is_none() && !plan.expecting;
                if (leftover.instances.is_empty() && settled) || Instant::now() >= end {
                    break;
                }
                self.wait(&plan, Some(end)).await;
            }
            if !leftover.instances.is_empty() {
                tracing::warn!(runner = %self.settings.runner, group = %self.info.id, instances = ?leftover.instances,
                    "instances are left that should have been deleted");
            }
        }
        self.lease.release(&*self.group, &self.voice).await;
        let deadline = self.settings.update_interval.max(CALL_DEADLINE);
        let began = Instant::now();
        let ended =
            provider::bounded(deadline, "shutting the instance group down", self.group.shutdown()).await;
        let outcome = CallOutcome::of(ended.as_ref().err());
        self.settings.observer.called(&ProviderCall::new(CallKind::Shutdown, outcome, began.elapsed()));
        if let Err(error) = ended {
            tracing::warn!(runner = %self.settings.runner, group = %self.info.id, error = with_causes(&error), "failed to shut the instance group down");
        }
        self.shared.lock().save();
        // It waits for the disk.
        let store = Arc::clone(&self.settings.store);
        if let Err(error) = tokio::task::spawn_blocking(move || store.close()).await {
            tracing::error!(%error, "closing the scaler's ledger ended abnormally");
        }
        leftover
    }
}
