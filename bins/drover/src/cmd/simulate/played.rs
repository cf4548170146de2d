//! `drover simulate scenario`.

use std::path::PathBuf;

use clap::Args;

use crate::failure::{Exit, Failure};
use crate::output;

/// Play a scenario: each line with what the scaler decides then, and why. Made for bug reports.
#[derive(Debug, Args)]
#[command(after_help = format!("A scenario has one of these a line:\n{}", simulator::LANGUAGE))]
pub(super) struct ScenarioArguments {
    /// The scenario, `-` for standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(super) fn scenario(options: &ScenarioArguments) -> Result<Exit, Failure> {
    let text = super::read(&options.file)?;
    let played = simulator::play(&text, &super::name(&options.file)).map_err(Failure::usage)?;
    output::data(&played.trim_end());
    Ok(Exit::Success)
}
