//! What most stages begin with: the job's variables.

use super::writer::{Writer, quote};
use crate::context::Context;
use crate::runner::TempAccess;
use crate::shell::export::{self, STATUS};
use crate::variables::START_DIR;

/// What becomes of the content of file variables.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Files {
    /// Written, for commands to read.
    Written,
    /// Only their paths are set.
    PathsOnly,
}

/// Remembers the folder that the shell starts in, if paths are below it.
pub(super) fn start_dir(writer: &mut Writer, context: &Context) {
    if context.paths.builds.contains(START_DIR) || context.paths.cache.contains(START_DIR) {
        writer.line("DROVER_START=$PWD");
    }
}

/// Exports all variables of the job, then what earlier stages left in `GITLAB_ENV`. To be called before anything is written.
pub(super) fn exports(writer: &mut Writer, context: &Context, files: Files) {
    let contents = context.variables.iter().any(|variable| variable.file);
    if files == Files::PathsOnly && contents {
        all(writer, context, files);
        return;
    }
    let prelude = context.prelude.get_or_make(|| {
        let mut writer = Writer::default();
        all(&mut writer, context, Files::Written);
        writer.as_prelude()
    });
    let status = export::status(context);
    let head = status.map(|status| format!("export {STATUS}={}\n", quote(status))).unwrap_or_default();
    writer.set_prelude(head, prelude);
}

fn all(writer: &mut Writer, context: &Context, files: Files) {
    start_dir(writer, context);
    temp_dir(writer, context);
    let mut contents = String::new();
    let mut exports = Vec::new();
    for export in export::exports(context) {
        let value = quote(&export.value);
        if let (Files::Written, Some(content)) = (files, export.content) {
            contents.push_str(&format!(" printf %s {} >{value};", quote(content)));
        }
        exports.push(format!("export {}={value}", export.key));
    }
    // Written before the job's variables can change what the commands of the shell mean.
    if !contents.is_empty() {
        writer.line(format!("( {}{contents} )", umask(context)));
    }
    for export in exports {
        writer.line(export);
    }
    // Lines are taken literally, as GitLab Runner does. One that is no assignment is reported by the shell and skipped.
    writer.line(
        "if [ -s \"$GITLAB_ENV\" ]; then\n\
         while IFS= read -r DROVER_LINE || [ -n \"$DROVER_LINE\" ]; do\n\
         case $DROVER_LINE in [A-Za-z_]*=*) command export \"$DROVER_LINE\" || : ;; esac\n\
         done <\"$GITLAB_ENV\"\n\
         elif [ ! -e \"$GITLAB_ENV\" ]; then : >\"$GITLAB_ENV\"; fi",
    );
}

/// Goes to the project.
pub(super) fn enter_project(writer: &mut Writer, context: &Context) {
    writer.line(format!("cd {}", quote(&context.paths.project)));
}

/// Makes the folder of temporary files, closed to other users if all stages run as one.
fn temp_dir(writer: &mut Writer, context: &Context) {
    let temp = quote(&context.paths.temp);
    let mode = match context.runner.temp_access {
        TempAccess::Owner => "700",
        TempAccess::Everyone => "777",
    };
    writer.line(format!("[ -d {temp} ] || mkdir -p -m {mode} {temp}"));
}

/// The mask under which temporary files are written.
pub(super) fn umask(context: &Context) -> &'static str {
    match context.runner.temp_access {
        TempAccess::Owner => "umask 077;",
        TempAccess::Everyone => "umask 000;",
    }
}
