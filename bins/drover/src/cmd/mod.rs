//! The commands, one file each.

pub(crate) mod check;
pub(crate) mod completion;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod helper;
pub(crate) mod list;
pub(crate) mod register;
pub(crate) mod reset_token;
pub(crate) mod run;
pub(crate) mod simulate;
pub(crate) mod status;
pub(crate) mod unregister;
pub(crate) mod verify;

use crate::arguments::{Arguments, Command};
use crate::failure::{Exit, Failure};

/// Runs the command that was asked for.
pub(crate) fn run(arguments: Arguments) -> Result<Exit, Failure> {
    let logging = &arguments.logging;
    match arguments.command {
        Command::Run(options) => run::run(options, logging),
        Command::Explain(options) => explain::explain(&options, logging),
        Command::Doctor(options) => doctor::doctor(&options, logging),
        Command::Demo(options) => demo::demo(options),
        Command::Register(options) => register::register(&options, logging),
        Command::Verify(options) => verify::verify(&options, logging),
        Command::List(options) => list::list(&options, logging),
        Command::Unregister(options) => unregister::unregister(&options, logging),
        Command::ResetToken(options) => reset_token::reset_token(&options, logging),
        Command::Config(check::ConfigCommand::Check(options)) => check::check(&options, logging),
        Command::Lint(options) => check::check(&options.into_check(), logging),
        Command::Simulate(options) => simulate::simulate(&options, logging),
        Command::Completion(options) => Ok(completion::completion(&options)),
    }
}

/// Is one local instance, until its manager ends it.
pub(crate) fn local_instance() -> Result<Exit, Failure> {
    fleeting_local::instance::main()?;
    Ok(Exit::Success)
}
