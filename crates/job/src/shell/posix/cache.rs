//! Restoring and saving caches.

use super::exports::{Files, enter_project, exports};
use super::writer::{Writer, command, quote};
use crate::cache::{CacheEntry, CacheKey, CachePolicy};
use crate::context::Context;
use crate::flags::FeatureFlag;
use crate::stage::Outcome;
use crate::variables::START_DIR;

/// Restores each cache from the first key that has one. A cache that is not there fails nothing.
pub(super) fn restore(writer: &mut Writer, context: &Context) {
    exports(writer, context, Files::Written);
    enter_project(writer, context);
    if refuse_policies(writer, &context.caches) {
        return;
    }
    with_helper(writer, context, "Extracting cache is disabled.", |writer| {
        for cache in &context.caches {
            restore_one(writer, context, cache);
        }
    });
}

/// Saves those caches that are due. A failure is shown and fails nothing.
pub(super) fn archive(writer: &mut Writer, context: &Context, outcome: Outcome) {
    exports(writer, context, Files::Written);
    enter_project(writer, context);
    if refuse_policies(writer, &context.caches) {
        return;
    }
    with_helper(writer, context, "Creating cache is disabled.", |writer| {
        for cache in context.caches_to_save(outcome) {
            archive_one(writer, context, cache);
        }
    });
}

fn restore_one(writer: &mut Writer, context: &Context, cache: &CacheEntry) {
    for warning in &cache.warnings {
        writer.warning(warning);
    }
    let Some(key) = &cache.key else {
        writer.notice("Skipping cache extraction due to empty cache key");
        return;
    };
    if cache.policy == CachePolicy::Push {
        writer.notice(&format!("Not downloading cache {} due to policy", key.readable));
        return;
    }
    writer.line("DROVER_FOUND=");
    for (index, key) in std::iter::once(key).chain(&cache.fallback_keys).enumerate() {
        if index > 0 {
            writer.line("if [ -z \"$DROVER_FOUND\" ]; then");
        }
        writer.notice(&format!("Checking cache for {}...", key.readable));
        writer.line(format!("if {}; then", extractor(context, key)));
        writer.notice("Successfully extracted cache");
        writer.line("DROVER_FOUND=yes");
        writer.line("else");
        writer.warning("Failed to extract cache");
        if context.flags.is_on(FeatureFlag::CleanUpFailedCacheExtract) {
            remove_paths(writer, context, cache);
        }
        writer.line("fi");
        if index > 0 {
            writer.line("fi");
        }
    }
}

/// `FF_CLEAN_UP_FAILED_CACHE_EXTRACT`: half of a cache is worse than none. What is outside of the project stays.
fn remove_paths(writer: &mut Writer, context: &Context, cache: &CacheEntry) {
    for path in &cache.paths {
        let path = context.variables.expand_inside(path);
        let below = match path.strip_prefix(context.paths.project.as_str()) {
            Some(below) => below.trim_start_matches('/'),
            None => path.as_ref(),
        };
        let outside = below.starts_with(['/', START_DIR]) || below.split('/').any(|part| part == "..");
        if below.is_empty() || outside {
            continue;
        }
        writer.notice(&format!("Removing {below}"));
        writer.command(["rm", "-rf", "--", below]);
    }
}

fn extractor(context: &Context, key: &CacheKey) -> String {
    let file = archive_path(context, &key.name);
    let timeout = context.settings.cache_request_timeout.to_string();
    let mut words =
        vec![context.runner.helper.as_str(), "cache-extractor", "--file", &file, "--timeout", &timeout];
    if let Some(remote) = context.placement.remote_cache.get(&key.name) {
        for (flag, url) in [
            ("--url", &remote.get_url),
            ("--head-url", &remote.head_url),
            ("--alternate-url", &remote.alternate_get_url),
            ("--alternate-head-url", &remote.alternate_head_url),
        ] {
            if !url.is_empty() {
                words.extend([flag, url.as_str()]);
            }
        }
    }
    command(words)
}

fn archive_one(writer: &mut Writer, context: &Context, cache: &CacheEntry) {
    for warning in &cache.warnings {
        writer.warning(warning);
    }
    let Some(key) = &cache.key else {
        writer.notice("Skipping cache archiving due to empty cache key");
        return;
    };
    if cache.policy == CachePolicy::Pull {
        writer.notice(&format!("Not uploading cache {} due to policy", key.readable));
        return;
    }
    let file = archive_path(context, &key.name);
    let alternate = archive_path(context, &key.alternate);
    let timeout = context.settings.cache_request_timeout.to_string();
    let most = context.runner.max_uploaded_archive_size.to_string();
    let mut words =
        vec![context.runner.helper.as_str(), "cache-archiver", "--file", &file, "--timeout", &timeout];
    words.extend(["--alternate-file", &alternate]);
    if context.runner.max_uploaded_archive_size > 0 {
        words.extend(["--max-uploaded-archive-size", &most]);
    }
    for path in &cache.paths {
        words.extend(["--path", path]);
    }
    if cache.untracked {
        words.push("--untracked");
    }
    let mut headers = Vec::new();
    if let Some(remote) = context.placement.remote_cache.get(&key.name)
        && !remote.put_url.is_empty()
    {
        words.extend(["--url", &remote.put_url]);
        headers = remote.put_headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        if !remote.check_url.is_empty() {
            words.extend(["--check-url", &remote.check_url]);
        }
    }
    for header in &headers {
        words.extend(["--header", header]);
    }
    writer.notice(&format!("Creating cache {}...", key.readable));
    writer.line(format!("if {}; then", command(words)));
    writer.notice("Created cache");
    writer.line("else");
    writer.warning("Failed to create cache");
    writer.line("fi");
}

/// Where the archive is on the machine.
fn archive_path(context: &Context, key: &str) -> String {
    format!("{}/{key}/cache.zip", context.paths.cache)
}

/// Runs commands only where the helper is.
pub(super) fn with_helper(
    writer: &mut Writer,
    context: &Context,
    otherwise: &str,
    commands: impl FnOnce(&mut Writer),
) {
    let helper = &context.runner.helper;
    writer.line(format!("if command -v {} >/dev/null 2>&1; then", quote(helper)));
    commands(writer);
    // Keeps the branch a command when there was nothing to say.
    writer.line(":\nelse");
    writer.warning(&format!("Missing {helper}. {otherwise}"));
    writer.line("fi");
}

/// A policy that is no policy fails the stage.
fn refuse_policies(writer: &mut Writer, caches: &[CacheEntry]) -> bool {
    for cache in caches {
        if let CachePolicy::Invalid(policy) = &cache.policy {
            writer.error(&format!("unknown cache policy {policy}"));
            writer.line("exit 1");
            return true;
        }
    }
    false
}
