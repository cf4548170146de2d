//! `artifacts-uploader`: selects files, archives them while they are sent, and says what became of them.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use chrono::Utc;
use futures_util::StreamExt as _;
use gitlab_api::{
    ApiError, ArtifactBody, ArtifactUpload, Client, ClientOptions, Ended, Endpoint, Observer, RetryPolicy,
    Timeouts, UploadError,
};
use http::StatusCode;
use tokio::sync::oneshot;

use super::{ArtifactsError, Coordinator, Provenance, runtime};
use crate::archive::{self, ArchiveError, DEFAULT_NAME, Entry, Format, Kind, Level};
use crate::expand::expand_env;
use crate::meter::{Meter, size};
use crate::{Console, Selection, Severity, select, stream};

/// Selections up to this many bytes are archived before they are sent, so that their length can be announced: some proxies
/// refuse bodies of unknown length.
const SPOOL: u64 = 4 << 20;

/// Flags of `artifacts-uploader`.
#[derive(Debug, Clone, clap::Args)]
pub struct UploadArgs {
    /// Whom to upload to.
    #[command(flatten)]
    pub coordinator: Coordinator,
    /// What to upload.
    #[command(flatten)]
    pub selection: Selection,
    /// Name of the archive without its ending
    #[arg(long, default_value = DEFAULT_NAME, allow_hyphen_values = true)]
    pub name: String,
    /// When GitLab may delete the artifacts, for example `1 week`
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    pub expire_in: String,
    /// zip, gzip, raw, zipzstd or tarzstd
    #[arg(long = "artifact-format", default_value = "", value_parser = crate::flags::format)]
    pub format: Format,
    /// archive, junit, ...
    #[arg(long, default_value = "")]
    pub artifact_type: String,
    /// fastest, fast, default, slow or slowest
    #[arg(long, env = "ARTIFACT_COMPRESSION_LEVEL", default_value = "")]
    pub compression_level: String,
    /// Limit of one attempt
    #[arg(long, default_value = "1h", value_parser = crate::flags::one_hour)]
    pub timeout: Duration,
    /// Limit of the wait for an answer once everything is sent
    #[arg(long, default_value = "10m", value_parser = crate::flags::ten_minutes)]
    pub response_header_timeout: Duration,
    /// Say more about the answers of GitLab
    #[arg(long, env = "CI_DEBUG_TRACE", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value = "false", value_parser = crate::flags::boolean, action = clap::ArgAction::Set)]
    pub ci_debug_trace: bool,
    /// How often to tell the progress; 0 for never
    #[arg(long, env = "TRANSFER_METER_FREQUENCY", default_value = "0", value_parser = crate::flags::never)]
    pub transfer_meter_frequency: Duration,
    /// What a provenance statement is made of.
    #[command(flatten)]
    pub provenance: Provenance,
}

/// What was uploaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uploaded {
    /// Files, directories and links; 0 if there was nothing to upload.
    pub files: usize,
}

/// What is archived; shared with the threads that do it, one per attempt.
struct Source {
    root: PathBuf,
    entries: Vec<Entry>,
    format: Format,
    level: Level,
    meter_every: Duration,
    console: Console,
}

/// Says how each try went, and that another follows.
struct Tries {
    console: Console,
    prefix: String,
    id: String,
    token: String,
    /// How much was selected, for people.
    selected: String,
    /// A try has ended badly; the next one has not begun.
    failed: Mutex<Option<Option<StatusCode>>>,
}

/// Uploads what is selected in `directory`. Nothing selected is an error message but no error, as with GitLab Runner.
///
/// # Errors
/// [`ArtifactsError`].
pub fn upload(options: &UploadArgs, directory: &Path, console: &Console) -> Result<Uploaded, ArtifactsError> {
    upload_with(options, directory, console, RetryPolicy::default())
}

