//! What a job needs to know about the runner and the place it runs in. All of it is plain data.

use std::collections::BTreeMap;
use std::time::Duration;

use job_payload::Token;

use crate::shell::Shell;
use crate::variables::Variable;

/// A runner: one `[[runners]]` entry, its manager, and the habits of its executor. The same for all jobs of the runner.
/// `Debug` shows which one it is, and nothing that may hold a secret.
#[derive(Clone)]
pub struct RunnerFacts {
    /// Program that runs the jobs.
    pub product: Product,
    /// `name` of the runner.
    pub name: String,
    /// Full token of the runner; only hashed into names, never written out.
    pub token: Token,
    /// First characters of the token, as in `CI_RUNNER_SHORT_TOKEN`.
    pub short_token: String,
    /// Identity of the manager.
    pub system_id: String,
    /// Host name of the manager's machine.
    pub manager_host: String,
    /// Executor as in `config.toml`, for example `instance`.
    pub executor: String,
    /// Shell that the job's commands are written for.
    pub shell: Shell,
    /// URL of GitLab.
    pub url: String,
    /// URL for git, when it differs from `url`; else empty.
    pub clone_url: String,
    /// Where projects go. A relative folder is below the folder that the shell starts in.
    pub builds_dir: String,
    /// Where local cache archives go. A relative folder is below the folder that the shell starts in.
    pub cache_dir: String,
    /// How the project folder is named below `builds_dir`.
    pub layout: Layout,
    /// Who else uses the machine that runs the job.
    pub isolation: Isolation,
    /// Who must be able to read the job's temporary files.
    pub temp_access: TempAccess,
    /// `environment` entries, each `KEY=value`.
    pub environment: Vec<String>,
    /// Commands before the job's own pre-checkout hook.
    pub pre_get_sources_script: String,
    /// Commands after the job's own post-checkout hook.
    pub post_get_sources_script: String,
    /// Commands before those of every step.
    pub pre_build_script: String,
    /// Commands after those of every step.
    pub post_build_script: String,
    /// `[runners.feature_flags]`.
    pub feature_flags: BTreeMap<String, bool>,
    /// `CI_DEBUG_TRACE` has no effect.
    pub debug_trace_disabled: bool,
    /// Lines `::add-mask::<word>` of the job's output make words secret (`proxy_exec`).
    pub proxy_exec: bool,
    /// `GIT_CLONE_PATH` is allowed.
    pub custom_build_dir: bool,
    /// Delete git configuration and hooks that an earlier job may have left.
    pub clean_git_config: bool,
    /// Add the project to git's `safe.directory`.
    pub safe_directory_checkout: bool,
    /// Bound of the preparation; none means the job timeout.
    pub prepare_timeout: Option<Duration>,
    /// Bound of the checkout with all its attempts; none means the job timeout.
    pub get_sources_timeout: Option<Duration>,
    /// The helper that moves caches and artifacts, found beside the job.
    pub helper: Helper,
    /// Bound of one artifact upload; none means the helper's own.
    pub artifact_upload_timeout: Option<Duration>,
    /// How long the helper waits for the answer to an upload; none means the helper's own.
    pub artifact_response_header_timeout: Option<Duration>,
    /// Caches above this many bytes are not uploaded; 0 means no bound.
    pub max_uploaded_archive_size: u64,
}

/// A program beside the job that moves its caches and artifacts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Helper {
    /// The program: a path, or a name that the shell finds. It is one word.
    pub command: String,
    /// It is Drover's, which takes signed addresses from its environment. GitLab Runner's takes them as arguments only, where every
    /// user of the machine can read them.
    pub is_drover: bool,
}

/// The program that runs jobs, as it presents itself in the log, in variables and to git servers.
#[derive(Debug, Clone)]
pub struct Product {
    /// Name, as in `Running with <name> …`.
    pub name: String,
    /// Version, as in `CI_RUNNER_VERSION`.
    pub version: String,
    /// Source revision, as in `CI_RUNNER_REVISION`.
    pub revision: String,
    /// `os/arch` in Go's words, as in `CI_RUNNER_EXECUTABLE_ARCH`.
    pub platform: String,
}

/// How the project folder is named below `builds_dir`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `<builds>/<short token>/<concurrent project id>/<namespace>/<project>`: jobs share the file system.
    Shared,
    /// `<builds>/<namespace>/<project>`: the job has `builds_dir` for itself.
    Own,
}

