//! What an engine is, and what of an entry no engine is needed to refuse: for people.

use std::path::Path;

use config::{Isolation, Runner};
use connector::Client;

use super::engine::{Endpoint, Engine, EngineError};
use super::template::TemplateError;
use super::{StartError, autoscaled, settings, values, volumes};

/// A value of `[runners.docker]` because of which an entry takes no jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnusableValue {
    /// Its key.
    pub key: &'static str,
    /// Why it cannot be used: a lower-case fragment.
    pub why: String,
    /// What to do.
    pub hint: &'static str,
}

/// The values of an entry that [`DockerExecutor`](super::DockerExecutor) or [`DockerAutoscaler`](super::DockerAutoscaler) would
/// refuse. Nothing is dialled; without `base`, the folder that relative paths start from, no file is read either.
#[must_use]
pub fn unusable_values(runner: &Runner, base: Option<&Path>) -> Vec<UnusableValue> {
    let Some(config) = runner.docker.as_ref() else { return Vec::new() };
    let mut found = Vec::new();
    let mut refuse = |key, why: String, hint| found.push(UnusableValue { key, why, hint });
    if let Some(isolation) = config.isolation.filter(|isolation| *isolation != Isolation::Default) {
        let why = TemplateError::Isolation(isolation.as_str()).to_string();
        refuse("isolation", why, "jobs in Windows containers need GitLab Runner on Windows");
    }
    if let Err(error) = volumes::check_all(&config.volumes) {
        let hint = "write [source:]destination[:options]: the destination is absolute, the source an absolute path or a name";
        refuse("volumes", error.to_string(), hint);
    }
    for (key, gpus) in [("gpus", &config.gpus), ("service_gpus", &config.service_gpus)] {
        if let Err(error) = values::gpus(gpus.as_deref().unwrap_or_default()) {
            refuse(
                key,
                error.to_string(),
                "write it as for `docker run --gpus`, for example \"all\" or \"device=0\"",
            );
        }
    }
    if let Some(base) = base {
        let options = [
            ("security_opt", &config.security_opt),
            ("services_security_opt", &config.services_security_opt),
        ];
        for (key, options) in options {
            if let Err(error) = values::security_options(options, base) {
                let hint = "the profile is a file on the manager; a relative path starts at the folder of the configuration file";
                refuse(key, error.to_string(), hint);
            }
        }
    }
    if let Err(error) = Endpoint::named(config, base) {
        refuse(
            error.key(),
            error.to_string(),
            "write unix:///path, or tcp://host:port with tls_verify and tls_cert_path",
        );
    }
    found
}

/// Asks the engine of an entry what it is.
pub(crate) async fn examine(runner: &Runner, base: &Path) -> Result<String, String> {
    let config = runner.docker.as_ref().ok_or_else(|| StartError::Missing.to_string())?;
    let endpoint = Endpoint::of(config, base, |name| std::env::var(name).ok()).map_err(|e| e.to_string())?;
    let place = format!("the Docker engine at {}", endpoint.address);
    let engine = Engine::new(endpoint.direct(), place).map_err(|error| error.to_string())?;
    ask(&engine).await.map_err(|error| format!("{} cannot be used: {error}", engine.place()))
}

/// Asks the engine of an instance what it is.
pub(crate) async fn examine_on(runner: &Runner, base: &Path, client: &Client) -> Result<String, String> {
    let settings = settings(runner, base, "").map_err(|error| error.to_string())?;
    let dial = Endpoint::tunnelled(&settings.config, client.clone(), settings.way)
        .map_err(|error| error.to_string())?;
    let engine =
        Engine::new(dial, autoscaled::place(client.instance())).map_err(|error| error.to_string())?;
    match ask(&engine).await {
        Ok(what) => Ok(what),
        Err(error @ EngineError::Failed(_)) => Err(error.to_string()),
        Err(error) => Err(autoscaled::silent(&settings, client, &error.to_string()).await),
    }
}

async fn ask(engine: &Engine) -> Result<String, EngineError> {
    // Refuses engines that are too old.
    let facts = engine.facts().await?;
    let version = engine.api().version().await?.version.unwrap_or_default();
    Ok(format!("{} answers (version {version}, {}/{})", engine.place(), facts.os, facts.arch))
}
