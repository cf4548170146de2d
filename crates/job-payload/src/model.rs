//! The members of the payload, in GitLab's names.

use std::collections::BTreeMap;
use std::fmt;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::decode::{lenient, text_or_number};

/// One job.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Job {
    /// Job id, used in every later URL.
    #[serde(deserialize_with = "lenient")]
    pub id: u64,
    /// Job token.
    #[serde(deserialize_with = "lenient")]
    pub token: Token,
    /// Default git strategy: `fetch` if true, else `clone`.
    #[serde(deserialize_with = "lenient")]
    pub allow_git_fetch: bool,
    /// Who and what the job belongs to.
    #[serde(deserialize_with = "lenient")]
    pub job_info: JobInfo,
    /// What to check out.
    #[serde(deserialize_with = "lenient")]
    pub git_info: GitInfo,
    /// Job timeout.
    #[serde(deserialize_with = "lenient")]
    pub runner_info: RunnerInfo,
    /// Job inputs.
    #[serde(deserialize_with = "lenient")]
    pub inputs: Vec<Input>,
    /// Job variables, in the server's order.
    #[serde(deserialize_with = "lenient")]
    pub variables: Vec<Variable>,
    /// Script, after-script and further steps.
    #[serde(deserialize_with = "lenient")]
    pub steps: Vec<Step>,
    /// Container image.
    #[serde(deserialize_with = "lenient")]
    pub image: Image,
    /// Service containers.
    #[serde(deserialize_with = "lenient")]
    pub services: Vec<Image>,
    /// What to upload afterwards.
    #[serde(deserialize_with = "lenient")]
    pub artifacts: Vec<Artifact>,
    /// What to restore before and save afterwards.
    #[serde(deserialize_with = "lenient")]
    pub cache: Vec<Cache>,
    /// Registry credentials.
    #[serde(deserialize_with = "lenient")]
    pub credentials: Vec<Credential>,
    /// Earlier jobs whose artifacts are wanted.
    #[serde(deserialize_with = "lenient")]
    pub dependencies: Vec<Dependency>,
    /// What the server wants and understands.
    #[serde(deserialize_with = "lenient")]
    pub features: Features,
    /// Secrets by variable name, kept as sent; each provider reads its own shape.
    #[serde(deserialize_with = "lenient")]
    pub secrets: BTreeMap<String, serde_json::Value>,
    /// Scripts around the checkout.
    #[serde(deserialize_with = "lenient")]
    pub hooks: Vec<Hook>,
    /// Steps of a `run:` job, as JSON text; empty when there are none.
    #[serde(deserialize_with = "lenient")]
    pub run: String,
    /// Security policy of the job.
    #[serde(deserialize_with = "lenient")]
    pub policy_options: PolicyOptions,
    /// Suspended environments.
    #[serde(deserialize_with = "lenient")]
    pub suspend_options: SuspendOptions,
    /// Paths of members that had an unexpected shape and were replaced by their default. Not on the wire.
    #[serde(skip)]
    pub oddities: Vec<String>,
}

/// A token that cannot be printed.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Token(pub SecretString);

/// `job_info`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the members carry GitLab's own names and say what they are")]
pub struct JobInfo {
    #[serde(deserialize_with = "lenient")]
    pub name: String,
    #[serde(deserialize_with = "lenient")]
    pub stage: String,
    #[serde(deserialize_with = "lenient")]
    pub pipeline_id: u64,
    #[serde(deserialize_with = "lenient")]
    pub project_id: u64,
    #[serde(deserialize_with = "lenient")]
    pub project_name: String,
    #[serde(deserialize_with = "lenient")]
    pub project_full_path: String,
    #[serde(deserialize_with = "lenient")]
    pub namespace_id: u64,
    #[serde(deserialize_with = "lenient")]
    pub root_namespace_id: u64,
    #[serde(deserialize_with = "lenient")]
    pub organization_id: u64,
    #[serde(deserialize_with = "lenient")]
    pub instance_id: String,
    #[serde(deserialize_with = "lenient")]
    pub instance_uuid: String,
    #[serde(deserialize_with = "lenient")]
    pub user_id: u64,
    #[serde(deserialize_with = "lenient")]
    pub scoped_user_id: Option<u64>,
    #[serde(deserialize_with = "lenient")]
    pub time_in_queue_seconds: f64,
    /// A number as text, or `+Inf`; a metric label.
    #[serde(deserialize_with = "text_or_number")]
    pub project_jobs_running_on_instance_runners_count: String,
    #[serde(deserialize_with = "lenient")]
    pub queue_size: i64,
    #[serde(deserialize_with = "lenient")]
    pub queue_depth: i64,
}

