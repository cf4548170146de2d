//! The commands, one file each.

pub(crate) mod completion;
pub(crate) mod run;

use crate::arguments::{Arguments, Command};
use crate::failure::{Exit, Failure};

/// Runs the command that was asked for.
pub(crate) fn run(arguments: Arguments) -> Result<Exit, Failure> {
    let logging = &arguments.logging;
    match arguments.command {
        Command::Run(options) => run::run(options, logging),
        Command::Completion(options) => Ok(completion::completion(&options)),
    }
}

/// Is one local instance, until its manager ends it.
pub(crate) fn local_instance() -> Result<Exit, Failure> {
    fleeting_local::instance::main()?;
    Ok(Exit::Success)
}
