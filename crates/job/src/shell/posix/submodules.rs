//! Submodules.

use super::writer::{Writer, command, quote};
use crate::context::Context;
use crate::flags::FeatureFlag;
use crate::settings::SubmoduleStrategy;

/// Initialises and updates submodules. A project without any needs no process for that.
pub(super) fn update(writer: &mut Writer, context: &Context) {
    let settings = &context.settings;
    let recursive = match settings.submodules {
        SubmoduleStrategy::None => {
            writer.notice("Skipping Git submodules setup");
            return;
        }
        SubmoduleStrategy::Invalid => {
            writer.error("unknown GIT_SUBMODULE_STRATEGY");
            writer.line("exit 1");
            return;
        }
        SubmoduleStrategy::Normal => false,
        SubmoduleStrategy::Recursive => true,
    };
    if settings.submodule_paths.iter().any(|path| path == ":(exclude)") {
        writer.error("GIT_SUBMODULE_PATHS: a lone :(exclude) excludes nothing, write :(exclude)path");
        writer.line("exit 1");
        return;
    }
    let depth = settings.submodule_depth;
    writer.notice(&format!(
        "Updating/initializing submodules{}{}...",
        if recursive { " recursively" } else { "" },
        if depth > 0 { format!(" with git depth set to {depth}") } else { String::new() }
    ));
    writer.line("if [ -e .gitmodules ]; then");
    let plan = Plan::new(context, recursive);
    writer.line("git submodule init");
    writer.line(&plan.sync);
    writer.line(&plan.clean);
    writer.line(format!("if {}; then", plan.update));
    writer.notice("Updated submodules");
    // New submodules bring their own, whose URLs are not known before.
    writer.line(&plan.sync);
    writer.line("else");
    writer.warning("Updating submodules failed. Retrying...");
    if settings.submodule_update_flags.iter().any(|flag| flag == "--remote") {
        writer.line(plan.foreach(context, "git fetch origin '+refs/heads/*:refs/remotes/origin/*'"));
    }
    writer.line(&plan.sync);
    writer.line(&plan.update);
    writer.line(&plan.clean);
    writer.line("fi");
    finish(writer, context);
    writer.line("fi");
}

/// Commands that are needed more than once.
struct Plan {
    sync: String,
    clean: String,
    update: String,
    recursive: bool,
}

// === impl Plan ===

impl Plan {
    fn new(context: &Context, recursive: bool) -> Self {
        let settings = &context.settings;
        let mut sync = vec!["git", "submodule", "sync"];
        let mut update = vec!["submodule", "update", "--init"];
        let depth = settings.submodule_depth.to_string();
        if recursive {
            sync.push("--recursive");
            update.push("--recursive");
        }
        if settings.submodule_depth > 0 {
            update.extend(["--depth", &depth]);
        }
        update.extend(settings.submodule_update_flags.iter().map(String::as_str));
        if !settings.submodule_paths.is_empty() {
            sync.push("--");
            sync.extend(settings.submodule_paths.iter().map(String::as_str));
            update.push("--");
            update.extend(settings.submodule_paths.iter().map(String::as_str));
        }
        let mut plan = Self {
            sync: command(sync),
            clean: String::new(),
            update: format!("git{} {}", credentials(context), command(update)),
            recursive,
        };
        let clean = clean_one(context);
        let clean = if clean.is_empty() {
            "git reset --hard".to_owned()
        } else {
            format!("{clean} && git reset --hard")
        };
        plan.clean = plan.foreach(context, &clean);
        plan
    }

    /// Runs shell commands in each submodule that is there.
    fn foreach(&self, context: &Context, commands: &str) -> String {
        let recursive = if self.recursive { " --recursive" } else { "" };
        format!("git{} submodule foreach{recursive} {}", credentials(context), quote(commands))
    }
}

/// What gives a call the parent's credentials.
fn credentials(context: &Context) -> &'static str {
    // Without tokens in URLs, git's global configuration has them already.
    if context.flags.is_on(FeatureFlag::GitUrlsWithoutTokens) {
        ""
    } else {
        " -c include.path=\"$GLR_EXT_GIT_CONFIG_PATH\""
    }
}

fn clean_one(context: &Context) -> String {
    let flags = &context.settings.clean_flags;
    if flags.is_empty() {
        return String::new();
    }
    command(["git", "clean"].into_iter().chain(flags.iter().map(String::as_str)))
}

/// Leaves each submodule clean, and able to authenticate in later commands.
fn finish(writer: &mut Writer, context: &Context) {
    let mut each = vec![clean_one(context)];
    if !context.flags.is_on(FeatureFlag::GitUrlsWithoutTokens) {
        writer.notice("Configuring submodules to use parent git credentials...");
        each.push(
            "git config --replace-all include.path \"$GLR_EXT_GIT_CONFIG_PATH\" '\\.gitlab-runner\\.ext\\.conf$'"
                .to_owned(),
        );
    }
    each.retain(|command| !command.is_empty());
    if !each.is_empty() {
        writer.line(format!("git submodule --quiet foreach --recursive {}", quote(&each.join(" && "))));
    }
    if context.settings.lfs_skip_smudge != Some(true) {
        writer.line("if command -v git-lfs >/dev/null 2>&1; then");
        writer.notice("Pulling LFS files...");
        writer.line("git submodule foreach --recursive 'git lfs pull'");
        writer.line("fi");
    }
}
