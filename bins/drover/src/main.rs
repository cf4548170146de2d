//! `drover`: takes CI jobs from GitLab and runs them on instances that it scales itself.

mod arguments;
mod cmd;
mod failure;
mod gitlab;
mod identity;
mod logging;
mod output;
#[cfg(test)]
mod reference;
mod spool;

use std::process::ExitCode;

use clap::Parser as _;

use crate::arguments::Arguments;
use crate::failure::{Exit, Failure};

/// The sub-command by which a local instance is this program, run again.
const LOCAL_INSTANCE: &str = "local-instance";

fn main() -> ExitCode {
    // There may be one of these per instance, so they stay small: no argument parser, one thread.
    if std::env::args_os().nth(1).is_some_and(|first| first == LOCAL_INSTANCE) {
        return finish(cmd::local_instance());
    }
    if let Some(exit) = cmd::helper::helper() {
        return exit;
    }
    finish(cmd::run(Arguments::parse()))
}

fn finish(outcome: Result<Exit, Failure>) -> ExitCode {
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output::note(&failure);
            failure.exit.into()
        }
    }
}
