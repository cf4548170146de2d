//! What a job is to consist of.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::job::Job;
use crate::repository::Repository;

/// Describes a job that is put into a queue. Also the shape of a job in scenario files and in `POST /mock/jobs`.
///
/// ```
/// use drover_gitlab_mock::{ArtifactSpec, JobBuilder};
/// use std::time::Duration;
///
/// let job = JobBuilder::new("unit-tests")
///     .script(["make build", "make test"])
///     .after_script(["make clean"])
///     .variable("PROFILE", "ci")
///     .masked_variable("DEPLOY_TOKEN", "s3cr3t-value")
///     .timeout(Duration::from_secs(600))
///     .artifact(ArtifactSpec::archive("logs", ["out/"]));
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JobBuilder {
    /// Job name.
    pub name: String,
    /// Stage name.
    pub stage: String,
    /// Lines of `script`.
    pub script: Vec<String>,
    /// Lines of `after_script`.
    pub after_script: Vec<String>,
    /// Variables after the predefined ones.
    pub variables: Vec<JobVariable>,
    /// Job timeout in seconds.
    pub timeout_seconds: u64,
    /// What is checked out; without it the job has `GIT_STRATEGY: none`.
    pub git: Option<GitSource>,
    /// Default strategy: fetch into an existing checkout instead of cloning.
    pub allow_git_fetch: bool,
    /// `image`, as in the payload.
    pub image: Option<Value>,
    /// `services`, as in the payload.
    pub services: Vec<Value>,
    /// Artifacts to upload.
    pub artifacts: Vec<ArtifactSpec>,
    /// Caches.
    pub cache: Vec<CacheSpec>,
    /// Ids of jobs of this server whose archives are downloaded first.
    pub dependencies: Vec<u64>,
    /// `hooks`, as in the payload.
    pub hooks: Vec<Value>,
    /// Whether the server asks for section markers in the log.
    pub trace_sections: bool,
    /// Token prefixes that the server asks to mask.
    pub token_mask_prefixes: Vec<String>,
    /// How many final updates are answered with 202 before one is taken.
    pub final_updates_delayed: u32,
    /// Members to overwrite in the finished payload, by JSON pointer. With it any odd payload can be made.
    pub overrides: Vec<(String, Value)>,
    /// Members to take out of the finished payload, by JSON pointer.
    pub removals: Vec<String>,
}

/// A job variable.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JobVariable {
    /// Name.
    pub key: String,
    /// Value.
    pub value: String,
    /// Whether it is visible to service containers.
    pub public: bool,
    /// Whether the job gets the path of a file with the value.
    pub file: bool,
    /// Whether the value must not appear in the log.
    pub masked: bool,
    /// Whether references in the value stay as they are.
    pub raw: bool,
}

/// What a job checks out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GitSource {
    /// Path of a project that has a repository on this server.
    pub project: String,
    /// Branch or tag name; by default the default branch.
    #[serde(default, rename = "ref")]
    pub reference: Option<String>,
    /// Depth of the fetch; 0 fetches everything. GitLab's default is 20.
    #[serde(default = "default_depth")]
    pub depth: u64,
}

/// One entry of `artifacts`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ArtifactSpec {
    /// Base name of the archive.
    pub name: String,
    /// Whether untracked files are added.
    pub untracked: bool,
    /// Globs.
    pub paths: Vec<String>,
    /// Globs of what is left out.
    pub exclude: Vec<String>,
    /// `on_success`, `on_failure` or `always`.
    pub when: String,
    /// `archive`, `junit`, ...
    pub artifact_type: String,
    /// `zip`, `gzip`, `raw`, ...
    pub artifact_format: String,
    /// Passed through.
    pub expire_in: Option<String>,
}

/// One entry of `cache`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CacheSpec {
    /// Key.
    pub key: String,
    /// Whether untracked files are added.
    pub untracked: bool,
    /// `pull-push`, `pull` or `push`.
    pub policy: String,
    /// Globs.
    pub paths: Vec<String>,
    /// `on_success`, `on_failure` or `always`.
    pub when: String,
    /// Keys that are tried when there is nothing under `key`.
    pub fallback_keys: Vec<String>,
}

