//! The user's own commands.

use job_payload::Step;

use super::exports::{Files, enter_project, exports};
use super::writer::{Writer, quote};
use crate::context::Context;
use crate::flags::FeatureFlag;
use crate::shell::announce::{Announcement, announce};

/// A step, between the runner's own commands.
pub(super) fn step(writer: &mut Writer, context: &Context, step: &Step) {
    exports(writer, context, Files::Written);
    enter_project(writer, context);
    one(writer, context, "pre_build_script", &context.runner.pre_build_script);
    commands(writer, context, "script_step", &context.step_commands(step));
    one(writer, context, "post_build_script", &context.runner.post_build_script);
}

/// `after_script`.
pub(super) fn after_script(writer: &mut Writer, context: &Context, step: &Step) {
    exports(writer, context, Files::Written);
    enter_project(writer, context);
    writer.notice("Running after script...");
    commands(writer, context, "after_script_step", &step.script);
}

/// A script of the runner's settings: one command, often of several lines.
pub(super) fn one(writer: &mut Writer, context: &Context, prefix: &str, script: &str) {
    if !script.trim().is_empty() {
        commands(writer, context, prefix, &[script]);
    }
}

/// Commands, each announced. They are not closed off from each other: GitLab's users open a loop in one and close it in
/// another.
pub(super) fn commands(writer: &mut Writer, context: &Context, prefix: &str, script: &[impl AsRef<str>]) {
    let sections = context.flags.is_on(FeatureFlag::ScriptSections) && context.job.features.trace_sections;
    for (index, command) in script.iter().enumerate() {
        let command = command.as_ref().trim();
        match announce(command, sections) {
            Announcement::Blank => writer.print(""),
            Announcement::Line(text) => writer.notice(&text),
            Announcement::Section(text) => section(writer, &format!("section_{prefix}_{index}"), &text),
        }
        if !command.is_empty() {
            // A mark of the first folder can stand here only after an expansion by the runner.
            writer.line(command.replace(crate::variables::START_DIR, "\"$DROVER_START\""));
        }
        if context.flags.is_on(FeatureFlag::EnableBashExitCodeCheck) {
            writer
                .line("DROVER_STATUS=$?; if [ \"$DROVER_STATUS\" -ne 0 ]; then exit \"$DROVER_STATUS\"; fi");
        }
    }
}

/// Shows the text of a command in a section that is folded. It ends before the command runs, as in GitLab Runner.
fn section(writer: &mut Writer, name: &str, text: &str) {
    writer.line("DROVER_NOW=${EPOCHSECONDS:-$(date +%s)}");
    writer.line(format!(
        "printf 'section_start:%s:{name}[hide_duration=true,collapsed=true]\\r\\033[0K\\033[32;1m%s\\033[0;m\\nsection_end:%s:{name}\\r\\033[0K' \"$DROVER_NOW\" {} \"$DROVER_NOW\"",
        quote(text)
    ));
}
