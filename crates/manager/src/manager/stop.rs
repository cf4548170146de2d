//! The end: running jobs, requests under way, executors, in that order.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::requests::REQUEST_PATIENCE;
use super::{Ended, Manager, sleep_until, told};
use crate::control::Shutdown;
use crate::watch::Phase;

impl Manager {
    pub(super) async fn stop(mut self, mut shutdown: watch::Receiver<Shutdown>) -> Ended {
        let mut forced = self.escalate(&shutdown.borrow_and_update().clone());
        if forced.is_none() {
            tracing::info!("Starting graceful shutdown, waiting for builds to finish");
            self.enter(Phase::GracefulShutdown);
        }
        let patience = Instant::now() + REQUEST_PATIENCE;
        let mut requests_over = false;
        loop {
            let (jobs, asking) = self.dispatcher.load();
            if asking > 0 && !requests_over && Instant::now() >= patience {
                requests_over = true;
                self.requests.abort_all();
            }
            if jobs == 0 && (asking == 0 || requests_over) && self.inbox.is_empty() {
                break;
            }
            if forced.is_some_and(|end| Instant::now() >= end) {
                break;
            }
            let wait_for_requests = (asking > 0 && !requests_over).then_some(patience);
            let next = [forced, wait_for_requests].into_iter().flatten().min();
            tokio::select! {
                biased;
                () = told(&mut shutdown), if forced.is_none() => {
                    forced = self.escalate(&shutdown.borrow_and_update().clone());
                }
                Some(event) = self.inbox.recv() => self.handle(event),
                () = sleep_until(next) => {}
            }
        }
        let unfinished: Vec<u64> = self.reporter.jobs.list().iter().map(|line| line.job).collect();
        if !unfinished.is_empty() {
            tracing::error!(jobs = ?unfinished, "jobs had not ended when the time for the shutdown was over");
        }
        let left_behind = self.shut_executors_down().await;
        Ended { unfinished, left_behind, forced: forced.is_some() }
    }

    /// Interrupts running jobs if the shutdown is a forceful one; returns when its time is over.
    fn escalate(&self, state: &Shutdown) -> Option<Instant> {
        let Shutdown::Forceful(signal) = state else { return None };
        tracing::warn!(%signal, "Starting forceful shutdown");
        self.enter(Phase::ForcefulShutdown);
        self.interrupt.send_replace(Some(Arc::clone(signal)));
        Some(Instant::now() + self.config.shutdown_timeout())
    }

    async fn shut_executors_down(&mut self) -> Vec<String> {
        let mut all = JoinSet::new();
        for entry in std::mem::take(&mut self.runners).into_values() {
            if let Some(working) = entry.working {
                all.spawn(async move {
                    let left = working.executor.shutdown().await;
                    left.into_iter().map(|text| format!("{}: {text}", entry.label)).collect::<Vec<_>>()
                });
            }
        }
        let end = Instant::now() + self.config.shutdown_timeout();
        let mut left_behind = Vec::new();
        loop {
            match tokio::time::timeout_at(end, all.join_next()).await {
                Ok(Some(Ok(left))) => left_behind.extend(left),
                Ok(Some(Err(error))) => left_behind.push(format!("an executor ended abnormally: {error}")),
                Ok(None) => break,
                Err(_) => {
                    left_behind.push("an executor did not shut down in time".to_owned());
                    break;
                }
            }
        }
        left_behind
    }
}
