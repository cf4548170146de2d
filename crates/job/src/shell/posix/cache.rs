//! Restoring and saving caches.

use std::borrow::Cow;

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
    let mut call = Call::new(context, "cache-extractor");
    call.words(["--file", &file, "--timeout", &timeout]);
    if let Some(remote) = context.placement.remote_cache.get(&key.name) {
        call.signed("--url", "DROVER_CACHE_URL", &remote.get_url);
        call.signed("--head-url", "DROVER_CACHE_HEAD_URL", &remote.head_url);
        call.signed("--alternate-url", "DROVER_CACHE_ALTERNATE_URL", &remote.alternate_get_url);
        call.signed("--alternate-head-url", "DROVER_CACHE_ALTERNATE_HEAD_URL", &remote.alternate_head_url);
    }
    call.line()
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
    let mut call = Call::new(context, "cache-archiver");
    call.words(["--file", &file, "--timeout", &timeout, "--alternate-file", &alternate]);
    if context.runner.max_uploaded_archive_size > 0 {
        call.words(["--max-uploaded-archive-size", &most]);
    }
    for path in &cache.paths {
        call.words(["--path", path]);
    }
    if cache.untracked {
        call.words(["--untracked"]);
    }
    if let Some(remote) = context.placement.remote_cache.get(&key.name)
        && !remote.put_url.is_empty()
    {
        call.signed("--url", "DROVER_CACHE_URL", &remote.put_url);
        call.signed("--check-url", "DROVER_CACHE_CHECK_URL", &remote.check_url);
        call.headers(&remote.put_headers);
    }
    writer.notice(&format!("Creating cache {}...", key.readable));
    writer.line(format!("if {}; then", call.line()));
    writer.notice("Created cache");
    writer.line("else");
    writer.warning("Failed to create cache");
    writer.line("fi");
}

/// A call of the helper. What signs a request is kept from the list of processes where the helper allows it.
struct Call<'a> {
    is_drover: bool,
    assignments: String,
    words: Vec<Cow<'a, str>>,
}

impl<'a> Call<'a> {
    fn new(context: &'a Context, name: &'a str) -> Self {
        let helper = &context.runner.helper;
        Self {
            is_drover: helper.is_drover,
            assignments: String::new(),
            words: vec![helper.command.as_str().into(), name.into()],
        }
    }

    fn words(&mut self, words: impl IntoIterator<Item = &'a str>) {
        self.words.extend(words.into_iter().map(Cow::Borrowed));
    }

    /// A signed address, if there is one.
    fn signed(&mut self, flag: &'a str, variable: &str, url: &'a str) {
        if url.is_empty() {
            return;
        }
        if self.is_drover {
            self.assign(variable, url);
        } else {
            self.words([flag, url]);
        }
    }

    fn headers(&mut self, headers: &[(String, String)]) {
        let lines = headers.iter().map(|(name, value)| format!("{name}: {value}"));
        if !self.is_drover {
            self.words.extend(lines.flat_map(|header| ["--header".into(), header.into()]));
        } else if !headers.is_empty() {
            self.assign("DROVER_CACHE_HEADERS", &lines.collect::<Vec<_>>().join("\n"));
        }
    }

    fn assign(&mut self, variable: &str, value: &str) {
        self.assignments.push_str(&format!("{variable}={} ", quote(value)));
    }

    fn line(&self) -> String {
        format!("{}{}", self.assignments, command(self.words.iter().map(Cow::as_ref)))
    }
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
    let helper = &context.runner.helper.command;
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