/// The same with other waits between tries.
pub(crate) fn upload_with(
    options: &UploadArgs,
    directory: &Path,
    console: &Console,
    retry: RetryPolicy,
) -> Result<Uploaded, ArtifactsError> {
    let credentials = options.coordinator.credentials()?;
    let mut entries = select::find(directory, &options.selection, console).map_err(ArtifactsError::Select)?;
    if entries.is_empty() {
        console.error("No files to upload");
        return Ok(Uploaded { files: 0 });
    }
    let files = entries.len();
    let name = base_name(&options.name);
    if options.provenance.generate_artifacts_metadata && options.format.is_zip() {
        let id = options.coordinator.id;
        let statement = options.provenance.write(directory, &name, id, &entries, Utc::now(), console)?;
        entries.retain(|entry| entry.path != statement.path);
        entries.push(statement);
    }
    let upload = ArtifactUpload {
        file_name: options.format.file_name(&name, &entries)?,
        expire_in: options.expire_in.clone(),
        format: format_name(options.format).to_owned(),
        kind: options.artifact_type.clone(),
    };
    let tries = Arc::new(Tries::new(options, &entries, console));
    let client = Coordinator::client(ClientOptions {
        retry,
        observer: Some(Arc::clone(&tries) as Arc<dyn Observer>),
        ..options.coordinator.options()
    })?;
    let source = Arc::new(Source {
        root: directory.to_owned(),
        entries,
        format: options.format,
        level: crate::flags::level(&options.compression_level, console),
        meter_every: options.transfer_meter_frequency,
        console: console.clone(),
    });
    let timeouts = Timeouts {
        response_headers: options.response_header_timeout,
        total: options.timeout,
        ..Timeouts::default()
    };
    let small = small_archive(&source)?;
    let sent = runtime()?.block_on(send(&client, &credentials, &upload, timeouts, &source, small, &tries))?;
    if let Err(error) = sent {
        return Err(tries.explain(error, options.ci_debug_trace));
    }
    Ok(Uploaded { files })
}

/// Sends the archive, making it anew for every attempt. The outer error is one of the files: another try would not help.
async fn send(
    client: &Client,
    credentials: &gitlab_api::JobCredentials,
    upload: &ArtifactUpload,
    timeouts: Timeouts,
    source: &Arc<Source>,
    small: Option<Bytes>,
    tries: &Tries,
) -> Result<Result<gitlab_api::Uploaded, UploadError>, ArchiveError> {
    let (report, broken) = oneshot::channel();
    let report = Arc::new(Mutex::new(Some(report)));
    let mut body = || {
        tries.begin();
        match &small {
            Some(bytes) => ArtifactBody::from_bytes(bytes.clone()),
            None => source.start(&report),
        }
    };
    tokio::select! {
        sent = client.upload_artifact(credentials, upload, timeouts, &mut body) => Ok(sent),
        Ok(error) = broken => Err(error),
    }
}

/// The whole archive, if it is small.
fn small_archive(source: &Source) -> Result<Option<Bytes>, ArchiveError> {
    let total: u64 = source.entries.iter().map(|entry| entry.size + 512).sum();
    if total > SPOOL {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    archive::write(source.format, source.level, &source.root, &source.entries, &mut bytes, &source.console)?;
    Ok(Some(bytes.into()))
}

/// Expanded, only what stands behind the last slash, and never empty.
fn base_name(name: &str) -> String {
    let expanded = expand_env(name);
    let base = expanded.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    match base {
        "" | "." | ".." => "default".to_owned(),
        base => base.to_owned(),
    }
}

const fn format_name(format: Format) -> &'static str {
    match format {
        Format::Zip => "zip",
        Format::Gzip => "gzip",
        Format::Raw => "raw",
        Format::ZipZstd => "zipzstd",
        Format::TarZstd => "tarzstd",
    }
}

type Report = Arc<Mutex<Option<oneshot::Sender<ArchiveError>>>>;

// === impl Source ===

