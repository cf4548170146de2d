//! The feature flags that GitLab Runner knows.

use crate::check::Findings;
use crate::model::Runner;
use crate::read::KeyPath;

/// Flags that exist.
const KNOWN: &[&str] = &[
    "FF_CLEAN_UP_FAILED_CACHE_EXTRACT",
    "FF_CONCRETE",
    "FF_DISABLE_AUTOMATIC_TOKEN_ROTATION",
    "FF_DISABLE_POWERSHELL_STDIN",
    "FF_DISABLE_UMASK_FOR_DOCKER_EXECUTOR",
    "FF_DISABLE_UMASK_FOR_KUBERNETES_EXECUTOR",
    "FF_ENABLE_BASH_EXIT_CODE_CHECK",
    "FF_ENABLE_JOB_CLEANUP",
    "FF_ENABLE_JOB_INPUTS_INTERPOLATION",
    "FF_EXPORT_HIGH_CARDINALITY_METRICS",
    "FF_GIT_URLS_WITHOUT_TOKENS",
    "FF_HASH_CACHE_KEYS",
    "FF_KUBERNETES_HONOR_ENTRYPOINT",
    "FF_LOG_IMAGES_CONFIGURED_FOR_JOB",
    "FF_MASK_ALL_DEFAULT_TOKENS",
    "FF_NETWORK_PER_BUILD",
    "FF_POSIXLY_CORRECT_ESCAPES",
    "FF_PRINT_POD_EVENTS",
    "FF_RESOLVE_FULL_TLS_CHAIN",
    "FF_SCRIPT_SECTIONS",
    "FF_SCRIPT_TO_STEP_MIGRATION",
    "FF_SECRET_RESOLVING_FAILS_IF_MISSING",
    "FF_SUSPENDABLE_ENVIRONMENTS",
    "FF_TEST_FEATURE",
    "FF_TIMESTAMPS",
    "FF_USE_ADAPTIVE_REQUEST_CONCURRENCY",
    "FF_USE_ADVANCED_POD_SPEC_CONFIGURATION",
    "FF_USE_DIRECT_DOWNLOAD",
    "FF_USE_DOCKER_AUTOSCALER_DIAL_STDIO",
    "FF_USE_DUMB_INIT_WITH_KUBERNETES_EXECUTOR",
    "FF_USE_DYNAMIC_TRACE_FORCE_SEND_INTERVAL",
    "FF_USE_EXPONENTIAL_BACKOFF_STAGE_RETRY",
    "FF_USE_FASTZIP",
    "FF_USE_FLEETING_ACQUIRE_HEARTBEATS",
    "FF_USE_GITALY_CORRELATION_ID",
    "FF_USE_GIT_BUNDLE_URIS",
    "FF_USE_GIT_NATIVE_CLONE",
    "FF_USE_GIT_PROACTIVE_AUTH",
    "FF_USE_INIT_WITH_DOCKER_EXECUTOR",
    "FF_USE_JOB_ROUTER",
    "FF_USE_LEGACY_BASH_EVAL",
    "FF_USE_LEGACY_GCS_CACHE_ADAPTER",
    "FF_USE_LEGACY_KUBERNETES_EXECUTION_STRATEGY",
    "FF_USE_LEGACY_S3_CACHE_ADAPTER",
    "FF_USE_NATIVE_CONTAINER_STOP",
    "FF_USE_PARALLEL_ARTIFACT_TRANSFER",
    "FF_USE_PARALLEL_CACHE_TRANSFER",
    "FF_USE_POD_ACTIVE_DEADLINE_SECONDS",
    "FF_USE_POWERSHELL_PATH_RESOLVER",
    "FF_USE_WINDOWS_JOB_OBJECT",
    "FF_USE_WINDOWS_LEGACY_PROCESS_STRATEGY",
    "FF_WAIT_FOR_POD_TO_BE_REACHABLE",
];

/// Flags whose behaviour is always on since GitLab Runner 19.3.
const SETTLED: &[&str] =
    &["FF_SET_PERMISSIONS_BEFORE_CLEANUP", "FF_SKIP_NOOP_BUILD_STAGES", "FF_USE_NEW_BASH_EVAL_STRATEGY"];

pub(super) fn check(runner: &Runner, at: &KeyPath, findings: &mut Findings) {
    let at = at.key("feature_flags");
    for (name, on) in &runner.feature_flags {
        if KNOWN.contains(&name.as_str()) {
            continue;
        }
        if SETTLED.contains(&name.as_str()) {
            if !on {
                let message = format!("`{name}` can no longer be switched off: its behaviour is always on");
                findings.warning("settled-flag", &at.key(name), message, "remove it");
            }
            continue;
        }
        let nearest = KNOWN
            .iter()
            .map(|known| (strsim::jaro_winkler(name, known), *known))
            .filter(|(likeness, _)| *likeness > 0.92)
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let message = match nearest {
            Some((_, known)) => format!("unknown feature flag `{name}`; did you mean `{known}`?"),
            None => format!("unknown feature flag `{name}`"),
        };
        findings.warning(
            "unknown-flag",
            &at.key(name),
            message,
            "an unknown flag becomes an ordinary variable of the job",
        );
    }
}
