//! The answer to `POST jobs/request`, written independently of the runner's own types.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};
use url::Url;

use crate::builder::{ArtifactSpec, JobBuilder, JobVariable};
use crate::repository::Checkout;

/// What is known of a job only when it is given to a runner.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) id: u64,
    pub(crate) token: &'a str,
    /// The server's address without a trailing slash.
    pub(crate) server: &'a str,
    pub(crate) runner_id: u64,
    pub(crate) runner_description: &'a str,
    pub(crate) seconds_in_queue: f64,
    pub(crate) queue_size: usize,
    pub(crate) failure_reasons: &'a [String],
    pub(crate) checkout: Option<&'a Checkout>,
    pub(crate) dependencies: Vec<DependencyFacts>,
    pub(crate) now: DateTime<Utc>,
}

/// An earlier job whose archive is wanted.
#[derive(Debug)]
pub(crate) struct DependencyFacts {
    pub(crate) id: u64,
    pub(crate) token: String,
    pub(crate) name: String,
    pub(crate) file: Option<(String, u64)>,
}

const ZERO_SHA: &str = "0000000000000000000000000000000000000000";

/// The payload of one job.
pub(crate) fn payload(job: &JobBuilder, facts: &Facts<'_>) -> Value {
    let git = GitFacts::new(job, facts);
    let mut payload = json!({
        "id": facts.id,
        "token": facts.token,
        "allow_git_fetch": job.allow_git_fetch,
        "job_info": {
            "id": facts.id, "name": job.name, "stage": job.stage,
            "pipeline_id": git.pipeline, "project_id": git.project_id,
            "project_name": git.project_name(), "project_full_path": git.project,
            "namespace_id": 5, "root_namespace_id": 5, "organization_id": 1,
            "instance_id": "bW9jaw==", "instance_uuid": "5f8c1f0e-6c1d-4c0a-9c06-6d0b8f6a0c11",
            "user_id": 12, "scoped_user_id": null, "time_in_queue_seconds": facts.seconds_in_queue,
            "project_jobs_running_on_instance_runners_count": "0",
            "queue_size": facts.queue_size, "queue_depth": 1,
        },
        "git_info": git.info(job),
        "runner_info": { "timeout": job.timeout_seconds, "runner_session_url": null, "uuid": null },
        "inputs": [],
        "variables": variables(job, facts, &git),
        "steps": steps(job),
        "image": job.image,
        "services": job.services,
        "artifacts": artifacts(&job.artifacts),
        "cache": job.cache.iter().map(|cache| json!({
            "key": cache.key, "untracked": cache.untracked, "policy": cache.policy, "paths": cache.paths,
            "when": cache.when, "fallback_keys": cache.fallback_keys,
        })).collect::<Vec<_>>(),
        "credentials": [],
        "dependencies": facts.dependencies.iter().map(|dependency| json!({
            "id": dependency.id, "token": dependency.token, "name": dependency.name,
            "artifacts_file": dependency.file.as_ref().map(|(name, size)| json!({ "filename": name, "size": size })),
        })).collect::<Vec<_>>(),
        "features": {
            "trace_sections": job.trace_sections,
            "token_mask_prefixes": job.token_mask_prefixes,
            "failure_reasons": facts.failure_reasons,
            "tracing": null,
        },
        "secrets": {},
        "hooks": job.hooks,
        "policy_options": { "execution_policy_job": false, "policy_name": null },
        "suspend_options": {},
    });
    for (pointer, value) in &job.overrides {
        set(&mut payload, pointer, value.clone());
    }
    for pointer in &job.removals {
        remove(&mut payload, pointer);
    }
    payload
}

/// The parts of the payload that depend on whether there is a repository.
struct GitFacts<'a> {
    project: &'a str,
    project_id: u64,
    pipeline: u64,
    repo_url: String,
    checkout: Option<&'a Checkout>,
}

// === impl GitFacts ===

impl<'a> GitFacts<'a> {
    fn new(job: &'a JobBuilder, facts: &Facts<'a>) -> Self {
        let project = job.git.as_ref().map_or("mock/no-repository", |git| git.project.as_str());
        Self {
            project,
            project_id: facts.checkout.map_or(1, |checkout| checkout.project_id),
            pipeline: facts.checkout.map_or(1, |checkout| checkout.pipeline),
            repo_url: with_credentials(facts.server, facts.token, project),
            checkout: facts.checkout,
        }
    }

