//! Caches: `cache-archiver`, `cache-extractor` and `cache-init`.

mod archiver;
mod extractor;
mod http;
mod init;

use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::{ArchiveError, ExtractError};

pub use archiver::{Archived, ArchiverArgs, archive};
pub use extractor::{ExtractorArgs, extract};
pub use http::TransferError;
pub use init::{InitArgs, init};

/// Why a command failed. The text is the last line of its log.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// `--file` is not given.
    #[error("Missing cache file")]
    NoFile,
    /// `--gocloud-url` is given: the URL needs credentials on the instance, which this helper does not take.
    #[error("gocloud URLs are not supported, only signed URLs are")]
    GoCloud,
    /// The files cannot be looked for.
    #[error("failed to look for files to cache")]
    Select(#[source] std::io::Error),
    /// `--header` or the environment file cannot be read.
    #[error("{0}")]
    Option(String),
    /// The archive cannot be made.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The archive cannot be kept.
    #[error("failed to keep the archive `{}`", path.display())]
    Keep {
        /// The archive.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The server does not have the cache.
    #[error("file does not exist")]
    NotFound,
    /// This machine does not have the cache, and no server was asked.
    #[error("Cache file does not exist")]
    NotHere,
    /// The server did not take or give the archive.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// The archive cannot be extracted.
    #[error("failed to extract the cache")]
    Extract(#[from] ExtractError),
    /// `cache-init` is given no path.
    #[error("No arguments passed, at least one path is required.")]
    NoPaths,
    /// A folder cannot be opened to everybody.
    #[error("failed to change permissions of `{}`", path.display())]
    Init {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The runtime cannot be started.
    #[error("failed to start")]
    Start(#[source] std::io::Error),
}

// === impl CacheError ===

impl CacheError {
    /// There is no cache, or it could not be had: what GitLab Runner's helper warns of, too.
    pub(crate) fn leaves_no_cache(&self) -> bool {
        matches!(self, Self::NotFound | Self::NotHere | Self::Transfer(_))
    }
}

/// Name of an archive in the log.
fn base_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// A file beside the archive, which takes its place when it is complete.
fn temporary(archive: &Path) -> Result<NamedTempFile, CacheError> {
    let keep = |source| CacheError::Keep { path: archive.to_owned(), source };
    let directory = archive.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory).map_err(keep)?;
    tempfile::Builder::new().prefix("archive_").tempfile_in(directory).map_err(keep)
}

fn runtime() -> Result<tokio::runtime::Runtime, CacheError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CacheError::Start)
}
