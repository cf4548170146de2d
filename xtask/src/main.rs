//! Tasks of the repository. `cargo xtask ci` is what continuous integration runs, and nothing else.

mod dist;
mod failures;
mod helper;
mod needs;
mod patience;
mod purity;
mod space;
mod steps;

use std::process::ExitCode;

const HELP: &str = "\
Tasks of the repository.

Usage: cargo xtask <TASK>

Tasks:
  ci       everything below, in this order; what continuous integration runs
  needs    install the programs that tests use (Debian, as root; elsewhere: say what is missing), and fetch dependencies
  fmt      formatting
  lint     clippy over every target, warnings are errors
  purity   the pure crates name no runtime, clock, network or randomness
  test     unit, integration, documentation and end-to-end tests
  embed    a crate of somebody else tests a policy with the core alone, offline
  doc      documentation builds without warnings
  deny     licences, bans and sources of dependencies

  helper   the static helpers for instances, to target/lib/drover/helper; not part of ci
  dist     the programs as they are handed out, to target/dist: linked for little memory (needs valgrind); not part of ci

Examples:
  cargo xtask ci
  cargo xtask test
  cargo xtask helper dist
";

fn main() -> ExitCode {
    let tasks: Vec<String> = std::env::args().skip(1).collect();
    if tasks.is_empty() || tasks.iter().any(|task| task == "--help" || task == "-h" || task == "help") {
        steps::say(HELP);
        return if tasks.is_empty() { ExitCode::from(2) } else { ExitCode::SUCCESS };
    }
    for task in &tasks {
        if let Err(error) = steps::run(task) {
            steps::say(&format!("error: {error:#}"));
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
