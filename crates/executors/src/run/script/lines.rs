//! What the job log says beside the output of the stages.

use job::StagePlan;
use job::log::LineKind;

use super::Driver;
use crate::run::signals::Stopped;

/// Where GitLab explains the bounds on time.
const TIMEOUTS_PAGE: &str =
    "https://docs.gitlab.com/ci/runners/configure_runners/#set-script-and-after_script-timeouts";

impl Driver<'_> {
    /// First lines of the log.
    pub(super) fn greet(&self) {
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

    pub(super) fn begin(&self, plan: &StagePlan) {
        self.watcher.stage(self.context.job().id, &plan.name);
        if self.sections {
            self.log.section_start(&plan.name, &plan.title);
        } else {
            self.log.line(LineKind::Title, &plan.title);
        }
    }

    pub(super) fn end(&self, plan: &StagePlan) {
        if self.sections {
            self.log.section_end(&plan.name);
        }
    }

    /// What a security policy of GitLab has to do with the job.
    pub(super) fn policy(&self) {
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

    /// Says which stage a bound on time has cut.
    pub(super) fn hint(&self, plan: &StagePlan, stopped: &Stopped) {
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
}