/// `git_info`.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct GitInfo {
    /// Remote with `gitlab-ci-token:<token>@` user info.
    #[serde(deserialize_with = "lenient")]
    pub repo_url: String,
    /// Empty means `sha1`.
    #[serde(deserialize_with = "lenient")]
    pub repo_object_format: String,
    /// Branch, tag or merge request ref.
    #[serde(rename = "ref", deserialize_with = "lenient")]
    pub ref_name: String,
    /// Commit.
    #[serde(deserialize_with = "lenient")]
    pub sha: String,
    /// Commit before the push.
    #[serde(deserialize_with = "lenient")]
    pub before_sha: String,
    /// `branch` or `tag`.
    #[serde(deserialize_with = "lenient")]
    pub ref_type: String,
    /// The only refs fetched.
    #[serde(deserialize_with = "lenient")]
    pub refspecs: Vec<String>,
    /// Already reflects `GIT_DEPTH`; 0 is everything.
    #[serde(deserialize_with = "lenient")]
    pub depth: i64,
    /// Absent: fall back to `CI_COMMIT_REF_PROTECTED`.
    #[serde(deserialize_with = "lenient")]
    pub protected: Option<bool>,
}

/// `runner_info`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct RunnerInfo {
    /// Identity of the runner on the server.
    #[serde(deserialize_with = "lenient")]
    pub uuid: String,
    /// Job timeout in seconds as sent; see [`Job::timeout`].
    #[serde(deserialize_with = "lenient")]
    pub timeout: i64,
}

/// One input of a job.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Input {
    /// Name after `job.inputs.`.
    #[serde(deserialize_with = "lenient")]
    pub key: String,
    /// `{type, content, sensitive}` as sent.
    pub value: serde_json::Value,
}

/// One job variable. `Debug` shows the value of public, unmasked variables only.
#[derive(Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Variable {
    /// Name.
    #[serde(deserialize_with = "lenient")]
    pub key: String,
    /// Value, unexpanded.
    #[serde(deserialize_with = "text_or_number")]
    pub value: String,
    /// May be passed to service containers.
    #[serde(deserialize_with = "lenient")]
    pub public: bool,
    /// The value is written to a file, whose path becomes the variable's value.
    #[serde(deserialize_with = "lenient")]
    pub file: bool,
    /// Never shown in the log.
    #[serde(deserialize_with = "lenient")]
    pub masked: bool,
    /// Not expanded.
    #[serde(deserialize_with = "lenient")]
    pub raw: bool,
}

/// One entry of `steps`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Step {
    /// `script`, `after_script`, `release` or another name.
    #[serde(deserialize_with = "lenient")]
    pub name: String,
    /// Commands; an element may have several lines.
    #[serde(deserialize_with = "lenient")]
    pub script: Vec<String>,
    /// Seconds; informational.
    #[serde(deserialize_with = "lenient")]
    pub timeout: i64,
    /// `on_success`, `on_failure`, `always`; informational.
    #[serde(deserialize_with = "lenient")]
    pub when: String,
    /// Informational: the server decides from the exit code.
    #[serde(deserialize_with = "lenient")]
    pub allow_failure: bool,
}

/// `image` and the entries of `services`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Image {
    /// Reference; empty when the job names none.
    #[serde(deserialize_with = "lenient")]
    pub name: String,
    /// Aliases separated by comma or space.
    #[serde(deserialize_with = "lenient")]
    pub alias: String,
    /// Command.
    #[serde(deserialize_with = "lenient")]
    pub command: Vec<String>,
    /// Entrypoint.
    #[serde(deserialize_with = "lenient")]
    pub entrypoint: Vec<String>,
    /// Ports.
    #[serde(deserialize_with = "lenient")]
    pub ports: Vec<Port>,
    /// Variables of a service.
    #[serde(deserialize_with = "lenient")]
    pub variables: Vec<Variable>,
    /// `always`, `if-not-present`, `never`.
    #[serde(deserialize_with = "lenient")]
    pub pull_policy: Vec<String>,
    /// Per-executor options.
    #[serde(deserialize_with = "lenient")]
    pub executor_opts: ExecutorOptions,
}

