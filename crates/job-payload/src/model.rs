//! The members of the payload, in GitLab's names.

use std::collections::BTreeMap;
use std::fmt;

use secrecy::SecretString;
use serde::Serialize;

/// One job. `Debug` shows neither tokens nor secrets.
#[derive(Clone, Default)]
pub struct Job {
    /// Job id, used in every later URL.
    pub id: u64,
    /// Job token.
    pub token: Token,
    /// Default git strategy: `fetch` if true, else `clone`.
    pub allow_git_fetch: bool,
    /// Who and what the job belongs to.
    pub job_info: JobInfo,
    /// What to check out.
    pub git_info: GitInfo,
    /// Job timeout.
    pub runner_info: RunnerInfo,
    /// Job inputs.
    pub inputs: Vec<Input>,
    /// Job variables, in the server's order.
    pub variables: Vec<Variable>,
    /// Script, after-script and further steps.
    pub steps: Vec<Step>,
    /// Container image.
    pub image: Image,
    /// Service containers.
    pub services: Vec<Image>,
    /// What to upload afterwards.
    pub artifacts: Vec<Artifact>,
    /// What to restore before and save afterwards.
    pub cache: Vec<Cache>,
    /// Registry credentials.
    pub credentials: Vec<Credential>,
    /// Earlier jobs whose artifacts are wanted.
    pub dependencies: Vec<Dependency>,
    /// What the server wants and understands.
    pub features: Features,
    /// Secrets by variable name, kept as sent; each provider reads its own shape.
    pub secrets: BTreeMap<String, serde_json::Value>,
    /// Scripts around the checkout.
    pub hooks: Vec<Hook>,
    /// Steps of a `run:` job, as JSON text; empty when there are none.
    pub run: String,
    /// Security policy of the job.
    pub policy_options: PolicyOptions,
    /// Suspended environments.
    pub suspend_options: SuspendOptions,
    /// Members that had an unexpected shape and were replaced by their default: path, what was expected, what was found, never the
    /// value. Not on the wire.
    pub oddities: Vec<String>,
}

/// A token that cannot be printed.
#[derive(Clone)]
pub struct Token(pub SecretString);

/// `job_info`.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "the members carry GitLab's own names and say what they are")]
pub struct JobInfo {
    pub name: String,
    pub stage: String,
    pub pipeline_id: u64,
    pub project_id: u64,
    pub project_name: String,
    pub project_full_path: String,
    pub namespace_id: u64,
    pub root_namespace_id: u64,
    pub organization_id: u64,
    pub instance_id: String,
    pub instance_uuid: String,
    pub user_id: u64,
    pub scoped_user_id: Option<u64>,
    pub time_in_queue_seconds: f64,
    /// A number as text, or `+Inf`; a metric label.
    pub project_jobs_running_on_instance_runners_count: String,
    pub queue_size: i64,
    pub queue_depth: i64,
}

/// `git_info`.
#[derive(Clone, Default)]
pub struct GitInfo {
    /// Remote with `gitlab-ci-token:<token>@` user info.
    pub repo_url: String,
    /// Empty means `sha1`.
    pub repo_object_format: String,
    /// Branch, tag or merge request ref.
    pub ref_name: String,
    /// Commit.
    pub sha: String,
    /// Commit before the push.
    pub before_sha: String,
    /// `branch` or `tag`.
    pub ref_type: String,
    /// The only refs fetched.
    pub refspecs: Vec<String>,
    /// Already reflects `GIT_DEPTH`; 0 is everything.
    pub depth: i64,
    /// Absent: fall back to `CI_COMMIT_REF_PROTECTED`.
    pub protected: Option<bool>,
}

/// `runner_info`.
#[derive(Debug, Clone, Default)]
pub struct RunnerInfo {
    /// Identity of the runner on the server.
    pub uuid: String,
    /// Job timeout in seconds as sent; see [`Job::timeout`].
    pub timeout: i64,
}

/// One input of a job. `Debug` shows its name only, because it may be sensitive.
#[derive(Clone, Default)]
pub struct Input {
    /// Name after `job.inputs.`.
    pub key: String,
    /// `{type, content, sensitive}` as sent.
    pub value: serde_json::Value,
}

/// One job variable. `Debug` shows the value of public, unmasked variables only.
#[derive(Clone, Default, PartialEq, Eq, Serialize)]
pub struct Variable {
    /// Name.
    pub key: String,
    /// Value, unexpanded.
    pub value: String,
    /// May be passed to service containers.
    pub public: bool,
    /// The value is written to a file, whose path becomes the variable's value.
    pub file: bool,
    /// Never shown in the log.
    pub masked: bool,
    /// Not expanded.
    pub raw: bool,
}

/// One entry of `steps`.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Step {
    /// `script`, `after_script`, `release` or another name.
    pub name: String,
    /// Commands; an element may have several lines.
    pub script: Vec<String>,
    /// Seconds; informational.
    pub timeout: i64,
    /// `on_success`, `on_failure`, `always`; informational.
    pub when: String,
    /// Informational: the server decides from the exit code.
    pub allow_failure: bool,
}

/// `image` and the entries of `services`.
#[derive(Debug, Clone, Default)]
pub struct Image {
    /// Reference; empty when the job names none.
    pub name: String,
    /// Aliases separated by comma or space.
    pub alias: String,
    /// Command.
    pub command: Vec<String>,
    /// Entrypoint.
    pub entrypoint: Vec<String>,
    /// Ports.
    pub ports: Vec<Port>,
    /// Variables of a service.
    pub variables: Vec<Variable>,
    /// `always`, `if-not-present`, `never`.
    pub pull_policy: Vec<String>,
    /// Per-executor options.
    pub executor_opts: ExecutorOptions,
}

