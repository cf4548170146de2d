//! Makes archives: zip, gzip, raw, and their zstd variants.
//!
//! Files are cut into pieces that are read and compressed in parallel and written in order, so that one large file uses all
//! processors as well as many small ones do, and memory is bounded by the number of pieces under way.

pub(crate) mod gzip;
mod ordered;
mod pieces;
mod raw;
mod tar_zstd;
mod zip;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::Console;

pub(crate) use ordered::threads;

/// One thing to archive, as it was when it was selected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Relative to the project directory.
    pub(crate) path: PathBuf,
    pub(crate) kind: Kind,
    /// Permission bits, without the type.
    pub(crate) mode: u32,
    /// Length of a file.
    pub(crate) size: u64,
    /// Modification time.
    pub(crate) modified: Stamp,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Link,
}

/// Seconds and nanoseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Stamp {
    pub(crate) seconds: i64,
    pub(crate) nanos: u32,
}

/// Name of an archive that nobody named.
pub(crate) const DEFAULT_NAME: &str = "artifacts";

/// Format of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// zip with deflate. The default.
    #[default]
    Zip,
    /// One gzip member per regular file.
    Gzip,
    /// One file as it is.
    Raw,
    /// zip with zstd.
    ZipZstd,
    /// tar in zstd.
    TarZstd,
}

/// How hard to compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Level {
    /// Do not compress (deflate), or as little as possible (zstd).
    Fastest,
    /// Deflate 1.
    Fast,
    /// Deflate 5, zstd 3.
    #[default]
    Default,
    /// Deflate 7, zstd 7.
    Slow,
    /// Deflate 9, zstd 11.
    Slowest,
}

/// What went wrong while an archive was made.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// A selected file cannot be read.
    #[error("failed to read `{}`", path.display())]
    Read {
        /// The file, relative to the project directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The archive cannot be written.
    #[error("failed to write the archive")]
    Write(#[source] std::io::Error),
    /// The format holds exactly one file.
    #[error("the format `raw` takes exactly one file, but {0} were found")]
    NotOneFile(usize),
    /// The compressor failed.
    #[error("failed to compress `{}`", path.display())]
    Compress {
        /// The file, relative to the project directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Writes an archive of `entries`, which lie below `root`.
pub(crate) fn write(
    format: Format,
    level: Level,
    root: &Path,
    entries: &[Entry],
    out: &mut dyn Write,
    console: &Console,
) -> Result<(), ArchiveError> {
    match format {
        Format::Zip => zip::write(pieces::Method::Deflate(level.deflate()), root, entries, out, console),
        Format::ZipZstd => zip::write(pieces::Method::Zstd(level.zstd()), root, entries, out, console),
        Format::Gzip => gzip::write(level.deflate(), root, entries, out, console),
        Format::Raw => raw::write(root, entries, out),
        Format::TarZstd => tar_zstd::write(level.zstd(), root, entries, out, console),
    }
}

/// The only file of a `raw` archive.
pub(crate) fn only_file(entries: &[Entry]) -> Result<&Entry, ArchiveError> {
    let mut files = entries.iter().filter(|entry| entry.kind == Kind::File);
    match (files.next(), files.count()) {
        (Some(file), 0) => Ok(file),
        (first, more) => Err(ArchiveError::NotOneFile(usize::from(first.is_some()) + more)),
    }
}

// === impl Format ===

impl Format {
    /// Reads GitLab's name of a format; empty means zip.
    ///
    /// # Errors
    /// The text for the user.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" | "zip" => Ok(Self::Zip),
            "gzip" => Ok(Self::Gzip),
            "raw" => Ok(Self::Raw),
            "zipzstd" => Ok(Self::ZipZstd),
            "tarzstd" => Ok(Self::TarZstd),
            other => Err(format!("unknown archive format `{other}`: zip, gzip, raw, zipzstd or tarzstd")),
        }
    }

    /// Whether it is a zip, of either compression.
    pub(crate) const fn is_zip(self) -> bool {
        matches!(self, Self::Zip | Self::ZipZstd)
    }

    /// Name of an archive with a base name. `raw` has that as it is: GitLab names its reports, and offers them by these names. One
    /// that nobody named keeps the name of its file.
    pub(crate) fn file_name(self, base: &str, entries: &[Entry]) -> Result<String, ArchiveError> {
        Ok(match self {
            Self::Zip | Self::ZipZstd => format!("{base}.zip"),
            Self::Gzip => format!("{base}.gz"),
            Self::TarZstd => format!("{base}.tar.zst"),
            Self::Raw => match only_file(entries)?.path.file_name() {
                Some(own) if base == DEFAULT_NAME => own.to_string_lossy().into_owned(),
                Some(_) | None => base.to_owned(),
            },
        })
    }
}

// === impl Level ===

impl Level {
    /// Reads GitLab Runner's name of a level; empty means default.
    ///
    /// # Errors
    /// The text for the user.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "fastest" => Ok(Self::Fastest),
            "fast" => Ok(Self::Fast),
            "" | "default" => Ok(Self::Default),
            "slow" => Ok(Self::Slow),
            "slowest" => Ok(Self::Slowest),
            other => {
                Err(format!("unknown compression level `{other}`: fastest, fast, default, slow or slowest"))
            }
        }
    }

    const fn deflate(self) -> u32 {
        match self {
            Self::Fastest => 0,
            Self::Fast => 1,
            Self::Default => 5,
            Self::Slow => 7,
            Self::Slowest => 9,
        }
    }

    const fn zstd(self) -> i32 {
        match self {
            Self::Fastest | Self::Fast => 1,
            Self::Default => 3,
            Self::Slow => 7,
            Self::Slowest => 11,
        }
    }
}

// === impl Stamp ===

impl Stamp {
    pub(crate) fn to_system(self) -> SystemTime {
        let seconds = Duration::from_secs(self.seconds.unsigned_abs());
        let whole = if self.seconds < 0 {
            SystemTime::UNIX_EPOCH.checked_sub(seconds)
        } else {
            SystemTime::UNIX_EPOCH.checked_add(seconds)
        };
        whole.unwrap_or(SystemTime::UNIX_EPOCH) + Duration::from_nanos(self.nanos.into())
    }
}
