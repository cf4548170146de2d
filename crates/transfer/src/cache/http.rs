//! The cache server: signed URLs, asked with GitLab Runner's limits and repeats.

use std::fs::File;
use std::future::Future;
use std::net::IpAddr;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::stream;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, LAST_MODIFIED};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::sync::Notify;
use url::Url;

use crate::console::report;
use crate::{Console, Severity};

/// Name lookup, connection (30 s) and TLS handshake (10 s).
const CONNECT: Duration = Duration::from_secs(40);
/// From the last byte of a request to the head of its answer.
const RESPONSE_HEADER: Duration = Duration::from_secs(30);
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);
/// How much of an error page is read.
const MAX_ERROR: usize = 16 << 10;
/// How much of a file is sent at once.
const CHUNK: usize = 256 << 10;

/// Why a transfer failed.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The URL is none. It is not repeated, because it may be signed.
    #[error("the URL of the cache cannot be used: {0}")]
    Url(String),
    /// The server answered with a failure.
    #[error("received: {status}{explanation}")]
    Status {
        /// `403 Forbidden`.
        status: String,
        /// What the server said about it, with a separator in front; empty if nothing.
        explanation: String,
        /// Whether another try may help.
        passing: bool,
    },
    /// No answer, or one that broke off.
    #[error("{0}")]
    Broken(String),
    /// The disk failed.
    #[error("failed to move the archive between network and disk")]
    Disk(#[source] std::io::Error),
}

/// A client of cache servers.
pub(super) struct Http<'a> {
    timeout: Option<Duration>,
    console: &'a Console,
}

/// An object that is there.
pub(super) struct Found {
    pub(super) modified: Option<SystemTime>,
    pub(super) length: Option<u64>,
    response: reqwest::Response,
}

// === impl Http ===

impl<'a> Http<'a> {
    /// `timeout` limits each request as a whole; zero is no limit.
    pub(super) fn new(timeout: Duration, console: &'a Console) -> Self {
        Self { timeout: (!timeout.is_zero()).then_some(timeout), console }
    }

    /// Tries until it works, the failure is final, or there have been three tries.
    pub(super) async fn retry<T, F: Future<Output = Result<T, TransferError>>>(
        &self,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, TransferError> {
        let mut tries = 1;
        loop {
            match attempt().await {
                Err(error) if error.is_passing() && tries < TRIES => {
                    self.console.line(Severity::Warning, "Retrying...", &[("error", &report(&error))]);
                    tries += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                other => return other,
            }
        }
    }

    /// Asks for an object without or with its content; `None` if it is not there.
    pub(super) async fn find(&self, method: Method, url: &Url) -> Result<Option<Found>, TransferError> {
        let request = reqwest::Request::new(method, url.clone());
        let response = self.send(request, async {}).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let response = successful(response).await?;
        let modified = response.headers().get(LAST_MODIFIED).and_then(|value| {
            let date = DateTime::parse_from_rfc2822(value.to_str().ok()?).ok()?;
            Some(SystemTime::from(date))
        });
        Ok(Some(Found { modified, length: response.content_length(), response }))
    }

    /// Sends a file.
    pub(super) async fn put(
        &self,
        url: &Url,
        headers: &HeaderMap,
        file: &Arc<File>,
        mut progress: impl FnMut(usize) + Send + 'static,
    ) -> Result<(), TransferError> {
        let metadata = file.metadata().map_err(TransferError::Disk)?;
        let length = metadata.len();
        let mut request = reqwest::Request::new(Method::PUT, url.clone());
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        if let Ok(modified) = metadata.modified().and_then(|modified| {
            let date = DateTime::<Utc>::from(modified).format("%a, %d %b %Y %H:%M:%S GMT").to_string();
            HeaderValue::try_from(date).map_err(std::io::Error::other)
        }) {
            request.headers_mut().insert(LAST_MODIFIED, modified);
        }
        for (name, value) in headers {
            request.headers_mut().insert(name, value.clone());
        }
        let sent = Arc::new(Notify::new());
        let (file, done) = (Arc::clone(file), Arc::clone(&sent));
        if length == 0 {
            done.notify_one();
        }
        let chunks = stream::unfold(0_u64, move |offset| {
            let left = usize::try_from(length - offset).unwrap_or(usize::MAX).min(CHUNK);
            let mut buffer = vec![0; left];
            // Reading what was just written is a copy from memory; a thread of its own would cost more.
            let read =
                (left > 0).then(|| file.read_exact_at(&mut buffer, offset).map(|()| Bytes::from(buffer)));
            progress(left);
            let next = offset + left as u64;
            if next == length {
                done.notify_one();
            }
            std::future::ready(read.map(|chunk| (chunk, next)))
        });
        *request.body_mut() = Some(reqwest::Body::wrap_stream(chunks));
        let response = self.send(request, sent.notified()).await?;
        successful(response).await.map(drop)
    }

    /// Sends a request; `sent` is when its body has gone.
    async fn send(
        &self,
        mut request: reqwest::Request,
        sent: impl Future<Output = ()>,
    ) -> Result<reqwest::Response, TransferError> {
        let client = client(request.url()).map_err(|error| broken(&error.without_url()))?;
        *request.timeout_mut() = self.timeout;
        let late = async {
            sent.await;
            tokio::time::sleep(RESPONSE_HEADER).await;
        };
        tokio::select! {
            biased;
            answered = client.execute(request) => answered.map_err(|error| broken(&error.without_url())),
            () = late => {
                let text = format!("no answer within {} s", RESPONSE_HEADER.as_secs());
                Err(TransferError::Broken(text))
            }
        }
    }
}

// === impl Found ===

impl Found {
    /// The next piece of the content.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, TransferError> {
        self.response.chunk().await.map_err(|error| broken(&error.without_url()))
    }
}

// === impl TransferError ===

impl TransferError {
    fn is_passing(&self) -> bool {
        match self {
            Self::Status { passing, .. } => *passing,
            Self::Broken(_) => true,
            Self::Url(_) | Self::Disk(_) => false,
        }
    }
}

/// Reads a URL.
pub(super) fn parse(text: &str) -> Result<Url, TransferError> {
    let url = Url::parse(text).map_err(|error| TransferError::Url(error.to_string()))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        other => Err(TransferError::Url(format!("the scheme `{other}` is neither http nor https"))),
    }
}

