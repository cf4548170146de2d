//! The stages of a job in their order.

mod attempts;
mod lines;

use std::time::Duration;

use job::log::LineKind;
use job::{Context, Deadline, FailureReason, JobFailure, JobResult, JobStatus, Outcome, Stage, Timeouts};
use session::Session;
use taskscaler::DoomKind;
use trace::JobLog;

use super::JobWatcher;
use super::signals::{Scope, Signals};
use crate::foreseen::Saving;
use crate::{CacheAddresses, Environment, Executor, PrepareError, PrepareRequest, Reservation};
use attempts::{Trouble, first};

/// Bound of the last stage, which runs whatever happened.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(60);
/// Exit code of a shell that cannot find the program it is to run.
const NOT_FOUND: i32 = 127;

/// Runs one job's stages.
pub(super) struct Driver<'a> {
    executor: &'a dyn Executor,
    watcher: &'a dyn JobWatcher,
    caches: &'a dyn CacheAddresses,
    context: Context,
    log: &'a JobLog,
    signals: Signals,
    timeouts: Timeouts,
    sections: bool,
    shell: &'static str,
    /// The place's first stage succeeded.
    prepared: bool,
    /// The place itself failed.
    place_failed: bool,
    /// The job was stopped because this was announced.
    ended_early: Option<DoomKind>,
    /// Until its instance goes, what a job leaves can be saved for this long.
    time_to_save: Option<Duration>,
}

/// The place of a job that has run its last stage.
pub(super) struct Vacated {
    environment: Box<dyn Environment>,
    /// Another job may use it.
    healthy: bool,
    /// The job was stopped because this was announced for its instance.
    pub(super) ended_early: Option<DoomKind>,
}

// === impl Vacated ===

impl Vacated {
    /// Gives the place back.
    pub(super) async fn close(self) {
        self.environment.close(self.healthy).await;
    }
}

// === impl Driver ===

impl<'a> Driver<'a> {
    pub(super) fn new(
        executor: &'a dyn Executor,
        watcher: &'a dyn JobWatcher,
        caches: &'a dyn CacheAddresses,
        shell: &'static str,
        context: Context,
        log: &'a JobLog,
        signals: Signals,
    ) -> Self {
        Self {
            executor,
            watcher,
            caches,
            timeouts: context.timeouts(),
            sections: context.job().features.trace_sections,
            shell,
            context,
            log,
            signals,
            prepared: false,
            place_failed: false,
            ended_early: None,
            time_to_save: None,
        }
    }

    /// Runs the job. With its result comes the place, to be given back.
    pub(super) async fn drive(
        mut self,
        reservation: Box<dyn Reservation>,
        session: Option<Session>,
    ) -> (JobResult, Option<Vacated>) {
        self.greet();
        let environment = match self.prepare(reservation).await {
            Ok(environment) => environment,
            Err(failure) => return (JobResult::Failed(failure), None),
        };
        if let Some(helper) = environment.helper() {
            self.context.set_helper(helper.clone());
        }
        for (name, value) in environment.variables() {
            self.context.set_variable(name, &value);
        }
        self.watcher.placed(self.context.job().id, environment.place());
        if let Some((session, terminals)) =
            session.as_ref().zip(environment.terminals(&self.context.project_dir()))
        {
            session.offer(terminals);
        }
        let foreseen = environment.foreseen();
        let saving = if self.has_something_to_save() { self.executor.time_to_save() } else { Saving::ZERO };
        self.signals.foresee(foreseen.clone(), saving);
        let (log, job, job_end) = (self.log, self.context.job().id, self.signals.job_end());
        let tell = async {
            match &foreseen {
                Some(foreseen) => foreseen.tell(job, log, job_end, saving).await,
                None => std::future::pending().await,
            }
        };
        let outcome = tokio::select! {
            biased;
            never = tell => match never {},
            outcome = self.stages(&*environment) => outcome,
        };
        let stays = !matches!(outcome, Err(Trouble::Lost(_))) && self.ended_early.is_none();
        if let Some(session) = session.filter(|_| stays) {
            self.see_off(&session, &*environment).await;
        }
        if self.prepared && stays {
            self.clean_up(&*environment).await;
        }
        let vacated = Vacated { environment, healthy: !self.place_failed, ended_early: self.ended_early };
        let result = match outcome {
            Ok(()) => JobResult::Success,
            Err(Trouble::Failed(failure) | Trouble::Halted(failure) | Trouble::Lost(failure)) => {
                JobResult::Failed(failure)
            }
        };
        (result, Some(vacated))
    }

    /// Somebody who is connected may look around after the last stage, until they leave, their time is over, or the job is stopped.
    async fn see_off(&self, session: &Session, environment: &dyn Environment) {
        tokio::select! {
            biased;
            _ = self.signals.stopped(Scope::BEFORE) => {}
            _ = environment.lost() => {}
            () = session.finished(|line| self.log.line(LineKind::Info, line)) => {}
        }
    }

