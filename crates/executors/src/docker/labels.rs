//! Labels of everything that jobs make on an engine. The names are GitLab Runner's, because users select by them.

use std::collections::HashMap;
use std::sync::OnceLock;

use job::Context;
use uuid::Uuid;

/// Before each name.
const PREFIX: &str = "com.gitlab.gitlab-runner";
/// Which run of a manager made it: what an earlier one left is recognised by another value.
pub(crate) const RUN: &str = "com.gitlab.gitlab-runner.manager.run";
/// Present on everything.
pub(crate) const MANAGED: &str = "com.gitlab.gitlab-runner.managed=true";
/// Volumes that go with their job.
pub(crate) const TEMPORARY: &str = "com.gitlab.gitlab-runner.reusable=false";

/// Labels of one job.
#[derive(Debug, Clone)]
pub(crate) struct Labels(HashMap<String, String>);

/// Name of this run of the manager.
pub(crate) fn run() -> &'static str {
    static RUN: OnceLock<String> = OnceLock::new();
    RUN.get_or_init(|| Uuid::new_v4().simple().to_string())
}

/// A label that selects what managers of this identity made for this runner.
pub(crate) fn owner(system_id: &str, short_token: &str) -> [String; 2] {
    [format!("{PREFIX}.runner.system_id={system_id}"), format!("{PREFIX}.runner.id={short_token}")]
}

// === impl Labels ===

impl Labels {
    pub(crate) fn of(context: &Context) -> Self {
        let (job, runner, placement) = (context.job(), context.runner(), context.placement());
        let variable = |key: &str| context.variables().get(key).map(|value| value.into_owned());
        let pipeline = match job.job_info.pipeline_id {
            0 => variable("CI_PIPELINE_ID").unwrap_or_default(),
            id => id.to_string(),
        };
        let url = variable("CI_JOB_URL").map(|url| without_credentials(&url)).unwrap_or_default();
        let labels = [
            ("job.id", job.id.to_string()),
            ("job.url", url),
            ("job.sha", job.git_info.sha.clone()),
            ("job.before_sha", job.git_info.before_sha.clone()),
            ("job.ref", job.git_info.ref_name.clone()),
            ("job.timeout", go_duration::format(job.timeout())),
            ("project.id", job.job_info.project_id.to_string()),
            ("project.runner_id", placement.concurrent_project_id.to_string()),
            ("pipeline.id", pipeline),
            ("runner.id", runner.short_token.clone()),
            ("runner.local_id", placement.concurrent_id.to_string()),
            ("runner.system_id", runner.system_id.clone()),
            ("managed", "true".to_owned()),
        ];
        let mut labels: HashMap<String, String> =
            labels.into_iter().map(|(name, value)| (format!("{PREFIX}.{name}"), value)).collect();
        labels.insert(RUN.to_owned(), run().to_owned());
        Self(labels)
    }

    /// With the kind of thing and more.
    pub(crate) fn with(&self, kind: &str, more: &[(&str, &str)]) -> HashMap<String, String> {
        let mut labels = self.0.clone();
        if !kind.is_empty() {
            labels.insert(format!("{PREFIX}.type"), kind.to_owned());
        }
        labels.extend(more.iter().map(|(name, value)| (format!("{PREFIX}.{name}"), (*value).to_owned())));
        labels
    }

    /// Labels of a volume.
    pub(crate) fn volume(
        &self,
        destination: &str,
        protected: bool,
        reusable: bool,
    ) -> HashMap<String, String> {
        let flag = |on: bool| if on { "true" } else { "false" };
        self.with(
            "cache",
            &[("destination", destination), ("protected", flag(protected)), ("reusable", flag(reusable))],
        )
    }
}

/// A URL without `user:password@`.
fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let host_end = rest.find('/').unwrap_or(rest.len());
    match rest[..host_end].rfind('@') {
        Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_in_labels_have_no_credentials() {
        assert_eq!(without_credentials("https://u:p@h/x@y"), "https://h/x@y");
        assert_eq!(without_credentials("https://h/x"), "https://h/x");
    }
}