impl Source {
    /// Starts a thread that makes the archive while it is sent; it ends when nobody reads any more.
    fn start(self: &Arc<Self>, report: &Report) -> ArtifactBody {
        let (mut sender, chunks) = stream::pair();
        let mut meter = Meter::new(&self.console, "Uploading", self.meter_every, None);
        let bytes = chunks.inspect(move |chunk| meter.add(chunk.as_ref().map_or(0, Bytes::len))).boxed();
        let length = match self.format {
            Format::Raw => self.entries.iter().find(|entry| entry.kind == Kind::File).map(|entry| entry.size),
            Format::Zip | Format::Gzip | Format::ZipZstd | Format::TarZstd => None,
        };
        let (source, report) = (Arc::clone(self), Arc::clone(report));
        std::thread::spawn(move || {
            let made = archive::write(
                source.format,
                source.level,
                &source.root,
                &source.entries,
                &mut sender,
                &source.console,
            );
            let made = made.and_then(|()| sender.flush().map_err(ArchiveError::Write));
            match made {
                Ok(()) => drop(sender.finish()),
                // The reader has gone: this try has ended for another reason.
                Err(ArchiveError::Write(_)) => {}
                Err(error) => {
                    let reporter = report.lock().unwrap_or_else(PoisonError::into_inner).take();
                    if let Some(reporter) = reporter {
                        drop(reporter.send(error));
                    }
                    sender.fail("the archive could not be made");
                }
            }
        });
        ArtifactBody { bytes, length }
    }
}

// === impl Tries ===

impl Tries {
    fn new(options: &UploadArgs, entries: &[Entry], console: &Console) -> Self {
        let kind = match options.artifact_type.as_str() {
            "" => String::new(),
            kind => format!(" as \"{kind}\""),
        };
        Self {
            console: console.clone(),
            prefix: format!("Uploading artifacts{kind} to coordinator..."),
            id: options.coordinator.id.to_string(),
            token: options.coordinator.short_token(),
            selected: selected(entries),
            failed: Mutex::new(None),
        }
    }

    /// An attempt begins. After a failed try it is the first one of another.
    fn begin(&self) {
        if let Some(status) = self.failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            self.say(Severity::Warning, status);
            self.console.line(Severity::Warning, "Retrying...", &[("context", "artifacts-uploader")]);
        }
    }

    fn say(&self, severity: Severity, status: Option<StatusCode>) {
        let Some(status) = status else {
            let fields = [("id", self.id.as_str()), ("token", self.token.as_str())];
            self.console.line(severity, &format!("{} no answer", self.prefix), &fields);
            return;
        };
        let text = format!("{} {}", status.as_str(), status.canonical_reason().unwrap_or_default());
        let mut fields = vec![("id", self.id.as_str()), ("responseStatus", text.as_str())];
        if status != StatusCode::CREATED {
            fields.push(("status", status.as_str()));
        }
        fields.push(("token", &self.token));
        self.console.line(severity, &format!("{} {text}", self.prefix), &fields);
    }

    /// The last try has failed, for good.
    fn explain(&self, error: UploadError, verbose: bool) -> ArtifactsError {
        if let Some(status) = self.failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            self.say(Severity::Error, status);
        }
        let (cause, ending) = match error {
            UploadError::Forbidden(cause) => (cause, ArtifactsError::Denied),
            UploadError::TooLarge(cause) => {
                self.console.error(&format!("{}. {}", too_large(&cause), self.selected));
                (cause, ArtifactsError::TooLarge)
            }
            UploadError::Unavailable(cause) => (cause, ArtifactsError::Unavailable),
            UploadError::Failed(cause) => {
                let report = cause.report();
                return ArtifactsError::Failed(report);
            }
        };
        if verbose || matches!(&cause, ApiError::Status { message: Some(_), .. }) {
            self.console.error(&cause.report());
        }
        ending
    }
}

