//! Downloading and uploading artifacts.

use job_payload::Artifact;

use super::cache::with_helper;
use super::exports::{Files, enter_project, exports};
use super::writer::{Writer, command, quote};
use crate::context::Context;
use crate::stage::Outcome;

/// Downloads the artifacts of earlier jobs.
pub(super) fn download(writer: &mut Writer, context: &Context) {
    exports(writer, context, Files::Written);
    enter_project(writer, context);
    with_helper(writer, context, "Artifacts downloading is disabled.", |writer| {
        for dependency in context.artifact_downloads() {
            writer.notice(&format!("Downloading artifacts for {} ({})...", dependency.name, dependency.id));
            let id = dependency.id.to_string();
            let call = command([
                context.runner.helper.command.as_str(),
                "artifacts-downloader",
                "--url",
                &context.runner.url,
                "--id",
                &id,
            ]);
            // In the environment, not in the list of processes.
            writer.line(format!("CI_JOB_TOKEN={} {call}", quote(dependency.token.expose())));
        }
    });
}

/// Uploads those artifacts that are due.
pub(super) fn upload(writer: &mut Writer, context: &Context, outcome: Outcome) {
    exports(writer, context, Files::Written);
    enter_project(writer, context);
    with_helper(writer, context, "Uploading artifacts is disabled.", |writer| {
        for artifact in context.artifacts_to_upload(outcome) {
            writer.notice("Uploading artifacts...");
            let call = uploader(context, artifact);
            writer.line(format!("CI_JOB_TOKEN={} {call}", quote(context.job.token.expose())));
        }
    });
}

fn uploader(context: &Context, artifact: &Artifact) -> String {
    let id = context.job.id.to_string();
    let mut words: Vec<String> = [
        context.runner.helper.command.as_str(),
        "artifacts-uploader",
        "--url",
        &context.runner.url,
        "--id",
        &id,
    ]
    .map(str::to_owned)
    .to_vec();
    let mut option = |flag: &str, value: &str| {
        if !value.is_empty() {
            words.extend([flag.to_owned(), value.to_owned()]);
        }
    };
    let bound = |bound: Option<std::time::Duration>| bound.map(go_duration::format).unwrap_or_default();
    option("--timeout", &bound(context.runner.artifact_upload_timeout));
    option("--response-header-timeout", &bound(context.runner.artifact_response_header_timeout));
    for path in &artifact.paths {
        option("--path", path);
    }
    for path in &artifact.exclude {
        option("--exclude", path);
    }
    option("--name", &artifact.name);
    option("--expire-in", &artifact.expire_in);
    option("--artifact-format", &artifact.artifact_format);
    option("--artifact-type", &artifact.artifact_type);
    // A statement is one file more in an archive. GitLab Runner's helper puts it into whatever it is told to, reports as well.
    let stated = context.variables.is_true("RUNNER_GENERATE_ARTIFACTS_METADATA")
        && matches!(artifact.artifact_format.as_str(), "" | "zip" | "zipzstd");
    if stated {
        let variable = |key: &str| context.variables.get(key).unwrap_or_default();
        option("--runner-id", &variable("CI_RUNNER_ID"));
        option("--repo-url", &variable("CI_PROJECT_URL"));
        option("--repo-digest", &context.job.git_info.sha);
        option("--job-name", &context.job.job_info.name);
        option("--executor-name", &context.runner.executor);
        option("--runner-name", &context.runner.name);
        option("--started-at", &variable("CI_JOB_STARTED_AT"));
        // Names only: values may be secret.
        for variable in &context.job.variables {
            option("--metadata-parameter", &variable.key);
        }
        words.push("--generate-artifacts-metadata".to_owned());
    }
    if artifact.untracked {
        words.push("--untracked".to_owned());
    }
    let mut call = command(words.iter().map(String::as_str));
    if stated && !context.runner.helper.is_drover {
        // Drover's helper looks at its own clock; GitLab Runner's takes no statement without this.
        call.push_str(" --ended-at \"$(date -u +%Y-%m-%dT%H:%M:%SZ)\"");
    }
    call
}