/// `ports[]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the members carry GitLab's own names and say what they are")]
pub struct Port {
    #[serde(deserialize_with = "lenient")]
    pub number: u32,
    #[serde(deserialize_with = "lenient")]
    pub protocol: String,
    #[serde(deserialize_with = "lenient")]
    pub name: String,
}

/// `executor_opts`; unknown keys are kept by name, because a job that uses them must fail.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ExecutorOptions {
    /// Options of the Docker executors.
    #[serde(deserialize_with = "lenient")]
    pub docker: DockerOptions,
    /// Options of the Kubernetes executor.
    #[serde(deserialize_with = "lenient")]
    pub kubernetes: KubernetesOptions,
    /// Keys that no executor knows.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, serde_json::Value>,
}

/// `executor_opts.docker`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct DockerOptions {
    /// For example `linux/arm64`.
    #[serde(deserialize_with = "lenient")]
    pub platform: String,
    /// Name or number.
    #[serde(deserialize_with = "text_or_number")]
    pub user: String,
    /// Keys that the executor does not know.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, serde_json::Value>,
}

/// `executor_opts.kubernetes`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct KubernetesOptions {
    /// Name or number.
    #[serde(deserialize_with = "text_or_number")]
    pub user: String,
    /// Keys that the executor does not know.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, serde_json::Value>,
}

/// One entry of `artifacts`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Artifact {
    /// Base name, shell-expanded by the uploader.
    #[serde(deserialize_with = "lenient")]
    pub name: String,
    /// Take untracked files.
    #[serde(deserialize_with = "lenient")]
    pub untracked: bool,
    /// Globs to take.
    #[serde(deserialize_with = "lenient")]
    pub paths: Vec<String>,
    /// Globs to leave out.
    #[serde(deserialize_with = "lenient")]
    pub exclude: Vec<String>,
    /// `on_success` (or empty), `on_failure`, `always`.
    #[serde(deserialize_with = "lenient")]
    pub when: String,
    /// `archive` or a report type, passed through.
    #[serde(deserialize_with = "lenient")]
    pub artifact_type: String,
    /// Empty, `zip`, `gzip`, `raw`, `zipzstd`, `tarzstd`.
    #[serde(deserialize_with = "lenient")]
    pub artifact_format: String,
    /// Passed through.
    #[serde(deserialize_with = "lenient")]
    pub expire_in: String,
}

/// One entry of `cache`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Cache {
    /// Key, unexpanded.
    #[serde(deserialize_with = "lenient")]
    pub key: String,
    /// Take untracked files.
    #[serde(deserialize_with = "lenient")]
    pub untracked: bool,
    /// `pull-push` (or empty), `pull`, `push`; may contain variables.
    #[serde(deserialize_with = "lenient")]
    pub policy: String,
    /// Globs.
    #[serde(deserialize_with = "lenient")]
    pub paths: Vec<String>,
    /// `on_success` (or empty), `on_failure`, `always`.
    #[serde(deserialize_with = "lenient")]
    pub when: String,
    /// Keys tried after the first.
    #[serde(deserialize_with = "lenient")]
    pub fallback_keys: Vec<String>,
}

/// One entry of `credentials`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Credential {
    /// `registry` is used for image pulls.
    #[serde(rename = "type", deserialize_with = "lenient")]
    pub kind: String,
    /// Host.
    #[serde(deserialize_with = "lenient")]
    pub url: String,
    /// User.
    #[serde(deserialize_with = "lenient")]
    pub username: String,
    /// Password.
    #[serde(deserialize_with = "lenient")]
    pub password: Token,
}

