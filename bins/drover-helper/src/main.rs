//! `drover-helper`: runs beside a job and moves its artifacts and caches.

use std::process::ExitCode;

use clap::Parser as _;
use transfer::{Command, Console};

/// Moves artifacts and caches of a job
#[derive(Debug, clap::Parser)]
#[command(name = "drover-helper", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    match Arguments::try_parse() {
        Ok(arguments) => arguments.command.run(&Console::stderr()).into(),
        Err(error) => {
            // Where it cannot be printed, the exit code says it.
            let _ = error.print();
            // As GitLab Runner: every failure is 1.
            if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
    }
}
