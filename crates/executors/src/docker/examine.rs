//! What an engine is, for people.

use std::path::Path;

use config::Runner;
use connector::Client;

use super::engine::{Endpoint, Engine, EngineError};
use super::{StartError, autoscaled, settings};

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
