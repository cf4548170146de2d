//! The commands of the helper: `drover` stands in for it where it is installed on an instance, as `gitlab-runner` does.

use std::process::ExitCode;

use clap::{Parser, Subcommand as _};
use transfer::Console;

/// Moves artifacts and caches of a job
#[derive(Debug, Parser)]
#[command(name = "drover", version)]
struct Arguments {
    #[command(subcommand)]
    command: transfer::Command,
}

/// Runs a command of the helper, if the command line is one.
///
/// It runs with the variables of a job, of which some are flags to the other commands (`LOG_LEVEL`, `CONFIG_FILE`, ...), so it has
/// a parser of its own. It blocks and needs no runtime.
pub(crate) fn helper() -> Option<ExitCode> {
    let first = std::env::args_os().nth(1)?;
    if !transfer::Command::has_subcommand(first.to_str()?) {
        return None;
    }
    let exit = match Arguments::try_parse() {
        Ok(arguments) => arguments.command.run(&Console::stderr()).into(),
        Err(error) => {
            // Where it cannot be printed, the exit code says it.
            let _ = error.print();
            // As GitLab Runner: every failure is 1.
            if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
    };
    Some(exit)
}
