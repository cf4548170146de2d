//! Feature flags: what exists, what is on by default, and which setting wins.

use std::collections::BTreeMap;

use crate::runner::RunnerFacts;
use crate::variables::{Variable, parse_strict_bool};

macro_rules! flags {
    ($($variant:ident = $name:literal, $default:literal;)*) => {
        /// A feature flag of GitLab Runner 19.4.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "the flags carry GitLab's own names, under which they are documented")]
        pub enum FeatureFlag { $($variant,)* }

        impl FeatureFlag {
            /// All flags, in the order in which they are exported.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Name, as in `config.toml` and in variables.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Value when nobody sets it.
            #[must_use]
            pub const fn default_value(self) -> bool {
                match self { $(Self::$variant => $default,)* }
            }
        }
    };
}

flags! {
    NetworkPerBuild = "FF_NETWORK_PER_BUILD", false;
    UseDirectDownload = "FF_USE_DIRECT_DOWNLOAD", true;
    UseFastzip = "FF_USE_FASTZIP", true;
    DisableUmaskForDockerExecutor = "FF_DISABLE_UMASK_FOR_DOCKER_EXECUTOR", false;
    EnableBashExitCodeCheck = "FF_ENABLE_BASH_EXIT_CODE_CHECK", false;
    UseLegacyBashEval = "FF_USE_LEGACY_BASH_EVAL", false;
    PosixlyCorrectEscapes = "FF_POSIXLY_CORRECT_ESCAPES", false;
    UsePowershellPathResolver = "FF_USE_POWERSHELL_PATH_RESOLVER", false;
    ScriptSections = "FF_SCRIPT_SECTIONS", false;
    EnableJobCleanup = "FF_ENABLE_JOB_CLEANUP", false;
    UseExponentialBackoffStageRetry = "FF_USE_EXPONENTIAL_BACKOFF_STAGE_RETRY", true;
    SecretResolvingFailsIfMissing = "FF_SECRET_RESOLVING_FAILS_IF_MISSING", true;
    UseGitBundleUris = "FF_USE_GIT_BUNDLE_URIS", true;
    UseGitNativeClone = "FF_USE_GIT_NATIVE_CLONE", false;
    UseGitalyCorrelationId = "FF_USE_GITALY_CORRELATION_ID", true;
    UseGitProactiveAuth = "FF_USE_GIT_PROACTIVE_AUTH", false;
    GitUrlsWithoutTokens = "FF_GIT_URLS_WITHOUT_TOKENS", false;
    Timestamps = "FF_TIMESTAMPS", true;
    MaskAllDefaultTokens = "FF_MASK_ALL_DEFAULT_TOKENS", true;
    LogImagesConfiguredForJob = "FF_LOG_IMAGES_CONFIGURED_FOR_JOB", false;
    HashCacheKeys = "FF_HASH_CACHE_KEYS", false;
    CleanUpFailedCacheExtract = "FF_CLEAN_UP_FAILED_CACHE_EXTRACT", false;
    UseLegacyGcsCacheAdapter = "FF_USE_LEGACY_GCS_CACHE_ADAPTER", false;
    UseLegacyS3CacheAdapter = "FF_USE_LEGACY_S3_CACHE_ADAPTER", false;
    UseParallelCacheTransfer = "FF_USE_PARALLEL_CACHE_TRANSFER", false;
    UseParallelArtifactTransfer = "FF_USE_PARALLEL_ARTIFACT_TRANSFER", false;
    EnableJobInputsInterpolation = "FF_ENABLE_JOB_INPUTS_INTERPOLATION", true;
    ScriptToStepMigration = "FF_SCRIPT_TO_STEP_MIGRATION", false;
    Concrete = "FF_CONCRETE", false;
    SuspendableEnvironments = "FF_SUSPENDABLE_ENVIRONMENTS", false;
    UseFleetingAcquireHeartbeats = "FF_USE_FLEETING_ACQUIRE_HEARTBEATS", false;
    UseDockerAutoscalerDialStdio = "FF_USE_DOCKER_AUTOSCALER_DIAL_STDIO", true;
    UseInitWithDockerExecutor = "FF_USE_INIT_WITH_DOCKER_EXECUTOR", false;
    UseNativeContainerStop = "FF_USE_NATIVE_CONTAINER_STOP", false;
    ExportHighCardinalityMetrics = "FF_EXPORT_HIGH_CARDINALITY_METRICS", false;
    UseAdaptiveRequestConcurrency = "FF_USE_ADAPTIVE_REQUEST_CONCURRENCY", true;
    UseDynamicTraceForceSendInterval = "FF_USE_DYNAMIC_TRACE_FORCE_SEND_INTERVAL", false;
    DisableAutomaticTokenRotation = "FF_DISABLE_AUTOMATIC_TOKEN_ROTATION", false;
    ResolveFullTlsChain = "FF_RESOLVE_FULL_TLS_CHAIN", false;
    UseJobRouter = "FF_USE_JOB_ROUTER", false;
    DisablePowershellStdin = "FF_DISABLE_POWERSHELL_STDIN", false;
    UseWindowsLegacyProcessStrategy = "FF_USE_WINDOWS_LEGACY_PROCESS_STRATEGY", false;
    UseWindowsJobObject = "FF_USE_WINDOWS_JOB_OBJECT", false;
    UsePodActiveDeadlineSeconds = "FF_USE_POD_ACTIVE_DEADLINE_SECONDS", true;
    UseLegacyKubernetesExecutionStrategy = "FF_USE_LEGACY_KUBERNETES_EXECUTION_STRATEGY", false;
    KubernetesHonorEntrypoint = "FF_KUBERNETES_HONOR_ENTRYPOINT", false;
    UseAdvancedPodSpecConfiguration = "FF_USE_ADVANCED_POD_SPEC_CONFIGURATION", false;
    PrintPodEvents = "FF_PRINT_POD_EVENTS", false;
    UseDumbInitWithKubernetesExecutor = "FF_USE_DUMB_INIT_WITH_KUBERNETES_EXECUTOR", false;
    DisableUmaskForKubernetesExecutor = "FF_DISABLE_UMASK_FOR_KUBERNETES_EXECUTOR", false;
    WaitForPodToBeReachable = "FF_WAIT_FOR_POD_TO_BE_REACHABLE", false;
    TestFeature = "FF_TEST_FEATURE", false;
}