/// Who else uses the machine that runs the job. Decides between `CI_SHARED_ENVIRONMENT` and `CI_DISPOSABLE_ENVIRONMENT`,
/// and whether git's global configuration may be touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Other jobs use the machine, now or later.
    Shared,
    /// The machine or container goes away with the job.
    Disposable,
}

/// Who must be able to read the job's temporary files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TempAccess {
    /// All stages run as one user: the folder is closed to everybody else.
    Owner,
    /// Stages run as different users, as in containers of different images.
    Everyone,
}

/// What is decided when a job is taken: its place and what came with it.
#[derive(Debug, Clone, Default)]
pub struct Placement {
    /// Lowest number free among the runner's running jobs.
    pub concurrent_id: u32,
    /// Lowest number free among the runner's running jobs of this project.
    pub concurrent_project_id: u32,
    /// Correlation id of the job request; sent along by git. Empty when there was none.
    pub correlation_id: String,
    /// TLS material for GitLab's host.
    pub tls: TlsFiles,
    /// Resolved secrets; they are masked and override job variables.
    pub secrets: Vec<Variable>,
    /// Variables that only the executor knows; they override all others.
    pub overrides: Vec<Variable>,
    /// Where cache archives are outside of the machine, by cache key.
    pub remote_cache: BTreeMap<String, RemoteCache>,
}

/// PEM texts that let the job talk to GitLab; empty ones are left out.
#[derive(Debug, Clone, Default)]
pub struct TlsFiles {
    /// Certificate authority chain.
    pub ca: String,
    /// Client certificate.
    pub cert: String,
    /// Client key.
    pub key: Token,
}

/// Signed addresses of one cache archive. An empty address is not used.
#[derive(Clone, Default)]
pub struct RemoteCache {
    /// Download.
    pub get_url: String,
    /// Existence and age before a download.
    pub head_url: String,
    /// Download of the archive under its other name (plain instead of hashed key, or the reverse).
    pub alternate_get_url: String,
    /// Existence and age of that one.
    pub alternate_head_url: String,
    /// Upload.
    pub put_url: String,
    /// Headers of the upload.
    pub put_headers: Vec<(String, String)>,
    /// Existence before an upload.
    pub check_url: String,
}

// === impl RunnerFacts ===

impl RunnerFacts {
    /// A runner with GitLab Runner's defaults for machines reached by SSH: relative folders, shared layout, closed
    /// temporary files, git configuration cleaned.
    #[must_use]
    pub fn new(product: Product, executor: impl Into<String>, shell: Shell, url: impl Into<String>) -> Self {
        Self {
            product,
            name: String::new(),
            token: Token::default(),
            short_token: String::new(),
            system_id: String::new(),
            manager_host: String::new(),
            executor: executor.into(),
            shell,
            url: url.into(),
            clone_url: String::new(),
            builds_dir: "builds".to_owned(),
            cache_dir: "cache".to_owned(),
            layout: Layout::Shared,
            isolation: Isolation::Shared,
            temp_access: TempAccess::Owner,
            environment: Vec::new(),
            pre_get_sources_script: String::new(),
            post_get_sources_script: String::new(),
            pre_build_script: String::new(),
            post_build_script: String::new(),
            feature_flags: BTreeMap::new(),
            debug_trace_disabled: false,
            proxy_exec: false,
            custom_build_dir: false,
            clean_git_config: true,
            safe_directory_checkout: false,
            prepare_timeout: None,
            get_sources_timeout: None,
            helper: Helper::default(),
            artifact_upload_timeout: None,
            artifact_response_header_timeout: None,
            max_uploaded_archive_size: 0,
        }
    }
}

// === impl Helper ===

impl Helper {
    /// Drover's own, at this path.
    #[must_use]
    pub fn drover(path: impl Into<String>) -> Self {
        Self { command: path.into(), is_drover: true }
    }
}

impl Default for Helper {
    /// GitLab Runner, where the shell finds it.
    fn default() -> Self {
        Self { command: "gitlab-runner".to_owned(), is_drover: false }
    }
}

impl std::fmt::Debug for RunnerFacts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunnerFacts")
            .field("name", &self.name)
            .field("short_token", &self.short_token)
            .field("executor", &self.executor)
            .field("shell", &self.shell)
            .finish_non_exhaustive()
    }
}

// === impl RemoteCache ===

impl std::fmt::Debug for RemoteCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Signed addresses are credentials.
        f.debug_struct("RemoteCache").finish_non_exhaustive()
    }
}