/// `ports[]`.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "the members carry GitLab's own names and say what they are")]
pub struct Port {
    pub number: u32,
    pub protocol: String,
    pub name: String,
}

/// `executor_opts`; unknown keys are kept by name, because a job that uses them must fail.
#[derive(Debug, Clone, Default)]
pub struct ExecutorOptions {
    /// Options of the Docker executors.
    pub docker: DockerOptions,
    /// Options of the Kubernetes executor.
    pub kubernetes: KubernetesOptions,
    /// Keys that no executor knows.
    pub unknown: BTreeMap<String, serde_json::Value>,
}

/// `executor_opts.docker`.
#[derive(Debug, Clone, Default)]
pub struct DockerOptions {
    /// For example `linux/arm64`.
    pub platform: String,
    /// Name or number.
    pub user: String,
    /// Keys that the executor does not know.
    pub unknown: BTreeMap<String, serde_json::Value>,
}

/// `executor_opts.kubernetes`.
#[derive(Debug, Clone, Default)]
pub struct KubernetesOptions {
    /// Name or number.
    pub user: String,
    /// Keys that the executor does not know.
    pub unknown: BTreeMap<String, serde_json::Value>,
}

/// One entry of `artifacts`.
#[derive(Debug, Clone, Default)]
pub struct Artifact {
    /// Base name, shell-expanded by the uploader.
    pub name: String,
    /// Take untracked files.
    pub untracked: bool,
    /// Globs to take.
    pub paths: Vec<String>,
    /// Globs to leave out.
    pub exclude: Vec<String>,
    /// `on_success` (or empty), `on_failure`, `always`.
    pub when: String,
    /// `archive` or a report type, passed through.
    pub artifact_type: String,
    /// Empty, `zip`, `gzip`, `raw`, `zipzstd`, `tarzstd`.
    pub artifact_format: String,
    /// Passed through.
    pub expire_in: String,
}

/// One entry of `cache`.
#[derive(Debug, Clone, Default)]
pub struct Cache {
    /// Key, unexpanded.
    pub key: String,
    /// Take untracked files.
    pub untracked: bool,
    /// `pull-push` (or empty), `pull`, `push`; may contain variables.
    pub policy: String,
    /// Globs.
    pub paths: Vec<String>,
    /// `on_success` (or empty), `on_failure`, `always`.
    pub when: String,
    /// Keys tried after the first.
    pub fallback_keys: Vec<String>,
}

/// One entry of `credentials`.
#[derive(Debug, Clone, Default)]
pub struct Credential {
    /// `registry` is used for image pulls.
    pub kind: String,
    /// Host.
    pub url: String,
    /// User.
    pub username: String,
    /// Password.
    pub password: Token,
}

/// One entry of `dependencies`.
#[derive(Debug, Clone, Default)]
pub struct Dependency {
    /// Job whose artifacts are wanted.
    pub id: u64,
    /// That job's token.
    pub token: Token,
    /// That job's name.
    pub name: String,
    /// The archive; entries with an empty file name are skipped.
    pub artifacts_file: DependencyFile,
}

/// `artifacts_file`.
#[derive(Debug, Clone, Default)]
pub struct DependencyFile {
    /// Name of the archive.
    pub filename: String,
    /// Bytes.
    pub size: u64,
}

/// `features`.
#[derive(Debug, Clone, Default)]
pub struct Features {
    /// Emit section markers.
    pub trace_sections: bool,
    /// Extra prefixes for token masking.
    pub token_mask_prefixes: Vec<String>,
    /// Failure reasons that the server understands.
    pub failure_reasons: Vec<String>,
    /// Tracing of the job, as sent.
    pub tracing: serde_json::Value,
}

/// One entry of `hooks`.
#[derive(Debug, Clone, Default)]
pub struct Hook {
    /// `pre_get_sources_script` or `post_get_sources_script`.
    pub name: String,
    /// Commands.
    pub script: Vec<String>,
}

/// `policy_options`.
#[derive(Debug, Clone, Default)]
pub struct PolicyOptions {
    /// The job was added by a policy.
    pub execution_policy_job: bool,
    /// Its name.
    pub policy_name: String,
    /// Whether users may override variables.
    pub policy_variables_override_allowed: Option<bool>,
    /// Exceptions from that rule.
    pub policy_variables_override_exceptions: Vec<String>,
}

/// `suspend_options`.
#[derive(Debug, Clone, Default)]
pub struct SuspendOptions {
    /// Suspend the environment after success.
    pub suspend_on_success: bool,
    /// Suspend the environment after failure.
    pub suspend_on_failure: bool,
    /// Environment to resume.
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

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("id", &self.id)
            .field("allow_git_fetch", &self.allow_git_fetch)
            .field("job_info", &self.job_info)
            .field("git_info", &self.git_info)
            .field("runner_info", &self.runner_info)
            .field("inputs", &self.inputs)
            .field("variables", &self.variables)
            .field("steps", &self.steps)
            .field("image", &self.image)
            .field("services", &self.services)
            .field("artifacts", &self.artifacts)
            .field("cache", &self.cache)
            .field("credentials", &self.credentials)
            .field("dependencies", &self.dependencies)
            .field("features", &self.features)
            // Providers' settings hold identity tokens.
            .field("secrets", &self.secrets.keys())
            .field("hooks", &self.hooks)
            .field("run", &self.run)
            .field("policy_options", &self.policy_options)
            .field("suspend_options", &self.suspend_options)
            .field("oddities", &self.oddities)
            .finish_non_exhaustive()
    }
}

// === impl Input ===

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input").field("key", &self.key).finish_non_exhaustive()
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