/// Flags that GitLab Runner had, and the value under which their behaviour is always on.
const GONE: [(&str, bool); 3] = [
    ("FF_USE_NEW_BASH_EVAL_STRATEGY", true),
    ("FF_SKIP_NOOP_BUILD_STAGES", true),
    ("FF_SET_PERMISSIONS_BEFORE_CLEANUP", true),
];

/// The value of every flag for one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeatureFlags {
    // Only what differs from the default.
    changed: BTreeMap<FeatureFlag, bool>,
}

// === impl FeatureFlag ===

impl FeatureFlag {
    /// The flag with this exact name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|flag| flag.name() == name)
    }
}

// === impl FeatureFlags ===

impl FeatureFlags {
    /// Resolves all flags: `[runners.feature_flags]` over job variables over `environment` over the default. A value that
    /// is no boolean is named in `warnings` and leaves the default, as in GitLab Runner.
    #[must_use]
    pub fn resolve(
        runner: &RunnerFacts,
        environment: &[Variable],
        job: &[job_payload::Variable],
        warnings: &mut Vec<String>,
    ) -> Self {
        let mut changed = BTreeMap::new();
        let from_environment = environment.iter().map(|variable| (&variable.key, &variable.value));
        let from_job = job.iter().map(|variable| (&variable.key, &variable.value));
        let mut texts = BTreeMap::new();
        for (key, value) in from_environment.chain(from_job) {
            if !key.starts_with("FF_") {
                continue;
            }
            match FeatureFlag::from_name(key) {
                Some(flag) => {
                    texts.insert(flag, value);
                }
                None => warnings.extend(unknown_variable(key, value)),
            }
        }
        for (flag, text) in texts {
            match parse_strict_bool(text) {
                Some(value) => {
                    changed.insert(flag, value);
                }
                None if text.is_empty() => {}
                None => warnings.push(format!(
                    "{}: expected a boolean, using the default value: {}",
                    flag.name(),
                    flag.default_value()
                )),
            }
        }
        for (name, value) in &runner.feature_flags {
            match FeatureFlag::from_name(name) {
                Some(flag) => {
                    changed.insert(flag, *value);
                }
                None => warnings.extend(unknown_flag(name, *value)),
            }
        }
        changed.retain(|flag, value| *value != flag.default_value());
        Self { changed }
    }

