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

use crate::context::Context;
use crate::shell::{Interpreter, Script, Shell};
use crate::stage::Stage;
use writer::{Writer, quote};

/// The script of a stage, or none if there is nothing to do.
pub(crate) fn script(context: &Context, stage: Stage, shell: Shell) -> Option<Script> {
    let mut writer = Writer::default();
    let mut users = false;
    match stage {
        Stage::ResolveSecrets | Stage::PrepareExecutor => return None,
        Stage::PrepareScript => prepare(&mut writer, context),
        Stage::GetSources => {
            sources::get_sources(&mut writer, context);
            users = sources::has_hooks(context);
        }
        Stage::ClearWorktree => sources::clear_worktree(&mut writer, context),
        Stage::RestoreCache => {
            if context.caches.is_empty() {
                return None;
            }
            cache::restore(&mut writer, context);
        }
        Stage::DownloadArtifacts => {
            if context.artifact_downloads().next().is_none() {
                return None;
            }
            artifacts::download(&mut writer, context);
        }
        Stage::Step(index) => {
            let step = context.job.steps.get(index)?;
            steps::step(&mut writer, context, step);
            users = true;
        }
        Stage::AfterScript => {
            let step = context.after_script()?;
            steps::after_script(&mut writer, context, step);
            users = true;
        }
        Stage::ArchiveCache(outcome) => {
            if context.caches_to_save(outcome).next().is_none() {
                return None;
            }
            cache::archive(&mut writer, context, outcome);
        }
        Stage::UploadArtifacts(outcome) => {
            if context.runner.url.is_empty() || context.artifacts_to_upload(outcome).next().is_none() {
                return None;
            }
            artifacts::upload(&mut writer, context, outcome);
        }
        Stage::CleanupFileVariables => cleanup::cleanup(&mut writer, context),
    }
    let interpreter = match shell {
        Shell::Bash if users => Interpreter::Bash,
        Shell::Bash | Shell::Sh => Interpreter::Sh,
    };
    let name = match interpreter {
        Interpreter::Bash => "bash",
        Interpreter::Sh => "sh",
    };
    let mut prologue = String::new();
    if users {
        // `command` keeps a shell that does not know the option alive.
        prologue.push_str("command set -o pipefail 2>/dev/null || :; ");
    }
    if context.settings.debug_trace {
        prologue.push_str("set -x; ");
    }
    Some(Script { stage, interpreter, text: writer.into_script(name, &prologue) })
}

/// The first words of the environment, which also show that it runs scripts at all. Leaves of an earlier job that was cut
/// off are removed.
fn prepare(writer: &mut Writer, context: &Context) {
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
