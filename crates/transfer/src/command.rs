//! The commands, for a program that offers them.

use std::path::Path;

use crate::Console;
use crate::artifacts::{self, DownloadArgs, UploadArgs};
use crate::cache::{self, ArchiverArgs, ExtractorArgs, InitArgs};
use crate::console::report;
use crate::health::{self, HealthArgs};

/// What the helper does, as sub-commands of a program.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// Archive files of the working directory and upload them to GitLab
    #[command(name = "artifacts-uploader")]
    ArtifactsUploader(Box<UploadArgs>),
    /// Download the artifacts of a job and extract them into the working directory
    #[command(name = "artifacts-downloader")]
    ArtifactsDownloader(Box<DownloadArgs>),
    /// Archive files of the working directory and upload them to the cache server
    #[command(name = "cache-archiver")]
    CacheArchiver(Box<ArchiverArgs>),
    /// Download a cache and extract it into the working directory
    #[command(name = "cache-extractor")]
    CacheExtractor(Box<ExtractorArgs>),
    /// Let every user write to the folders of caches
    #[command(name = "cache-init")]
    CacheInit(InitArgs),
    /// Wait until a service answers
    #[command(name = "health-check")]
    HealthCheck(HealthArgs),
}

// === impl Command ===

impl Command {
    /// Runs in the working directory. Returns the exit code: 0, or 1 after a line with the reason.
    #[must_use]
    pub fn run(&self, console: &Console) -> u8 {
        match std::env::current_dir() {
            Ok(directory) => self.run_in(&directory, console),
            Err(error) => {
                console.fatal(&format!("the working directory cannot be found: {error}"));
                1
            }
        }
    }

    /// Runs in a directory.
    #[must_use]
    pub fn run_in(&self, directory: &Path, console: &Console) -> u8 {
        let outcome = match self {
            Self::ArtifactsUploader(options) => {
                artifacts::upload(options, directory, console).map(drop).map_err(|error| report(&error))
            }
            Self::ArtifactsDownloader(options) => {
                artifacts::download(options, directory, console).map_err(|error| report(&error))
            }
            Self::CacheArchiver(options) => {
                cache::archive(options, directory, console).map(drop).map_err(|error| report(&error))
            }
            Self::CacheExtractor(options) => match cache::extract(options, directory, console) {
                // A job without its cache is slower, not wrong: every first job of a key is one.
                Err(error) if error.leaves_no_cache() => {
                    console.warning(&report(&error));
                    return 1;
                }
                outcome => outcome.map_err(|error| report(&error)),
            },
            Self::CacheInit(options) => cache::init(options, directory).map_err(|error| report(&error)),
            Self::HealthCheck(options) => health::check(options, console).map_err(|error| report(&error)),
        };
        match outcome {
            Ok(()) => 0,
            Err(reason) => {
                console.fatal(&reason);
                1
            }
        }
    }
}
