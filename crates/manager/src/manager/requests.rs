//! GitLab is asked for jobs, and answers.

use std::sync::Arc;
use std::time::Duration;

use executors::Reservation;
use gitlab_api::{
    Client, JobCredentials, JobRequestOutcome, JobRequestReply, JobState, JobUpdate, RunnerInfo,
};
use session::Session;
use tokio::sync::watch;

use super::{Event, Manager};
use crate::dispatch::{Answer, Ask, Dispatcher, RunnerIndex};

/// How long requests under way may take to come back once no more jobs are wanted: long enough for any answer that is on its
/// way, so that no job is lost, and not as long as GitLab may hold a request.
pub(super) const REQUEST_PATIENCE: Duration = Duration::from_secs(2);

/// What was claimed for a job before GitLab was asked for it.
pub(super) struct Room {
    pub(super) reservation: Box<dyn Reservation>,
    /// GitLab was told of it with the request.
    pub(super) session: Option<Session>,
}

impl Manager {
    /// Makes every request that may be made now.
    pub(super) fn ask(&mut self) {
        let now = self.now();
        while let Some(Ask { runner, may_wait }) = self.dispatcher.next(now) {
            let Some(entry) = self.runners.get(&runner) else {
                self.dispatcher.refused(runner, now);
                continue;
            };
            entry.watch.entry.turn();
            let Some(working) = entry.working.as_ref() else {
                entry.watch.entry.passed_over();
                self.dispatcher.refused(runner, now);
                continue;
            };
            // Subscribed before the attempt, so that room that comes in between is noticed.
            let mut capacity = working.executor.capacity();
            capacity.borrow_and_update();
            let reservation = match working.executor.reserve() {
                Ok(reservation) => reservation,
                Err(why) => {
                    tracing::debug!(runner = working.entry.label(), %why, "no free executor");
                    self.board.room(runner, &why.0);
                    self.reporter.observer.no_room(&working.entry.label());
                    entry.watch.entry.no_room();
                    self.dispatcher.refused(runner, now);
                    self.listening.listen(runner, capacity, &mut self.requests, &self.events);
                    continue;
                }
            };
            self.board.room(runner, "");
            let client = working.client.clone();
            let session = working.session(&self.around);
            let request = working.job_request(&self.around, may_wait, session.as_ref());
            let room = Box::new(Room { reservation, session });
            let (events, removed) = (self.events.clone(), entry.removed.subscribe());
            self.requests.spawn(async move {
                let reply = tokio::select! {
                    biased;
                    reply = client.request_job(&request) => reply,
                    reply = given_up(removed) => reply,
                };
                let _ = events.send(Event::Answered { runner, reply, room });
            });
            if self.dispatcher.requests_exhausted(runner) {
                entry.watch.entry.requests_exhausted();
            }
            self.tell_requests(runner);
        }
    }

    /// Tells who is interested how many requests of a runner are under way.
    fn tell_requests(&self, runner: RunnerIndex) {
        if let Some(entry) = self.runners.get(&runner)
            && let Some(requests) = self.dispatcher.requests(runner, self.now())
        {
            entry.watch.entry.requests(&requests);
            self.board.requests(runner, &requests);
        }
    }

    pub(super) fn answered(&mut self, runner: RunnerIndex, reply: JobRequestReply, room: Room) {
        let now = self.now();
        let retried = reply.retried;
        let Some(entry) = self.runners.get_mut(&runner) else { return };
        let label = entry.label.clone();
        let correlation_id = reply.correlation_id.as_str();
        let answer = match &reply.outcome {
            JobRequestOutcome::Job(_) => Answer::Job { retried },
            JobRequestOutcome::None => Answer::Nothing { retried, again: reply.ask_again },
            JobRequestOutcome::Forbidden => {
                tracing::error!(
                    runner = label,
                    correlation_id,
                    "Checking for jobs... forbidden: GitLab refuses this runner's token"
                );
                self.board.failed(runner, "asking for jobs: forbidden, GitLab refuses this runner's token");
                Answer::Refused
            }
            JobRequestOutcome::Unavailable => {
                tracing::warn!(
                    runner = label,
                    correlation_id,
                    "Checking for jobs... GitLab instance currently unavailable"
                );
                self.board.failed(runner, "asking for jobs: GitLab is unavailable");
                Answer::Nothing { retried, again: false }
            }
            JobRequestOutcome::Failed(error) if error.is_client_error() => {
                tracing::error!(runner = label, error = error.report(), "Checking for jobs... client error");
                self.board.failed(runner, format!("asking for jobs: {}", error.report()));
                Answer::Refused
            }
            JobRequestOutcome::Failed(error) => {
                tracing::warn!(
                    runner = label,
                    correlation_id,
                    error = error.report(),
                    "Checking for jobs... failed"
                );
                self.board.failed(runner, format!("asking for jobs: {}", error.report()));
                Answer::Nothing { retried, again: false }
            }
            JobRequestOutcome::Undecodable { id, error, .. } => {
                tracing::error!(
                    runner = label,
                    job = id,
                    error = error.report(),
                    "Checking for jobs... received a job that cannot be read; it is reported as failed"
                );
                self.board.failed(runner, format!("job {id} cannot be read: {}", error.report()));
                Answer::Nothing { retried, again: false }
            }
        };
        if !answer.is_job() {
            self.reporter.observer.asked_in_vain(&label);
        }
        let healthy = |dispatcher: &Dispatcher| {
            dispatcher.requests(runner, now).is_none_or(|requests| requests.healthy)
        };
        let was_healthy = healthy(&self.dispatcher);
        self.dispatcher.answered(runner, answer, now);
        if was_healthy && !healthy(&self.dispatcher) {
            entry.watch.entry.turned_unhealthy();
            entry.watch.entry.passed_over();
        }
        self.tell_requests(runner);
        match reply.outcome {
            JobRequestOutcome::Job(received) => {
                let job = self.start_job(runner, *received, room, reply.correlation_id);
                tracing::info!(runner = label, job, "Checking for jobs... received");
            }
            JobRequestOutcome::Undecodable { id, token, .. } => {
                let Some(entry) = self.runners.get(&runner) else { return };
                let Some(working) = entry.working.as_ref() else { return };
                entry.watch.entry.job_unreadable();
                let client = working.client.clone();
                let info = Arc::clone(&working.info);
                let credentials = JobCredentials { id, token: token.0 };
                tokio::spawn(async move { fail(&client, &credentials, info).await });
            }
            JobRequestOutcome::None
            | JobRequestOutcome::Forbidden
            | JobRequestOutcome::Unavailable
            | JobRequestOutcome::Failed(_) => {}
        }
        self.retire_if_done(runner);
    }
}

// === helpers ===

/// Completes when a request of a removed entry has waited long enough.
async fn given_up(mut removed: watch::Receiver<bool>) -> JobRequestReply {
    // Without an entry the manager has ended.
    let _ = removed.wait_for(|removed| *removed).await;
    tokio::time::sleep(REQUEST_PATIENCE).await;
    JobRequestReply {
        outcome: JobRequestOutcome::None,
        retried: false,
        ask_again: false,
        correlation_id: String::new(),
    }
}

/// Tells GitLab that a job that cannot be read has failed, so that it does not wait for its timeout.
async fn fail(client: &Client, credentials: &JobCredentials, info: Arc<RunnerInfo>) {
    let update = JobUpdate {
        state: JobState::Failed,
        failure_reason: Some("runner_system_failure".to_owned()),
        checksum: None,
        bytesize: None,
        exit_code: None,
        info,
    };
    client.update_job(credentials, &update).await;
}
