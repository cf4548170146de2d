//! Scripts for PowerShell on Linux.
//!
//! Users' commands are PowerShell: those of steps, of `after_script` and of the hooks around the checkout. What the runner
//! does itself stays a script for `sh`, which is on every machine that has PowerShell: one set of rules, and a shell that
//! starts a hundred times faster. Around a checkout with hooks, PowerShell runs that script as a child, so that what a hook
//! sets in the environment is seen by git.

mod exports;
mod steps;
mod writer;

use crate::context::Context;
use crate::shell::{Interpreter, Script, Shell, posix};
use crate::stage::Stage;
use writer::Writer;

/// The script of a stage, or none if there is nothing to do.
pub(crate) fn script(context: &Context, stage: Stage) -> Option<Script> {
    let mut writer = Writer::default();
    match stage {
        Stage::GetSources if posix::has_hooks(context) => steps::get_sources(&mut writer, context),
        Stage::Step(index) if context.is_needed(stage) => {
            steps::step(&mut writer, context, context.job.steps.get(index)?);
        }
        Stage::AfterScript => steps::after_script(&mut writer, context, context.after_script()?),
        Stage::ResolveSecrets
        | Stage::PrepareExecutor
        | Stage::PrepareScript
        | Stage::GetSources
        | Stage::ClearWorktree
        | Stage::RestoreCache
        | Stage::DownloadArtifacts
        | Stage::Step(_)
        | Stage::ArchiveCache(_)
        | Stage::UploadArtifacts(_)
        | Stage::CleanupFileVariables => return posix::script(context, stage, Shell::Sh),
    }
    let bytes = writer.into_script(context.settings.debug_trace);
    Some(Script { stage, interpreter: Interpreter::Pwsh, bytes })
}
