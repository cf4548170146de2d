//! `artifacts-downloader`: fetches the archive of an earlier job and extracts it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gitlab_api::{ApiError, Client, DownloadError, JobCredentials};
use http::StatusCode;
use tempfile::NamedTempFile;

use super::{ArtifactsError, Coordinator, runtime};
use crate::extract;
use crate::meter::Meter;
use crate::{Console, Severity};

const PREFIX: &str = "Downloading artifacts from coordinator...";

/// Flags of `artifacts-downloader`.
#[derive(Debug, Clone, clap::Args)]
pub struct DownloadArgs {
    /// Whom to download from; token and id are those of the job that made the artifacts.
    #[command(flatten)]
    pub coordinator: Coordinator,
    /// Try to download from the object storage behind GitLab first
    #[arg(long, env = "FF_USE_DIRECT_DOWNLOAD", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value = "false", value_parser = crate::flags::boolean, action = clap::ArgAction::Set)]
    pub direct_download: bool,
    /// Where the archive is kept while it is extracted
    #[arg(long, env = "ARCHIVER_STAGING_DIR", default_value = "", value_name = "DIR", value_parser = crate::flags::path)]
    pub archiver_staging_dir: PathBuf,
    /// Further tries after a failure that may pass
    #[arg(long, default_value_t = 2)]
    pub retry: u32,
    /// Wait between tries
    #[arg(long, default_value = "1s", value_parser = crate::flags::one_second)]
    pub retry_time: Duration,
    /// How often to tell the progress; 0 for never
    #[arg(long, env = "TRANSFER_METER_FREQUENCY", default_value = "0", value_parser = crate::flags::never)]
    pub transfer_meter_frequency: Duration,
}

/// Downloads the artifacts of a job and extracts them into `directory`.
///
/// # Errors
/// [`ArtifactsError`].
pub fn download(options: &DownloadArgs, directory: &Path, console: &Console) -> Result<(), ArtifactsError> {
    let credentials = options.coordinator.credentials()?;
    let client = Coordinator::client(options.coordinator.options())?;
    let staging = match options.archiver_staging_dir.as_os_str().is_empty() {
        true => std::env::temp_dir(),
        false => options.archiver_staging_dir.clone(),
    };
    let mut file = NamedTempFile::with_prefix_in("artifacts", staging).map_err(ArtifactsError::Staging)?;
    runtime()?.block_on(fetch(options, &client, &credentials, &mut file, console))?;
    extract::extract(file.as_file(), directory)?;
    Ok(())
}

/// Tries until the file is complete or a failure is final.
async fn fetch(
    options: &DownloadArgs,
    client: &Client,
    credentials: &JobCredentials,
    file: &mut NamedTempFile,
    console: &Console,
) -> Result<(), ArtifactsError> {
    let token = options.coordinator.short_token();
    let id = options.coordinator.id.to_string();
    let say = |severity, text: &str, host: Option<&str>, status: Option<StatusCode>| {
        let status = status.map(|status| (status, status.canonical_reason().unwrap_or_default()));
        let status_text = status.map(|(status, reason)| format!("{} {reason}", status.as_str()));
        let mut fields = Vec::new();
        fields.extend(host.map(|host| ("host", host)));
        fields.push(("id", id.as_str()));
        fields.extend(status_text.as_deref().map(|text| ("responseStatus", text)));
        fields.push(("token", token.as_str()));
        console.line(severity, &format!("{PREFIX} {text}"), &fields);
    };
    let mut direct = options.direct_download;
    for try_number in 0..=options.retry {
        if try_number > 0 {
            console.line(Severity::Warning, "Retrying...", &[("context", "artifacts-downloader")]);
            tokio::time::sleep(options.retry_time).await;
        }
        let error = match client.download_artifact(credentials, std::mem::take(&mut direct)).await {
            Ok(mut download) => {
                let host = download.storage_host.clone();
                let mut meter = Meter::new(
                    console,
                    "Downloading",
                    options.transfer_meter_frequency,
                    download.content_length(),
                );
                match keep(&mut download, file, &mut meter).await? {
                    Ok(()) => {
                        say(Severity::Info, "ok", host.as_deref(), Some(StatusCode::OK));
                        return Ok(());
                    }
                    Err(error) => DownloadError::Failed(error),
                }
            }
            Err(error) => error,
        };
        let (text, cause, ending) = match error {
            DownloadError::Unauthorized(cause) => ("unauthorized", cause, Some(ArtifactsError::Denied)),
            DownloadError::Forbidden(cause) => ("forbidden", cause, Some(ArtifactsError::Denied)),
            DownloadError::NotFound(cause) => ("not found", cause, Some(ArtifactsError::NotFound)),
            DownloadError::Failed(cause) => ("error", cause, None),
        };
        let last = ending.is_some() || try_number == options.retry;
        say(if last { Severity::Error } else { Severity::Warning }, text, None, cause.status());
        match ending {
            Some(ending) => {
                if let ApiError::Status { message: Some(_), .. } = &cause {
                    console.error(&cause.report());
                }
                return Err(ending);
            }
            None if last || cause.is_client_error() => return Err(ArtifactsError::Failed(cause.report())),
            None => console.warning(&cause.report()),
        }
    }
    Err(ArtifactsError::Failed("no try was left".to_owned()))
}

/// Writes the download to the file, from its start. The inner error is that of the download.
async fn keep(
    download: &mut gitlab_api::Download,
    file: &mut NamedTempFile,
    meter: &mut Meter,
) -> Result<Result<(), ApiError>, ArtifactsError> {
    use std::io::Seek as _;
    let file = file.as_file_mut();
    file.set_len(0).map_err(ArtifactsError::Staging)?;
    file.rewind().map_err(ArtifactsError::Staging)?;
    loop {
        match download.chunk().await {
            Ok(Some(chunk)) => {
                meter.add(chunk.len());
                file.write_all(&chunk).map_err(ArtifactsError::Staging)?;
            }
            Ok(None) => return Ok(Ok(())),
            Err(error) => return Ok(Err(error)),
        }
    }
}

// === impl DownloadArgs ===

impl Default for DownloadArgs {
    fn default() -> Self {
        Self {
            coordinator: Coordinator::default(),
            direct_download: false,
            archiver_staging_dir: PathBuf::new(),
            retry: 2,
            retry_time: Duration::from_secs(1),
            transfer_meter_frequency: Duration::ZERO,
        }
    }
}
