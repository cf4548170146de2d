//! Everything about a job that can be refused without an engine.

use std::fmt::Write as _;

use config::Docker as DockerConfig;
use job::Context;
use trace::JobLog;

use super::super::allow;
use super::super::services::Definition;
use crate::PrepareError;

/// The image that a job runs in.
pub(super) fn image_name(context: &Context, config: &DockerConfig) -> Result<String, PrepareError> {
    let configured = config.image.as_deref().unwrap_or_default();
    let own = context.job().image.name.as_str();
    let name = context.variables().expand(if own.is_empty() { configured } else { own }).into_owned();
    if name.is_empty() {
        return Err(PrepareError::Configuration("no Docker image specified to run the build in".to_owned()));
    }
    Ok(name)
}

/// Tells the manager's log which images a job uses, as GitLab Runner does.
pub(super) fn log_images(context: &Context, name: &str, services: &[Definition]) {
    let job = context.job();
    let platform = context.variables().expand(&job.image.executor_opts.docker.platform);
    tracing::info!(job = job.id, image_name = name, image_platform = %platform, "Image configured for job");
    for service in services {
        tracing::info!(
            job = job.id,
            image_name = service.name,
            image_platform = service.platform,
            "Service image configured for job"
        );
    }
}

/// Everything about a job that can be refused without an engine.
pub(super) fn check(
    context: &Context,
    config: &DockerConfig,
    name: &str,
    log: &JobLog,
) -> Result<(), PrepareError> {
    let configured = context.variables().expand(config.image.as_deref().unwrap_or_default());
    if name != configured && !allow::allows(&config.allowed_images, name) {
        return Err(disallowed("images", name, &config.allowed_images, log));
    }
    let user = user(context, config);
    let allowed = config.allowed_users();
    if !user.is_empty() && !allowed.is_empty() && !allowed.contains(&user.as_str()) {
        return Err(PrepareError::Configuration(format!(
            "user \"{user}\" is not an allowed user: [{}]",
            allowed.join(" ")
        )));
    }
    for server in &config.dns {
        if server.parse::<std::net::IpAddr>().is_err() {
            return Err(PrepareError::Configuration(format!("invalid DNS server address \"{server}\"")));
        }
    }
    Ok(())
}

/// The user of the build container; empty is the image's own.
pub(super) fn user(context: &Context, config: &DockerConfig) -> String {
    match config.user.as_deref().filter(|user| !user.is_empty()) {
        Some(user) => user.to_owned(),
        None => context.variables().expand(&context.job().image.executor_opts.docker.user).into_owned(),
    }
}

/// An image or service that its list does not have. The log says what is on it.
pub(crate) fn disallowed(kind: &str, name: &str, patterns: &[String], log: &JobLog) -> PrepareError {
    let mut block = format!("\n\x1b[31;1mThe \"{name}\" image is not present on list of allowed {kind}:\n");
    for pattern in patterns {
        let _ = writeln!(block, "- {pattern}");
    }
    block.push_str(
        "Please check the runner's configuration: \
         https://docs.gitlab.com/runner/configuration/advanced-configuration/#override-image-and-services\x1b[0;m\n",
    );
    log.write_raw(block.as_bytes());
    PrepareError::Configuration("disallowed image".to_owned())
}
