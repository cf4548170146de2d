//! The last stage: nothing secret stays.

use super::exports::{Files, exports};
use super::sources;
use super::writer::{Writer, quote, remove_folder};
use crate::context::Context;
use crate::flags::FeatureFlag;
use crate::settings::{GitStrategy, SubmoduleStrategy};

/// Removes file variables and git credentials, and cleans the project if a flag asks for it.
pub(super) fn cleanup(writer: &mut Writer, context: &Context) {
    exports(writer, context, Files::PathsOnly);
    if context.has_repository() {
        sources::forget_credentials(writer, context);
    }
    if context.flags.is_on(FeatureFlag::EnableJobCleanup) {
        clean_project(writer, context);
    }
    if context.has_repository() {
        sources::git_cleanup(writer, context);
    }
    remove_temporary_files(writer, context);
}

/// The env file is there always, and mostly empty; then it stays, and no process is needed.
fn remove_temporary_files(writer: &mut Writer, context: &Context) {
    let secret: Vec<String> = context
        .variables
        .iter()
        .filter(|variable| variable.file && variable.is_exportable())
        .map(|variable| context.variables.file_path(&variable.key))
        .chain(["masking.db", ".gitlab-runner.ext.conf", ".glr.gconf"].map(|name| context.temp_file(name)))
        .collect();
    let env_file = context.temp_file("gitlab_runner_env");
    let tests: Vec<String> = std::iter::once(format!("[ -s {} ]", quote(&env_file)))
        .chain(secret.iter().map(|path| format!("[ -e {} ]", quote(path))))
        .collect();
    let paths: Vec<String> =
        std::iter::once(&env_file).chain(&secret).map(|path| quote(path).into_owned()).collect();
    writer.line(format!("if {}; then rm -f {}; fi", tests.join(" || "), paths.join(" ")));
}

/// `FF_ENABLE_JOB_CLEANUP`.
fn clean_project(writer: &mut Writer, context: &Context) {
    let project = quote(&context.paths.project);
    match context.settings.strategy {
        GitStrategy::Clone | GitStrategy::Empty => {
            writer.line(remove_folder(&context.paths.project));
        }
        GitStrategy::Fetch => {
            writer.line(format!("if [ -d {project}/.git ]; then"));
            writer.line(format!("cd {project}"));
            let clean = super::writer::command(
                ["git", "clean"].into_iter().chain(context.settings.clean_flags.iter().map(String::as_str)),
            );
            if !context.settings.clean_flags.is_empty() {
                writer.line(&clean);
            }
            writer.line("git reset --hard");
            if context.settings.submodules != SubmoduleStrategy::None {
                let each = if context.settings.clean_flags.is_empty() {
                    "git reset --hard".to_owned()
                } else {
                    format!("{clean} && git reset --hard")
                };
                writer.line(format!(
                    "if [ -e .gitmodules ]; then git submodule foreach --recursive {}; fi",
                    quote(&each)
                ));
            }
            writer.line("fi");
        }
        GitStrategy::None => writer.notice("Skipping cleanup of the project directory"),
    }
}
