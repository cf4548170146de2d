//! What must be right about a job before anything of it runs.

use job_payload::{Job, Step};

use crate::failure::{FailureReason, JobFailure};
use crate::inputs::InputError;
use crate::paths::ClonePathError;

/// A job that must fail before anything of it runs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// Options that no executor knows.
    #[error("unsupported executor_opts: {}; supported are docker (platform, user) and kubernetes (user)", .0.join(", "))]
    UnsupportedOptions(Vec<String>),
    /// Both ways to say what to do.
    #[error("`run` and `script` keywords cannot be used together")]
    RunAndScript,
    /// The variable that carries the steps of `run` is the job's own.
    #[error("`run` keyword and a `STEPS` variable cannot be used together")]
    RunAndSteps,
    /// The environment of an earlier job, which nobody has kept. A fresh one is not what the job expects.
    #[error(
        "the environment \"{0}\" cannot be resumed: this runner does not suspend environments (FF_SUSPENDABLE_ENVIRONMENTS). \
         Run the job on one that does"
    )]
    Resume(String),
    /// Inputs.
    #[error("failed to put the job's inputs in place")]
    Inputs(#[from] InputError),
    /// `GIT_CLONE_PATH`.
    #[error(transparent)]
    ClonePath(#[from] ClonePathError),
}

// === impl SetupError ===

impl SetupError {
    /// How the job ends: the reason, the exit code and the text with its causes.
    #[must_use]
    pub fn failure(&self) -> JobFailure {
        let (reason, exit_code) = match self {
            Self::UnsupportedOptions(_) | Self::RunAndScript | Self::RunAndSteps => {
                (FailureReason::RunnerSystemFailure, Some(3))
            }
            Self::Resume(_) | Self::Inputs(_) | Self::ClonePath(_) => {
                (FailureReason::RunnerConfigurationError, None)
            }
        };
        let message = match self {
            Self::Inputs(cause) => format!("{self}: {cause}"),
            Self::UnsupportedOptions(_)
            | Self::RunAndScript
            | Self::RunAndSteps
            | Self::Resume(_)
            | Self::ClonePath(_) => self.to_string(),
        };
        JobFailure { reason, exit_code, message }
    }
}

/// What the payload must not ask for.
pub(crate) fn check(job: &Job) -> Result<(), SetupError> {
    let mut unknown = Vec::new();
    for (owner, image) in
        std::iter::once(("image", &job.image)).chain(job.services.iter().map(|service| ("services", service)))
    {
        let options = &image.executor_opts;
        unknown.extend(options.unknown.keys().map(|key| format!("{owner}: {key}")));
        unknown.extend(options.docker.unknown.keys().map(|key| format!("{owner}: docker.{key}")));
        unknown.extend(options.kubernetes.unknown.keys().map(|key| format!("{owner}: kubernetes.{key}")));
    }
    if !unknown.is_empty() {
        return Err(SetupError::UnsupportedOptions(unknown));
    }
    if !job.suspend_options.runtime_environment_key.is_empty() {
        return Err(SetupError::Resume(job.suspend_options.runtime_environment_key.clone()));
    }
    if has_run(job) {
        if job.steps.iter().any(|step| step.name == "script" && !step.script.is_empty()) {
            return Err(SetupError::RunAndScript);
        }
        if job.variable("STEPS").is_some() {
            return Err(SetupError::RunAndSteps);
        }
    }
    Ok(())
}

fn has_run(job: &Job) -> bool {
    !matches!(job.run.trim(), "" | "null" | "[]")
}

/// A `run:` job without native steps is a script that hands its steps to the step runner.
pub(crate) fn native_run(job: &mut Job) {
    if !has_run(job) {
        return;
    }
    job.variables.push(job_payload::Variable {
        key: "STEPS".to_owned(),
        value: job.run.clone(),
        raw: true,
        ..job_payload::Variable::default()
    });
    job.steps.retain(|step| step.name == "after_script");
    job.steps.insert(
        0,
        Step { name: "script".to_owned(), script: vec!["step-runner ci".to_owned()], ..Step::default() },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_would_go_on_in_a_kept_environment_does_not_start_in_a_fresh_one() {
        let mut job = Job::default();
        assert_eq!(check(&job), Ok(()));
        job.suspend_options.runtime_environment_key = "7/s_1/key".to_owned();
        let failure = check(&job).unwrap_err().failure();
        assert_eq!(failure.reason, FailureReason::RunnerConfigurationError);
        assert!(failure.message.contains("\"7/s_1/key\" cannot be resumed"), "{}", failure.message);
    }
}
