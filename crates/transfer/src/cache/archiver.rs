//! `cache-archiver`: archives files and puts the archive on a cache server.

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::http::{Http, parse, shown};
use super::{CacheError, base_name, runtime, temporary};
use crate::archive::{self, Entry, Format};
use crate::meter::Meter;
use crate::{Console, Selection, select};

const METADATA: &str = "CACHE_METADATA";

/// Flags of `cache-archiver`.
#[derive(Debug, Clone, clap::Args)]
pub struct ArchiverArgs {
    /// What to archive.
    #[command(flatten)]
    pub selection: Selection,
    /// The archive on this machine
    #[arg(long, default_value = "", value_parser = crate::flags::path)]
    pub file: PathBuf,
    /// Where the archive may be under an older name
    #[arg(long, default_value = "", value_parser = crate::flags::path)]
    pub alternate_file: PathBuf,
    /// Signed URL to upload to
    #[arg(
        long,
        env = "DROVER_CACHE_URL",
        default_value = "",
        hide_default_value = true,
        hide_env_values = true
    )]
    pub url: String,
    /// URL with credentials of the machine (not supported)
    #[arg(long, default_value = "", hide = true)]
    pub gocloud_url: String,
    /// Signed URL that tells whether the server has the archive
    #[arg(
        long,
        env = "DROVER_CACHE_CHECK_URL",
        default_value = "",
        hide_default_value = true,
        hide_env_values = true
    )]
    pub check_url: String,
    /// Header of the upload, `Name: value`; the variable has one a line
    #[arg(
        long = "header",
        env = "DROVER_CACHE_HEADERS",
        hide_env_values = true,
        value_delimiter = '\n',
        value_name = "HEADER",
        allow_hyphen_values = true
    )]
    pub headers: Vec<String>,
    /// File with environment variables
    #[arg(long, default_value = "", value_parser = crate::flags::path)]
    pub env_file: PathBuf,
    /// Limit of one transfer in minutes; 0 for none
    #[arg(long, env = "CACHE_REQUEST_TIMEOUT", default_value = "10", value_parser = crate::flags::minutes)]
    pub timeout: Duration,
    /// zip, zipzstd or tarzstd
    #[arg(long, env = "CACHE_COMPRESSION_FORMAT", default_value = "", value_parser = crate::flags::cache_format)]
    pub compression_format: Format,
    /// fastest, fast, default, slow or slowest
    #[arg(long, env = "CACHE_COMPRESSION_LEVEL", default_value = "")]
    pub compression_level: String,
    /// Archives above so many bytes stay on this machine; 0 for no limit
    #[arg(long, env = "CACHE_MAXIMUM_UPLOADED_ARCHIVE_SIZE", default_value = "0", value_parser = crate::flags::bytes)]
    pub max_uploaded_archive_size: u64,
    /// How often to tell the progress; 0 for never
    #[arg(long, env = "TRANSFER_METER_FREQUENCY", default_value = "0", value_parser = crate::flags::never)]
    pub transfer_meter_frequency: Duration,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Archived {
    /// A new archive was made.
    pub created: bool,
    /// The archive was put on the server.
    pub uploaded: bool,
}

