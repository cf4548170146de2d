//! One stage with its attempts, and what its failure means for the rest.

use job::log::LineKind;
use job::{JobFailure, Stage, StagePlan};

use super::Driver;
use crate::Environment;
use crate::run::signals::{Scope, Stopped};
use crate::run::stage::{self, Ended};

/// How a stage that did not succeed bears on the job.
pub(super) enum Trouble {
    /// The job has failed; what saves and cleans up still runs.
    Failed(JobFailure),
    /// The job was stopped as a whole; only cleaning up is left.
    Halted(JobFailure),
    /// The place is gone: nothing is left to do.
    Lost(JobFailure),
}

impl Driver<'_> {
    /// Runs a stage with its attempts. A stage that has nothing to do is skipped without a trace.
    pub(super) async fn stage(
        &mut self,
        environment: &dyn Environment,
        stage: Stage,
        scope: Scope,
    ) -> Result<(), Trouble> {
        let plan = self.context.plan(stage);
        let (mut attempt, mut vanished) = (1, 0);
        loop {
            let Some(ended) = self.attempt(environment, &plan, scope).await else { return Ok(()) };
            let trouble = match ended {
                Ended::Exited(0) => return Ok(()),
                Ended::Exited(code) => Trouble::Failed(JobFailure::exit_code(code)),
                Ended::Refused(why) => Trouble::Failed(JobFailure::system(why)),
                Ended::Vanished(why) => {
                    vanished += 1;
                    if vanished < self.context.settings().attempts.job_section {
                        self.log.line(LineKind::Warning, format_args!("{why}. Retrying..."));
                        continue;
                    }
                    Trouble::Failed(JobFailure::system(why))
                }
                Ended::Stopped(stopped) => {
                    self.hint(&plan, &stopped);
                    return Err(self.halted(&stopped));
                }
                Ended::Lost(why) => {
                    self.place_failed = true;
                    return Err(Trouble::Lost(JobFailure::system(why)));
                }
            };
            if attempt >= plan.attempts {
                return Err(trouble);
            }
            attempt += 1;
            self.log.line(LineKind::Warning, "Retrying...");
            let pause = self.context.retry_delay(attempt);
            tokio::select! {
                biased;
                stopped = self.signals.stopped(scope) => return Err(self.halted(&stopped)),
                why = environment.lost() => {
                    self.place_failed = true;
                    return Err(Trouble::Lost(JobFailure::system(why)));
                }
                () = tokio::time::sleep(pause) => {}
            }
            if stage == Stage::GetSources && attempt == 2 {
                let clear = self.context.plan(Stage::ClearWorktree);
                // Its result does not matter: the next attempt shows whether it helped.
                self.attempt(environment, &clear, scope).await;
            }
        }
    }

    /// What stopped a stage stops the job. A place that is about to go is left alone: cleaning it would only be in the way of the
    /// job's result.
    fn halted(&mut self, stopped: &Stopped) -> Trouble {
        match stopped {
            Stopped::Taken(taken) => {
                self.place_failed = true;
                self.ended_early = Some(taken.doom.kind);
                self.time_to_save = taken.time_to_save();
                Trouble::Lost(taken.failure())
            }
            Stopped::Canceled | Stopped::Aborted | Stopped::Interrupted(_) | Stopped::TimedOut(..) => {
                Trouble::Halted(stopped.failure())
            }
        }
    }

    async fn attempt(
        &mut self,
        environment: &dyn Environment,
        plan: &StagePlan,
        scope: Scope,
    ) -> Option<Ended> {
        if !self.context.is_needed(plan.stage) {
            return None;
        }
        self.begin(plan);
        if !self.context.cache_keys(plan.stage).is_empty() {
            let signed = tokio::select! {
                biased;
                stopped = self.signals.stopped(scope) => {
                    self.end(plan);
                    return Some(Ended::Stopped(stopped));
                }
                signed = self.caches.sign(&self.context, plan.stage) => signed,
            };
            for warning in &signed.warnings {
                self.log.line(LineKind::Warning, warning);
            }
            self.context.set_remote_caches(signed.addresses);
        }
        let script = self.context.script(plan.stage)?;
        let ended = stage::attempt(
            environment,
            &plan.name,
            script.interpreter.command(),
            script.bytes,
            self.log,
            &self.signals,
            scope,
        )
        .await;
        self.end(plan);
        Some(ended)
    }
}

/// The reported failure is the first one; what it means for the rest is what the second says.
pub(super) fn first(script: Result<(), Trouble>, then: Trouble) -> Trouble {
    let Err(Trouble::Failed(failure) | Trouble::Halted(failure) | Trouble::Lost(failure)) = script else {
        return then;
    };
    match then {
        Trouble::Failed(_) => Trouble::Failed(failure),
        Trouble::Halted(_) => Trouble::Halted(failure),
        Trouble::Lost(_) => Trouble::Lost(failure),
    }
}
