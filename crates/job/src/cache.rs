//! Which caches a job has, and under which keys.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use job_payload::{Cache, Job};

use crate::context::Context;
use crate::flags::{FeatureFlag, FeatureFlags};
use crate::runner::RemoteCache;
use crate::stage::{Outcome, Stage};
use crate::variables::Variables;

/// One cache of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheEntry {
    /// Where it is kept; none if nothing is left of the key.
    pub key: Option<CacheKey>,
    /// Tried in this order if there is nothing under `key`.
    pub fallback_keys: Vec<CacheKey>,
    /// What may be done with it.
    pub policy: CachePolicy,
    /// Globs of what it holds, expanded by the helper.
    pub paths: Vec<String>,
    /// It holds untracked files, too.
    pub untracked: bool,
    /// When it is saved: `on_success` (or empty), `on_failure`, `always`.
    pub when: String,
    /// What is odd about its keys, for the log.
    pub warnings: Vec<String>,
}

/// A name under which a cache is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheKey {
    /// As users know it.
    pub readable: String,
    /// As it is stored: the readable one, or its hash with `FF_HASH_CACHE_KEYS`.
    pub name: String,
    /// As it would be stored with the flag the other way round.
    pub alternate: String,
}

/// `policy` of a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CachePolicy {
    /// Restore and save.
    PullPush,
    /// Restore only.
    Pull,
    /// Save only.
    Push,
    /// A word that means nothing: the stage fails.
    Invalid(String),
}

// === impl Context ===

impl Context {
    /// The keys that a stage moves between the machine and a cache store; none for stages that move no caches. Their addresses
    /// are what [`set_remote_caches`](Self::set_remote_caches) takes.
    #[must_use]
    pub fn cache_keys(&self, stage: Stage) -> Vec<&CacheKey> {
        let mut keys: Vec<&CacheKey> = match stage {
            Stage::RestoreCache => self
                .caches
                .iter()
                .filter(|cache| cache.policy != CachePolicy::Push)
                .flat_map(|cache| cache.key.iter().chain(cache.key.iter().flat_map(|_| &cache.fallback_keys)))
                .collect(),
            Stage::ArchiveCache(outcome) => self
                .caches_to_save(outcome)
                .filter(|cache| cache.policy != CachePolicy::Pull)
                .filter_map(|cache| cache.key.as_ref())
                .collect(),
            Stage::ResolveSecrets
            | Stage::PrepareExecutor
            | Stage::PrepareScript
            | Stage::GetSources
            | Stage::ClearWorktree
            | Stage::DownloadArtifacts
            | Stage::Step(_)
            | Stage::AfterScript
            | Stage::UploadArtifacts(_)
            | Stage::CleanupFileVariables => Vec::new(),
        };
        keys.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        keys.dedup_by(|a, b| a.name == b.name);
        keys
    }

    /// Signed addresses for the scripts that are made from here on, by the name of the key. Signatures age, so they are made
    /// right before the stage that uses them.
    pub fn set_remote_caches(&mut self, remote: BTreeMap<String, RemoteCache>) {
        self.placement.remote_cache = remote;
    }
}

// === impl CacheEntry ===

impl CacheEntry {
    /// The caches of a job that hold anything.
    pub(crate) fn of_job(job: &Job, variables: &Variables, flags: &FeatureFlags) -> Vec<Self> {
        job.cache
            .iter()
            .filter(|cache| !cache.paths.is_empty() || cache.untracked)
            .map(|cache| Self::new(cache, job, variables, flags.is_on(FeatureFlag::HashCacheKeys)))
            .collect()
    }

    fn new(cache: &Cache, job: &Job, variables: &Variables, hashed: bool) -> Self {
        let mut warnings = Vec::new();
        let mut key = variables.expand(&cache.key).into_owned();
        if key.is_empty() {
            key = format!("{}/{}", job.job_info.name, job.git_info.ref_name);
        }
        let key = CacheKey::new(&key, hashed, &mut warnings);
        let mut fallbacks: Vec<String> =
            cache.fallback_keys.iter().map(|key| variables.expand(key).into_owned()).collect();
        if let Some(global) = variables.get("CACHE_FALLBACK_KEY").filter(|key| !key.is_empty()) {
            if global.trim_end_matches(['.', ' ']).ends_with("-protected") {
                warnings.push(format!("CACHE_FALLBACK_KEY {global:?} not allowed to end in \"-protected\""));
            } else {
                fallbacks.push(global.into_owned());
            }
        }
        let fallback_keys =
            fallbacks.iter().filter_map(|key| CacheKey::new(key, hashed, &mut warnings)).collect();
        let policy = match variables.expand(&cache.policy).as_ref() {
            "" | "pull-push" => CachePolicy::PullPush,
            "pull" => CachePolicy::Pull,
            "push" => CachePolicy::Push,
            other => CachePolicy::Invalid(other.to_owned()),
        };
        Self {
            key,
            fallback_keys,
            policy,
            paths: cache.paths.clone(),
            untracked: cache.untracked,
            when: cache.when.clone(),
            warnings,
        }
    }

    /// Whether the cache is looked at when the job stands like this.
    pub(crate) fn is_due(&self, outcome: Outcome) -> bool {
        outcome.wants(&self.when)
    }
}

// === impl CacheKey ===

impl CacheKey {
    fn new(key: &str, hashed: bool, warnings: &mut Vec<String>) -> Option<Self> {
        let plain = sanitized(key);
        let hash = hex::encode(Sha256::digest(key));
        if hashed {
            return Some(Self { readable: key.to_owned(), name: hash, alternate: plain });
        }
        if plain != key {
            warnings.push(format!("cache key {key:?} sanitized to {plain:?}"));
        }
        (!plain.is_empty()).then(|| Self { readable: plain.clone(), name: plain, alternate: hash })
    }
}

/// A key as a relative path that stays where it is: GitLab Runner's rules.
fn sanitized(key: &str) -> String {
    let mut text = key.replace('\\', "/");
    for (escape, plain) in [("%2f", "/"), ("%2F", "/"), ("%2e", "."), ("%2E", ".")] {
        text = text.replace(escape, plain);
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    while let Some(last) = parts.pop() {
        let trimmed = last.trim_end();
        if !trimmed.is_empty() {
            parts.push(trimmed);
            break;
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("a/b", "a/b"; "nothing to do")]
    #[test_case("../../etc", "etc"; "does not climb")]
    #[test_case("a%2F..%2f%2e%2E/b", "b"; "escapes are read first")]
    #[test_case("a\\b", "a/b"; "backslash")]
    #[test_case("a/ / ", "a"; "blank ends")]
    #[test_case("..", ""; "nothing left")]
    fn keys_stay_in_their_folder(key: &str, expected: &str) {
        assert_eq!(sanitized(key), expected);
    }

    #[test]
    fn a_hashed_key_knows_its_plain_name() {
        let key = CacheKey::new("a/../b", true, &mut Vec::new()).unwrap();
        assert_eq!((key.readable.as_str(), key.alternate.as_str(), key.name.len()), ("a/../b", "b", 64));
    }
}