// === impl JobBuilder ===

impl JobBuilder {
    /// A job without a script and without a checkout, of one hour at most.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Sets the stage.
    #[must_use]
    pub fn stage(mut self, stage: impl Into<String>) -> Self {
        self.stage = stage.into();
        self
    }

    /// Sets the lines of `script`.
    #[must_use]
    pub fn script<S: Into<String>>(mut self, lines: impl IntoIterator<Item = S>) -> Self {
        self.script = lines.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the lines of `after_script`.
    #[must_use]
    pub fn after_script<S: Into<String>>(mut self, lines: impl IntoIterator<Item = S>) -> Self {
        self.after_script = lines.into_iter().map(Into::into).collect();
        self
    }

    /// Adds a public variable.
    #[must_use]
    pub fn variable(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.push_variable(JobVariable { public: true, ..JobVariable::new(key, value) })
    }

    /// Adds a variable whose value must not appear in the log.
    #[must_use]
    pub fn masked_variable(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.push_variable(JobVariable { masked: true, raw: true, ..JobVariable::new(key, value) })
    }

    /// Adds a variable that the job gets as the path of a file.
    #[must_use]
    pub fn file_variable(self, key: impl Into<String>, content: impl Into<String>) -> Self {
        self.push_variable(JobVariable { file: true, raw: true, ..JobVariable::new(key, content) })
    }

    /// Adds a variable of any kind.
    #[must_use]
    pub fn push_variable(mut self, variable: JobVariable) -> Self {
        self.variables.push(variable);
        self
    }

    /// Sets the job timeout; whole seconds.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout_seconds = timeout.as_secs();
        self
    }

    /// Checks out the default branch of a repository of this server, twenty commits deep.
    #[must_use]
    pub fn repository(mut self, repository: &Repository) -> Self {
        self.git = Some(GitSource {
            project: repository.project().to_owned(),
            reference: None,
            depth: default_depth(),
        });
        self
    }

    /// Checks out a branch or tag of the repository.
    #[must_use]
    pub fn reference(mut self, name: impl Into<String>) -> Self {
        if let Some(git) = &mut self.git {
            git.reference = Some(name.into());
        }
        self
    }

    /// Sets the depth of the fetch; 0 fetches everything.
    #[must_use]
    pub fn depth(mut self, depth: u64) -> Self {
        if let Some(git) = &mut self.git {
            git.depth = depth;
        }
        self
    }

    /// Makes `fetch` the default strategy instead of `clone`.
    #[must_use]
    pub fn allow_git_fetch(mut self, allow: bool) -> Self {
        self.allow_git_fetch = allow;
        self
    }

    /// Runs in a container image.
    #[must_use]
    pub fn image(mut self, name: impl Into<String>) -> Self {
        self.image = Some(serde_json::json!({ "name": name.into() }));
        self
    }

    /// Adds a service container, as in the payload.
    #[must_use]
    pub fn service(mut self, service: Value) -> Self {
        self.services.push(service);
        self
    }

    /// Adds an artifact.
    #[must_use]
    pub fn artifact(mut self, artifact: ArtifactSpec) -> Self {
        self.artifacts.push(artifact);
        self
    }

    /// Adds a cache.
    #[must_use]
    pub fn cache(mut self, cache: CacheSpec) -> Self {
        self.cache.push(cache);
        self
    }

    /// Downloads the archive of an earlier job first. A job without an archive is named in the payload without a file.
    #[must_use]
    pub fn needs(mut self, job: &Job) -> Self {
        self.dependencies.push(job.id());
        self
    }

