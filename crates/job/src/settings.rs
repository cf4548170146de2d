//! Settings that a job makes by variables: how its sources are fetched, how often a stage is tried, how long it may take.

use std::time::Duration;

use go_duration::DurationProblem;

use crate::variables::{Variables, parse_strict_bool};

/// `GIT_STRATEGY`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GitStrategy {
    /// Delete the project folder, then fetch into a new repository.
    Clone,
    /// Fetch into the repository that is there, or a new one.
    Fetch,
    /// No repository; whatever is in the folder stays.
    None,
    /// No repository, in an empty folder.
    Empty,
}

/// `GIT_SUBMODULE_STRATEGY`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubmoduleStrategy {
    /// Leave submodules alone.
    None,
    /// Submodules of the project.
    Normal,
    /// Submodules and theirs.
    Recursive,
    /// A word that means nothing: the stage fails.
    Invalid,
}

/// The settings of one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildSettings {
    /// `GIT_STRATEGY`.
    pub strategy: GitStrategy,
    /// `GIT_CHECKOUT`.
    pub checkout: bool,
    /// `GIT_CLEAN_FLAGS`; empty means no cleaning.
    pub clean_flags: Vec<String>,
    /// `GIT_FETCH_EXTRA_FLAGS`.
    pub fetch_flags: Vec<String>,
    /// `GIT_CLONE_EXTRA_FLAGS`.
    pub clone_flags: Vec<String>,
    /// Depth of the fetch; 0 means everything.
    pub depth: u32,
    /// `GIT_SUBMODULE_STRATEGY`.
    pub submodules: SubmoduleStrategy,
    /// `GIT_SUBMODULE_DEPTH`, else the depth of the fetch.
    pub submodule_depth: u32,
    /// `GIT_SUBMODULE_PATHS`.
    pub submodule_paths: Vec<String>,
    /// `GIT_SUBMODULE_UPDATE_FLAGS`.
    pub submodule_update_flags: Vec<String>,
    /// `GIT_SUBMODULE_FORCE_HTTPS`.
    pub submodule_force_https: bool,
    /// `GIT_LFS_SKIP_SMUDGE` as the job set it, if it did.
    pub lfs_skip_smudge: Option<bool>,
    /// `CI_DEBUG_TRACE`, unless the runner forbids it.
    pub debug_trace: bool,
    /// `CI_DEBUG_SERVICES`: what services say is in the log.
    pub debug_services: bool,
    /// `AFTER_SCRIPT_IGNORE_ERRORS`: a failing `after_script` does not fail the job.
    pub after_script_ignores_errors: bool,
    /// `RUNNER_SCRIPT_TIMEOUT`; none means no bound of its own.
    pub script_timeout: Option<Duration>,
    /// `RUNNER_AFTER_SCRIPT_TIMEOUT`.
    pub after_script_timeout: Duration,
    /// How often stages are tried.
    pub attempts: Attempts,
    /// `CACHE_REQUEST_TIMEOUT` in minutes.
    pub cache_request_timeout: u32,
}

/// How often stages are tried, 1 to 10 each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempts {
    /// `GET_SOURCES_ATTEMPTS`.
    pub get_sources: u32,
    /// `RESTORE_CACHE_ATTEMPTS`.
    pub restore_cache: u32,
    /// `ARTIFACT_DOWNLOAD_ATTEMPTS`.
    pub download_artifacts: u32,
    /// `SECRETS_RETRIEVAL_ATTEMPTS`.
    pub secrets: u32,
    /// `EXECUTOR_JOB_SECTION_ATTEMPTS`: a stage whose container vanished.
    pub job_section: u32,
}

// === impl BuildSettings ===

impl BuildSettings {
    /// GitLab Runner's bound of `after_script` when the job sets none.
    pub const DEFAULT_AFTER_SCRIPT_TIMEOUT: Duration = Duration::from_secs(300);

    /// Reads the settings; what is odd is named in `warnings` and gets its default.
    pub(crate) fn read(
        variables: &Variables,
        allow_git_fetch: bool,
        depth: i64,
        debug_trace_disabled: bool,
        warnings: &mut Vec<String>,
    ) -> Self {
        let mut reader = Reader { variables, warnings };
        let depth = u32::try_from(depth).unwrap_or(0);
        let mut debug_trace = reader.boolean("CI_DEBUG_TRACE", false);
        if debug_trace && debug_trace_disabled {
            reader.warnings.push("CI_DEBUG_TRACE: usage is disabled on this runner".to_owned());
            debug_trace = false;
        }
        Self {
            strategy: reader.strategy(allow_git_fetch),
            checkout: reader.boolean("GIT_CHECKOUT", true),
            clean_flags: reader.flags("GIT_CLEAN_FLAGS", "-ffdx"),
            fetch_flags: reader.flags("GIT_FETCH_EXTRA_FLAGS", "--prune --quiet"),
            clone_flags: reader.flags("GIT_CLONE_EXTRA_FLAGS", ""),
            depth,
            submodules: reader.submodules(),
            submodule_depth: reader.number("GIT_SUBMODULE_DEPTH", depth),
            submodule_paths: words(&reader.text("GIT_SUBMODULE_PATHS")),
            submodule_update_flags: words(&reader.text("GIT_SUBMODULE_UPDATE_FLAGS")),
            submodule_force_https: reader.boolean("GIT_SUBMODULE_FORCE_HTTPS", false),
            lfs_skip_smudge: variables
                .find("GIT_LFS_SKIP_SMUDGE")
                .is_some()
                .then(|| reader.boolean("GIT_LFS_SKIP_SMUDGE", false)),
            debug_trace,
            debug_services: variables.is_true("CI_DEBUG_SERVICES"),
            after_script_ignores_errors: reader.boolean("AFTER_SCRIPT_IGNORE_ERRORS", true),
            script_timeout: reader.duration("RUNNER_SCRIPT_TIMEOUT"),
            after_script_timeout: reader
                .duration("RUNNER_AFTER_SCRIPT_TIMEOUT")
                .unwrap_or(Self::DEFAULT_AFTER_SCRIPT_TIMEOUT),
            attempts: Attempts {
                get_sources: reader.attempts("GET_SOURCES_ATTEMPTS"),
                restore_cache: reader.attempts("RESTORE_CACHE_ATTEMPTS"),
                download_artifacts: reader.attempts("ARTIFACT_DOWNLOAD_ATTEMPTS"),
                secrets: reader.attempts("SECRETS_RETRIEVAL_ATTEMPTS"),
                job_section: reader.attempts("EXECUTOR_JOB_SECTION_ATTEMPTS"),
            },
            cache_request_timeout: reader.number("CACHE_REQUEST_TIMEOUT", 10),
        }
    }
}