    fn project_name(&self) -> &'a str {
        self.project.rsplit('/').next().unwrap_or(self.project)
    }

    fn namespace(&self) -> &'a str {
        self.project.rsplit_once('/').map_or("", |(namespace, _)| namespace)
    }

    fn sha(&self) -> &str {
        self.checkout.map_or(ZERO_SHA, |checkout| checkout.sha.as_str())
    }

    fn reference(&self) -> &str {
        self.checkout.map_or("main", |checkout| checkout.name.as_str())
    }

    fn info(&self, job: &JobBuilder) -> Value {
        let is_tag = self.checkout.is_some_and(|checkout| checkout.is_tag);
        let depth = job.git.as_ref().map_or(20, |git| git.depth);
        let name = self.reference();
        let pipeline = format!("+refs/pipelines/{0}:refs/pipelines/{0}", self.pipeline);
        let refspecs = match (depth, is_tag) {
            (0, _) => {
                vec![
                    "+refs/heads/*:refs/remotes/origin/*".into(),
                    "+refs/tags/*:refs/tags/*".into(),
                    pipeline,
                ]
            }
            (_, true) => vec![pipeline, format!("+refs/tags/{name}:refs/tags/{name}")],
            (_, false) => vec![pipeline, format!("+refs/heads/{name}:refs/remotes/origin/{name}")],
        };
        json!({
            "repo_url": self.repo_url, "repo_object_format": "sha1",
            "ref": name, "sha": self.sha(), "before_sha": ZERO_SHA,
            "ref_type": if is_tag { "tag" } else { "branch" },
            "refspecs": refspecs, "depth": depth, "protected": true,
        })
    }
}

fn steps(job: &JobBuilder) -> Value {
    let mut steps = vec![json!({
        "name": "script", "script": job.script, "timeout": job.timeout_seconds,
        "when": "on_success", "allow_failure": false,
    })];
    if !job.after_script.is_empty() {
        steps.push(json!({
            "name": "after_script", "script": job.after_script, "timeout": job.timeout_seconds,
            "when": "always", "allow_failure": true,
        }));
    }
    Value::Array(steps)
}

/// GitLab sends `null` instead of an empty list here.
fn artifacts(artifacts: &[ArtifactSpec]) -> Value {
    if artifacts.is_empty() {
        return Value::Null;
    }
    let one = |artifact: &ArtifactSpec| {
        json!({
            "name": if artifact.name.is_empty() { Value::Null } else { json!(artifact.name) },
            "untracked": artifact.untracked, "paths": artifact.paths, "exclude": artifact.exclude,
            "when": artifact.when, "artifact_type": artifact.artifact_type,
            "artifact_format": artifact.artifact_format, "expire_in": artifact.expire_in,
        })
    };
    artifacts.iter().map(one).collect()
}

fn variables(job: &JobBuilder, facts: &Facts<'_>, git: &GitFacts<'_>) -> Vec<Value> {
    let mut list = Vec::with_capacity(64 + job.variables.len());
    let mut add = |key: &str, value: &str, public: bool, masked: bool| {
        list.push(json!({ "key": key, "value": value, "public": public, "file": false, "masked": masked, "raw": false }));
    };
    let time = facts.now.to_rfc3339_opts(SecondsFormat::Secs, true);
    let id = facts.id.to_string();
    let project_url = format!("{}/{}", facts.server, git.project);
    let pipeline = git.pipeline.to_string();

    add("CI_PIPELINE_ID", &pipeline, true, false);
    add("CI_PIPELINE_IID", &pipeline, true, false);
    add("CI_PIPELINE_URL", &format!("{project_url}/-/pipelines/{pipeline}"), true, false);
    add("CI_PIPELINE_SOURCE", "push", true, false);
    add("CI_PIPELINE_CREATED_AT", &time, true, false);
    add("CI_JOB_ID", &id, true, false);
    add("CI_JOB_URL", &format!("{project_url}/-/jobs/{id}"), true, false);
    add("CI_JOB_TOKEN", facts.token, false, true);
    add("CI_JOB_STARTED_AT", &time, true, false);
    add("CI_REGISTRY_USER", "gitlab-ci-token", true, false);
    add("CI_REGISTRY_PASSWORD", facts.token, false, true);
    add("CI_REPOSITORY_URL", &git.repo_url, false, false);
    add("CI_JOB_NAME", &job.name, true, false);
    add("CI_JOB_NAME_SLUG", &slug(&job.name), true, false);
    add("CI_JOB_STAGE", &job.stage, true, false);
    add("CI_NODE_TOTAL", "1", true, false);
    add("CI", "true", true, false);
    add("GITLAB_CI", "true", true, false);
    add("GITLAB_FEATURES", "", true, false);
    for (key, value) in server_variables(facts.server) {
        add(key, &value, true, false);
    }
    add("CI_PROJECT_ID", &git.project_id.to_string(), true, false);
    add("CI_PROJECT_NAME", git.project_name(), true, false);
    add("CI_PROJECT_TITLE", git.project_name(), true, false);
    add("CI_PROJECT_PATH", git.project, true, false);
    add("CI_PROJECT_PATH_SLUG", &slug(git.project), true, false);
    add("CI_PROJECT_NAMESPACE", git.namespace(), true, false);
    add("CI_PROJECT_NAMESPACE_ID", "5", true, false);
    add("CI_PROJECT_ROOT_NAMESPACE", git.namespace().split('/').next().unwrap_or(""), true, false);
    add("CI_PROJECT_URL", &project_url, true, false);
    add("CI_PROJECT_VISIBILITY", "private", true, false);
    add("CI_DEFAULT_BRANCH", git.checkout.map_or("main", |checkout| &checkout.default_branch), true, false);
    add("CI_CONFIG_PATH", ".gitlab-ci.yml", true, false);
    add("CI_COMMIT_SHA", git.sha(), true, false);
    add("CI_COMMIT_SHORT_SHA", git.sha().get(..8).unwrap_or(""), true, false);
    add("CI_COMMIT_BEFORE_SHA", ZERO_SHA, true, false);
    add("CI_COMMIT_REF_NAME", git.reference(), true, false);
    add("CI_COMMIT_REF_SLUG", &slug(git.reference()), true, false);
    let is_tag = git.checkout.is_some_and(|checkout| checkout.is_tag);
    add(if is_tag { "CI_COMMIT_TAG" } else { "CI_COMMIT_BRANCH" }, git.reference(), true, false);
    add("CI_COMMIT_REF_PROTECTED", "true", true, false);
    add("CI_COMMIT_TIMESTAMP", &time, true, false);
    add("CI_RUNNER_ID", &facts.runner_id.to_string(), true, false);
    add("CI_RUNNER_DESCRIPTION", facts.runner_description, true, false);
    add("CI_RUNNER_TAGS", "[]", true, false);
    add("GITLAB_USER_ID", "12", true, false);
    add("GITLAB_USER_LOGIN", "harbour-master", true, false);
    add("GITLAB_USER_NAME", "Harbour Master", true, false);
    add("GITLAB_USER_EMAIL", "harbour-master@example.test", true, false);
    if job.git.is_none() {
        add("GIT_STRATEGY", "none", true, false);
    }
    list.extend(job.variables.iter().map(own_variable));
    list
}