    async fn prepare(
        &mut self,
        reservation: Box<dyn Reservation>,
    ) -> Result<Box<dyn Environment>, JobFailure> {
        let plan = self.context.plan(Stage::PrepareExecutor);
        self.begin(&plan);
        let scope = Scope::BEFORE.within(self.timeouts.prepare, Deadline::Prepare);
        let request = PrepareRequest {
            job: self.context.job().id,
            timeout: self.timeouts.prepare.min(self.signals.left()),
            context: &self.context,
        };
        let prepared = tokio::select! {
            biased;
            stopped = self.signals.stopped(scope) => Err(stopped.failure()),
            prepared = self.executor.prepare(reservation, &request, self.log) => prepared.map_err(|error| match error {
                PrepareError::Configuration(_) => {
                    JobFailure::new(FailureReason::RunnerConfigurationError, error.to_string())
                }
                PrepareError::ImagePull(_) => JobFailure::new(FailureReason::ImagePullFailure, error.to_string()),
                PrepareError::ExternalDependency(_) => {
                    JobFailure::new(FailureReason::RunnerExternalDependencyFailure, error.to_string())
                }
                PrepareError::System(_) => JobFailure::system(error.to_string()),
                PrepareError::TimedOut(bound) => JobFailure::timeout(Deadline::Prepare, bound),
            }),
        };
        self.end(&plan);
        prepared
    }

    /// Everything between preparation and cleaning up.
    async fn stages(&mut self, environment: &dyn Environment) -> Result<(), Trouble> {
        let prepared = self.stage(environment, Stage::PrepareScript, Scope::BEFORE).await;
        prepared.map_err(|trouble| self.not_prepared(trouble, environment))?;
        self.prepared = true;

        let before = self.before_steps(environment).await;
        let script = match before {
            Ok(()) => self.steps(environment).await,
            Err(Trouble::Failed(failure)) => Err(Trouble::Failed(failure)),
            Err(trouble @ (Trouble::Halted(_) | Trouble::Lost(_))) => return Err(trouble),
        };
        if let Err(trouble @ (Trouble::Halted(_) | Trouble::Lost(_))) = script {
            return Err(trouble);
        }
        let outcome = if script.is_ok() { Outcome::Success } else { Outcome::Failure };
        let (cache, artifacts) = (Stage::ArchiveCache(outcome), Stage::UploadArtifacts(outcome));
        // In what is left of an instance that goes, what cannot be made again comes first.
        let stages = if self.time_to_save.is_some() { [artifacts, cache] } else { [cache, artifacts] };
        let mut result = script;
        for stage in stages {
            let saved = self.stage(environment, stage, Scope::AFTER).await;
            if let Err(trouble @ (Trouble::Halted(_) | Trouble::Lost(_))) = saved {
                return Err(first(result, trouble));
            }
            result = result.and(saved);
        }
        result
    }

    /// Whether anything runs after a script that was stopped.
    fn has_something_to_save(&self) -> bool {
        let stages = [
            Stage::AfterScript,
            Stage::UploadArtifacts(Outcome::Failure),
            Stage::ArchiveCache(Outcome::Failure),
        ];
        stages.into_iter().any(|stage| self.context.is_needed(stage))
    }

    /// Checkout, caches, artifacts of earlier jobs.
    async fn before_steps(&mut self, environment: &dyn Environment) -> Result<(), Trouble> {
        let bound = self.timeouts.get_sources;
        let scope = Scope::BEFORE.within(bound, Deadline::GetSources);
        self.stage(environment, Stage::GetSources, scope).await?;
        self.stage(environment, Stage::RestoreCache, Scope::BEFORE).await?;
        self.stage(environment, Stage::DownloadArtifacts, Scope::BEFORE).await
    }

    /// The job's own commands, then `after_script`.
    async fn steps(&mut self, environment: &dyn Environment) -> Result<(), Trouble> {
        self.policy();
        let scope = self.script_scope();
        let mut result = Ok(());
        for index in 0..self.context.job().steps.len() {
            let step = Stage::Step(index);
            if self.context.job().steps[index].name == "after_script" {
                continue;
            }
            result = self.stage(environment, step, scope).await;
            if result.is_err() {
                break;
            }
        }
        let (status, result) = match result {
            Ok(()) => (JobStatus::Success, Ok(())),
            Err(Trouble::Halted(failure))
                if failure.reason == FailureReason::JobCanceled && !self.aborted() =>
            {
                self.log.line(LineKind::Warning, "script canceled externally (UI, API)");
                (JobStatus::Canceled, Err(Trouble::Failed(failure)))
            }
            Err(Trouble::Halted(failure)) if self.script_timed_out(&failure) => {
                (JobStatus::TimedOut, Err(Trouble::Failed(failure)))
            }
            Err(Trouble::Lost(failure)) if self.time_to_save.is_some() => {
                self.log.line(
                    LineKind::Warning,
                    "The script was stopped, because its instance will be taken away. What saves its results runs until then.",
                );
                (JobStatus::Failed, Err(Trouble::Failed(failure)))
            }
            Err(Trouble::Failed(failure)) => (JobStatus::Failed, Err(Trouble::Failed(failure))),
            Err(trouble @ (Trouble::Halted(_) | Trouble::Lost(_))) => return Err(trouble),
        };
        self.context.set_status(status);
        self.after_script(environment, result).await
    }