/// A URL without what may be secret.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Both fail only for URLs that cannot have user info.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}

fn client(url: &Url) -> Result<reqwest::Client, reqwest::Error> {
    let mut builder = reqwest::Client::builder()
        .http1_only()
        .connect_timeout(CONNECT)
        .user_agent(concat!("drover-helper ", env!("CARGO_PKG_VERSION")))
        .tcp_nodelay(true)
        .referer(false);
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    // This machine is never reached through a proxy (Go's rule).
    if host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback()) {
        builder = builder.no_proxy();
    }
    builder.build()
}

fn broken(error: &reqwest::Error) -> TransferError {
    TransferError::Broken(report(error))
}

/// Passes a success on, and turns anything else into an error with the server's explanation.
async fn successful(mut response: reqwest::Response) -> Result<reqwest::Response, TransferError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let mut body = Vec::new();
    while body.len() < MAX_ERROR {
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            // The status says enough.
            Ok(None) | Err(_) => break,
        }
    }
    let explanation = explain(&String::from_utf8_lossy(&body));
    let reason = status.canonical_reason().unwrap_or_default();
    Err(TransferError::Status {
        status: format!("{} {reason}", status.as_str()).trim_end().to_owned(),
        explanation: explanation.map(|text| format!(". {text}")).unwrap_or_default(),
        passing: status.is_server_error(),
    })
}

/// Object storages explain themselves in XML: `<Error><Code>..</Code><Message>..</Message></Error>`.
fn explain(body: &str) -> Option<String> {
    let inside = |tag: &str| {
        let start = body.find(&format!("<{tag}>"))? + tag.len() + 2;
        let end = start + body[start..].find(&format!("</{tag}>"))?;
        let text = body[start..end].trim();
        let plain = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")]
            .iter()
            .fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
        (!plain.is_empty()).then_some(plain)
    };
    body.find("<Error>")?;
    match (inside("Code"), inside("Message")) {
        (Some(code), Some(message)) => Some(format!("Request failed with code: {code}, message: {message}")),
        (Some(code), None) => Some(format!("Request failed with code: {code}")),
        (None, message) => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_object_storages_are_understood() {
        let body = "<?xml version=\"1.0\"?>\n<Error><Code>AccessDenied</Code><Message>it&apos;s expired</Message></Error>";
        assert_eq!(
            explain(body).as_deref(),
            Some("Request failed with code: AccessDenied, message: it's expired")
        );
        assert_eq!(explain("<html><Message>x</Message>"), None);
        assert_eq!(explain(""), None);
    }

    #[test]
    fn what_is_shown_of_a_url_is_no_secret() {
        let url = parse("https://user:pass@s3.test/bucket/key?X-Amz-Signature=secret#x").unwrap();
        assert_eq!(shown(&url), "https://s3.test/bucket/key");
        let error = parse("s3://bucket?secret").unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}