fn own_variable(variable: &JobVariable) -> Value {
    json!({
        "key": variable.key, "value": variable.value, "public": variable.public, "file": variable.file,
        "masked": variable.masked, "raw": variable.raw,
    })
}

fn server_variables(server: &str) -> Vec<(&'static str, String)> {
    let url = Url::parse(server).ok();
    let host = url.as_ref().and_then(Url::host_str).unwrap_or("localhost").to_owned();
    let port = url.as_ref().and_then(Url::port_or_known_default).unwrap_or(80).to_string();
    vec![
        ("CI_SERVER_URL", server.to_owned()),
        ("CI_SERVER_FQDN", format!("{host}:{port}")),
        ("CI_SERVER_HOST", host.clone()),
        ("CI_SERVER_PORT", port),
        ("CI_SERVER_PROTOCOL", url.as_ref().map_or("http", Url::scheme).to_owned()),
        ("CI_SERVER_SHELL_SSH_HOST", host),
        ("CI_SERVER_SHELL_SSH_PORT", "22".to_owned()),
        ("CI_SERVER_NAME", "GitLab".to_owned()),
        ("CI_SERVER_VERSION", "19.4.0".to_owned()),
        ("CI_SERVER_VERSION_MAJOR", "19".to_owned()),
        ("CI_SERVER_VERSION_MINOR", "4".to_owned()),
        ("CI_SERVER_VERSION_PATCH", "0".to_owned()),
        ("CI_SERVER_REVISION", "0a1b2c3d".to_owned()),
        ("CI_API_V4_URL", format!("{server}/api/v4")),
        ("CI_API_GRAPHQL_URL", format!("{server}/api/graphql")),
    ]
}

/// `http://gitlab-ci-token:<token>@host/<project>.git`.
fn with_credentials(server: &str, token: &str, project: &str) -> String {
    let (scheme, rest) = server.split_once("://").unwrap_or(("http", server));
    format!("{scheme}://gitlab-ci-token:{token}@{rest}/{project}.git")
}

/// Lower case, at most 63 characters, nothing but letters, digits and dashes.
fn slug(text: &str) -> String {
    let mapped: String = text
        .to_lowercase()
        .chars()
        .map(|character| if character.is_ascii_alphanumeric() { character } else { '-' })
        .take(63)
        .collect();
    mapped.trim_matches('-').to_owned()
}

/// Sets the member that a JSON pointer names, making the last object member when it is absent.
fn set(root: &mut Value, pointer: &str, value: Value) {
    if let Some(existing) = root.pointer_mut(pointer) {
        *existing = value;
    } else if let Some((members, name)) = parent(root, pointer) {
        members.insert(name, value);
    }
}

fn remove(root: &mut Value, pointer: &str) {
    if let Some((members, name)) = parent(root, pointer) {
        members.remove(&name);
    }
}

fn parent<'v>(root: &'v mut Value, pointer: &str) -> Option<(&'v mut Map<String, Value>, String)> {
    let (parent, name) = pointer.rsplit_once('/')?;
    let members = root.pointer_mut(parent)?.as_object_mut()?;
    Some((members, name.replace("~1", "/").replace("~0", "~")))
}