/// Archives what is selected in `directory`, unless nothing is newer than the archive that is there, and uploads the archive.
///
/// # Errors
/// [`CacheError`].
pub fn archive(options: &ArchiverArgs, directory: &Path, console: &Console) -> Result<Archived, CacheError> {
    if options.file.as_os_str().is_empty() {
        return Err(CacheError::NoFile);
    }
    if !options.gocloud_url.is_empty() {
        return Err(CacheError::GoCloud);
    }
    let headers = headers(&options.headers)?;
    let metadata = metadata(options, directory)?;
    let file = directory.join(&options.file);
    adopt_alternate(options, directory, &file);
    let mut entries = select::find(directory, &options.selection, console).map_err(CacheError::Select)?;
    entries.retain(|entry| directory.join(&entry.path) != file);
    if entries.is_empty() {
        console.warning("No files to cache.");
        return Ok(Archived { created: false, uploaded: false });
    }
    let created = is_changed(&file, &entries);
    if created {
        create(options, directory, &entries, &file, metadata.as_deref(), console)?;
    } else if options.alternate_file.as_os_str().is_empty() {
        console.info("Archive is up to date!");
        return Ok(Archived { created, uploaded: false });
    }
    if options.url.is_empty() {
        console.info(
            "No URL provided, cache will not be uploaded to shared cache server. Cache will be stored only locally.",
        );
        return Ok(Archived { created, uploaded: false });
    }
    let uploaded = runtime()?.block_on(upload(options, &file, &headers, created, console))?;
    Ok(Archived { created, uploaded })
}

/// Uploads the archive, if it is new or the server does not have it, and it is not too large.
async fn upload(
    options: &ArchiverArgs,
    file: &Path,
    headers: &HeaderMap,
    created: bool,
    console: &Console,
) -> Result<bool, CacheError> {
    let http = Http::new(options.timeout, console);
    let url = parse(&options.url)?;
    if !created && !options.check_url.is_empty() {
        let check = parse(&options.check_url)?;
        if http.retry(|| http.find(Method::HEAD, &check)).await?.is_some() {
            console.info("Archive is up to date!");
            return Ok(false);
        }
    }
    let keep = |source| CacheError::Keep { path: file.to_owned(), source };
    let archive = Arc::new(File::open(file).map_err(keep)?);
    let size = archive.metadata().map_err(keep)?.len();
    let limit = options.max_uploaded_archive_size;
    if limit > 0 && size > limit {
        console.info(&format!(
            "Cache archive size ({size}) is too big (Limit is set to {limit}), cache won't be uploaded"
        ));
        return Ok(false);
    }
    console.info(&format!("Uploading {} to {}", base_name(file), shown(&url)));
    http.retry(|| {
        let mut meter = Meter::new(console, "Uploading", options.transfer_meter_frequency, Some(size));
        http.put(&url, headers, &archive, move |bytes| meter.add(bytes))
    })
    .await?;
    Ok(true)
}

/// Writes the archive beside its place and moves it there.
fn create(
    options: &ArchiverArgs,
    directory: &Path,
    entries: &[Entry],
    file: &Path,
    metadata: Option<&str>,
    console: &Console,
) -> Result<(), CacheError> {
    let keep = |source| CacheError::Keep { path: file.to_owned(), source };
    let made = temporary(file)?;
    let mut out = BufWriter::with_capacity(256 << 10, made.as_file());
    archive::write(
        options.compression_format,
        crate::flags::level(&options.compression_level, console),
        directory,
        entries,
        &mut out,
        console,
    )?;
    out.flush().map_err(keep)?;
    drop(out);
    // Other jobs on this machine may run as other users.
    made.as_file().set_permissions(Permissions::from_mode(0o644)).map_err(keep)?;
    made.persist(file).map_err(|error| keep(error.error))?;
    let beside = file.with_file_name("metadata.json");
    std::fs::write(&beside, metadata.unwrap_or("{}"))
        .and_then(|()| std::fs::set_permissions(&beside, Permissions::from_mode(0o640)))
        .map_err(|source| CacheError::Keep { path: beside, source })
}

/// An archive under the older name takes the new one.
fn adopt_alternate(options: &ArchiverArgs, directory: &Path, file: &Path) {
    if options.alternate_file.as_os_str().is_empty() || file.exists() {
        return;
    }
    let old = directory.join(&options.alternate_file);
    let made = file.parent().map_or(Ok(()), std::fs::create_dir_all);
    // Without it the archive is made anew.
    if made.and_then(|()| std::fs::rename(&old, file)).is_ok() {
        let _ = std::fs::rename(old.with_file_name("metadata.json"), file.with_file_name("metadata.json"));
    }
}

