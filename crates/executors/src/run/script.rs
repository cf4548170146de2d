//! The stages of a job in their order, and what the failure of each means for the rest.

use std::time::Duration;

use job::log::LineKind;
use job::{
    Context, Deadline, FailureReason, JobFailure, JobResult, JobStatus, Outcome, Stage, StagePlan, Timeouts,
};
use session::Session;
use taskscaler::DoomKind;
use trace::JobLog;

use super::JobWatcher;
use super::signals::{Scope, Signals, Stopped};
use super::stage::{self, Ended};
use crate::foreseen::Saving;
use crate::{CacheAddresses, Environment, Executor, PrepareError, PrepareRequest, Reservation};

/// Bound of the last stage, which runs whatever happened.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(60);
/// Where GitLab explains the bounds on time.
const TIMEOUTS_PAGE: &str =
    "https://docs.gitlab.com/ci/runners/configure_runners/#set-script-and-after_script-timeouts";
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

/// How a stage that did not succeed bears on the job.
enum Trouble {
    /// The job has failed; what saves and cleans up still runs.
    Failed(JobFailure),
    /// The job was stopped as a whole; only cleaning up is left.
    Halted(JobFailure),
    /// The place is gone: nothing is left to do.
    Lost(JobFailure),
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

    /// First lines of the log.
    fn greet(&self) {
        for (index, line) in self.context.header().iter().enumerate() {
            self.log.line(if index == 0 { LineKind::Info } else { LineKind::Plain }, line);
        }
        if !self.context.warnings().is_empty() {
            self.log.line(LineKind::Warning, self.context.warnings().join("\n"));
        }
        for name in self.context.job().secrets.keys() {
            self.log
                .line(LineKind::Warning, format_args!("Not resolved: no provider for the secret of {name}"));
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

    /// What a security policy of GitLab has to do with the job.
    fn policy(&self) {
        let policy = &self.context.job().policy_options;
        if !policy.execution_policy_job || policy.policy_name.is_empty() {
            return;
        }
        self.log.line(LineKind::Info, format_args!("Job triggered by policy \"{}\".", policy.policy_name));
        let variables = match policy.policy_variables_override_allowed {
            None => {
                self.log.line(
                    LineKind::Info,
                    "Variables defined in the policy take precedence over matching user-defined CI/CD variables for this job.",
                );
                return;
            }
            Some(true) => "allowed",
            Some(false) => "ignored",
        };
        let except = match &policy.policy_variables_override_exceptions[..] {
            [] => String::new(),
            names => format!(" (except for {})", names.join(", ")),
        };
        self.log.line(
            LineKind::Info,
            format_args!(
                "User-defined CI/CD variables are {variables} in this job{except} according to the pipeline execution policy."
            ),
        );
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
                if script.is_ok() && !self.context.settings().after_script_ignores_errors {
                    return Err(Trouble::Failed(failure));
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

    /// Runs a stage with its attempts. A stage that has nothing to do is skipped without a trace.
    async fn stage(
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

    fn begin(&self, plan: &StagePlan) {
        self.watcher.stage(self.context.job().id, &plan.name);
        if self.sections {
            self.log.section_start(&plan.name, &plan.title);
        } else {
            self.log.line(LineKind::Title, &plan.title);
        }
    }

    fn end(&self, plan: &StagePlan) {
        if self.sections {
            self.log.section_end(&plan.name);
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

    /// Says which stage a bound on time has cut.
    fn hint(&self, plan: &StagePlan, stopped: &Stopped) {
        if let Stopped::TimedOut(_, _) = stopped {
            self.log.line(
                LineKind::Warning,
                format_args!(
                    "{} could not run to completion because the timeout was exceeded. For more control over job and \
                     script timeouts see: {TIMEOUTS_PAGE}",
                    plan.name
                ),
            );
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

/// The reported failure is the first one; what it means for the rest is what the second says.
fn first(script: Result<(), Trouble>, then: Trouble) -> Trouble {
    let Err(Trouble::Failed(failure) | Trouble::Halted(failure) | Trouble::Lost(failure)) = script else {
        return then;
    };
    match then {
        Trouble::Failed(_) => Trouble::Failed(failure),
        Trouble::Halted(_) => Trouble::Halted(failure),
        Trouble::Lost(_) => Trouble::Lost(failure),
    }
}