/// How much there is to send, and what most of it is.
fn selected(entries: &[Entry]) -> String {
    let files = entries.iter().filter(|entry| entry.kind == Kind::File);
    let (count, total) = files.clone().fold((0, 0), |(count, total), entry| (count + 1, total + entry.size));
    let largest = files.max_by_key(|entry| entry.size);
    let largest = largest
        .map(|entry| format!("; the largest is {} with {}", entry.path.display(), size(entry.size as f64)));
    format!(
        "Before compression the {count} selected files have {}{}",
        size(total as f64),
        largest.unwrap_or_default()
    )
}

/// Whose limit it is can be told by the answer: GitLab says why in JSON, proxies send a page or nothing.
fn too_large(cause: &ApiError) -> &'static str {
    if let ApiError::Status { message: Some(_), .. } = cause {
        "GitLab refuses the artifact because it is larger than the maximum artifacts size of the project, its group or the instance \
         (Settings > CI/CD)"
    } else {
        "The answer does not come from GitLab itself but most likely from a proxy before it, whose limit for request bodies is lower \
         than that of GitLab (nginx: client_max_body_size)"
    }
}

impl Observer for Tries {
    fn ended(&self, ended: &Ended) {
        if ended.endpoint != Endpoint::UploadArtifact {
            return;
        }
        match ended.status {
            Some(StatusCode::CREATED) => self.say(Severity::Info, ended.status),
            status => *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(status),
        }
    }
}

// === impl UploadArgs ===

impl Default for UploadArgs {
    fn default() -> Self {
        Self {
            coordinator: Coordinator::default(),
            selection: Selection::default(),
            name: "artifacts".to_owned(),
            expire_in: String::new(),
            format: Format::Zip,
            artifact_type: String::new(),
            compression_level: String::new(),
            timeout: Duration::from_secs(60 * 60),
            response_header_timeout: Duration::from_secs(10 * 60),
            ci_debug_trace: false,
            transfer_meter_frequency: Duration::ZERO,
            provenance: Provenance::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use test_case::test_case;

    use super::*;

    #[test]
    fn a_file_that_cannot_be_read_ends_the_upload_at_once() {
        // Accepts connections and never answers.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let options = UploadArgs {
            coordinator: Coordinator {
                url: format!("http://{}", listener.local_addr().unwrap()),
                token: "t".into(),
                id: 1,
                ..Coordinator::default()
            },
            ..UploadArgs::default()
        };
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("was-a-file")).unwrap();
        let (console, _) = Console::memory();
        let entry = Entry {
            path: "was-a-file".into(),
            kind: Kind::File,
            mode: 0o644,
            size: 10 << 20,
            modified: archive::Stamp::default(),
            uid: 0,
            gid: 0,
        };
        let source = Arc::new(Source {
            root: directory.path().to_owned(),
            entries: vec![entry],
            format: Format::Zip,
            level: Level::Default,
            meter_every: Duration::ZERO,
            console: console.clone(),
        });
        let client = Coordinator::client(options.coordinator.options()).unwrap();
        let credentials = options.coordinator.credentials().unwrap();
        let tries = Tries::new(&options, &[], &console);
        let upload = ArtifactUpload::default();
        let sending = send(&client, &credentials, &upload, Timeouts::default(), &source, None, &tries);
        let outcome = runtime().unwrap().block_on(sending);
        assert!(matches!(outcome, Err(ArchiveError::Read { .. })), "{outcome:?}");
    }

    #[test_case("artifacts", "artifacts")]
    #[test_case("a/b c", "b c"; "only the base name")]
    #[test_case("a/b/", "b"; "slash at the end")]
    #[test_case("", "default"; "empty")]
    #[test_case("${DROVER_UNSET:-x}-$DROVER_UNSET", "x-"; "expanded")]
    #[test_case("..", "default"; "no name at all")]
    fn names(name: &str, wanted: &str) {
        assert_eq!(base_name(name), wanted);
    }
}