struct Reader<'a> {
    variables: &'a Variables,
    warnings: &'a mut Vec<String>,
}

// === impl Reader ===

impl Reader<'_> {
    fn text(&self, key: &str) -> String {
        self.variables.get(key).map(|value| value.trim().to_owned()).unwrap_or_default()
    }

    /// What a warning may show of a value.
    fn shown(&self, key: &str) -> String {
        match self.variables.find(key) {
            Some(variable) if variable.masked => "[MASKED]".to_owned(),
            Some(variable) => format!("\"{}\"", variable.value.escape_debug()),
            None => String::new(),
        }
    }

    fn boolean(&mut self, key: &str, default: bool) -> bool {
        let text = self.text(key);
        if text.is_empty() {
            return default;
        }
        parse_strict_bool(&text).unwrap_or_else(|| {
            let shown = self.shown(key);
            self.warnings.push(format!("{key}: expected bool got {shown}, using default value: {default}"));
            default
        })
    }

    fn number(&mut self, key: &str, default: u32) -> u32 {
        let text = self.text(key);
        if text.is_empty() {
            return default;
        }
        text.parse().unwrap_or_else(|_| {
            let shown = self.shown(key);
            self.warnings.push(format!("{key}: expected int got {shown}, using default value: {default}"));
            default
        })
    }

    fn attempts(&mut self, key: &str) -> u32 {
        let text = self.text(key);
        if text.is_empty() {
            return 1;
        }
        let Ok(asked) = text.parse::<i64>() else {
            let shown = self.shown(key);
            self.warnings.push(format!("{key}: expected int got {shown}, using default value: 1"));
            return 1;
        };
        let taken = asked.clamp(1, 10);
        if taken != asked {
            self.warnings.push(format!("{key}: {asked} is outside of the range 1 to 10, using {taken}"));
        }
        u32::try_from(taken).unwrap_or(1)
    }

    fn submodules(&mut self) -> SubmoduleStrategy {
        match self.text("GIT_SUBMODULE_STRATEGY").as_str() {
            "" | "none" => SubmoduleStrategy::None,
            "normal" => SubmoduleStrategy::Normal,
            "recursive" => SubmoduleStrategy::Recursive,
            _ => {
                let shown = self.shown("GIT_SUBMODULE_STRATEGY");
                self.warnings.push(format!(
                    "GIT_SUBMODULE_STRATEGY: expected either \"normal\", \"recursive\" or \"none\" got {shown}"
                ));
                SubmoduleStrategy::Invalid
            }
        }
    }

    fn strategy(&mut self, allow_git_fetch: bool) -> GitStrategy {
        let (default, name) =
            if allow_git_fetch { (GitStrategy::Fetch, "fetch") } else { (GitStrategy::Clone, "clone") };
        match self.text("GIT_STRATEGY").as_str() {
            "" => default,
            "clone" => GitStrategy::Clone,
            "fetch" => GitStrategy::Fetch,
            "none" => GitStrategy::None,
            "empty" => GitStrategy::Empty,
            _ => {
                let shown = self.shown("GIT_STRATEGY");
                self.warnings.push(format!(
                    "GIT_STRATEGY: expected either \"clone\", \"fetch\", \"none\" or \"empty\" got {shown}, using default value: {name}"
                ));
                default
            }
        }
    }

    fn flags(&self, key: &str, default: &str) -> Vec<String> {
        match self.text(key).as_str() {
            "" => words(default),
            "none" => Vec::new(),
            flags => words(flags),
        }
    }

    fn duration(&mut self, key: &str) -> Option<Duration> {
        let text = self.text(key);
        if text.is_empty() {
            return None;
        }
        let shown = self.shown(key);
        match go_duration::parse(&text) {
            Ok(duration) => (!duration.is_zero()).then_some(duration),
            Err(error) if error.problem == DurationProblem::Negative => {
                self.warnings.push(format!("Ignoring relative {key} timeout: {shown}"));
                None
            }
            // The error repeats the text, which may hold a masked variable.
            Err(_) => {
                self.warnings.push(format!(
                    "Ignoring malformed {key} timeout: {shown}: not a duration such as `1h30m`"
                ));
                None
            }
        }
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}
