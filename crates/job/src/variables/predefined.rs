//! The groups of variables in GitLab Runner's order.

use job_payload::Job;

use super::{Variable, Variables};
use crate::flags::{FeatureFlag, FeatureFlags};
use crate::paths::{self, Paths};
use crate::runner::{Isolation, Placement, RunnerFacts};

/// Everything a job sees, in final order: flags, the runner's base, the job's own, the runner's overrides.
pub(crate) fn assemble(
    job: &Job,
    runner: &RunnerFacts,
    placement: &Placement,
    flags: &FeatureFlags,
    paths: &Paths,
    status: &str,
) -> Variables {
    let mut list = Vec::with_capacity(FeatureFlag::ALL.len() + job.variables.len() + 32);
    list.extend(
        FeatureFlag::ALL.iter().map(|flag| Variable::internal(flag.name(), flags.is_on(*flag).to_string())),
    );
    base(&mut list, job, runner, placement, paths, status);
    list.extend(
        job.variables
            .iter()
            .filter(|variable| FeatureFlag::from_name(&variable.key).is_none())
            .map(Variable::from),
    );
    overrides(&mut list, job, runner, placement, flags, paths);
    Variables::new(list, paths.temp.clone())
}

/// Group 2, which job variables override.
fn base(
    list: &mut Vec<Variable>,
    job: &Job,
    runner: &RunnerFacts,
    placement: &Placement,
    paths: &Paths,
    status: &str,
) {
    if !job.image.name.is_empty() {
        // The only one of the group whose value is the user's text and is expanded.
        list.push(Variable { raw: false, ..Variable::internal("CI_JOB_IMAGE", &job.image.name) });
    }
    list.push(Variable::internal("CI_RUNNER_SHORT_TOKEN", &runner.short_token));
    list.extend(
        runner
            .environment
            .iter()
            .map(|entry| Variable::from_entry(entry))
            .filter(|variable| FeatureFlag::from_name(&variable.key).is_none()),
    );
    list.extend([
        Variable::internal("CI_BUILDS_DIR", &paths.builds),
        Variable::internal("CI_PROJECT_DIR", &paths.project),
        Variable::internal("CI_CONCURRENT_ID", placement.concurrent_id.to_string()),
        Variable::internal("CI_CONCURRENT_PROJECT_ID", placement.concurrent_project_id.to_string()),
        Variable::internal("CI_SERVER", "yes"),
        Variable::internal("CI_JOB_STATUS", status),
        Variable::internal("CI_JOB_TIMEOUT", job.timeout().as_secs().to_string()),
    ]);
    let tls = &placement.tls;
    for (key, value) in [
        ("CI_SERVER_TLS_CA_FILE", tls.ca.as_str()),
        ("CI_SERVER_TLS_CERT_FILE", tls.cert.as_str()),
        ("CI_SERVER_TLS_KEY_FILE", tls.key.expose()),
    ] {
        if !value.is_empty() {
            list.push(Variable { file: true, public: false, ..Variable::internal(key, value) });
        }
    }
}

/// Group 4, which overrides everything.
fn overrides(
    list: &mut Vec<Variable>,
    job: &Job,
    runner: &RunnerFacts,
    placement: &Placement,
    flags: &FeatureFlags,
    paths: &Paths,
) {
    let isolation = match runner.isolation {
        Isolation::Shared => "CI_SHARED_ENVIRONMENT",
        Isolation::Disposable => "CI_DISPOSABLE_ENVIRONMENT",
    };
    list.extend([
        Variable::internal(isolation, "true"),
        Variable::internal("CI_RUNNER_VERSION", &runner.product.version),
        Variable::internal("CI_RUNNER_REVISION", &runner.product.revision),
        Variable::internal("CI_RUNNER_EXECUTABLE_ARCH", &runner.product.platform),
    ]);
    list.extend(placement.secrets.iter().cloned());
    list.push(Variable::internal("RUNNER_TEMP_PROJECT_DIR", &paths.temp));
    if flags.is_on(FeatureFlag::NetworkPerBuild) {
        list.push(Variable::internal("CI_BUILD_NETWORK_NAME", paths::network_name(job, runner, placement)));
    }
    list.extend(placement.overrides.iter().cloned());
}