    /// The bound of the steps, and a word about bounds that cannot hold.
    fn script_scope(&self) -> Scope {
        let left = self.signals.left();
        let after = "RUNNER_AFTER_SCRIPT_TIMEOUT";
        let asked = self.context.variables().find(after).map(|_| self.timeouts.after_script);
        let (_, after_warning) = Timeouts::within(asked, left, after);
        let (bound, warning) = Timeouts::within(self.timeouts.script, left, "RUNNER_SCRIPT_TIMEOUT");
        for warning in [&warning, &after_warning].into_iter().flatten() {
            self.log.line(LineKind::Warning, warning);
        }
        match self.timeouts.script {
            Some(_) if warning.is_none() => Scope::BEFORE.within(bound, Deadline::Script),
            Some(_) | None => Scope::BEFORE,
        }
    }

    async fn after_script(
        &mut self,
        environment: &dyn Environment,
        script: Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        // Of the time before the end of an instance, the other half is for artifacts and caches.
        let bound = self
            .time_to_save
            .map_or(self.timeouts.after_script, |left| self.timeouts.after_script.min(left / 2));
        let scope = Scope::AFTER.within(bound, Deadline::AfterScript);
        match self.stage(environment, Stage::AfterScript, scope).await {
            Ok(()) => script,
            Err(Trouble::Lost(failure)) => Err(first(script, Trouble::Lost(failure))),
            Err(Trouble::Halted(failure)) if self.still_going(&failure) => {
                Err(first(script, Trouble::Halted(failure)))
            }
            Err(Trouble::Halted(failure) | Trouble::Failed(failure)) => {
                if !self.context.settings().after_script_ignores_errors {
                    return Err(first(script, Trouble::Failed(failure)));
                }
                self.log.line(
                    LineKind::Warning,
                    format_args!("after_script failed, but job will continue unaffected: {failure}"),
                );
                script
            }
        }
    }

    /// The last stage; its errors are the manager's to know, not the job's.
    async fn clean_up(&mut self, environment: &dyn Environment) {
        let scope = Scope { shielded: true, ..Scope::AFTER }.within(CLEANUP_TIMEOUT, Deadline::Job);
        if let Err(Trouble::Failed(failure) | Trouble::Halted(failure) | Trouble::Lost(failure)) =
            self.stage(environment, Stage::CleanupFileVariables, scope).await
        {
            tracing::warn!(job = self.context.job().id, %failure, "cleaning up after the job failed");
        }
    }

    /// A first stage that fails says that the place is not fit for the job's shell.
    fn not_prepared(&self, trouble: Trouble, environment: &dyn Environment) -> Trouble {
        match trouble {
            Trouble::Failed(failure) if failure.exit_code == Some(NOT_FOUND) => {
                let shell = self.shell;
                Trouble::Failed(JobFailure::system(format!(
                    "prepare environment: the shell `{shell}` was not found on {}: install it there, or set `shell` \
                     to one that is there (`sh`)",
                    environment.place()
                )))
            }
            Trouble::Failed(failure) => Trouble::Failed(JobFailure::environment(failure)),
            trouble @ (Trouble::Halted(_) | Trouble::Lost(_)) => trouble,
        }
    }

    fn aborted(&self) -> bool {
        self.signals.aborted()
    }

    /// The script's own bound was reached, not the job's.
    fn script_timed_out(&self, failure: &JobFailure) -> bool {
        failure.reason == FailureReason::JobExecutionTimeout && !self.signals.left().is_zero()
    }

    /// Whether what stopped `after_script` stops the job as well.
    fn still_going(&self, failure: &JobFailure) -> bool {
        match failure.reason {
            FailureReason::JobExecutionTimeout => self.signals.left().is_zero(),
            FailureReason::ScriptFailure
            | FailureReason::RunnerSystemFailure
            | FailureReason::ImagePullFailure
            | FailureReason::UnknownFailure
            | FailureReason::RunnerConfigurationError
            | FailureReason::RunnerExternalDependencyFailure
            | FailureReason::RunnerInterrupted
            | FailureReason::JobCanceled => true,
        }
    }
}
