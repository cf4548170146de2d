//! A standalone server of GitLab's runner API, for demonstrations and load tests.

mod arguments;
mod scenario;
mod serve;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

use crate::arguments::{Arguments, Command};

/// The run itself failed: bad arguments, a port in use, a broken file.
const EXIT_FAILED: u8 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { command, verbose } = Arguments::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(if verbose { "debug,hyper=info" } else { "warn" })
        .init();
    let outcome = match command {
        Command::Serve(options) => serve::serve(*options).await,
    };
    match outcome {
        Ok(verdict) => ExitCode::from(verdict),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}