    /// Whether the flag is on.
    #[must_use]
    pub fn is_on(&self, flag: FeatureFlag) -> bool {
        self.changed.get(&flag).copied().unwrap_or(flag.default_value())
    }

    /// Flags that differ from their default, as `NAME:value`, for the line `feature flags: …` of the log's header.
    #[must_use]
    pub fn changed(&self) -> Vec<String> {
        self.changed.iter().map(|(flag, value)| format!("{}:{value}", flag.name())).collect()
    }
}

/// The warning for a name in `[runners.feature_flags]` that is no flag.
fn unknown_flag(name: &str, value: bool) -> Option<String> {
    if let Some((_, always)) = GONE.iter().find(|(gone, _)| *gone == name) {
        return (value != *always).then(|| gone(name, *always));
    }
    Some(match nearest(name, 5) {
        Some(nearest) => {
            format!("{name}: unknown feature flag in the runner's settings; did you mean {nearest}?")
        }
        None => format!("{name}: unknown feature flag in the runner's settings"),
    })
}

/// The warning for a variable that looks like a flag. Unknown names are ordinary variables, which a job may have for itself:
/// only those that are a slip of the pen away from a flag are worth a word.
fn unknown_variable(name: &str, value: &str) -> Option<String> {
    if let Some((_, always)) = GONE.iter().find(|(gone, _)| *gone == name) {
        return (parse_strict_bool(value) == Some(!always)).then(|| gone(name, *always));
    }
    nearest(name, 2).map(|nearest| format!("{name}: no feature flag; did you mean {nearest}?"))
}

fn gone(name: &str, always: bool) -> String {
    format!("{name}: no longer a feature flag, jobs run as if it was {always}")
}

fn nearest(name: &str, distance: usize) -> Option<&'static str> {
    FeatureFlag::ALL
        .iter()
        .map(|flag| (strsim::damerau_levenshtein(flag.name(), name), flag.name()))
        .min()
        .filter(|(found, _)| *found <= distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("FF_TIMESTAMP", "true", Some("FF_TIMESTAMP: no feature flag; did you mean FF_TIMESTAMPS?"); "a slip")]
    #[test_case("FF_OF_MY_OWN", "true", None; "the job's own")]
    #[test_case("FF_USE_NEW_BASH_EVAL_STRATEGY", "true", None; "always on")]
    #[test_case("FF_USE_NEW_BASH_EVAL_STRATEGY", "false", Some("FF_USE_NEW_BASH_EVAL_STRATEGY: no longer a feature flag, jobs run as if it was true"); "cannot be switched off")]
    fn variables_that_look_like_flags(name: &str, value: &str, expected: Option<&str>) {
        assert_eq!(unknown_variable(name, value).as_deref(), expected);
    }

    #[test_case("FF_USE_FASTZPI", true, Some("FF_USE_FASTZPI: unknown feature flag in the runner's settings; did you mean FF_USE_FASTZIP?"); "a slip")]
    #[test_case("FF_SOMETHING_ELSE_ENTIRELY", true, Some("FF_SOMETHING_ELSE_ENTIRELY: unknown feature flag in the runner's settings"); "nothing near")]
    #[test_case("FF_SKIP_NOOP_BUILD_STAGES", true, None; "always on")]
    fn names_in_the_settings_that_are_no_flags(name: &str, value: bool, expected: Option<&str>) {
        assert_eq!(unknown_flag(name, value).as_deref(), expected);
    }
}
