//! Moves artifacts and caches between a job, GitLab and a cache server.
//!
//! These are the commands of the helper that runs beside a job: `artifacts-uploader`, `artifacts-downloader`, `cache-archiver`,
//! `cache-extractor`, `cache-init` and `health-check`. Flags, environment variables, log lines and exit codes are those of GitLab Runner's
//! helper, so that each can stand in for the other. A program offers them by [`Command`]; each is also a function of its own.
//!
//! ```no_run
//! use drover_transfer::{Command, Console, artifacts};
//!
//! #[derive(clap::Parser)]
//! struct Arguments {
//!     #[command(subcommand)]
//!     command: Command,
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // As a command ...
//! let arguments = <Arguments as clap::Parser>::parse();
//! let exit_code = arguments.command.run(&Console::stderr());
//!
//! // ... or as a function.
//! let options = artifacts::UploadArgs { artifact_type: "junit".to_owned(), ..Default::default() };
//! let sent = artifacts::upload(&options, &std::env::current_dir()?, &Console::stderr())?;
//! println!("{} files", sent.files);
//! # Ok(())
//! # }
//! ```
//!
//! Archives are made and unpacked on all processors with bounded memory, and streamed: an upload needs no space on disk. It does not
//! decide what a job's artifacts and caches are, where a cache is kept, or whether a failure fails the job.

mod archive;
pub mod artifacts;
pub mod cache;
mod command;
mod console;
mod expand;
mod extract;
mod flags;
pub mod health;
mod meter;
mod select;
mod stream;

pub use archive::{ArchiveError, Format, Level};
pub use command::Command;
pub use console::{Console, Memory, Severity};
pub use extract::ExtractError;
pub use select::Selection;
