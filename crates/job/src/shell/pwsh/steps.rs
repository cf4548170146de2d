//! The user's own commands.

use std::borrow::Cow;

use job_payload::Step;

use super::exports::{enter_project, exports, variable};
use super::writer::{Writer, quote};
use crate::context::Context;
use crate::shell::announce::{Announcement, announce};
use crate::shell::posix;
use crate::variables::START_DIR;

/// A checkout between the hooks of runner and job.
pub(super) fn get_sources(writer: &mut Writer, context: &Context) {
    exports(writer, context);
    for (key, value) in posix::sources_environment(context) {
        variable(writer, key, &value);
    }
    one(writer, &context.runner.pre_get_sources_script);
    hook(writer, context, "pre_get_sources_script");
    // A hook may have gone elsewhere.
    writer.line("Set-Location -LiteralPath $DroverStart");
    writer.line("$env:DROVER_START = $DroverStart");
    let script = posix::sources_between_hooks(context);
    writer.checked(format!("{} | & sh", quote(&String::from_utf8_lossy(&script))));
    enter_project(writer, context);
    hook(writer, context, "post_get_sources_script");
    one(writer, &context.runner.post_get_sources_script);
}

/// A step, between the runner's own commands.
pub(super) fn step(writer: &mut Writer, context: &Context, step: &Step) {
    exports(writer, context);
    enter_project(writer, context);
    one(writer, &context.runner.pre_build_script);
    let script = context.step_commands(step);
    commands(writer, script.iter().map(Cow::as_ref));
    one(writer, &context.runner.post_build_script);
}

/// `after_script`.
pub(super) fn after_script(writer: &mut Writer, context: &Context, step: &Step) {
    exports(writer, context);
    enter_project(writer, context);
    writer.notice("Running after script...");
    commands(writer, step.script.iter().map(String::as_str));
}

fn hook(writer: &mut Writer, context: &Context, name: &str) {
    for hook in context.job.hooks.iter().filter(|hook| hook.name == name) {
        commands(writer, hook.script.iter().map(String::as_str));
    }
}

/// A script of the runner's settings: one command, often of several lines.
fn one(writer: &mut Writer, script: &str) {
    if !script.trim().is_empty() {
        commands(writer, [script]);
    }
}

/// Commands, each announced and its result looked at. They share one scope, as lines of one script do. There are no folded
/// sections: GitLab Runner has none in PowerShell.
fn commands<'a>(writer: &mut Writer, script: impl IntoIterator<Item = &'a str>) {
    for command in script {
        let command = command.trim();
        match announce(command, false) {
            Announcement::Blank => writer.blank(),
            Announcement::Line(text) | Announcement::Section(text) => {
                writer.notice(&text);
                // A mark of the first folder can stand here only after an expansion by the runner.
                writer.checked(command.replace(START_DIR, "$DroverStart"));
            }
        }
    }
}