    /// Adds a hook: `pre_get_sources_script` or `post_get_sources_script`.
    #[must_use]
    pub fn hook<S: Into<String>>(mut self, name: &str, lines: impl IntoIterator<Item = S>) -> Self {
        let lines: Vec<String> = lines.into_iter().map(Into::into).collect();
        self.hooks.push(serde_json::json!({ "name": name, "script": lines }));
        self
    }

    /// Asks for section markers in the log, or not.
    #[must_use]
    pub fn trace_sections(mut self, wanted: bool) -> Self {
        self.trace_sections = wanted;
        self
    }

    /// Adds a token prefix to be masked.
    #[must_use]
    pub fn token_mask_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.token_mask_prefixes.push(prefix.into());
        self
    }

    /// Answers so many final updates with 202 before one is taken, as GitLab does while it moves the log to storage.
    #[must_use]
    pub fn delay_final_updates(mut self, count: u32) -> Self {
        self.final_updates_delayed = count;
        self
    }

    /// Overwrites a member of the finished payload, named by a JSON pointer such as `/git_info/depth`.
    #[must_use]
    pub fn with_member(mut self, pointer: impl Into<String>, value: Value) -> Self {
        self.overrides.push((pointer.into(), value));
        self
    }

    /// Takes a member out of the finished payload, named by a JSON pointer.
    #[must_use]
    pub fn without_member(mut self, pointer: impl Into<String>) -> Self {
        self.removals.push(pointer.into());
        self
    }
}

impl Default for JobBuilder {
    fn default() -> Self {
        Self {
            name: "job".to_owned(),
            stage: "test".to_owned(),
            script: Vec::new(),
            after_script: Vec::new(),
            variables: Vec::new(),
            timeout_seconds: 3600,
            git: None,
            allow_git_fetch: true,
            image: None,
            services: Vec::new(),
            artifacts: Vec::new(),
            cache: Vec::new(),
            dependencies: Vec::new(),
            hooks: Vec::new(),
            trace_sections: true,
            token_mask_prefixes: Vec::new(),
            final_updates_delayed: 0,
            overrides: Vec::new(),
            removals: Vec::new(),
        }
    }
}

// === impl JobVariable ===

impl JobVariable {
    /// A variable without any mark.
    #[must_use]
    pub fn new(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self { key: key.into(), value: value.into(), ..Self::default() }
    }
}

// === impl ArtifactSpec ===

impl ArtifactSpec {
    /// A zip archive of some paths.
    #[must_use]
    pub fn archive<S: Into<String>>(name: impl Into<String>, paths: impl IntoIterator<Item = S>) -> Self {
        Self { name: name.into(), paths: paths.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// A report, compressed with gzip.
    #[must_use]
    pub fn report<S: Into<String>>(
        artifact_type: impl Into<String>,
        paths: impl IntoIterator<Item = S>,
    ) -> Self {
        Self {
            artifact_type: artifact_type.into(),
            artifact_format: "gzip".to_owned(),
            when: "always".to_owned(),
            ..Self::archive("", paths)
        }
    }
}

impl Default for ArtifactSpec {
    fn default() -> Self {
        Self {
            name: String::new(),
            untracked: false,
            paths: Vec::new(),
            exclude: Vec::new(),
            when: "on_success".to_owned(),
            artifact_type: "archive".to_owned(),
            artifact_format: "zip".to_owned(),
            expire_in: None,
        }
    }
}

// === impl CacheSpec ===

impl CacheSpec {
    /// A cache that is restored and saved.
    #[must_use]
    pub fn new<S: Into<String>>(key: impl Into<String>, paths: impl IntoIterator<Item = S>) -> Self {
        Self { key: key.into(), paths: paths.into_iter().map(Into::into).collect(), ..Self::default() }
    }
}

impl Default for CacheSpec {
    fn default() -> Self {
        Self {
            key: "default".to_owned(),
            untracked: false,
            policy: "pull-push".to_owned(),
            paths: Vec::new(),
            when: "on_success".to_owned(),
            fallback_keys: Vec::new(),
        }
    }
}

const fn default_depth() -> u64 {
    20
}
