//! `cache-extractor`: fetches an archive from a cache server, if that has a newer one, and extracts it.

use std::fs::{File, FileTimes, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use http::Method;
use url::Url;

use super::http::{Http, TransferError, parse, shown};
use super::{CacheError, base_name, runtime, temporary};
use crate::Console;
use crate::extract::{self, ExtractError};
use crate::meter::Meter;

/// Flags of `cache-extractor`.
#[derive(Debug, Clone, clap::Args)]
pub struct ExtractorArgs {
    /// The archive on this machine
    #[arg(long, default_value = "", value_parser = crate::flags::path)]
    pub file: PathBuf,
    /// Signed URL to download from
    #[arg(
        long,
        env = "DROVER_CACHE_URL",
        default_value = "",
        hide_default_value = true,
        hide_env_values = true
    )]
    pub url: String,
    /// Signed URL that tells how old the object behind `--url` is
    #[arg(
        long,
        env = "DROVER_CACHE_HEAD_URL",
        default_value = "",
        hide_default_value = true,
        hide_env_values = true
    )]
    pub head_url: String,
    /// Signed URL of the cache under its other name
    #[arg(
        long,
        env = "DROVER_CACHE_ALTERNATE_URL",
        default_value = "",
        hide_default_value = true,
        hide_env_values = true
    )]
    pub alternate_url: String,
    /// Signed URL that tells how old the object behind `--alternate-url` is
    #[arg(
        long,
        env = "DROVER_CACHE_ALTERNATE_HEAD_URL",
        default_value = "",
        hide_default_value = true,
        hide_env_values = true
    )]
    pub alternate_head_url: String,
    /// URL with credentials of the machine (not supported)
    #[arg(long, default_value = "", hide = true)]
    pub gocloud_url: String,
    /// URL with credentials of the machine (not supported)
    #[arg(long, default_value = "", hide = true)]
    pub alternate_gocloud_url: String,
    /// File with environment variables (taken, nothing in it is used)
    #[arg(long, default_value = "", hide = true, value_parser = crate::flags::path)]
    pub env_file: PathBuf,
    /// Limit of one transfer in minutes; 0 for none
    #[arg(long, env = "CACHE_REQUEST_TIMEOUT", default_value = "10", value_parser = crate::flags::minutes)]
    pub timeout: Duration,
    /// How often to tell the progress; 0 for never
    #[arg(long, env = "TRANSFER_METER_FREQUENCY", default_value = "0", value_parser = crate::flags::never)]
    pub transfer_meter_frequency: Duration,
}

/// One place where the cache may be.
struct Place {
    url: Url,
    head: Option<Url>,
}

/// Extracts a cache into `directory`, from the server if that has a newer archive than this machine.
///
/// # Errors
/// [`CacheError`]; [`CacheError::NotFound`] or [`CacheError::NotHere`] if there is no such cache.
pub fn extract(options: &ExtractorArgs, directory: &Path, console: &Console) -> Result<(), CacheError> {
    if options.file.as_os_str().is_empty() {
        return Err(CacheError::NoFile);
    }
    if !options.gocloud_url.is_empty() || !options.alternate_gocloud_url.is_empty() {
        return Err(CacheError::GoCloud);
    }
    let file = directory.join(&options.file);
    let places = places(options)?;
    if places.is_empty() {
        console.info(
            "No URL provided, cache will not be downloaded from shared cache server. Instead a local version of cache will be extracted.",
        );
    } else {
        runtime()?.block_on(fetch(options, &places, &file, console))?;
    }
    let archive = match File::open(&file) {
        Ok(archive) => archive,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(CacheError::NotHere),
        Err(source) => return Err(CacheError::Keep { path: file, source }),
    };
    let outcome = extract::extract(&archive, directory);
    if let Err(ExtractError::Corrupt(_) | ExtractError::Unknown) = &outcome {
        // It would be taken for up to date for ever.
        if std::fs::remove_file(&file).is_ok() {
            console.warning(&format!("{} is damaged and has been removed", base_name(&file)));
        }
    }
    Ok(outcome?)
}

