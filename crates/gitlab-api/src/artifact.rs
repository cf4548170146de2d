//! Artifacts: uploads that are streamed, downloads that follow redirects by hand.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use http::header::CONTENT_LENGTH;
use http::{HeaderName, HeaderValue, StatusCode};
use tokio::sync::Notify;
use url::Url;
use uuid::Uuid;

use crate::answer::{self, Answer};
use crate::error::{Call, strip};
use crate::request::{self, ApiRequest, ArtifactUpload, JobCredentials};
use crate::transport::{self, Exchange, Head, Outgoing};
use crate::{ApiError, BaseUrl, Client, ClientError, Timeouts};

/// Tries of an upload, and of one that finds GitLab unavailable (GitLab Runner's numbers).
const UPLOAD_TRIES: u32 = 3;
const UNAVAILABLE_TRIES: u32 = 6;
/// Redirects of one download (Go's number).
const MAX_REDIRECTS: u32 = 10;

/// The content of one upload, made anew for every try.
pub struct ArtifactBody {
    /// The bytes. An error ends the try.
    pub bytes: BoxStream<'static, std::io::Result<Bytes>>,
    /// How many bytes will come, when that is known: proxies that want a length are served then.
    pub length: Option<u64>,
}

/// A finished upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uploaded {
    /// Tries that it took.
    pub tries: u32,
    /// GitLab's id of the last one.
    pub correlation_id: String,
}

