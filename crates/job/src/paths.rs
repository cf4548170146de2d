//! Folders and names that follow from a job and its place.

use job_payload::Job;
use sha2::{Digest as _, Sha256};

use crate::runner::{Layout, Placement, RunnerFacts};
use crate::settings::GitStrategy;
use crate::variables::START_DIR;

/// Folders of one job. Relative ones begin with the mark of the shell's first folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Paths {
    pub(crate) builds: String,
    pub(crate) cache: String,
    pub(crate) project: String,
    pub(crate) temp: String,
}

/// `GIT_CLONE_PATH` cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClonePathError {
    /// `custom_build_dir` is off for this runner.
    #[error("setting GIT_CLONE_PATH is not allowed, enable `custom_build_dir` feature")]
    NotAllowed,
    /// Outside of `builds_dir`. The value is left out: it may hold a masked variable.
    #[error("the GIT_CLONE_PATH has to be within `{0}`")]
    Outside(String),
}

// === impl Paths ===

impl Paths {
    /// The folders of a job that names no folder of its own.
    pub(crate) fn new(job: &Job, runner: &RunnerFacts, placement: &Placement, strategy: GitStrategy) -> Self {
        let builds = anchored(&runner.builds_dir);
        let slug = project_slug(job);
        let project = match runner.layout {
            Layout::Shared => {
                format!("{builds}/{}/{}/{slug}", runner.short_token, placement.concurrent_project_id)
            }
            Layout::Own => format!("{builds}/{slug}"),
        };
        Self {
            cache: format!("{}/{slug}", anchored(&runner.cache_dir)),
            ..Self::at(builds, project, strategy)
        }
    }

    /// The same with `GIT_CLONE_PATH`, which is expanded already.
    pub(crate) fn with_clone_path(
        self,
        clone_path: &str,
        allowed: bool,
        strategy: GitStrategy,
    ) -> Result<Self, ClonePathError> {
        if !allowed {
            return Err(ClonePathError::NotAllowed);
        }
        let project = anchored(clone_path);
        let inside =
            project.strip_prefix(&self.builds).is_some_and(|rest| rest.len() > 1 && rest.starts_with('/'));
        if !inside {
            return Err(ClonePathError::Outside(crate::variables::relative(&self.builds).into_owned()));
        }
        Ok(Self { cache: self.cache, ..Self::at(self.builds, project, strategy) })
    }

    fn at(builds: String, mut project: String, strategy: GitStrategy) -> Self {
        if strategy == GitStrategy::Empty {
            // A folder of its own, so that `empty` never deletes what `fetch` keeps.
            project.push_str("-empty");
        }
        let temp = format!("{project}.tmp");
        Self { builds, cache: String::new(), project, temp }
    }
}

/// `<namespace>/<project>` as the path of the repository URL says, or `project-<id>` when it says nothing usable.
fn project_slug(job: &Job) -> String {
    let fallback = || format!("project-{}", job.job_info.project_id);
    let Some((_, rest)) = job.git_info.repo_url.split_once("://") else { return fallback() };
    let path = rest.split_once('/').map_or("", |(_, path)| path);
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let path = path.trim_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    let usable = !path.is_empty()
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
        && !path.contains(char::is_control);
    if usable { path.to_owned() } else { fallback() }
}

/// A cleaned path: `.` and `..` resolved, marked if relative. Nothing climbs above the start.
fn anchored(path: &str) -> String {
    let path = path.strip_prefix(START_DIR).map_or(path, |rest| rest.trim_start_matches('/'));
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (path.starts_with('/'), joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => START_DIR.to_string(),
        (false, false) => format!("{START_DIR}/{joined}"),
    }
}

/// Name of the job's own network.
pub(crate) fn network_name(job: &Job, runner: &RunnerFacts, placement: &Placement) -> String {
    dns_label(&format!(
        "runner-{}-{}-{}-{}",
        runner.short_token, job.job_info.project_id, placement.concurrent_project_id, job.id
    ))
}

/// Name of the job's containers: unique among those that exist at the same time.
pub(crate) fn unique_name(job: &Job, runner: &RunnerFacts, placement: &Placement) -> String {
    dns_label(&format!(
        "runner-{}-project-{}-concurrent-{}",
        runner.short_token, job.job_info.project_id, placement.concurrent_project_id
    ))
}

/// Name of the project's volumes: the same for later jobs in the same place, and the one that GitLab Runner gives them, so that
/// they are found after a move from there.
pub(crate) fn volume_name(job: &Job, runner: &RunnerFacts, placement: &Placement) -> String {
    let place =
        format!("-{}-{}-{}", runner.system_id, job.job_info.project_id, placement.concurrent_project_id);
    let digest = Sha256::new().chain_update(runner.token.expose()).chain_update(place).finalize();
    format!("runner-{}", &hex::encode(digest)[..32])
}

/// Lower case, `[a-z0-9-]` only, at most 63 characters, no dash at the ends.
fn dns_label(name: &str) -> String {
    let kept: String = name
        .chars()
        .map(|c| c.to_ascii_lowercase())
        .filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-')
        .take(63)
        .collect();
    kept.trim_matches('-').to_owned()
}