/// Whether there is no archive, or something is newer than it.
fn is_changed(file: &Path, entries: &[Entry]) -> bool {
    let Ok(modified) = std::fs::metadata(file).and_then(|metadata| metadata.modified()) else { return true };
    entries.iter().any(|entry| entry.modified.to_system() > modified)
}

fn headers(lines: &[String]) -> Result<HeaderMap, CacheError> {
    let mut headers = HeaderMap::new();
    for line in lines {
        // The value may be secret, the name is not.
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let header = HeaderName::try_from(name.trim()).ok().zip(HeaderValue::try_from(value.trim()).ok());
        let (name, mut value) = header
            .ok_or_else(|| CacheError::Option(format!("the header `{}` cannot be sent", name.trim())))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

/// What the runner wants to be kept beside the archive: JSON, from the environment or a file.
fn metadata(options: &ArchiverArgs, directory: &Path) -> Result<Option<String>, CacheError> {
    let mut text = std::env::var(METADATA).ok();
    if !options.env_file.as_os_str().is_empty() {
        let file = std::fs::read_to_string(directory.join(&options.env_file)).map_err(|error| {
            CacheError::Option(format!("failed to read `{}`: {error}", options.env_file.display()))
        })?;
        text = dotenv(&file).remove(METADATA).or(text);
    }
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    match serde_json::from_str::<BTreeMap<String, serde_json::Value>>(&text) {
        Ok(_) => Ok(Some(text)),
        Err(error) => Err(CacheError::Option(format!("{METADATA} is no JSON object: {error}"))),
    }
}

/// `NAME=value` lines, with or without quotes.
fn dotenv(text: &str) -> BTreeMap<String, String> {
    let line = |line: &str| {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line);
        let (name, value) = line.split_once('=').filter(|_| !line.starts_with('#'))?;
        let value = value.trim();
        let quoted = |mark: char| value.strip_prefix(mark)?.strip_suffix(mark);
        let value = match (quoted('"'), quoted('\'')) {
            (Some(double), _) => unescape(double),
            (None, Some(single)) => single.to_owned(),
            (None, None) => value.to_owned(),
        };
        Some((name.trim().to_owned(), value))
    };
    text.lines().filter_map(line).collect()
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, chars.clone().next()) {
            ('\\', Some('n')) => {
                out.push('\n');
                chars.next();
            }
            ('\\', Some(next)) => {
                out.push(next);
                chars.next();
            }
            (other, _) => out.push(other),
        }
    }
    out
}

// === impl ArchiverArgs ===

impl Default for ArchiverArgs {
    fn default() -> Self {
        Self {
            selection: Selection::default(),
            file: PathBuf::new(),
            alternate_file: PathBuf::new(),
            url: String::new(),
            gocloud_url: String::new(),
            check_url: String::new(),
            headers: Vec::new(),
            env_file: PathBuf::new(),
            timeout: Duration::from_secs(600),
            compression_format: Format::Zip,
            compression_level: String::new(),
            max_uploaded_archive_size: 0,
            transfer_meter_frequency: Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_files_are_read_with_their_quotes() {
        let text = "# note\nCACHE_METADATA=\"{\\\"cachekey\\\":\\\"a b\\\"}\"\nexport B='x y'\nC = plain\n";
        let read = dotenv(text);
        assert_eq!(read["CACHE_METADATA"], r#"{"cachekey":"a b"}"#);
        assert_eq!((read["B"].as_str(), read["C"].as_str()), ("x y", "plain"));
    }

    #[test]
    fn headers_are_split_at_the_first_colon_and_never_shown() {
        let read = headers(&["X-Meta: a: b".to_owned()]).unwrap();
        assert_eq!(read["x-meta"], "a: b");
        let error = headers(&["Bad Name: secret".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("Bad Name") && !error.contains("secret"), "{error}");
    }
}