/// One entry of `dependencies`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Dependency {
    /// Job whose artifacts are wanted.
    #[serde(deserialize_with = "lenient")]
    pub id: u64,
    /// That job's token.
    #[serde(deserialize_with = "lenient")]
    pub token: Token,
    /// That job's name.
    #[serde(deserialize_with = "lenient")]
    pub name: String,
    /// The archive; entries with an empty file name are skipped.
    #[serde(deserialize_with = "lenient")]
    pub artifacts_file: DependencyFile,
}

/// `artifacts_file`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct DependencyFile {
    /// Name of the archive.
    #[serde(deserialize_with = "lenient")]
    pub filename: String,
    /// Bytes.
    #[serde(deserialize_with = "lenient")]
    pub size: u64,
}

/// `features`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Features {
    /// Emit section markers.
    #[serde(deserialize_with = "lenient")]
    pub trace_sections: bool,
    /// Extra prefixes for token masking.
    #[serde(deserialize_with = "lenient")]
    pub token_mask_prefixes: Vec<String>,
    /// Failure reasons that the server understands.
    #[serde(deserialize_with = "lenient")]
    pub failure_reasons: Vec<String>,
    /// Tracing of the job, as sent.
    pub tracing: serde_json::Value,
}

/// One entry of `hooks`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Hook {
    /// `pre_get_sources_script` or `post_get_sources_script`.
    #[serde(deserialize_with = "lenient")]
    pub name: String,
    /// Commands.
    #[serde(deserialize_with = "lenient")]
    pub script: Vec<String>,
}

/// `policy_options`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct PolicyOptions {
    /// The job was added by a policy.
    #[serde(deserialize_with = "lenient")]
    pub execution_policy_job: bool,
    /// Its name.
    #[serde(deserialize_with = "lenient")]
    pub policy_name: String,
    /// Whether users may override variables.
    #[serde(deserialize_with = "lenient")]
    pub policy_variables_override_allowed: Option<bool>,
    /// Exceptions from that rule.
    #[serde(deserialize_with = "lenient")]
    pub policy_variables_override_exceptions: Vec<String>,
}

/// `suspend_options`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct SuspendOptions {
    /// Suspend the environment after success.
    #[serde(deserialize_with = "lenient")]
    pub suspend_on_success: bool,
    /// Suspend the environment after failure.
    #[serde(deserialize_with = "lenient")]
    pub suspend_on_failure: bool,
    /// Environment to resume.
    #[serde(deserialize_with = "lenient")]
    pub runtime_environment_key: String,
}

// === impl Job ===

impl Job {
    /// Timeout that GitLab's runner uses when the server sends none.
    pub const DEFAULT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(7200);

    /// The job timeout: `runner_info.timeout` seconds, or [`DEFAULT_TIMEOUT`](Self::DEFAULT_TIMEOUT) when it is 0 or negative.
    #[must_use]
    pub fn timeout(&self) -> std::time::Duration {
        match u64::try_from(self.runner_info.timeout) {
            Ok(seconds) if seconds > 0 => std::time::Duration::from_secs(seconds),
            Ok(_) | Err(_) => Self::DEFAULT_TIMEOUT,
        }
    }

    /// The last variable with this name, as scripts see it.
    #[must_use]
    pub fn variable(&self, key: &str) -> Option<&Variable> {
        self.variables.iter().rev().find(|variable| variable.key == key)
    }
}

// === impl Token ===

impl Token {
    /// The secret text. Only for handing it on; never for printing.
    #[must_use]
    pub fn expose(&self) -> &str {
        use secrecy::ExposeSecret as _;
        self.0.expose_secret()
    }
}

impl Default for Token {
    fn default() -> Self {
        Self(SecretString::from(""))
    }
}

impl From<&str> for Token {
    fn from(token: &str) -> Self {
        Self(SecretString::from(token))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

// === impl GitInfo ===

impl fmt::Debug for GitInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL carries the job token.
        f.debug_struct("GitInfo")
            .field("ref_name", &self.ref_name)
            .field("sha", &self.sha)
            .field("refspecs", &self.refspecs)
            .field("depth", &self.depth)
            .finish_non_exhaustive()
    }
}

// === impl Variable ===

impl fmt::Debug for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = if self.public && !self.masked { self.value.as_str() } else { "[hidden]" };
        f.debug_struct("Variable").field("key", &self.key).field("value", &shown).finish_non_exhaustive()
    }
}
