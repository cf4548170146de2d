//! Scripts for bash and every other POSIX shell.
//!
//! Nothing here needs more than POSIX, so that the same text runs under bash, dash and busybox. Every process costs, so
//! builtins test first whether there is anything to do.

mod artifacts;
mod cache;
mod cleanup;
mod exports;
mod sources;
mod steps;
mod submodules;
mod writer;

use bytes::Bytes;

use crate::context::Context;
use crate::flags::FeatureFlag;
use crate::runner::TempAccess;
use crate::shell::{Interpreter, Script, Shell};
use crate::stage::{Place, Stage};
use sources::Hooks;
pub(crate) use sources::{environment as sources_environment, has_hooks};
use writer::{Writer, quote};

/// The script of a stage, or none if there is nothing to do.
pub(crate) fn script(context: &Context, stage: Stage, shell: Shell) -> Option<Script> {
    if !context.is_needed(stage) {
        return None;
    }
    let mut writer = Writer::default();
    let mut users = false;
    match stage {
        Stage::ResolveSecrets | Stage::PrepareExecutor => return None,
        Stage::PrepareScript => prepare(&mut writer, context),
        Stage::GetSources => {
            sources::get_sources(&mut writer, context, Hooks::Inside);
            users = sources::has_hooks(context);
        }
        Stage::ClearWorktree => sources::clear_worktree(&mut writer, context),
        Stage::RestoreCache => cache::restore(&mut writer, context),
        Stage::DownloadArtifacts => artifacts::download(&mut writer, context),
        Stage::Step(index) => {
            steps::step(&mut writer, context, context.job.steps.get(index)?);
            users = true;
        }
        Stage::AfterScript => {
            steps::after_script(&mut writer, context, context.after_script()?);
            users = true;
        }
        Stage::ArchiveCache(outcome) => cache::archive(&mut writer, context, outcome),
        Stage::UploadArtifacts(outcome) => artifacts::upload(&mut writer, context, outcome),
        Stage::CleanupFileVariables => cleanup::cleanup(&mut writer, context),
    }
    // The runner's own commands need no bash, and `sh` starts faster.
    let interpreter = if users { Interpreter::of(shell) } else { Interpreter::Sh };
    let name = match interpreter {
        Interpreter::Bash => "bash",
        Interpreter::Sh | Interpreter::Pwsh => "sh",
    };
    let mut options = Vec::new();
    if users {
        // `command` keeps a shell that does not know the option alive.
        options.push("command set -o pipefail 2>/dev/null || :");
    } else {
        // What git and the helper say stands between the lines that introduce and conclude it; two streams may overtake
        // each other on their way. What users' commands say keeps its stream.
        options.push("exec 2>&1");
    }
    if stage.place() == Place::Helper
        && context.runner.temp_access == TempAccess::Everyone
        && !context.flags.is_on(FeatureFlag::DisableUmaskForDockerExecutor)
    {
        // What the helper's user makes is for the user of the job's image to change.
        options.push("umask 0000");
    }
    if context.settings.debug_trace {
        options.push("set -x");
    }
    let bytes = writer.into_script(name, &options);
    Some(Script { stage, interpreter, bytes })
}

/// What the runner does between the hooks of a checkout that runs in another shell, which has made the exports.
pub(crate) fn sources_between_hooks(context: &Context) -> Bytes {
    let mut writer = Writer::default();
    sources::get_sources(&mut writer, context, Hooks::Outside);
    writer.into_script("sh", if context.settings.debug_trace { &["set -x"] } else { &[] })
}

/// The first words of the environment, which also show that it runs scripts at all. Leaves of an earlier job that was cut
/// off are removed.
fn prepare(writer: &mut Writer, context: &Context) {
    if context.runner.shell != Shell::Sh && context.runner.temp_access == TempAccess::Owner {
        // All stages run in this place: a shell that is missing is named before anything is done.
        writer.line(format!("command -v {} >/dev/null 2>&1 || exit 127", context.runner.shell.as_str()));
    }
    exports::start_dir(writer, context);
    writer.line("if [ -r /proc/sys/kernel/hostname ]; then read -r DROVER_HOST </proc/sys/kernel/hostname; else DROVER_HOST=$(hostname 2>/dev/null || uname -n); fi");
    let via = if context.runner.manager_host.is_empty() {
        "...".to_owned()
    } else {
        format!(" via {}...", context.runner.manager_host)
    };
    writer.line(format!("printf 'Running on %s%s\\n' \"$DROVER_HOST\" {}", quote(&via)));
    let env_file = context.temp_file("gitlab_runner_env");
    let masking = context.temp_file("masking.db");
    let (env_file, masking) = (quote(&env_file), quote(&masking));
    writer.line(format!("if [ -s {env_file} ] || [ -e {masking} ]; then rm -f {env_file} {masking}; fi"));
}