fn places(options: &ExtractorArgs) -> Result<Vec<Place>, TransferError> {
    let given = [(&options.url, &options.head_url), (&options.alternate_url, &options.alternate_head_url)];
    let mut places = Vec::new();
    for (url, head) in given {
        if !url.is_empty() {
            let head = if head.is_empty() { None } else { Some(parse(head)?) };
            places.push(Place { url: parse(url)?, head });
        }
    }
    Ok(places)
}

/// Brings the archive on this machine up to date.
async fn fetch(
    options: &ExtractorArgs,
    places: &[Place],
    file: &Path,
    console: &Console,
) -> Result<(), CacheError> {
    let http = Http::new(options.timeout, console);
    let url = match places {
        [only] => &only.url,
        several => newest(&http, several).await?,
    };
    let local = std::fs::metadata(file).and_then(|metadata| metadata.modified()).ok();
    let outcome = http.retry(|| download(&http, options, url, file, local, console)).await;
    match outcome {
        Ok(Some(())) => Ok(()),
        Ok(None) => Err(CacheError::NotFound),
        Err(error) => Err(error.into()),
    }
}

/// The place with the newest object; the first of those that are equal.
async fn newest<'p>(http: &Http<'_>, places: &'p [Place]) -> Result<&'p Url, CacheError> {
    let mut best: Option<(SystemTime, &Url)> = None;
    let mut failure = None;
    for place in places {
        // Without a URL for it the head of the whole download tells, too.
        let (method, ask) = match &place.head {
            Some(head) => (Method::HEAD, head),
            None => (Method::GET, &place.url),
        };
        match http.retry(|| http.find(method.clone(), ask)).await {
            Ok(Some(found)) => {
                let modified = found.modified.unwrap_or(SystemTime::UNIX_EPOCH);
                if best.is_none_or(|(newest, _)| modified > newest) {
                    best = Some((modified, &place.url));
                }
            }
            Ok(None) => {}
            Err(error) => failure = Some(error),
        }
    }
    match (best, failure) {
        (Some((_, url)), _) => Ok(url),
        (None, Some(error)) => Err(error.into()),
        (None, None) => Err(CacheError::NotFound),
    }
}

/// Downloads to a temporary file that takes the place of the archive. `None` if the object is not there.
async fn download(
    http: &Http<'_>,
    options: &ExtractorArgs,
    url: &Url,
    file: &Path,
    local: Option<SystemTime>,
    console: &Console,
) -> Result<Option<()>, TransferError> {
    let Some(mut found) = http.find(Method::GET, url).await? else { return Ok(None) };
    if let (Some(local), Some(remote)) = (local, found.modified)
        && local >= remote
    {
        console.info(&format!("{} is up to date", base_name(file)));
        return Ok(Some(()));
    }
    console.info(&format!("Downloading {} from {}", base_name(file), shown(url)));
    let mut kept = temporary(file).map_err(|error| TransferError::Disk(std::io::Error::other(error)))?;
    let mut meter = Meter::new(console, "Downloading", options.transfer_meter_frequency, found.length);
    while let Some(chunk) = found.chunk().await? {
        meter.add(chunk.len());
        kept.write_all(&chunk).map_err(TransferError::Disk)?;
    }
    if let Some(modified) = found.modified {
        let times = FileTimes::new().set_modified(modified);
        kept.as_file().set_times(times).map_err(TransferError::Disk)?;
    }
    kept.as_file().set_permissions(Permissions::from_mode(0o644)).map_err(TransferError::Disk)?;
    kept.persist(file).map_err(|error| TransferError::Disk(error.error))?;
    Ok(Some(()))
}

// === impl ExtractorArgs ===

impl Default for ExtractorArgs {
    fn default() -> Self {
        Self {
            file: PathBuf::new(),
            url: String::new(),
            head_url: String::new(),
            alternate_url: String::new(),
            alternate_head_url: String::new(),
            gocloud_url: String::new(),
            alternate_gocloud_url: String::new(),
            env_file: PathBuf::new(),
            timeout: Duration::from_secs(600),
            transfer_meter_frequency: Duration::ZERO,
        }
    }
}
