//! One local instance as a program of its own.

use std::process::ExitCode;

#[expect(clippy::print_stderr, reason = "the group reads it from there")]
fn main() -> ExitCode {
    match fleeting_local::instance::main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