/// Why an upload failed for good.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// 403.
    #[error("permission denied")]
    Forbidden(#[source] ApiError),
    /// 413, from GitLab or from a proxy before it.
    #[error("the artifact is too large for GitLab or for a proxy before it")]
    TooLarge(#[source] ApiError),
    /// 503, each time.
    #[error("GitLab is unavailable")]
    Unavailable(#[source] ApiError),
    /// Anything else.
    #[error(transparent)]
    Failed(ApiError),
}

/// Why a download failed. The first three are final.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// 401.
    #[error("the job token is not accepted")]
    Unauthorized(#[source] ApiError),
    /// 403.
    #[error("permission denied")]
    Forbidden(#[source] ApiError),
    /// 404: the job has no artifacts, or they have expired.
    #[error("there are no artifacts")]
    NotFound(#[source] ApiError),
    /// Anything else; GitLab Runner tries twice more, one second apart and without `direct`.
    #[error(transparent)]
    Failed(ApiError),
}

/// A download under way.
pub struct Download {
    response: reqwest::Response,
    call: Call,
    /// Host that delivers, when it is not GitLab itself.
    pub storage_host: Option<String>,
}

/// The result of one try.
enum Try {
    Done,
    MovedTo(BaseUrl),
    Final(UploadError),
    Again { tries: u32, error: UploadError },
}

// === impl Client ===

impl Client {
    /// Uploads one artifact. `body` is asked for its content at the start of every attempt. `timeouts` replaces the client's.
    ///
    /// Tries are GitLab Runner's: up to 3 in all, 6 while GitLab answers 503, 1 s to 5 s apart, each with the retry layer
    /// below it; a 307 moves the upload to another host.
    ///
    /// # Errors
    /// [`UploadError`].
    pub async fn upload_artifact(
        &self,
        job: &JobCredentials,
        upload: &ArtifactUpload,
        timeouts: Timeouts,
        body: &mut (dyn FnMut() -> ArtifactBody + Send),
    ) -> Result<Uploaded, UploadError> {
        let mut base = self.base_url().clone();
        let mut tries = 0;
        let retry = &self.transport().options().retry;
        let mut wait = retry.min_upload_wait;
        loop {
            tries += 1;
            let (outcome, correlation_id) = self.upload_once(&base, job, upload, timeouts, body).await;
            match outcome {
                Try::Done => return Ok(Uploaded { tries, correlation_id }),
                Try::Final(error) => return Err(error),
                Try::Again { tries: most, error } if tries >= most => return Err(error),
                Try::Again { error, .. } => {
                    tracing::warn!(job = job.id, tries, correlation_id, error = %error, "the upload failed and is repeated");
                }
                Try::MovedTo(_) if tries >= UNAVAILABLE_TRIES => {
                    let call = Call::new(http::Method::POST, base.as_url().clone());
                    let location = base.as_url().to_string();
                    return Err(UploadError::Failed(ApiError::Redirected { call, location }));
                }
                Try::MovedTo(elsewhere) => {
                    tracing::info!(
                        job = job.id,
                        host = elsewhere.host(),
                        correlation_id,
                        "the upload is moved to another host"
                    );
                    base = elsewhere;
                    continue;
                }
            }
            tokio::time::sleep(wait).await;
            wait = wait.saturating_mul(2).min(retry.max_upload_wait);
        }
    }

    /// Starts the download of a job's artifacts; `job` is the job that made them. With `direct`, GitLab may send the client to its
    /// storage; job tokens never go to another host. This is one try, the retry layer apart.
    ///
    /// # Errors
    /// [`DownloadError`].
    pub async fn download_artifact(
        &self,
        job: &JobCredentials,
        direct: bool,
    ) -> Result<Download, DownloadError> {
        let client_error = |error: ClientError| DownloadError::Failed(error.into());
        let request = request::artifact_download(job, direct).map_err(client_error)?;
        let own = self.base_url().join(&request.path).map_err(client_error)?;
        let bare = ApiRequest { headers: http::HeaderMap::new(), ..request.clone() };
        let timeouts = self.transport().options().timeouts;
        let mut url = own.clone();
        for _ in 0..=MAX_REDIRECTS {
            let at_home = url.origin() == own.origin();
            let request = if at_home { &request } else { &bare };
            let sent =
                self.transport().send(url.clone(), request, Outgoing::Bytes(Bytes::new()), timeouts).await;
            let head = sent.result.map_err(DownloadError::Failed)?;
            match head.status().as_u16() {
                200 => {
                    let Head { call, response } = head;
                    let storage_host = (!at_home).then(|| url.host_str().unwrap_or_default().to_owned());
                    return Ok(Download { response, call, storage_host });
                }
                301 | 302 | 303 | 307 | 308 => {
                    url = redirect(head, &url).await.map_err(DownloadError::Failed)?;
                    tracing::debug!(job = job.id, host = url.host_str(), "the download is redirected");
                }
                status => {
                    let answer = transport::read(head, false).await.map_err(DownloadError::Failed)?;
                    let error = answer::failure(&answer);
                    return Err(match status {
                        401 => DownloadError::Unauthorized(error),
                        403 => DownloadError::Forbidden(error),
                        404 => DownloadError::NotFound(error),
                        _ => DownloadError::Failed(error),
                    });
                }
            }
        }
        strip(&mut url);
        let call = Call::new(request.endpoint.method(), own);
        Err(DownloadError::Failed(ApiError::Redirected { call, location: url.into() }))
    }

    async fn upload_once(
        &self,
        base: &BaseUrl,
        job: &JobCredentials,
        upload: &ArtifactUpload,
        timeouts: Timeouts,
        body: &mut (dyn FnMut() -> ArtifactBody + Send),
    ) -> (Try, String) {
        let boundary = Uuid::new_v4().simple().to_string();
        let formed = request::artifact_upload(job, upload, &boundary)
            .and_then(|request| Ok((base.join(&request.path)?, request)));
        let (url, mut request) = match formed {
            Ok(formed) => formed,
            Err(error) => return (Try::Final(UploadError::Failed(error.into())), String::new()),
        };
        let first = prologue(&boundary, &upload.file_name);
        let last = Bytes::from(format!("\r\n--{boundary}--\r\n"));
        // The length is a header, so it has to be known before the first attempt is made; later ones must keep to it.
        let mut content = Some(body());
        if let Some(length) = content.as_ref().and_then(|content| content.length) {
            let length = length + (first.len() + last.len()) as u64;
            request.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        let mut make = |sent: Arc<Notify>| {
            let content = content.take().unwrap_or_else(&mut *body);
            stream_body(first.clone(), content, last.clone(), sent)
        };
        let exchange = self.transport().exchange(url, &request, Outgoing::Stream(&mut make), timeouts).await;
        let Exchange { result, correlation_id, .. } = exchange;
        let outcome = match result {
            Ok(answer) => read_upload(&answer, base),
            Err(error) if error.is_client_error() => Try::Final(UploadError::Failed(error)),
            Err(error) => Try::Again { tries: UPLOAD_TRIES, error: UploadError::Failed(error) },
        };
        (outcome, correlation_id)
    }
}

// === impl Download ===

impl Download {
    /// How many bytes will come, if the server says.
    #[must_use]
    pub fn content_length(&self) -> Option<u64> {
        self.response.content_length()
    }

    /// A header of the answer, for example `content-type`.
    #[must_use]
    pub fn header(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.response.headers().get(name)
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// [`ApiError::Body`] if the download breaks off.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ApiError> {
        self.response.chunk().await.map_err(|error| ApiError::Body {
            call: self.call.clone(),
            source: Box::new(error.without_url()),
        })
    }
}

impl std::fmt::Debug for Download {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URL of the answer may be signed.
        f.debug_struct("Download")
            .field("call", &self.call)
            .field("storage_host", &self.storage_host)
            .finish_non_exhaustive()
    }
}

// === impl ArtifactBody ===

impl ArtifactBody {
    /// Bytes that are at hand.
    #[must_use]
    pub fn from_bytes(bytes: Bytes) -> Self {
        let length = Some(bytes.len() as u64);
        Self { bytes: stream::once(std::future::ready(Ok(bytes))).boxed(), length }
    }
}

impl std::fmt::Debug for ArtifactBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArtifactBody").field("length", &self.length).finish_non_exhaustive()
    }
}

/// GitLab Runner's table for uploads.
fn read_upload(answer: &Answer, base: &BaseUrl) -> Try {
    let failure = || answer::failure(answer);
    match answer.status {
        StatusCode::CREATED => Try::Done,
        StatusCode::TEMPORARY_REDIRECT => {
            match answer::location(answer).and_then(|url| base.moved_to(&url)) {
                Some(elsewhere) => Try::MovedTo(elsewhere),
                None => Try::Final(UploadError::Failed(failure())),
            }
        }
        StatusCode::FORBIDDEN => Try::Final(UploadError::Forbidden(failure())),
        StatusCode::PAYLOAD_TOO_LARGE => Try::Final(UploadError::TooLarge(failure())),
        StatusCode::SERVICE_UNAVAILABLE => {
            Try::Again { tries: UNAVAILABLE_TRIES, error: UploadError::Unavailable(failure()) }
        }
        _ => Try::Again { tries: UPLOAD_TRIES, error: UploadError::Failed(failure()) },
    }
}

/// Where a redirect leads.
async fn redirect(head: Head, from: &Url) -> Result<Url, ApiError> {
    let answer = transport::read(head, false).await?;
    let location = answer.headers.get(http::header::LOCATION).and_then(|value| value.to_str().ok());
    let next = location.filter(|text| !text.is_empty()).and_then(|text| from.join(text).ok());
    match next {
        Some(url) if matches!(url.scheme(), "http" | "https") => Ok(url),
        Some(_) | None => Err(ApiError::Status {
            call: answer.call,
            status: answer.status,
            message: Some("the redirect does not say where to".to_owned()),
        }),
    }
}

/// Head of the only part.
fn prologue(boundary: &str, file_name: &str) -> Bytes {
    // The escapes of Go's multipart writer.
    let name: String = file_name
        .chars()
        .map(|c| match c {
            '\\' => "\\\\".to_owned(),
            '"' => "\\\"".to_owned(),
            '\r' => "%0D".to_owned(),
            '\n' => "%0A".to_owned(),
            other => other.to_string(),
        })
        .collect();
    Bytes::from(format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    ))
}

/// The whole multipart body; `sent` is told when its last byte is taken, which starts the wait for the answer.
fn stream_body(first: Bytes, content: ArtifactBody, last: Bytes, sent: Arc<Notify>) -> reqwest::Body {
    let frame = |bytes: Bytes| stream::once(std::future::ready(Ok::<_, std::io::Error>(bytes)));
    let end = stream::once(async move {
        sent.notify_one();
        Ok(last)
    });
    reqwest::Body::wrap_stream(frame(first).chain(content.bytes).chain(end))
}
